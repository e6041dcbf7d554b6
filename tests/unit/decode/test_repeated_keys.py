"""The last value of a key that stands twice in one object counts, in every parser."""

from __future__ import annotations

import json
import random

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.decode import Decoder, block_msgpack
from tests.unit.decode.batches import SECOND, SENSORS, SlowDecoder, batch_of, outcome, record, turbines

GOOD = b'{"ts":1,"sensors":{"power":1.0},"site":"a:b","meta":{"k:":"v:"}}'
FLAT = b'{"ts":"1970-01-01T00:00:01Z","asset":"R:1","power":1,"site":"north"}'
JSON = {
    "at the top": (b'{"ts":7,"ts":1,"sensors":{"power":1.0}}', b'{"ts":1,"sensors":{"power":1.0}}'),
    "among the sensors": (b'{"ts":1,"sensors":{"power":1.0,"power":2.0}}', b'{"ts":1,"sensors":{"power":2.0}}'),
    "null first": (b'{"ts":1,"sensors":{"power":null,"power":2.0}}', b'{"ts":1,"sensors":{"power":2.0}}'),
    "null last": (
        b'{"ts":1,"sensors":{"power":1.0,"pitch":1,"power":null}}',
        b'{"ts":1,"sensors":{"pitch":1,"power":null}}',
    ),
    "flat": (b'{"ts":1,"power":1,"power":3}', b'{"ts":1,"power":3}'),
    "the sensors, not merged": (
        b'{"ts":1,"sensors":{"power":1.0},"sensors":{"pitch":2.0}}',
        b'{"ts":1,"sensors":{"pitch":2.0}}',
    ),
    "sensors, then null": (b'{"ts":1,"power":4,"sensors":{"pitch":2.0},"sensors":null}', b'{"ts":1,"power":4}'),
    "the asset": (b'{"ts":1,"asset":"R7","power":1,"asset":"R8"}', b'{"ts":1,"asset":"R8","power":1}'),
    "the asset, then null": (b'{"ts":1,"asset":"R7","power":1,"asset":null}', b'{"ts":1,"power":1}'),
    "a bad value first": (b'{"ts":1,"power":"x","power":1}', b'{"ts":1,"power":1}'),
    "beside": (b'{"ts":1,"sensors":{"power":1.0},"site":"x","site":"y"}', b'{"ts":1,"sensors":{"power":1.0}}'),
    "beside, within": (b'{"ts":1,"sensors":{"power":1.0},"meta":{"a":1,"a":2}}', b'{"ts":1,"sensors":{"power":1.0}}'),
    "far within": (b'{"ts":1,"power":1.0,"meta":[[{"b":{"a":1,"a":1}}]]}', b'{"ts":1,"power":1.0}'),
    "spelt with an escape": (
        b'{"ts":1,"sensors":{"power":1.0,"p\\u006fwer":2.0}}',
        b'{"ts":1,"sensors":{"power":2.0}}',
    ),
    "in a block": (b'{"ts":[1],"sensors":{"power":[1.0],"power":[2.0]}}', b'{"ts":[1],"sensors":{"power":[2.0]}}'),
}


def entries(*pairs: bytes) -> bytes:
    return bytes([0x80 + len(pairs)]) + b"".join(pairs)


TS, START, INTERVAL, POWER, PITCH = (
    b"\xa2ts\x01",
    b"\xa5start\x01",
    b"\xa8interval\x01",
    b"\xa5power\x02",
    b"\xa5pitch\x03",
)
RAW = (b"\xa7sensors\x91\xa5power", b"\xa6values\xc4\x04\0\0\x80\x3f")
PACKED = {
    "at the top": (entries(b"\xa2ts\x07", TS, POWER), entries(TS, POWER)),
    "among the sensors": (
        entries(TS, b"\xa7sensors" + entries(b"\xa5power\x07", POWER)),
        entries(TS, b"\xa7sensors" + entries(POWER)),
    ),
    "null last": (entries(TS, PITCH, POWER, b"\xa5power\xc0"), entries(TS, PITCH)),
    "beside": (
        entries(TS, b"\xa7sensors" + entries(POWER), b"\xa4meta" + entries(b"\xa1a\x01", b"\xa1a\x02")),
        entries(TS, b"\xa7sensors" + entries(POWER)),
    ),
    "spelt longer": (
        entries(TS, b"\xa7sensors" + entries(b"\xa5power\x07", b"\xd9\x05power\x02")),
        entries(TS, b"\xa7sensors" + entries(POWER)),
    ),
    "in a map of maps": (
        entries(TS, POWER, b"\xa4meta\x91" + entries(b"\xa1a" + entries(b"\x01\x01", b"\x01\x02"))),
        entries(TS, POWER),
    ),
    "the time of a block": (entries(b"\xa5start\x07", INTERVAL, *RAW, START), entries(START, INTERVAL, *RAW)),
    "the sensors of a block": (
        entries(START, INTERVAL, b"\xa7sensors\x91\xa5pitch", *RAW),
        entries(START, INTERVAL, *RAW),
    ),
    "the columns of a block": (
        entries(b"\xa2ts\x91\x01", b"\xa7sensors" + entries(b"\xa5power\x91\x01", b"\xa5power\x91\x02")),
        entries(b"\xa2ts\x91\x01", b"\xa7sensors" + entries(b"\xa5power\x91\x02")),
    ),
}


