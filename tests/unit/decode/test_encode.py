"""Encoded readings and blocks are decoded to the same times and values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decode import Decoder, FleetSchema, block_msgpack, reading_json
from monitor.decode.timestamps import MAX_US, MIN_US
from tests.unit.decode.batches import SECOND, SENSORS, batch_of

MICROSECONDS = FleetSchema("turbines", 1, sensors=SENSORS)
"""Its cells are one microsecond wide, so that a cell is the exact time."""
instants = st.one_of(st.integers(MIN_US, MAX_US), st.integers(-(10**9), 2 * 10**9).map(lambda s: s * SECOND))
cells = st.one_of(st.floats(allow_infinity=False, width=32), st.floats(-100, 100, width=32))


def matrix_of(rows):
    return np.array(rows, np.float32).reshape(-1, 3)


@given(instants, st.lists(cells, min_size=3, max_size=3))
def test_a_reading_is_read_back_exactly(ts_us, row):
    decoded = Decoder([MICROSECONDS]).decode(batch_of([reading_json("R 80/711", ts_us, row, SENSORS)]))
    if np.isnan(row).all():
        assert decoded.quarantined[0].reason.startswith("empty")
        return
    assert decoded.readings[0].cell.tolist() == [ts_us]
    np.testing.assert_array_equal(decoded.readings[0].values, matrix_of(row))


@given(
    st.one_of(
        st.lists(instants, min_size=1, max_size=6),
        st.builds(
            lambda start, step, n: [start + i * step for i in range(n)],
            st.integers(-(10**16), 10**17),
            st.one_of(st.integers(1, 10**7), st.just(600 * SECOND)),
            st.integers(1, 50),
        ),
    ),
    st.integers(0, 2**32),
)
def test_a_block_is_read_back_exactly(times, seed):
    rows = np.random.default_rng(seed).normal(0, 5, (len(times), 3)).astype(np.float32)
    rows[:, 1:][rows[:, 1:] < 0] = np.nan
    decoded = Decoder([MICROSECONDS]).decode(batch_of([block_msgpack("R1", np.array(times), rows, SENSORS)]))
    assert decoded.quarantined == []
    assert decoded.readings[0].cell.tolist() == times
    np.testing.assert_array_equal(decoded.readings[0].values, rows)


def test_even_times_cost_no_bytes():
    rows = np.ones((64, 3))
    even = block_msgpack("R1", np.arange(64) * SECOND, rows, SENSORS)
    uneven = block_msgpack("R1", np.arange(64) ** 2 * SECOND, rows, SENSORS)
    assert len(even) < 64 * 12 + 90 < len(uneven)


def test_values_are_written_with_few_digits():
    assert reading_json("R1", 5 * SECOND, [0.1, float("nan"), -3], SENSORS) == (
        b'{"ts":5,"asset":"R1","sensors":{"power":0.1,"wind_speed":null,"pitch":-3.0}}'
    )


def test_encoding_checks_the_shape_of_values():
    with pytest.raises(ValueError, match="2 times of 3 sensors"):
        block_msgpack("R1", np.arange(2), np.ones((3, 3)), SENSORS)
    with pytest.raises(ValueError):
        reading_json("R1", 0, [1.0], SENSORS)
