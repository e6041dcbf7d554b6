"""One suite over the wire formats beyond JSON and MessagePack: the same readings, and nothing but DecodeError."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.config.kafka import FORMATS as CONFIGURED
from monitor.decode import Decoder, FleetSchema
from monitor.decode.formats import FORMATS, make_parser
from monitor.errors import DecodeError
from monitor.types import Partition, RecordBatch
from tests.format_writers import SENSORS, WIRES, documents
from tests.hostile import FORMAT_WORDS, WORDS

INTERVAL_US = 600_000_000
START_US = 1_437_955_200_000_000
N = 12
TIMES_US = START_US + np.arange(N) * INTERVAL_US
VALUES = np.round(np.random.default_rng(7).normal(50, 20, (N, 3)), 3).astype(np.float32)
VALUES[3, 1] = VALUES[4, 0] = VALUES[4, 1] = np.nan

wires = pytest.mark.parametrize("name", WIRES)


def batch_of(records) -> RecordBatch:
    n = len(records)
    schemas = {number: text for record in records for number, text in record.schemas.items()}
    return RecordBatch(
        Partition("plant", 3),
        np.arange(100, 100 + n),
        np.full(n, int(TIMES_US[-1]), np.int64),
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records] if any(record.headers for record in records) else None,
        schemas,
    )


def test_every_format_is_in_the_suite():
    assert {wire.format for wire in WIRES.values()} | {"json", "msgpack"} == set(FORMATS)
    assert ("auto", *FORMATS) == CONFIGURED


@pytest.mark.parametrize(
    ("name", "is_auto"),
    [(name, is_auto) for name, wire in WIRES.items() for is_auto in (True, False) if wire.is_recognised or not is_auto],
)
def test_all_formats_give_the_same_readings(name, is_auto):
    wire = WIRES[name]
    fleet = FleetSchema("turbines", INTERVAL_US, sensors=SENSORS)
    decoder = Decoder([fleet], format="auto" if is_auto else wire.format, options=wire.options)
    decoded = decoder.decode(batch_of([wire.write(each) for each in documents(TIMES_US, VALUES)]))
    assert decoded.quarantined == []
    readings = decoded.readings[0]
    assert readings.cell.tolist() == [START_US // INTERVAL_US + i for i in range(N)]
    np.testing.assert_array_equal(readings.values, VALUES)
    asset = "plant/edge/R80711" if name == "sparkplug" else "R80711"
    assert decoder.assets[0].names == [asset]


@wires
def test_damaged_records_raise_nothing_but_decode_errors(name):
    wire = WIRES[name]
    rng = random.Random(name)
    parser = make_parser(wire.format, wire.options)
    records = [wire.write(each) for each in documents(TIMES_US, VALUES)]
    n_refused = 0
    for turn in range(3000):
        record = rng.choice(records)
        damaged = _damaged(rng, record.value)
        began_s = time.process_time()
        try:
            found = parser.parse(record._replace(value=damaged, offset=turn))
        except DecodeError as problem:
            n_refused += 1
            word, _, sentence = problem.detail.partition(": ")
            assert word in WORDS | FORMAT_WORDS
            assert sentence
        else:
            assert all(type(document) is dict for document in found)
        assert time.process_time() - began_s < 0.5
    assert n_refused > 300


def _damaged(rng: random.Random, value: bytes) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return value[: rng.randrange(len(value))] or b"\0"
    if kind < 0.5:
        return value[: rng.choice([0, 1, 5, 6, 8])] + rng.randbytes(rng.randrange(1, 300))
    if kind < 0.6:
        at = rng.randrange(len(value))
        claim = rng.choice([b"\xff" * 9 + b"\x01", b"\x80" * 12, b"\0" * 8, b"\xfe\xff\xff\x7f"])
        return value[:at] + claim + value[at:]
    spoilt = bytearray(value)
    for _ in range(rng.choice([1, 2, 8])):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


finite = st.one_of(st.none(), st.floats(-1e30, 1e30, allow_subnormal=False))


@wires
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.tuples(finite, finite, finite).filter(lambda row: any(value is not None for value in row)),
    us=st.integers(10**15, 4 * 10**15),
)
def test_a_written_reading_is_read_back(name, row, us):
    wire = WIRES[name]
    us = us // 1000 * 1000
    written = documents([us], [[np.nan if value is None else value for value in row]])[0]
    fleet = FleetSchema("turbines", 1000, sensors=SENSORS)
    decoded = Decoder([fleet], format=wire.format, options=wire.options).decode(batch_of([wire.write(written)]))
    future = [each.reason for each in decoded.quarantined if not each.reason.startswith("future")]
    assert future == []
    if len(decoded.readings[0]):
        assert decoded.readings[0].cell.tolist() == [us // 1000]
        expected = np.array([np.nan if value is None else value for value in row], np.float32)
        np.testing.assert_array_equal(decoded.readings[0].values[0], expected)
