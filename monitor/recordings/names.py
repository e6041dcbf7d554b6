"""Usual names of columns, and the search for them.

Input: names of columns. Output: the column of a role. Invariant: names are compared without regard to case, blanks,
hyphens, underscores and units in brackets, and the first usual name that a file has is used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIME_COLUMNS: Final = (
    *("timestamp", "ts", "datetime", "eventtime", "timestamputc", "datetimeutc", "time", "date", "tstamp", "stamp"),
    *("timestring", "createdat", "recordedat", "measuredat", "lastchanged", "lastupdated", "localtime"),
    *("timestamplocal",),
    *("datetimelocal", "zeitstempel", "messdatum", "datumuhrzeit", "zeitpunkt", "datum", "zeit", "utc", "dateandtime"),
    *("datetime64", "timestampms", "epoch", "epochms", "unixtime", "unixtimestamp", "horodatage", "fechahora"),
)
CLOCK_COLUMNS: Final = ("time", "uhrzeit", "zeit", "clock", "timeofday", "heure", "hora", "hour")
"""Beside a column of dates."""
ASSET_COLUMNS: Final = (
    *("asset", "assetid", "assetname", "machine", "machineid", "turbine", "turbineid", "turbinename"),
    *("windturbinename", "device", "deviceid", "equipment", "equipmentid", "well", "wellid"),
    *("devicename", "deveui", "station", "stationid", "stationsid", "sensorid", "nodeid", "pumpid", "unitid", "host"),
)
SENSOR_COLUMNS: Final = (
    *("field", "entityid", "sensor", "sensorname", "series", "seriesname", "metric", "metricname", "tag", "tagname"),
    *("tagpath", "variable", "varname", "variablename", "parameter", "parametername", "pointname", "point", "signal"),
    *("signalname", "channel", "channelname", "measurement", "messgröße", "messgroesse", "kanal", "itemname", "path"),
)
VALUE_COLUMNS: Final = (
    *("value", "state", "val", "varvalue", "wert", "messwert", "reading", "measuredvalue", "floatvalue"),
    *("numericvalue", "valeur", "valor", "v", "rawvalue", "tagvalue", "valuedouble"),
)


def plain_name(name: str) -> str:
    """Return a name as names are compared."""
    name = re.sub(r"\s*[\[(][^\])]*[\])]$", "", name)  # "Time [s]", "Date (UTC)"
    return re.sub(r"[ _./-]", "", name).casefold()


def first_of(usual: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the column with the first of the usual names that a column has."""
    plain = {plain_name(name): name for name in reversed(list(names))}
    return next((plain[name] for name in usual if name in plain), None)


def is_time_name(name: str) -> bool:
    """Return whether a column of this name usually holds times."""
    return plain_name(name) in TIME_COLUMNS
