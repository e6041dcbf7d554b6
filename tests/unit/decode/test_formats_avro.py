"""Avro: framed, single objects, container files and plain, written by fastavro."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from monitor.decode.formats import FormatOptions, RawRecord, ids_of_frames, make_parser
from monitor.decode.formats.framing import RegisteredSchema
from monitor.errors import ConfigError, DecodeError

SCHEMA = {
    "type": "record",
    "name": "Reading",
    "namespace": "plant",
    "fields": [
        {"name": "asset", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "power", "type": ["null", "double"], "default": None},
        {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "long", "logicalType": "time-micros"}},
        {
            "name": "inner",
            "type": {
                "type": "record",
                "name": "Inner",
                "fields": [
                    {"name": "x", "type": "int"},
                    {"name": "e", "type": {"type": "enum", "name": "State", "symbols": ["ON", "OFF"]}},
                ],
            },
        },
        {"name": "list", "type": {"type": "array", "items": "Inner"}},
        {"name": "map", "type": {"type": "map", "values": ["null", "long"]}},
    ],
}
RECORD = {
    "asset": "R1",
    "ts": datetime(2026, 11, 29, 6, tzinfo=UTC),
    "power": 1.5,
    "cost": Decimal("12.34"),
    "day": date(2026, 11, 29),
    "clock": time(6, 0, 1),
    "inner": {"x": 3, "e": "OFF"},
    "list": [{"x": 1, "e": "ON"}],
    "map": {"k": None, "l": 5},
}
DOCUMENT = {**RECORD, "cost": 12.34, "day": "2026-11-29", "clock": "06:00:01"}


def record_of(**fields: object) -> dict:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def body_of(schema: dict, record: dict) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
    return buffer.getvalue()


def framed(schema_id: int, body: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


def registered(*schemas: dict) -> dict[int, str]:
    return {number: RegisteredSchema(json.dumps(schema)).dump() for number, schema in enumerate(schemas, 1)}


def parse(value: bytes, schemas: dict[int, str] | None = None, name: str = "avro", **options) -> list[dict]:
    parser = make_parser(name, FormatOptions(**{"has_registry": True, **options}))
    return parser.parse(RawRecord(value, schemas=schemas or {}))


def reason_of(*args, **options) -> str:
    with pytest.raises(DecodeError) as caught:
        parse(*args, **options)
    return caught.value.detail


@pytest.mark.parametrize("name", ["avro", "framed"])
def test_a_framed_record_is_a_document(name):
    assert parse(framed(1, body_of(SCHEMA, RECORD)), registered(SCHEMA), name) == [DOCUMENT]


def test_plain_records_are_read_with_a_schema_file():
    body = body_of(SCHEMA, RECORD)
    assert parse(body, schema=json.dumps(SCHEMA).encode(), has_registry=False) == [DOCUMENT]
    name = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
    assert parse(b"\xc3\x01" + name + body, schema=json.dumps(SCHEMA).encode()) == [DOCUMENT]


def test_hand_made_bytes_are_read():
    schema = record_of(a="string", t="long", v=["null", "float"])
    body = bytes.fromhex("04 5037  d00f  02 0000c03f")
    assert parse(framed(1, body), registered(schema)) == [{"a": "P7", "t": 1000, "v": 1.5}]


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_container_file_has_its_own_schema(codec):
    buffer = io.BytesIO()
    fastavro.writer(buffer, SCHEMA, [RECORD] * 3, codec=codec)
    assert parse(buffer.getvalue(), has_registry=False) == [DOCUMENT] * 3


def test_each_record_is_read_by_its_own_writers_schema():
    older, newer = record_of(a="string", v="int"), record_of(v="double", a="string")
    parser = make_parser("avro", FormatOptions(has_registry=True))
    schemas = registered(older, newer)
    for _ in range(2):
        for number, (schema, value) in enumerate([(older, 3), (newer, 2.5)], 1):
            record = RawRecord(framed(number, body_of(schema, {"a": "x", "v": value})), schemas=schemas)
            assert parser.parse(record) == [{"a": "x", "v": value}]


def test_references_are_resolved():
    inner = {"type": "record", "name": "Inner", "namespace": "p", "fields": [{"name": "x", "type": "int"}]}
    outer = {"type": "record", "name": "Outer", "namespace": "p", "fields": [{"name": "i", "type": "p.Inner"}]}
    schema = RegisteredSchema(json.dumps(outer), references={"p.Inner": json.dumps(inner)}).dump()
    assert parse(framed(9, b"\x06"), {9: schema}) == [{"i": {"x": 3}}]


def test_an_unknown_id_is_named():
    assert reason_of(framed(77, b"x"), {}).startswith("unknown_schema: the record names schema 77")
    assert "set kafka.registry_url" in reason_of(framed(77, b"x"), has_registry=False)
    assert 'kafka.schema_file = "reading.avsc"' in reason_of(b"\x04P7\x02", {})
    assert ids_of_frames([framed(7, b""), None, b"\0\0", b"{}", framed(9, b"x")]) == {7, 9}


def test_an_unknown_id_may_be_registered_later():
    parser = make_parser("avro", FormatOptions(has_registry=True))
    value = framed(1, body_of(SCHEMA, RECORD))
    with pytest.raises(DecodeError):
        parser.parse(RawRecord(value))
    assert parser.parse(RawRecord(value, schemas=registered(SCHEMA))) == [DOCUMENT]


NULLS = {**record_of(a="null"), "name": "N"}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (record_of(next=["null", "R"]), "contains itself"),
        (record_of(a={"type": "array", "items": "null"}), "without bytes"),
        (record_of(a={"type": "array", "items": NULLS}), "without bytes"),
        (record_of(a="Nowhere"), "no type"),
        (record_of(**dict.fromkeys((f"a{i}" for i in range(2001)), "int")), "2000 fields"),
        ([], "cannot be used"),
        ("nonsense", "no type"),
    ],
)
def test_a_hostile_schema_is_refused(schema, wanted):
    reason = reason_of(framed(1, b"\x02" * 40), registered(schema))
    assert reason.startswith(("bad_schema", "not_avro", "wrong_type"))
    assert wanted in reason or reason.startswith("not_avro")


def test_a_deep_schema_is_refused():
    schema: object = "int"
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    assert "nested deeper" in reason_of(framed(1, b"\0"), {1: RegisteredSchema(json.dumps(schema)).dump()})
    text = '{"type":"array","items":' * 50_000 + '"int"' + "}" * 50_000
    assert reason_of(framed(1, b"\0"), {1: RegisteredSchema(text).dump()}).startswith("bad_schema")


def test_an_inflated_container_is_bounded():
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "bytes"}]}
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, [{"a": bytes(50_000_000)}], codec="deflate")
    assert len(buffer.getvalue()) < 262_144
    assert reason_of(buffer.getvalue()).startswith("too_large")


def test_bytes_behind_the_record_are_refused():
    assert "bytes are left" in reason_of(framed(1, body_of(SCHEMA, RECORD) + b"x"), registered(SCHEMA))


def test_a_schema_file_that_is_none_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"kafka\.schema_file is no Avro schema"):
        make_parser("avro", FormatOptions(schema=b"{"))


def test_a_schema_of_another_kind_names_the_format():
    schema = RegisteredSchema("{}", type="JSON").dump()
    assert 'set kafka.format = "auto", or "json_schema"' in reason_of(framed(1, b"{}"), {1: schema})
    assert parse(framed(1, b'{"a": 1}'), {1: schema}, "framed") == [{"a": 1}]
    assert parse(framed(1, b'{"a": 1}'), {1: schema}, "json_schema") == [{"a": 1}]
