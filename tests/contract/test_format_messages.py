"""Messages as bridges and platforms write them, in formats beyond JSON: each is read right, a few with mapping."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.decode.formats import FormatOptions
from monitor.decode.formats.framing import RegisteredSchema
from monitor.decode.schema import Fields
from monitor.types import Partition, RecordBatch
from tests.format_writers import REGISTRY, arrow_stream, frame, metric, proto_field, sparkplug

T = 1_790_000_000
AT = datetime.fromtimestamp(T, UTC)
Readings = dict[tuple[str, int], dict[str, float]]


@dataclass(frozen=True)
class Case:
    value: bytes
    expected: Readings
    format: str = "auto"
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    options: FormatOptions = field(default_factory=FormatOptions)
    fields: dict[str, Any] = field(default_factory=dict)
    schema: str | None = None


def avro(fields: list[dict[str, Any]], record: dict[str, Any]) -> tuple[bytes, str]:
    schema = {"type": "record", "name": "R", "namespace": "plant", "fields": fields}
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(json.loads(json.dumps(schema))), record)
    return frame(1) + buffer.getvalue(), RegisteredSchema(json.dumps(schema)).dump()


def avro_case(columns: list[dict[str, Any]], record: dict[str, Any], expected: Readings, **options: Any) -> Case:
    value, schema = avro(columns, record)
    return Case(value, expected, options=REGISTRY, schema=schema, **options)


def typed(**kinds: Any) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in kinds.items()]


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
ROW = {"type": "record", "name": "Row", "fields": typed(machine="string", measured_at=MILLIS, temp="double")}
POINT = {"type": "record", "name": "Point", "fields": typed(ts=MILLIS, temp="double")}
PROTO = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Reading { string device_id = 1; google.protobuf.Timestamp time = 2; map<string, double> values = 3; }
"""
PROTO_BODY = (
    proto_field(1, b"R1")
    + proto_field(2, proto_field(1, T))
    + proto_field(3, proto_field(1, b"temp") + proto_field(2, 50.5))
    + proto_field(3, proto_field(1, b"press") + proto_field(2, 3.0))
)
CASES: dict[str, Case] = {
    "Telegraf, line protocol": Case(
        f"pump,host=edge1,site=north temp=50.5,press=3i {T}000000000\n".encode(),
        {("edge1", T): {"temp": 50.5, "press": 3.0}},
    ),
    "line protocol, series by a tag": Case(
        f"pump,host=edge1,line=3 temp=50.5 {T}000000000\npump,host=edge1,line=4 temp=40.5 {T}000000000".encode(),
        {("edge1", T): {"temp.3": 50.5, "temp.4": 40.5}},
    ),
    "line protocol, seconds and a key": Case(f"pump temp=50.5 {T}".encode(), {("R1", T): {"temp": 50.5}}, key=b"R1"),
    "line protocol, two assets": Case(
        f"pump,device=a temp=1.5 {T}000\npump,device=b temp=2.5 {T}000".encode(),
        {("a", T): {"temp": 1.5}, ("b", T): {"temp": 2.5}},
    ),
    "CSV lines of two assets": Case(
        f"{T},a,1.5\n{T},b,2.5\n".encode(),
        {("a", T): {"temp": 1.5}, ("b", T): {"temp": 2.5}},
        "csv",
        options=FormatOptions(columns=("time", "asset", "temp")),
    ),
    "CSV of a German logger": Case(
        b"21.09.2026 16:13:20;50,5;3\r\n",
        {("R1", T): {"temp": 50.5, "press": 3.0}},
        "csv",
        key=b"R1",
        options=FormatOptions(columns=("time", "temp", "press")),
        fields={"time_format": "day-first", "timezone": "Europe/Berlin"},
    ),
    "CSV with a header in each record": Case(
        f"ts,device_id,temp\n{T},R1,50.5".encode(), {("R1", T): {"temp": 50.5}}, "csv"
    ),
    "Avro, flat": avro_case(
        typed(device_id="string", timestamp=MILLIS, temp="double", press=["null", "float"]),
        {"device_id": "R1", "timestamp": AT, "temp": 50.5, "press": None},
        {("R1", T): {"temp": 50.5}},
    ),
    "Avro, the key framed": avro_case(
        typed(ts="long", temp="double"),
        {"ts": T * 1000, "temp": 50.5},
        {("R1", T): {"temp": 50.5}},
        key=frame(2) + b"\x04R1",
    ),
    "Avro, Debezium": avro_case(
        [
            {"name": "before", "type": ["null", ROW]},
            {"name": "after", "type": ["null", "plant.Row"]},
            *typed(op="string", ts_ms=["null", "long"]),
        ],
        {
            "before": None,
            "after": {"machine": "m7", "measured_at": AT, "temp": 50.5},
            "op": "c",
            "ts_ms": T * 1000 + 99,
        },
        {("m7", T): {"temp": 50.5}},
    ),
    "Avro, several readings": avro_case(
        [*typed(asset="string"), {"name": "readings", "type": {"type": "array", "items": POINT}}],
        {"asset": "R1", "readings": [{"ts": AT, "temp": 1.5}, {"ts": AT + timedelta(seconds=10), "temp": 2.5}]},
        {("R1", T): {"temp": 1.5}, ("R1", T + 10): {"temp": 2.5}},
    ),
    "Avro, long format": avro_case(
        typed(device="string", metric="string", value="double", ts=MILLIS),
        {"device": "R1", "metric": "temp", "value": 50.5, "ts": AT},
        {("R1", T): {"temp": 50.5}},
    ),
    "Avro, mapped by path": avro_case(
        [
            {"name": "head", "type": {"type": "record", "name": "Head", "fields": typed(unit="string", t=MILLIS)}},
            {"name": "body", "type": {"type": "record", "name": "Body", "fields": typed(T1="double", seq="int")}},
        ],
        {"head": {"unit": "R1", "t": AT}, "body": {"T1": 50.5, "seq": 7}},
        {("R1", T): {"T1": 50.5}},
        fields={"asset": ("head.unit",), "time": ("head.t",), "values": ("body.T*",)},
    ),
    "Protobuf, a map of values": Case(
        frame(1) + b"\0" + PROTO_BODY,
        {("R1", T): {"temp": 50.5, "press": 3.0}},
        options=REGISTRY,
        schema=RegisteredSchema(PROTO, "PROTOBUF").dump(),
    ),
    "JSON Schema": Case(
        frame(1) + json.dumps({"ts": T, "temp": 50.5}).encode(),
        {("R1", T): {"temp": 50.5}},
        key=b'"R1"',
        options=REGISTRY,
        schema=RegisteredSchema("{}", "JSON").dump(),
    ),
    "Arrow, several rows": Case(
        arrow_stream(
            pa.table({
                "device_id": ["a", "b"],
                "time": pa.array([AT, AT], pa.timestamp("ms", tz="UTC")),
                "temp": [1.5, 2.5],
            })
        ),
        {("a", T): {"temp": 1.5}, ("b", T): {"temp": 2.5}},
    ),
    "Sparkplug B": Case(
        sparkplug(T * 1000, metric(name="temp", datatype=10, double=50.5), metric(name="on", datatype=11, boolean=1)),
        {("g/edge/R1", T): {"temp": 50.5, "on": 1.0}},
        "sparkplug",
        headers=(("mqtt.topic", b"spBv1.0/g/DDATA/edge/R1"),),
    ),
}


