"""Avro records that are read in columns have the same outcome as each one alone through fastavro."""

from __future__ import annotations

import io
import json
import random

import fastavro
import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.decode.column_readings import ColumnParser
from monitor.decode.formats import FormatOptions
from monitor.decode.formats.framing import RegisteredSchema
from monitor.types import Partition, RecordBatch
from tests.unit.decode.batches import SlowDecoder

BEGIN_S = 1_764_399_600
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
TIMES = {"ts": ["long", MILLIS, "string", "double"], "timestamp": [MILLIS, "long"], "time": ["string", MILLIS]}
ASSETS = {"asset": ["string", "long"], "device_id": ["string"], "id": ["string", "int"]}
OTHERS = {
    "power": ["double", "float"], "flow": ["double", "int"], "on": ["boolean"], "count": ["long"], "seq": ["int"],
    "site": ["string"], "status": ["string", "int"], "created_at": [MILLIS, "long"], "note": ["string"],
    "humidity": ["double"], "model": ["string"],
}  # fmt: skip


def schema_of(rng: random.Random) -> dict:
    fields = []
    for names, n in ((TIMES, rng.choice([1, 1, 2])), (ASSETS, rng.choice([0, 1, 1, 2])), (OTHERS, rng.randint(1, 7))):
        for name in rng.sample(list(names), n):
            kind = rng.choice(names[name])
            fields.append({"name": name, "type": ["null", kind] if rng.random() < 0.4 else kind})
    rng.shuffle(fields)
    if rng.random() < 0.2:
        inner = {"type": "record", "name": "Inner", "fields": fields[1:]}
        fields = [fields[0], {"name": rng.choice(["tags", "fields", "data", "meta"]), "type": inner}]
    return {"type": "record", "name": "R", "fields": fields}


def value_of(rng: random.Random, name: str, kind: object, row: int) -> object:
    if isinstance(kind, list):
        return None if rng.random() < 0.2 else value_of(rng, name, kind[1], row)
    if isinstance(kind, dict) and kind["type"] == "record":
        return {each["name"]: value_of(rng, each["name"], each["type"], row) for each in kind["fields"]}
    at_s = BEGIN_S + row
    if name in TIMES or name == "created_at":
        if kind == "string":
            return rng.choice(["2025-11-29T07:00:01Z", "soon", str(at_s)])
        if kind == "double":
            return rng.choice([float(at_s), 1e300])
        return at_s * 1000 if rng.random() < 0.9 else rng.choice([at_s, 0, 2**52])
    if kind == "string":
        return rng.choice(["R1", "R2", "north", "1.5", "", '{"a": 1}'])
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("int", "long"):
        return rng.randint(0, 5)
    return rng.choice([1.5, -2.25, 1e39, float("nan"), float("inf"), 7.0]) if rng.random() < 0.3 else 3.5


def batch_of(rng: random.Random, source: dict, n: int, first_offset: int) -> RecordBatch:
    parsed = fastavro.parse_schema(source)
    values = []
    for row in range(n):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, value_of(rng, "", source, row))
        body = bytearray(buffer.getvalue())
        if rng.random() < 0.1:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        values.append(b"\0\0\0\0\1" + bytes(body))
    keys = [rng.choice([b"R1", b"R2", None, b"\xff"]) if rng.random() < 0.2 else b"R1" for _ in range(n)]
    stamps = np.full(n, (BEGIN_S + 60) * 1_000_000)
    schemas = {1: RegisteredSchema(json.dumps(source)).dump()}
    return RecordBatch(Partition("t", 0), first_offset + np.arange(n), stamps, keys, values, None, schemas)


def outcome(decoder: Decoder, decoded: list) -> list:
    rows = [
        (int(o), index.names[a], int(c), tuple((s, x) for s, x in zip(fleet.sensors or (), v, strict=False) if x == x))
        for each in decoded
        for readings, fleet, index in zip(each.readings, decoder.fleets, decoder.assets, strict=True)
        for o, a, c, v in zip(
            readings.offset.tolist(), readings.asset.tolist(), readings.cell.tolist(), readings.values.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    return sorted(rows) + sorted((q.offset, q.reason) for each in decoded for q in each.quarantined)


@pytest.mark.parametrize("sensors", [("power", "flow", "on"), ("flow", "humidity", "power"), None], ids=str)
@pytest.mark.parametrize("name", ["auto", "avro"])
def test_columns_give_the_outcome_of_documents(monkeypatch, sensors, name):
    rng = random.Random(f"{sensors}{name}")
    n_accepted = n_fast = 0
    accept = ColumnParser.accept

    def counted(self, group, router, fields):
        nonlocal n_fast
        columns, left = accept(self, group, router, fields)
        n_fast += 0 if columns is None else len(columns.position)
        return columns, left

    for _ in range(60):
        source = schema_of(rng)
        batches = [batch_of(rng, source, 40, first) for first in (0, 100)]

        def made(kind: type[Decoder]) -> Decoder:
            fleet = FleetSchema("f", 1_000_000, sensors=sensors)
            return kind([fleet], format=name, options=FormatOptions(has_registry=True))

        together = made(Decoder)
        with monkeypatch.context() as patch:
            patch.setattr(ColumnParser, "accept", counted)
            found = [together.decode(batch) for batch in batches]
        apart = made(SlowDecoder)
        alone = [apart.decode(batch.rows(slice(i, i + 1))) for batch in batches for i in range(len(batch))]
        in_columns, by_documents = outcome(together, found), outcome(apart, alone)
        extra = [each for each in in_columns if each not in by_documents]
        assert extra == [], (source, [each for each in by_documents if extra and each[0] == extra[0][0]])
        assert [each for each in by_documents if each not in in_columns] == [], source
        n_accepted += sum(each.n_accepted for each in found)
    assert n_accepted > 1000
    assert n_fast > 100  # a learning fleet leaves every record with a text of a sensor's name
