"""Each asset has its own clock: no other one makes its readings late, closes its windows or changes its rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.stream.window import Windower
from monitor.types import Readings
from tests.oracle.log import FleetRule, Reading
from tests.oracle.windows import ExpectedShard
from tests.unit.stream.shard_cases import facts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[int, int]
"""(asset, cell)."""


def readings(rows: Sequence[Row], first_offset: int = 0) -> Readings:
    n = len(rows)
    return Readings(
        "f",
        np.array([asset for asset, _ in rows], np.int32),
        np.array([cell for _, cell in rows], np.int64),
        np.arange(first_offset, first_offset + n, dtype=np.int64),
        np.ones((n, 1), np.float32),
    )


def test_an_asset_that_is_ahead_makes_no_other_one_late() -> None:
    """The reproduction of defect D1: 137 readings were late, and no window was left."""
    rows = [(asset, cell) for cell in range(100) for asset in (0, 1)] + [(1, 238)]
    rows += [(0, cell) for cell in range(100, 238)]
    for batch in (len(rows), 7):
        windower = Windower(length=64, stride=1, lateness_cells=1, max_gap_cells=8, n_sensors=1)
        n_late, starts = 0, list[int]()
        for first in range(0, len(rows), batch):
            output = windower.push(readings(rows[first : first + batch], first))
            n_late += len(output.late)
            starts += output.windows.start[output.windows.asset == 0].tolist()
        assert n_late == 0
        assert [start for start in starts if start >= 0] == list(range(238 - 64 + 1))


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_late_reading_knows_how_late_it_was_however_batched(batch: int) -> None:
    """The watermark of that moment counts, not the one after the batch, and no other asset's."""
    rows = [(0, 0), (0, 10), (0, 5), (1, 400), (0, 7), (0, 8), (0, 300), (0, 250)]
    windower = Windower(length=8, stride=1, lateness_cells=2, max_gap_cells=1, n_sensors=1)
    found: list[tuple[int, int]] = []
    for first in range(0, len(rows), batch):
        output = windower.push(readings(rows[first : first + batch], first))
        found += [(first + row, by) for row, by in zip(output.late.tolist(), output.late_by.tolist(), strict=True)]
    assert found == [(2, 3), (4, 1), (7, 48)]


def test_clocks_that_differ_by_the_whole_range_of_time() -> None:
    """At an interval of a microsecond the cells of a thousand assets do not fit into one integer."""
    far = 253_402_300_799_000_000
    rows = [(asset, (far if asset % 2 else 0) + cell) for cell in (6, 5, 7) for asset in range(1000)]
    windower = Windower(length=3, stride=3, lateness_cells=1, max_gap_cells=1, n_sensors=1)
    output = windower.push(readings(rows))
    assert len(output.late) == 0
    later = windower.push(readings([(asset, (far if asset % 2 else 0) + 5) for asset in range(1000)]))
    assert later.late.tolist() == list(range(1000))
    assert set(later.late_by.tolist()) == {1}


def test_one_sensor_a_record_fills_cells_without_a_duplicate() -> None:
    """Long format: each record has one sensor, and the window is complete with the last one of its last cell."""
    n = 3
    windower = Windower(length=4, stride=4, lateness_cells=1, max_gap_cells=0, n_sensors=n)
    values = np.full((4 * n, n), np.nan, np.float32)
    values[np.arange(4 * n), np.tile(np.arange(n), 4)] = np.arange(4 * n)
    cells = np.repeat(np.arange(4), n)
    emitted = []
    for row in range(4 * n):
        one = Readings("f", np.zeros(1, np.int32), cells[row : row + 1], np.array([row]), values[row : row + 1])
        output = windower.push(one)
        assert (len(output.duplicate), len(output.late)) == (0, 0)
        emitted += [(row, output.windows)] * len(output.windows)
    [(at, window)] = emitted
    assert at == 4 * n - 1
    assert window.values[0].ravel().tolist() == list(range(4 * n))
    assert (window.first_offset[0], window.last_offset[0], window.n_present[0]) == (0, 4 * n - 1, 4)


ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=60)
SETTINGS = st.tuples(st.sampled_from([2, 3, 5]), st.integers(1, 6), st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=300, deadline=None)
@given(ROWS, SETTINGS, st.data())
def test_a_rebuild_from_any_point_goes_on_as_uninterrupted(
    rows: list[Row], chosen: tuple[int, int, int, int], data: st.DataObject
) -> None:
    """The needed records suffice: whatever is read besides, the rebuilt cells and all later windows are the same."""
    length, stride, lateness, max_gap = chosen

    def make() -> Windower:
        return Windower(length=length, stride=stride, lateness_cells=lateness, max_gap_cells=max_gap, n_sensors=1)

    names = ["a", "b", "c"]
    ids = np.arange(3, dtype=np.int32)
    digest_at = data.draw(st.integers(1, len(rows)), "digest at")
    stop = data.draw(st.integers(digest_at, len(rows)), "restart at")
    living = make()
    stored = facts_of(living.push(readings(rows[:digest_at])).windows, names)
    needed, digest = living.needed_offsets().tolist(), living.cells_digest(ids)
    stored |= facts_of(living.push(readings(rows[digest_at:stop], digest_at)).windows, names)

    begin = data.draw(st.integers(0, min(needed)), "begin")
    rebuilt = make()
    last = {names.index(name): max(s for n, s in stored if n == name) + stride for name, _ in stored}
    rebuilt.resume(last)
    rebuilt.push(readings(rows[begin:digest_at], begin))
    assert rebuilt.cells_digest(ids) == digest
    rebuilt.push(readings(rows[digest_at:stop], digest_at))
    rest = [each.push(readings(rows[stop:], stop)) for each in (living, rebuilt)]
    assert facts_of(rest[0].windows, names) == facts_of(rest[1].windows, names)
    assert [each.late.tolist() for each in rest[:1]] == [each.late.tolist() for each in rest[1:]]
    assert rest[0].duplicate.tolist() == rest[1].duplicate.tolist()

    oracle = ExpectedShard(FleetRule("f", ("v",), 1, length, stride, lateness, max_gap))
    for offset, (asset, cell) in enumerate(rows):
        oracle.add(Reading(offset, "f", names[asset], cell, [1.0]))
    emitted = {*stored, *facts_of(rest[0].windows, names)}
    assert emitted == {(window.asset, window.start) for window in oracle.windows()}