def decode(case: Case, sensors: tuple[str, ...] | None) -> tuple[Readings, list[str]]:
    fleet = FleetSchema("f", 1_000_000, sensors=sensors, fields=Fields(**case.fields))
    decoder = Decoder([fleet], format=case.format, options=case.options)
    headers = [case.headers] if case.headers else None
    batch = RecordBatch(
        Partition("plant", 0),
        np.array([0]),
        np.array([(T + 60) * 1_000_000]),
        [case.key],
        [case.value],
        headers,
        {} if case.schema is None else {1: case.schema},
    )
    found: Readings = {}
    for _ in range(2):  # the second time with the fast parsers of the first
        decoded = decoder.decode(batch)
        readings = decoded.readings[0]
        found = {
            (decoder.assets[0].names[asset], int(cell)): {
                name: round(float(value), 4)
                for name, value in zip(decoder.fleets[0].sensors or (), row, strict=True)
                if value == value
            }
            for asset, cell, row in zip(readings.asset, readings.cell, readings.values, strict=True)
        }
    return found, [each.reason for each in decoded.quarantined]


@pytest.mark.parametrize("is_listed", [False, True], ids=["learnt", "listed"])
@pytest.mark.parametrize("name", CASES)
def test_a_message_gives_its_readings(name, is_listed):
    case = CASES[name]
    sensors = tuple(dict.fromkeys(sensor for values in case.expected.values() for sensor in values))
    assert decode(case, sensors if is_listed else None) == (case.expected, [])
