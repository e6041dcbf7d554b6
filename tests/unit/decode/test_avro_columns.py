"""The columns of many Avro records are what fastavro reads from each, whatever the bytes."""

from __future__ import annotations

import io
import json
import math
import random
from datetime import UTC, datetime, timedelta

import fastavro
import numpy as np
import pytest

from monitor.decode.formats.avro import AvroSchema
from monitor.decode.formats.avro_columns import flat_leaves, read_columns
from monitor.errors import DecodeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
SCALARS = ["int", "long", "float", "double", "boolean", "string", {"type": "string"}, MILLIS, MICROS]


def schema_of(rng: random.Random, depth: int = 0, name: str = "R") -> dict:
    fields = []
    for i in range(rng.randint(1, 6)):
        kind = rng.choice(SCALARS)
        if depth < 2 and rng.random() < 0.15:
            kind = schema_of(rng, depth + 1, f"{name}{i}")
        elif rng.random() < 0.5:
            kind = rng.choice([["null", kind], [kind, "null"]])
        fields.append({"name": f"f{i}", "type": kind})
    return {"type": "record", "name": name, "fields": fields}


def value_of(rng: random.Random, kind: object) -> object:
    if isinstance(kind, list):
        return None if rng.random() < 0.3 else value_of(rng, next(each for each in kind if each != "null"))
    if isinstance(kind, dict) and kind["type"] == "record":
        return {field["name"]: value_of(rng, field["type"]) for field in kind["fields"]}
    if kind in (MILLIS, MICROS):
        return EPOCH + timedelta(milliseconds=rng.randint(-(10**13), 10**14))
    if kind == "int":
        return rng.choice([0, -1, 63, 64, -65, 2**31 - 1, -(2**31), rng.randint(-(10**6), 10**6)])
    if kind == "long":
        return rng.choice([0, 2**62 - 1, -(2**62), rng.randint(-(10**15), 10**15)])
    if kind in ("float", "double"):
        return rng.choice([0.0, -1.5, 1e30, math.nan, math.inf, rng.uniform(-9, 9)])
    if kind == "boolean":
        return rng.random() < 0.5
    return rng.choice(["", "R80711", "é", "x" * 70, "\0"])


def written(schema: object, record: object) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def damaged(rng: random.Random, body: bytes) -> bytes:
    kind = rng.random()
    if kind < 0.4:
        return body
    if kind < 0.5:
        return body[: rng.randrange(len(body) + 1)]
    if kind < 0.6:
        return body + rng.randbytes(rng.randint(1, 3))
    if kind < 0.7:
        at = rng.randrange(len(body) + 1)
        return body[:at] + b"\x80" * rng.randint(1, 9) + body[at:]
    spoilt = bytearray(body) or bytearray(b"\0")
    for _ in range(rng.choice([1, 1, 4])):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def leaf_value(document: dict, path: tuple[str, ...]) -> object:
    for name in path:
        document = document[name]
    return document


@pytest.mark.parametrize("seed", range(60))
def test_accepted_rows_have_the_values_of_fastavro(seed):
    rng = random.Random(seed)
    source = schema_of(rng)
    schema = AvroSchema(json.dumps(source))
    leaves = flat_leaves(source, lambda name, space: None)
    assert leaves is not None
    records = [value_of(rng, source) for _ in range(40)]
    bodies = [written(schema.parsed, record) for record in records]
    values = [b"frame" + body for body in bodies]
    assert read_columns(leaves, values, 5).is_good.all()

    values = [b"frame" + damaged(rng, body) for body in bodies] + [b"", b"fra"]
    columns = read_columns(leaves, values, 5)
    assert not columns.is_good[-2:].any()
    for row, value in enumerate(values):
        if not columns.is_good[row]:
            continue
        document = schema.read_whole(value[5:])
        for leaf in leaves:
            expected = leaf_value(document, leaf.path)
            is_null = leaf.path in columns.is_null and bool(columns.is_null[leaf.path][row])
            assert is_null == (expected is None)
            found = columns.of[leaf.path][row]
            if expected is None:
                assert leaf.kind in ("long", "time") or found is None or np.isnan(found)
            elif leaf.kind == "time":
                assert EPOCH + timedelta(microseconds=int(found)) == expected
            else:
                assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_a_row_does_not_depend_on_its_neighbours():
    fields = [{"name": name, "type": kind} for name, kind in zip("abc", SCALARS[3:6], strict=True)]
    source = {"type": "record", "name": "R", "fields": fields}
    leaves = flat_leaves(source, lambda name, space: None)
    good = written(fastavro.parse_schema(source), {"a": 1.5, "b": True, "c": "text"})
    rng = random.Random(3)
    for _ in range(300):
        columns = read_columns(leaves, [damaged(rng, good), good, damaged(rng, good)], 0)
        assert columns.is_good[1]
        assert [columns.of[leaf.path][1] for leaf in leaves] == [1.5, 1.0, "text"]


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "array", "items": "int"},
        {"type": "map", "values": "int"},
        ["null", "int", "string"],
        "bytes",
        "null",
        {"type": "int", "logicalType": "date"},
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "fixed", "name": "F", "size": 4},
        ["null", {"type": "record", "name": "N", "fields": [{"name": "a", "type": "int"}]}],
    ],
)
def test_other_schemas_are_not_flat(kind):
    source = {"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]}
    assert AvroSchema(json.dumps(source)).parsed
    assert flat_leaves(source, lambda name, space: None) is None


def test_a_named_type_is_resolved():
    inner = {"type": "record", "name": "N", "namespace": "p", "fields": [{"name": "x", "type": "int"}]}
    source = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "p.N"}, {"name": "b", "type": "p.N"}]}
    leaves = flat_leaves(source, lambda name, space: (inner, "p") if name == "p.N" else None)
    assert [leaf.path for leaf in leaves] == [("a", "x"), ("b", "x")]


@pytest.mark.parametrize("kind", ["double", "string", "long", ["null", "float"]])
def test_a_record_that_is_cut_off_is_not_read_wherever_it_stands(kind):
    source = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": kind}]}
    value = {"double": 1.5, "string": "text", "long": 2**40}.get(str(kind), 1.5)
    leaves = flat_leaves(source, lambda name, space: None)
    whole = written(fastavro.parse_schema(source), {"a": 1, "b": value})
    for size in range(len(whole)):
        assert read_columns(leaves, [whole, whole[:size]], 0).is_good.tolist() == [True, False]
        assert read_columns(leaves, [whole[:size], whole], 0).is_good.tolist() == [False, True]


def test_a_number_out_of_the_years_is_left_to_fastavro():
    source = {"type": "record", "name": "R", "fields": [{"name": "t", "type": MICROS}]}
    schema = AvroSchema(json.dumps(source))
    body = written(fastavro.parse_schema({**source, "fields": [{"name": "t", "type": "long"}]}), {"t": 2**60})
    assert not read_columns(flat_leaves(source, lambda name, space: None), [body], 0).is_good.any()
    with pytest.raises(DecodeError):
        schema.read_whole(body)
