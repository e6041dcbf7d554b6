"""Limits of one record: depth, number of fields, length. They hold in every parser."""

from __future__ import annotations

import json
import random
import tracemalloc

import msgspec
import numpy as np
import pytest

from monitor.decode import Decoder, block_msgpack
from tests.unit.decode.batches import SECOND, SENSORS, SlowDecoder, batch_of, turbines

packed = msgspec.msgpack.encode


def reasons(values, *, sensors=SENSORS, decoder=Decoder, **options):
    """Return the first word of each record's reason, "" = accepted, when they are one batch."""
    quarantined = decoder([turbines(sensors=sensors)], **options).decode(batch_of(list(values))).quarantined
    words = {q.offset: q.reason.split(":")[0] for q in quarantined}
    return [words.get(offset, "") for offset in range(len(values))]


def reasons_of_both(values, **options):
    fast, slow = reasons(values, **options), reasons(values, decoder=SlowDecoder, **options)
    assert fast == slow
    return fast


# ---------------------------------------------------------------- depth


@pytest.mark.parametrize("inmost", [b"", b"1", b'"x"', b"{}"], ids=["nothing", "a number", "a text", "an object"])
def test_a_record_is_at_most_sixteen_levels_deep(inmost):
    def value(levels):
        deep = levels - 1 - (inmost == b"{}")
        return b'{"ts":1,"power":1,"x":' + b"[" * deep + inmost + b"]" * deep + b"}"

    assert reasons_of_both([value(16), value(17)] * 4) == ["", "too_deep"] * 4
    assert reasons_of_both([packed(msgspec.json.decode(value(n))) for n in (16, 17)] * 4) == ["", "too_deep"] * 4


def from_depth(levels, function):
    return function() if not levels else from_depth(levels - 1, function)


@pytest.mark.parametrize("levels", [20, 399, 500, 800, 930, 960, 990, 2000, 80_000])
@pytest.mark.parametrize("end", ["whole", "cut", "corrupted"])
def test_reasons_do_not_depend_on_the_stack(levels, end):
    """Python's parsers stop at a depth that is counted from the bottom of the caller's stack."""
    tail = {"whole": b"1" + b"]" * levels + b"}", "cut": b"", "corrupted": b"?" + b"]" * levels + b"}"}[end]
    texts = [b'{"ts":1,"a":"[[","x":' + b"[" * levels + tail]
    heads = {"whole": b"\x01", "cut": b"", "corrupted": b"\xc1"}[end]
    maps = [b"\x82\xa2ts\x01\xa1x" + b"\x91" * levels + heads, b"\x82\xa2ts\x01\xa1x" + b"\x81\xa1x" * levels + heads]
    values = [*texts, *maps]
    shallow = from_depth(0, lambda: reasons(values))
    assert from_depth(300, lambda: reasons(values)) == shallow
    if levels >= 400 or end == "whole":
        assert shallow == ["too_deep"] * 3


def test_unnested_brackets_are_not_deep():
    flat = b'{"x":[' + b"[]," * 1000 + b'"' + b"[" * 1000
    assert reasons([flat, b"\x82" + b"\x90" * 999, b"\x9f" + b"\xa3\x90\x90\x90" * 500]) == [
        "not_json", "not_msgpack", "not_msgpack",
    ]  # fmt: skip


# ---------------------------------------------------------------- number of fields, length


def test_fields_of_all_objects_are_counted():
    def value(n):
        return json.dumps({"ts": 1, "power": 1, "meta": [{str(i): i} for i in range(n - 3)]}).encode()

    assert reasons_of_both([value(2000), value(2001)] * 2) == ["", "too_many_fields"] * 2


