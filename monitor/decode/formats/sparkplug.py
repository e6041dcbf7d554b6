"""Sparkplug B → documents: a wide reading per event time of a message.

    topic spBv1.0/GROUP/DDATA/NODE/DEVICE → {"asset": "GROUP/NODE/DEVICE", "ts": …, "sensors": {"Pump/flow": 3.5, …}}

The topic is a header whose value begins with spBv1.0/, or the Kafka key. A key without spBv1.0/ is the asset itself.
A birth names its metrics and their aliases. Later messages may use the alias alone. So the aliases are a state of the
partition, and all messages of an edge node must be in one partition: key them alike.

Input: the value of one record, its topic, and the births before it. Output: documents; none for deaths and for messages
without values. Invariant: the aliases that count for a record are those of the births before it in the log. They are
kept with their offsets, so that reading again from any offset gives the same documents.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError as BadMessage

from monitor.decode.formats.proto_source import parse_proto
from monitor.decode.formatting import describe_value, quote
from monitor.decode.payload import MAX_FIELDS
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.decode.formats import Documents, FormatOptions, RawRecord

_PROTO: Final = """
syntax = "proto3";
package sparkplug;
message Payload {
  optional uint64 timestamp = 1;
  repeated Metric metrics = 2;
  optional uint64 seq = 3;
}
message Metric {
  optional string name = 1;
  optional uint64 alias = 2;
  optional uint64 timestamp = 3;
  optional uint32 datatype = 4;
  optional bool is_historical = 5;
  optional bool is_null = 7;
  oneof value {
    uint32 int_value = 10;
    uint64 long_value = 11;
    float float_value = 12;
    double double_value = 13;
    bool boolean_value = 14;
    bytes string_value = 15;
    bytes bytes_value = 16;
  }
}
"""
"""The fields that readings need. Data sets, templates and properties are unknown fields, which are skipped. A text is
declared as bytes, which are written alike: one that is not UTF-8 must not cost the other metrics."""
_SIGNED_BITS: Final = {1: 8, 2: 16, 3: 32, 4: 64}
"""Datatypes Int8 to Int64: their values are two's complement in an unsigned field."""
_UNSIGNED_BITS: Final = {5: 8, 6: 16, 7: 32, 8: 64}
_DATE_TIME: Final = 13
_CONTROL: Final = ("bdSeq", "Node Control/", "Device Control/", "Node Info/", "Device Info/")
"""First words of metrics that are no readings."""
_PREFIX: Final = "spBv1.0/"
_BIRTHS, _DEATHS = frozenset(("NBIRTH", "DBIRTH")), frozenset(("NDEATH", "DDEATH"))
_DATA: Final = frozenset(("NDATA", "DDATA"))
_SILENT: Final = frozenset(("NCMD", "DCMD", "STATE"))
"""Messages that are no readings: commands, and the state of a host."""
_MAX_TABLES: Final = 2_000
"""Edge nodes and devices of one partition whose aliases are kept."""
_MAX_ALIASES: Final = 50_000
"""Aliases kept for one partition."""
_MAX_TS_MS: Final = 253_402_300_799_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Table = dict[str, tuple[str, int]]
"""Alias as a text → name and datatype."""


class _Topic(NamedTuple):
    """The parts of a Sparkplug topic."""

    kind: str
    """NBIRTH, DDATA, … "" = not known."""
    node: str
    """GROUP/NODE, or the whole key."""
    asset: str
    """GROUP/NODE or GROUP/NODE/DEVICE."""


