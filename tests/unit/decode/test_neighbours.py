"""A record gives the same readings after any others, and a refused one teaches nothing. Each case was a fault once."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.decode.schema import Growth
from monitor.types import Partition, RecordBatch

T = 1_790_000_000
UUID = b"0f8fad5b-d9cb-469f-a165-70867728950e"


def line(sensors=None, growth=None):
    growth = growth or (Growth.LEARNING if sensors is None else Growth.LISTED)
    return Decoder([FleetSchema("line", 1_000_000, sensors=sensors, growth=growth)])


def run(decoder, documents, keys=b"K"):
    """Decode documents as one batch. Return, by offset, the readings or the reason's word, and the notices."""
    n = len(documents)
    values = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in documents]
    given = keys if isinstance(keys, list) else [keys] * n
    stamps = np.full(n, (T + 5) * 1_000_000)
    decoded = decoder.decode(RecordBatch(Partition("plant", 0), np.arange(n), stamps, given, values))
    found = {q.offset: q.reason.split(":")[0] for q in decoded.quarantined}
    [readings], [index], [fleet] = decoded.readings, decoder.assets, decoder.fleets
    rows = zip(readings.offset, readings.asset, readings.cell, readings.values, strict=True)
    for offset, asset, cell, row in rows:
        cells = {s: float(v) for s, v in zip(fleet.sensors, row, strict=True) if v == v}
        found.setdefault(int(offset), []).append((index.names[asset], int(cell) - T, cells))
    return [found[at] for at in range(n)], [(each.kind, each.subject) for each in decoded.notices]


FLAT = {"ts": T, "temp": 1.5}
VALUE = {"ts": T, "value": 1.5, "temp": None}
CASES = {
    "a whole number in a field of a device": ([{**FLAT, "device": "z"}], {**FLAT, "device": 7}, None),
    "a small number in t": ([{"t": T, "temp": 1.5}], {"t": 20, "temp": 1.5}, b"K"),
    "a text in t": ([{"t": T, "temp": 1.5}], {"t": str(T), "temp": 1.5}, b"K"),
    "topic beside a value": ([{**VALUE, "temp": 2.5, "topic": "x"}], {**VALUE, "topic": "x"}, b"K"),
    "topic before a value": (
        [{**FLAT, "topic": "x"}, {**VALUE, "temp": 2.5, "topic": "x"}], {**VALUE, "topic": "x"}, b"K",
    ),
    "tag beside a value": ([{**VALUE, "temp": 2.5, "tag": None}], {**VALUE, "temp": 2.5, "tag": "x"}, b"K"),
    "id beside a value": ([{**VALUE, "temp": 2.5, "id": "x"}], {**VALUE, "id": "x"}, None),
    "id of a node": ([{**VALUE, "temp": 2.5, "id": "x"}], {**VALUE, "temp": 3, "id": "ns=1;s=temp"}, b"K"),
    "a text in a new field": ([{**FLAT, "new": 1.5}], {**FLAT, "new": "low"}, b"K"),
    "device_id beside a random key": ([{**FLAT, "device_id": "d"}], {**FLAT, "device_id": "d"}, UUID),
}  # fmt: skip


@pytest.mark.parametrize("growth", [Growth.LISTED, Growth.LEARNT])
@pytest.mark.parametrize("name", CASES)
def test_a_record_gives_the_same_after_others(name, growth):
    before, then, key = CASES[name]
    sensors = ("value", "temp")
    [alone], told = run(line(sensors, growth), [then], key)
    decoder = line(sensors, growth)
    for each in before:
        for _ in range(2):
            run(decoder, [each] * 8, None if key is None else b"K")
    after, told_after = run(decoder, [then] * 8, key)
    assert after == [alone] * 8
    assert told_after == told


@pytest.mark.parametrize("texts", [["20", "20.5", "21"], ["on", "20.5", "off"], ["none", "1.5", "5", "unavailable"]])
def test_texts_of_a_sensor_are_read_the_same_in_any_batches(texts):
    documents = [{"ts": T + i, "a": 1.0, "c": text} for i, text in enumerate(texts)]
    lead = [{"ts": T, "a": 1.0, "c": "low"}] * 8
    together, apart = line(), line()
    for decoder in (together, apart):
        run(decoder, lead)
        run(decoder, lead)
    found = run(together, documents * 3)[0]
    assert found == [run(apart, [each])[0][0] for each in documents * 3]
    assert any(len(reading[2]) == 2 for [reading] in found)


def test_a_sensor_that_comes_while_nothing_may_be_learnt_is_learnt_later():
    decoder = line(("temp",), Growth.LEARNING)
    decoder.may_learn = False
    run(decoder, [{**FLAT, "hum": 40.5}] * 8)
    decoder.may_learn = True
    found, _ = run(decoder, [{**FLAT, "hum": 40.5}] * 8)
    assert decoder.learnt == {"line": ("temp", "hum")}
    assert found == [[("K", 0, {"temp": 1.5, "hum": 40.5})]] * 8


@pytest.mark.parametrize(
    "refused",
    [
        {"ts": T, "x": 1e39},
        {"ts": T + 5000, "x": 1.5},
        {"ts": [T, T + 5000], "x": [1.5, 1.6]},
        b'{"start":%d,"interval":1e-6,"sensors":{"x":[%s]}}' % (T, b"1," * 99_999 + b"1"),
    ],
    ids=["out of range", "future", "block of the future", "block with too many readings"],
)
def test_a_refused_record_teaches_no_sensor(refused):
    decoder = line(tuple(f"s{i}" for i in range(20)), Growth.LEARNING)
    [reason], _ = run(decoder, [refused])
    assert reason in ("not_finite", "future", "too_many_readings")
    assert decoder.learnt == {}


def test_many_readings_of_many_sensors_in_one_record_are_refused():
    sensors = tuple(f"s{i}" for i in range(2000))
    readings = [{"ts": T, "asset": f"a{i}", "s1": 1.5} for i in range(600)]
    decoder = line(sensors)
    assert run(decoder, [readings])[0] == ["too_many_readings"]
    [found] = run(decoder, [readings[:500]])[0]
    assert len(found) == 500


@pytest.mark.parametrize(
    "value", [b'{"a":' + b"1" * 250_000 + b"x", b'{"ts":' + b"9" * 100_000 + b',"a":1.5}', b'{"a":' + b"1." * 120_000]
)
def test_long_numbers_are_refused_at_once(value):
    began = time.process_time()
    [reason], _ = run(line(("a",)), [value])
    assert reason in ("not_json", "bad_ts")
    assert time.process_time() - began < 1
