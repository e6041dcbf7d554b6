"""Usual names of a record's fields: asset, time, values, identifiers.

Input: the name of a field or column. Output: its role, if the name tells it. Invariant: names are compared without
case, blanks, hyphens and underscores (`plain`). Columns of files have a list of their own, `recordings/names.py`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

ASSET_FIELDS: Final = ("asset", "asset_id")
TIME_FIELDS: Final = ("ts", "timestamp", "time")
RESERVED: Final = frozenset((*ASSET_FIELDS, *TIME_FIELDS, "sensors"))
"""Fields that are never a sensor in a flat reading. Their exact names come before all others."""

_LONGEST: Final = 64
_IGNORED = str.maketrans("", "", " _-.@$:/")


def plain(name: str) -> str:
    """Return the name without case, blanks and signs. A long one stays: it is no usual name."""
    return _plain(name) if len(name) <= _LONGEST else name


@lru_cache(maxsize=8192)
def _plain(name: str) -> str:
    return name.translate(_IGNORED).casefold()


def _ranks(*lines: str) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(" ".join(lines).split())}


ASSET_NAMES: Final = _ranks(
    "asset assetid assetname assettag device deviceid devicename deviceuid deveui",
    "iothubconnectiondeviceid machine machineid machinename equipment equipmentid equipmentname turbine",
    "turbineid turbinename windturbinename well wellid wellname pump pumpid vin vehicle vehicleid robot",
    "robotid meter meterid inverter inverterid thing thingid thingname deviceserial serialnumber imei",
    "macaddress",
)
"""Name → rank. They name the asset before Kafka's key does."""
WEAK_ASSET_NAMES: Final = _ranks(
    "host hostname server instance node nodename gateway gatewayid edge edgeid clientid stationid station",
    "id uid identifier serial name sensorid source sourceid src publisherid applicationuri",
    "datasetwriterid",
)
"""They name the asset where no key does: a host or a gateway often sends for several assets."""
TIME_NAMES: Final = _ranks(
    "ts timestamp time datetime eventtime eventtimestamp timestamputc datetimeutc utctime timestampms",
    "timestampus timestampns tsms unixtime epoch epochms sourcetimestamp measuredat measurementtime",
    "observedat recordedat sampledat sampletime collectedat lastupdated lastchanged createdat timefired",
    "lastseen updatedat servertimestamp receivedat enqueuedtime iothubenqueuedtime date t timestamps",
)
CONTAINER_NAMES: Final = _ranks(
    "sensors values fields measurements readings metrics telemetry decodedpayload object data payload",
    "reported state uplinkmessage body params messages message samples observations variables signals",
    "channels features results series records points events items msg",
)
"""Objects and arrays that hold the values, or the readings."""
SIDE_NAMES: Final = _ranks(
    "tags labels dimensions device deviceinfo enddeviceids asset machine host source header headers meta",
    "metadata info context properties systemproperties resource",
)
"""Objects beside the values that may hold asset and time."""
SENSOR_NAMES: Final = _ranks(
    "metric metricname sensor sensorname tag tagname tagpath signal signalname parameter parametername",
    "param variable variablename channel channelname measurand quantity point pointname field measurement",
    "attribute property datapoint displayname series resourcename measurename propertyalias",
)
"""Long format: names of the field that names the sensor."""
WEAK_SENSOR_NAMES: Final = _ranks("name n key topic sensorid id item type label code")
"""Long format, where the record has no other number."""
VALUE_NAMES: Final = _ranks("value val v reading rawvalue numericvalue measurevalue payload")
"""Long format: names of the field with the value."""
NEUTRAL_NAMES: Final = _ranks(
    "unit units uom unitofmeasure unitofmeasurement engineeringunit datatype valuetype dtype quality status",
    "statustext state mode alarm level severity description desc comment note site plant location version model",
    "manufacturer vendor",
)
"""Fields beside a single value that do not tell two sensors apart."""
_SELECTORS = _ranks("register registeraddress address addr slot pin ch measure kind")
_SELECTOR = re.compile(r"(?:type|kind|name|tag|topic|alias|label|code|address|register|channel|point)$")
SERIES_CONSTANTS: Final = frozenset(
    (
        *("dc", "datacenter", "region", "rack", "env", "environment", "site", "plant", "country", "city", "os"),
        *("arch", "platform", "version", "job", "unit", "units"),
    )
)
"""Tags of a measurement that are the same for all that an asset sends."""
_GENERIC = frozenset(
    (
        *("used", "free", "total", "available", "active", "inactive", "cached", "usedpercent", "availablepercent"),
        *("in", "out", "read", "write", "reads", "writes", "min", "max", "mean", "sum", "rate", "size", "running"),
        *("gauge", "counter", "count"),
    )
)

_IDENTIFIERS = _ranks(
    "seq seqno seqnum sequence sequencenumber fcnt fport framecounter frame framecount counter count row",
    "rownumber index idx uid entry version fw firmware schema status statuscode quality qos offset",
    "partition uptime retain dup dr adr q confirmed error errorcode code good valid online year month day",
    "port n origin interval samplinginterval severity pid gwts fwver",
)
_IDENTIFIER = re.compile(r"(?:^|[a-z0-9 _.-])(?:id|ID|Id|uuid|_ts|Timestamp|timestamp|_at|_seq|_version)$")


def is_selector(name: str) -> bool:
    """Return whether a field of this name tells the sensors apart of which "value" is the value."""
    short = plain(name)
    return short in SENSOR_NAMES or short in _SELECTORS or _SELECTOR.search(short) is not None


def is_generic(name: str) -> bool:
    """Return whether a field of this name says little without the name of its measurement."""
    short = plain(name)
    return short in VALUE_NAMES or short in _GENERIC or short.startswith(("usage", "inodes"))


def is_identifier(name: str) -> bool:
    """Return whether a number of this name counts or identifies something instead of measuring it."""
    last = name.rpartition(".")[2]
    short = plain(last)
    return (
        short in _IDENTIFIERS
        or _IDENTIFIER.search(last) is not None
        or (short in TIME_NAMES and short != "t")
        or short.endswith(("version", "msgid", "messageid", "entryid", "packetid"))
    )