def test_one_long_column_makes_no_huge_table():
    names = tuple(f"s{i}" for i in range(2000))
    column = b'{"start":0,"interval":1,"sensors":{"s0":[' + b",".join([b"1"] * 120_000) + b"]}}"
    raw = block_msgpack("R1", np.arange(60_000) * SECOND, np.ones((60_000, 1)), ["s0"])
    fine = block_msgpack("R1", np.arange(524) * SECOND, np.ones((524, 1)), ["s0"])
    decoder = Decoder([turbines(sensors=names)])
    decoder.decode(batch_of([fine]))
    tracemalloc.start()
    try:
        decoded = decoder.decode(batch_of([column, raw]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [q.reason.split(";")[0] for q in decoded.quarantined] == [
        f"too_many_readings: the record has {n} readings; at most 524 of 2000 sensors are read at once".split(";")[0]
        for n in (120_000, 60_000)
    ]
    assert peak < 32 << 20
    more = block_msgpack("R1", np.arange(525) * SECOND, np.ones((525, 1)), ["s0"])
    assert reasons_of_both([fine, more] * 4, sensors=names) == ["", "too_many_readings"] * 4


def test_a_full_record_is_never_too_long():
    rows = 262_000 // 4 // 3
    value = block_msgpack("R1", np.arange(rows) * SECOND, np.ones((rows, 3)), SENSORS)
    assert reasons_of_both([value]) == [""]
    assert reasons_of_both([b'{"ts":1,"s0":1}'], sensors=tuple(f"s{i}" for i in range(1900)), max_record_bytes=64) == [
        ""
    ]


# ---------------------------------------------------------------- memory


def test_invented_names_fill_no_memory():
    decoder = Decoder([turbines()])
    rng = random.Random(1)

    def invented():
        name = f"{rng.random():.18f}" * 1000
        yield json.dumps({"ts": 1, "power": 1, name: "x"}).encode()
        yield packed({"start": 1, "interval": 1, "sensors": [name], "values": b"\0\0\0\0"})
        yield packed({"ts": 1, "power": 1, name: "x"})
        yield packed({"ts": 1, "sensors": {"power": 1}, name: [name]})

    decoder.decode(batch_of([value for _ in range(2) for value in invented()]))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(400):
            decoder.decode(batch_of(list(invented())))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1 << 20  # of 400 × 4 × 20 kB decoded


def test_learnt_sensors_are_limited():
    fleet = turbines(sensors=None)
    values = [json.dumps({"ts": 1, "sensors": {f"s{k}_{i}": 1 for i in range(900)}}).encode() for k in range(5)]
    odd = json.dumps({"ts": 1, "sensors": {"x" * 129: 1}}).encode()
    decoder = Decoder([fleet])
    decoded = decoder.decode(batch_of([odd, *values]))
    sensors = decoder.learnt[fleet.name]
    assert len(sensors) == 2000
    assert "x" * 129 not in sensors
    assert {q.reason.split(":")[0] for q in decoded.quarantined} <= {"unknown_sensor", "no_reading"}
    assert decoded.n_accepted == 3


# ---------------------------------------------------------------- hostile bytes

SIGNALLING = b"\xcb\x7f\xf4\0\0\0\0\0\x01"
"""Signalling NaN, about which NumPy warns."""
HOSTILE = {
    "a huge interval": b'{"start":1,"interval":1' + b"0" * 400 + b',"sensors":{"power":[1,2]}}',
    "a huge interval, raw": packed({"start": 1, "interval": 1.7e308, "sensors": ["power"], "values": b"\0" * 8}),
    "a huge time": b'{"ts":1' + b"0" * 4000 + b',"power":1}',
    "more digits than Python reads": b'{"ts":1' + b"0" * 5000 + b',"power":1}',
    "a lone surrogate": b'{"ts":1,"asset":"\\ud800","power":1}',
    "a surrogate for a name": b'{"ts":1,"\\udc00":1}',
    "a NUL for a name": b'{"ts":1,"sensors":{"\\u0000":1}}',
    "a NUL for an asset": b'{"ts":1,"asset":"R\\u0000","power":1}',
    "UTF-16": '{"ts":1,"power":1}'.encode("utf-16"),
    "an extension": packed({"ts": 1, "power": msgspec.msgpack.Ext(5, b"abc")}),
    "an extension for a key": b"\x82\xa2ts\x01\xd4\x05\x00\x01",
    "a list for a key": b"\x82\xa2ts\x01\x91\x01\x01",
    "a map for a key": b"\x82\xa2ts\x01\x81\x01\x01\x01",
    "NaN for keys": b"\x83\xa2ts\x01" + b"\xcb\x7f\xf8\0\0\0\0\0\0\x01" * 2,
    "a time of MessagePack's own, out of range": b"\x82\xa2ts\xc7\x0c\xff" + b"\xff" * 12 + b"\xa5power\x01",
    "a NaN that signals, for a value": b"\x82\xa2ts\x01\xa5power" + SIGNALLING,
    "a NaN that signals, for a time": b"\x82\xa5power\x01\xa2ts" + SIGNALLING,
    "a NaN that signals, for an interval": b"\x84\xa5start\x01\xa7sensors\x91\xa5power\xa6values\xc4\x04\0\0\0\0"
    b"\xa8interval" + SIGNALLING,
    "a claim of four thousand million entries": b"\xdf\xff\xff\xff\xff",
    "a claim of as many times": b"\x82\xa2ts\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("key", [None, b"R1", b"\0", b"\xed\xa0\x80", b"R" * 100_000], ids=range(5))
def test_hostile_bytes_get_a_printable_reason(value, key):
    for decoder in (Decoder, SlowDecoder):
        fleets = [turbines(), turbines(name="others", sensors=None)]
        [bad] = decoder(fleets).decode(batch_of([value], [key])).quarantined
        assert bad.reason.isprintable()
        assert bad.reason.split(":")[0].replace("_", "").isalpha()


def test_a_name_that_commands_a_terminal_is_not_learnt():
    decoder = Decoder([turbines(sensors=None)])
    names = ["flow", "\x1b]0;pwned\x07q", "\u202eflow", "\x9b31m", "a\nb", "", "Öl (°C)"]
    value = json.dumps({"ts": 1, "asset": "R1", "sensors": dict.fromkeys(names, 1.5)})
    decoder.decode(batch_of([value.encode()]))
    assert decoder.fleets[0].sensors == ("flow", "Öl (°C)")