class SparkplugParser:
    """Parser of Sparkplug B. Keeps the aliases of births."""

    def __init__(self) -> None:
        self._births: dict[str, list[tuple[int, Table]]] = {}
        """By node or device: (offset, aliases from there on), by rising offset."""
        self._n_aliases = 0

    def parse(self, record: RawRecord) -> Documents:
        """Return a document per event time. Raises DecodeError: not_sparkplug, unknown_alias, missing_asset."""
        topic = _topic_of(record)
        if topic.kind in _SILENT:
            return []
        payload = _payload(record.value)
        if topic.kind in _DEATHS or topic.kind == "NBIRTH":
            self._end(topic, record.offset)
        if topic.kind in _DEATHS:
            return []
        if topic.kind in _BIRTHS:
            self._set(topic.asset, record.offset, _aliases_of(payload, {}))
        table = self._table(topic, record.offset)
        if topic.kind not in _BIRTHS and (new := _aliases_of(payload, table)) != table:
            table = new
            self._set(topic.asset, record.offset, new)
        return _documents(payload, topic, table, record.stamp_us)

    # ------------------------------------------------------------ the state of the partition

    def state(self, since: int) -> dict[str, Any]:
        """Return what reading again from this offset on needs, as plain JSON. What only older records need is dropped.

        `since`: no record below it is read again.
        """
        for name, births in list(self._births.items()):
            first = max(0, bisect_right(births, since, key=lambda birth: birth[0]) - 1)
            self._n_aliases -= sum(len(table) for _, table in births[:first])
            del births[:first]
            if len(births) == 1 and not births[0][1] and births[0][0] < since:
                del self._births[name]
        return {
            name: [[offset, {alias: list(metric) for alias, metric in table.items()}] for offset, table in births]
            for name, births in self._births.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with a stored state."""
        self._births = {
            name: [(offset, {alias: (each[0], each[1]) for alias, each in table.items()}) for offset, table in births]
            for name, births in state.items()
        }
        self._n_aliases = sum(len(table) for births in self._births.values() for _, table in births)

    def _table(self, topic: _Topic, offset: int) -> Table:
        """Return the aliases that count at an offset."""
        births = self._births.get(topic.asset, ())
        at = bisect_right(births, offset, key=lambda birth: birth[0])
        return births[at - 1][1] if at else {}

    def _set(self, name: str, offset: int, table: Table) -> None:
        """Set the aliases of a node or device from an offset on. A second call for the same offset replaces them."""
        is_full = name not in self._births and len(self._births) >= _MAX_TABLES
        if is_full or self._n_aliases + len(table) > _MAX_ALIASES:
            raise DecodeError(
                f"too_many_fields: the births of this partition have more than {_MAX_ALIASES} aliases or "
                f"{_MAX_TABLES} devices; use names instead of aliases, or more partitions"
            )
        births = self._births.setdefault(name, [])
        at = bisect_left(births, offset, key=lambda birth: birth[0])
        if at < len(births) and births[at][0] == offset:
            self._n_aliases -= len(births[at][1])
            births[at] = (offset, table)
        else:
            births.insert(at, (offset, table))
        self._n_aliases += len(table)

    def _end(self, topic: _Topic, offset: int) -> None:
        """Forget the aliases of a device, or of a node and its devices: after a death or a new birth of the node."""
        is_node = topic.asset == topic.node
        for name in list(self._births):
            if (name == topic.asset or (is_node and name.startswith(topic.node + "/"))) and self._table(
                topic._replace(asset=name), offset
            ):
                self._set(name, offset, {})


def make_parser(options: FormatOptions) -> SparkplugParser:  # noqa: ARG001  # every format's signature
    """Return the parser of Sparkplug B."""
    return SparkplugParser()


# ---------------------------------------------------------------- topic


def _topic_of(record: RawRecord) -> _Topic:
    key = _text_of(record.key) if record.key else None
    written = [text for _, value in record.headers if value and (text := _text_of(value)) and text.startswith(_PREFIX)]
    topic = written[0] if written else key
    if not topic:
        raise DecodeError(
            "missing_asset: neither a header nor the Kafka key has the Sparkplug topic; let the bridge send it, "
            "spBv1.0/GROUP/DDATA/NODE/DEVICE"
        )
    if not topic.startswith(_PREFIX):
        return _Topic("", topic, topic)
    parts = topic.split("/")
    if len(parts) >= 3 and parts[1] == "STATE":
        return _Topic("STATE", topic, topic)
    if len(parts) not in (4, 5) or not all(parts) or parts[2] not in _BIRTHS | _DEATHS | _DATA | _SILENT:
        raise DecodeError(
            f"not_sparkplug: the topic {quote(topic)} is not spBv1.0/GROUP/KIND/NODE or spBv1.0/GROUP/KIND/NODE/DEVICE"
        )
    node = f"{parts[1]}/{parts[3]}"
    return _Topic(parts[2], node, "/".join((node, *parts[4:])))


def _text_of(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


# ---------------------------------------------------------------- payload


@lru_cache(maxsize=1)
def _payload_class() -> Any:
    pool = DescriptorPool()
    pool.AddSerializedFile(parse_proto(_PROTO, "sparkplug.proto").SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))


def _payload(value: bytes) -> Any:
    try:
        payload = _payload_class().FromString(value)
    except (BadMessage, ValueError, MemoryError) as problem:
        raise DecodeError(f"not_sparkplug: the bytes are no payload ({problem}); check kafka.format") from None
    n_metrics = len(payload.metrics)
    if n_metrics > MAX_FIELDS:
        raise DecodeError(f"too_many_fields: the message has {n_metrics} metrics; at most {MAX_FIELDS} are read")
    if value and not payload.ListFields():
        raise DecodeError(
            f"not_sparkplug: no field of a Sparkplug payload is in the record, which begins with "
            f"{describe_value(value[:8])}; check kafka.format"
        )
    return payload


def _aliases_of(payload: Any, known: Table) -> Table:
    """Return the known aliases with those that the metrics of a message define: they have a name as well."""
    found = {
        str(metric.alias): (metric.name, metric.datatype)
        for metric in payload.metrics
        if metric.name and metric.HasField("alias")
    }
    return known | found if found else known


def _documents(payload: Any, topic: _Topic, table: Table, stamp_us: int) -> Documents:
    by_time: dict[datetime | None, dict[str, Any]] = {}
    default = payload.timestamp if payload.HasField("timestamp") else None
    for metric in payload.metrics:
        name, datatype = metric.name, metric.datatype
        if not name:
            name, datatype = _named(metric, topic, table)
        elif not metric.HasField("datatype") and metric.HasField("alias"):
            datatype = table.get(str(metric.alias), (name, 0))[1]
        if name.startswith(_CONTROL):
            continue
        known, value = _value_of(metric, datatype)
        if known:
            at = _time_of(metric.timestamp if metric.HasField("timestamp") else default, stamp_us)
            by_time.setdefault(at, {})[name] = value
    return [
        {"asset": topic.asset, **({"ts": at} if at is not None else {}), "sensors": sensors}
        for at, sensors in by_time.items()
    ]


def _named(metric: Any, topic: _Topic, table: Table) -> tuple[str, int]:
    """Return the name and datatype of a metric that has only an alias."""
    if not metric.HasField("alias"):
        raise DecodeError("not_sparkplug: a metric has neither a name nor an alias")
    found = table.get(str(metric.alias))
    if found is None:
        raise DecodeError(
            f"unknown_alias: alias {metric.alias} of {quote(topic.asset)} is in no birth before this record in this "
            "partition; request a rebirth (Node Control/Rebirth), and key all messages of an edge node alike"
        )
    name, datatype = found
    return name, metric.datatype if metric.HasField("datatype") else datatype


def _value_of(metric: Any, datatype: int) -> tuple[bool, Any]:
    """Return (True, the value), or (False, None) for one that is no single value: data sets, templates, bytes."""
    if metric.is_null:
        return True, None
    kind = metric.WhichOneof("value")
    if kind is None or kind == "bytes_value" or datatype == _DATE_TIME:
        return False, None
    value = getattr(metric, kind)
    if kind == "string_value":
        text = _text_of(value)
        return text is not None, text
    if kind in ("int_value", "long_value"):
        bits = _SIGNED_BITS.get(datatype)
        if bits is not None:
            value &= (1 << bits) - 1
            return True, value - (1 << bits) if value >> (bits - 1) else value
        bits = _UNSIGNED_BITS.get(datatype)
        return True, value & ((1 << bits) - 1) if bits is not None else value
    return True, value


def _time_of(ms: int | None, stamp_us: int) -> datetime | None:
    """Return the event time, or Kafka's where the message has none. None = neither."""
    if ms is None:
        return _EPOCH + timedelta(microseconds=stamp_us) if stamp_us >= 0 else None
    if ms > _MAX_TS_MS:
        raise DecodeError(f"bad_ts: the timestamp {ms} ms lies after the year 9999; check the edge node's clock")
    return _EPOCH + timedelta(milliseconds=ms)
