"""Independent writers of the wire formats, for tests: the libraries themselves, or bytes made by hand.

A writer turns one plain document {"asset": …, "ts": µs since 1970, sensor: number or None} into a `RawRecord`.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from monitor.decode.formats import FormatOptions, RawRecord
from monitor.decode.formats.framing import RegisteredSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SENSORS = ("power", "wind_speed", "pitch")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Document = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One way to write documents."""

    format: str
    write: Callable[[Document], RawRecord]
    options: FormatOptions = field(default_factory=FormatOptions)
    is_recognised: bool = False
    """Whether `format = "auto"` reads it, too."""


def instant(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def frame(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big")


# ---------------------------------------------------------------- texts


def _csv(document: Document) -> RawRecord:
    cells = ("" if document[name] is None else repr(document[name]) for name in SENSORS)
    return RawRecord(",".join([str(document["ts"]), document["asset"], *cells]).encode())


def _semicolons(document: Document) -> RawRecord:
    cells = ("" if document[name] is None else repr(document[name]).replace(".", ",") for name in SENSORS)
    line = ";".join([instant(document["ts"]).isoformat(), document["asset"], *cells])
    return RawRecord(f"ts;asset;{';'.join(SENSORS)}\r\n{line}\r\n".encode())


def _influx(document: Document) -> RawRecord:
    fields = ",".join(f"{name}={document[name]!r}" for name in SENSORS if document[name] is not None)
    return RawRecord(f"turbine,asset={document['asset']} {fields} {document['ts'] * 1000}\n".encode())


def _framed_json(document: Document) -> RawRecord:
    schema = RegisteredSchema("{}", "JSON").dump()
    return RawRecord(frame(5) + json.dumps(document).encode(), schemas={5: schema})


# ---------------------------------------------------------------- Avro

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "asset", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        *({"name": name, "type": ["null", "double"], "default": None} for name in SENSORS),
    ],
}
_PARSED = fastavro.parse_schema(AVRO)


def avro_body(document: Document) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _PARSED, {**document, "ts": instant(document["ts"])})
    return buffer.getvalue()


def _avro(document: Document) -> RawRecord:
    return RawRecord(frame(7) + avro_body(document), schemas={7: RegisteredSchema(json.dumps(AVRO)).dump()})


def _plain_avro(document: Document) -> RawRecord:
    return RawRecord(avro_body(document))


def _avro_file(document: Document) -> RawRecord:
    buffer = io.BytesIO()
    fastavro.writer(buffer, _PARSED, [{**document, "ts": instant(document["ts"])}], codec="deflate")
    return RawRecord(buffer.getvalue())


# ---------------------------------------------------------------- Protobuf

PROTO_SOURCE = """
syntax = "proto3";
package plant;
import "google/protobuf/timestamp.proto";
message Other { string a = 1; }
message Reading {
  string asset = 1;
  google.protobuf.Timestamp ts = 2;
  optional double power = 3;
  optional double wind_speed = 4;
  optional double pitch = 5;
}
"""


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    """Return what protoc would write, made without the parser of .proto sources."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="reading.proto", package="plant", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Other").field.add(name="a", number=1, type=kinds.TYPE_STRING, label=1)
    message = file.message_type.add(name="Reading")
    message.field.add(name="asset", number=1, type=kinds.TYPE_STRING, label=1)
    message.field.add(
        name="ts", number=2, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1
    )
    for number, name in enumerate(SENSORS, 3):
        message.field.add(
            name=name, number=number, type=kinds.TYPE_DOUBLE, label=1, proto3_optional=True, oneof_index=number - 3
        )
        message.oneof_decl.add(name=f"_{name}")
    timestamp = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(timestamp)
    return descriptor_pb2.FileDescriptorSet(file=[timestamp, file])


def _proto_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_set().file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("plant.Reading"))


_READING = _proto_class()


def proto_body(document: Document) -> bytes:
    message = _READING(**{name: value for name, value in document.items() if name != "ts" and value is not None})
    message.ts.FromDatetime(instant(document["ts"]))
    return bytes(message.SerializeToString())


def _proto(document: Document) -> RawRecord:
    schema = RegisteredSchema(PROTO_SOURCE, "PROTOBUF").dump()
    return RawRecord(frame(9) + b"\x02\x02" + proto_body(document), schemas={9: schema})


def _plain_proto(document: Document) -> RawRecord:
    return RawRecord(proto_body(document))


# ---------------------------------------------------------------- Arrow


def arrow_stream(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _arrow(document: Document) -> RawRecord:
    columns = {
        "asset": pa.array([document["asset"]]).dictionary_encode(),
        "ts": pa.array([document["ts"]], pa.timestamp("us", tz="UTC")),
        **{name: pa.array([document[name]], pa.float64()) for name in SENSORS},
    }
    return RawRecord(arrow_stream(pa.table(columns)))


# ---------------------------------------------------------------- Sparkplug, by hand


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def proto_field(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def metric(**fields: Any) -> bytes:
    numbers = {"name": 1, "alias": 2, "timestamp": 3, "datatype": 4, "is_historical": 5, "is_null": 7, "int": 10}
    numbers |= {"long": 11, "double": 13, "boolean": 14, "string": 15}
    encoded = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
    return b"".join(proto_field(numbers[name], value) for name, value in encoded.items())


def sparkplug(ts_ms: int, *metrics: bytes) -> bytes:
    return proto_field(1, ts_ms) + b"".join(proto_field(2, each) for each in metrics) + proto_field(3, 4)


def _sparkplug(document: Document) -> RawRecord:
    metrics = [
        metric(name=name, datatype=10, **({"is_null": 1} if document[name] is None else {"double": document[name]}))
        for name in SENSORS
    ]
    return RawRecord(
        sparkplug(document["ts"] // 1000, *metrics), headers=(("topic", b"spBv1.0/plant/DDATA/edge/R80711"),)
    )


REGISTRY = FormatOptions(has_registry=True)
WIRES: dict[str, Wire] = {
    "csv": Wire("csv", _csv, FormatOptions(columns=("ts", "asset", *SENSORS))),
    "csv, header, semicolons": Wire("csv", _semicolons),
    "influx": Wire("influx", _influx, is_recognised=True),
    "json_schema": Wire("json_schema", _framed_json, REGISTRY, is_recognised=True),
    "avro, registry": Wire("avro", _avro, REGISTRY, is_recognised=True),
    "avro, schema file": Wire("avro", _plain_avro, FormatOptions(schema=json.dumps(AVRO).encode())),
    "avro, container": Wire("avro", _avro_file, is_recognised=True),
    "protobuf, registry": Wire("protobuf", _proto, REGISTRY, is_recognised=True),
    "protobuf, schema file": Wire(
        "protobuf",
        _plain_proto,
        FormatOptions(schema=descriptor_set().SerializeToString(), message="plant.Reading"),
    ),
    "arrow": Wire("arrow", _arrow, is_recognised=True),
    "sparkplug": Wire("sparkplug", _sparkplug),
}


def documents(times_us: Sequence[int], values: Any, asset: str = "R80711") -> list[Document]:
    """Return a document per time and row of values, NaN = None."""
    return [
        {"asset": asset, "ts": int(us)} | {s: None if v != v else float(v) for s, v in zip(SENSORS, row, strict=True)}
        for us, row in zip(times_us, values, strict=True)
    ]