def decoded(decoder: Decoder, values: list[bytes], teach: list[bytes]) -> dict[str, object]:
    """Return the outcome of the values, after records from which the decoder learns extra fields."""
    for _ in range(2):
        assert decoder.decode(batch_of(teach)).quarantined == []
    return outcome(decoder, decoder.decode(batch_of(values)))


@pytest.mark.parametrize(("value", "same"), JSON.values(), ids=JSON.keys())
def test_last_values_count_in_json(value, same):
    expected = decoded(SlowDecoder([turbines()]), [GOOD, same, FLAT] * 8, [GOOD, FLAT])
    assert expected["accepted"] == 24
    for decoder in (Decoder, SlowDecoder):
        assert decoded(decoder([turbines()]), [GOOD, value, FLAT] * 8, [GOOD, FLAT]) == expected


@pytest.mark.parametrize(("value", "same"), PACKED.values(), ids=PACKED.keys())
def test_last_values_count_in_messagepack(value, same):
    block = block_msgpack("R1", np.array([0]) * SECOND, np.ones((1, 3)), SENSORS)
    good = [msgspec.msgpack.encode({"ts": 1, "sensors": {"power": 1.0}, "meta": {"a": 1}}), entries(TS, POWER), block]
    expected = decoded(SlowDecoder([turbines()]), [*good, same] * 8, good)
    assert expected["accepted"] == 32
    for decoder in (Decoder, SlowDecoder):
        assert decoded(decoder([turbines()]), [*good, value] * 8, good) == expected


@pytest.mark.parametrize("value", [JSON["among the sensors"][0], JSON["flat"][0], PACKED["at the top"][0]])
def test_fast_parsers_accept_repeated_keys(value):
    decoder = Decoder([turbines()])
    decoder._decode_record = pytest.fail
    assert decoder.decode(batch_of([value] * 8)).n_accepted == 8


def test_a_replaced_value_must_be_well_formed():
    """The struct of a raw block never reads a list of sensors that a second one replaces."""
    not_text = entries(START, INTERVAL, b"\xa7sensors\x91\xa1\xff", *RAW)
    values = [not_text, b'{"ts":1,"power":?,"power":1}', b'{"ts":1,"asset":"\\ud800","power":1,"asset":"R1"}']
    for decoder in (Decoder, SlowDecoder):
        found = decoder([turbines()]).decode(batch_of(values * 8)).quarantined
        assert [q.reason.split(":")[0] for q in found] == ["not_msgpack", "not_json", "not_json"] * 8


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
@example(1051)  # a zero byte before a digit, which is UTF-16 to `json.loads`
def test_a_record_decodes_like_its_parsed_self(seed):
    """A record that a parser has read and written again has each key once, with the last value."""
    rng = random.Random(seed)
    pairs = [(value, parsed) for value in (record(rng) for _ in range(16)) if (parsed := parsed_self(value))]
    outcomes = []
    for values in zip(*pairs, strict=True):
        decoder = Decoder([turbines()])
        found = outcome(decoder, decoder.decode(batch_of(values)))
        found["quarantined"] = [(offset, reason.split(":")[0]) for offset, reason, *_ in found["quarantined"]]
        outcomes.append(found)
    assert not outcomes or outcomes[0] == outcomes[1]


def parsed_self(value: bytes | None) -> bytes | None:
    """Return the record parsed and written again. None where it cannot be parsed, or has a number that is not JSON."""
    if not value or b"NaN" in value or b"Infinity" in value or b"1e999" in value:
        return None
    try:
        if value[0] < 0x80:
            # Decoded here: `json.loads` guesses UTF-16 from zero bytes, which no record may contain.
            return json.dumps(json.loads(value.decode()), ensure_ascii=False).encode()
        return msgspec.msgpack.encode(msgspec.msgpack.decode(value))
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError):
        return None
