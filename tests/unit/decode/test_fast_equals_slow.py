"""The fast parsers give the same readings and reasons as the definition of the formats."""

from __future__ import annotations

import gc
import json
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.decode import Decoder, FleetSchema
from tests.unit.decode.batches import SECOND, SENSORS, SlowDecoder, batch_of, mixed_batch, outcome, turbines


def one_fleet() -> list[FleetSchema]:
    return [turbines()]


def two_fleets() -> list[FleetSchema]:
    others = ("wind_speed", "power", "pitch", "wind speed", "in:let")
    elsewhere = turbines(name="elsewhere", topics=("another",), sensors=("power",))
    return [
        elsewhere,
        turbines(assets=("R*",)),
        turbines(name="others", assets=("S*", "-5"), interval_us=600 * SECOND, sensors=others),
    ]


def learnt_fleets() -> list[FleetSchema]:
    return [turbines(assets=("R*",), sensors=None), turbines(name="others", sensors=None)]


seeds = st.integers(0, 2**32)
fleets_of = st.sampled_from([one_fleet, two_fleets, learnt_fleets])


@settings(max_examples=300, deadline=None)
@given(seeds, fleets_of, st.sampled_from(["auto", "json", "msgpack"]))
def test_fast_parsers_agree_with_the_definition(seed, fleets, wire):
    batch = mixed_batch(seed)
    fast, slow = Decoder(fleets(), format=wire), SlowDecoder(fleets(), format=wire)
    # The second time the decoder knows the extra fields, the learnt sensors, and which parser suits.
    for _ in range(3):
        expected = outcome(slow, slow.decode(batch))
        assert outcome(fast, fast.decode(batch)) == expected


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from([one_fleet, two_fleets]))
def test_a_record_does_not_depend_on_its_neighbours(seed, fleets):
    batch = mixed_batch(seed)
    together, apart = Decoder(fleets()), Decoder(fleets())
    singles = [
        apart.decode(
            batch_of([value], [key], stamps=[int(stamp)], first_offset=int(offset), topic=batch.partition.topic)
        )
        for value, key, stamp, offset in zip(batch.values, batch.keys, batch.timestamps_us, batch.offsets, strict=True)
    ]
    assert outcome(together, together.decode(batch)) == outcome(apart, *singles)


@settings(max_examples=200, deadline=None)
@given(seeds, fleets_of)
def test_each_record_has_exactly_one_outcome(seed, fleets):
    batch = mixed_batch(seed)
    decoded = Decoder(fleets()).decode(batch)
    assert decoded.n_accepted + len(decoded.quarantined) + decoded.n_tombstones == len(batch)
    read = {int(offset) for readings in decoded.readings for offset in readings.offset}
    refused = [q.offset for q in decoded.quarantined]
    assert refused == sorted(set(refused))
    assert not read & set(refused)
    assert len(read) == decoded.n_accepted
    for q in decoded.quarantined:
        word, _, detail = q.reason.partition(": ")
        assert word in REASONS
        assert detail
        assert len(q.reason) <= 400
        assert len(q.sample) <= 1024
    for readings in decoded.readings:
        assert (np.diff(readings.offset) >= 0).all()
        assert not np.isinf(readings.values).any()
        assert np.isfinite(readings.values).any(axis=1).all()


REASONS = {
    "not_json", "not_msgpack", "wrong_type", "unknown_sensor", "missing_asset", "bad_asset", "no_fleet", "missing_ts",
    "bad_ts", "unknown_shape", "not_finite", "future", "too_large", "empty", "block_shape", "too_deep",
    "too_many_fields", "too_many_readings", "no_reading", "ambiguous", "unknown_schema", "not_influx",
}  # fmt: skip


def test_the_fast_parsers_are_really_used():
    """Guards against vacuous tests: with no fast parser in use, the tests above would compare equal code."""
    reading = b'{"ts":1,"sensors":{"power":1.0},"site":"north"}'
    decoder = Decoder(one_fleet())
    decoder.decode(batch_of([reading]))
    decoded_singly = []
    decoder._decode_record = lambda work, position: decoded_singly.append(position)  # type: ignore[method-assign]
    decoded = decoder.decode(batch_of([reading] * 3))
    assert decoded.n_accepted == 3
    assert not decoded_singly
    assert decoded.readings[0].values[:, 0].tolist() == [1.0] * 3
    assert len(SENSORS) == decoded.readings[0].values.shape[1]


@pytest.mark.parametrize("write", [json.dumps, msgspec.msgpack.encode], ids=["json", "msgpack"])
def test_extra_fields_count_as_fields(write):
    def value(meta):
        written = write({"ts": 1, "asset": "R1", "sensors": {"power": 1.0}, "meta": meta})
        return written.encode() if isinstance(written, str) else written

    decoder = Decoder(one_fleet())
    assert decoder.decode(batch_of([value({"a": 1})] * 8)).n_accepted == 8  # learnt: "meta" is an object
    decoded = decoder.decode(batch_of([value({"a": 1}), value({str(i): i for i in range(2000)})] * 4))
    assert [q.reason.split(":")[0] for q in decoded.quarantined] == ["too_many_fields"] * 4
    assert decoded.n_accepted == 4


def test_decoding_leaves_no_garbage_cycles():
    """The pipeline runs with the garbage collector off, so a cycle for each bad record would be a leak."""
    batches = [mixed_batch(seed) for seed in range(60)]
    decoder = Decoder(two_fleets())
    for batch in batches * 3:  # making a struct leaves a cycle, once
        decoder.decode(batch)
    gc.collect()
    gc.disable()
    try:
        for batch in batches:
            decoder.decode(batch)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_every_bit_pattern_of_nan_is_the_same_missing_value():
    value = msgspec.msgpack.encode({"ts": 1, "asset": "R1", "sensors": {"power": 1.5, "pitch": -7.25}})
    other = value.replace(struct.pack(">d", -7.25), struct.pack(">Q", 0xFFF8_0000_0000_0001))
    assert other != value
    batch = batch_of([other] * 8)
    fast, slow = Decoder(one_fleet()), SlowDecoder(one_fleet())
    for _ in range(2):
        expected = slow.decode(batch).readings[0].values
        assert fast.decode(batch).readings[0].values.tobytes() == expected.tobytes()
