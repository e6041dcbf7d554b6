"""An asset with a single reading has a cell and no ring, and no result depends on it.

Windows are compared in test_window_oracle.py: most of its streams have such assets.
"""

from __future__ import annotations

import numpy as np
import pytest

from monitor.stream.window import Windower
from monitor.types import Readings

LENGTH = 64
RING = LENGTH + 1 + LENGTH // 2 + 1


def windower(max_gap: int = 8) -> Windower:
    return Windower(length=LENGTH, stride=1, lateness_cells=1, max_gap_cells=max_gap, n_sensors=2)


def readings(asset: list[int], cell: list[int], offset: list[int] | None = None) -> Readings:
    n = len(asset)
    values = np.array([[a + 1, c] for a, c in zip(asset, cell, strict=True)], np.float32)
    offsets = np.arange(n, dtype=np.int64) if offset is None else np.array(offset, np.int64)
    return Readings("f", np.array(asset, np.int32), np.array(cell, np.int64), offsets, values)


def n_rings(engine: Windower) -> int:
    return int((engine.rings.base > 0).sum())


def test_assets_with_one_reading_take_no_rings() -> None:
    engine = windower()
    for first in range(0, 2000, 100):
        engine.push(readings(list(range(first, first + 100)), [1000 + first] * 100))
    assert n_rings(engine) == 0
    assert len(engine.rings.first) < 2000 * 1.5 + RING


@pytest.mark.parametrize("second", [5, 6, 4, 5 + 3 * LENGTH])
def test_the_second_reading_moves_the_first_into_a_ring(second: int) -> None:
    engine = windower()
    engine.push(readings([0, 1], [5, 5]))
    engine.push(readings([1], [second], [2]))
    assert n_rings(engine) == 1
    held = engine.snapshot(np.array([1]))
    cells = held.cell[held.cell_asset == 1].tolist()
    assert sorted(cells) == sorted({5, second} if second < LENGTH else {second})


def test_a_block_goes_into_a_ring_at_once() -> None:
    engine = windower()
    engine.push(readings([0, 0, 1], [5, 6, 6]))
    assert engine.rings.base[0] > 0
    assert engine.rings.base[1] == 0


def test_a_cell_that_can_make_a_window_is_in_a_ring() -> None:
    engine = windower(max_gap=LENGTH // 2)
    emitted = engine.push(readings([0, 0], [1000, 1000 + 2 * LENGTH])).windows
    assert len(emitted) == 2  # its cell in the middle: 31 are missing before it and 32 after it, or the reverse
    assert (emitted.n_present == 1).all()
    assert n_rings(engine) == 1


def test_digest_and_rewind_do_not_depend_on_rings() -> None:
    living, again = windower(), windower()
    living.push(readings([0, 0], [5, 6]))
    for engine in (living, again):
        engine.push(readings([0], [501], [3]))
    assert (n_rings(living), n_rings(again)) == (1, 0)
    ids = np.array([7], np.int32)
    assert living.cells_digest(ids) == again.cells_digest(ids) != windower().cells_digest(ids)
    assert again.needed_offsets()[0] == living.needed_offsets()[0] == 3


def test_a_snapshot_restores_single_cells_without_rings() -> None:
    engine, restored = windower(), windower()
    engine.push(readings([0, 1, 1, 2], [5, 5, 6, 6]))
    restored.resume({})
    restored.restore(engine.snapshot(np.arange(3)))
    assert (restored.rings.base > 0).tolist()[:3] == (engine.rings.base > 0).tolist()[:3] == [False, True, False]
    for each in (engine, restored):
        each.push(readings([0, 2], [6, 7], [4, 5]))
    ids = np.array([7, 8, 9], np.int32)
    assert restored.cells_digest(ids) == engine.cells_digest(ids)
