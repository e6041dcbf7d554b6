"""Storage of a shard's cells: a ring for every asset with several readings, a single cell for an asset with one.

Input: the cells to write, by asset (`window.py` chooses them). Output: *slots*, row numbers of the columns `values`,
`first`, `last` and `is_full`. Invariant: which cells are stored does not depend on where they are stored. A producer
that invents asset names gets one cell for each name and no ring, a hundredth of the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from monitor.types import Float32, Int64

NO_OFFSET = -1
_CELLS_AT_ONCE = 1 << 16
"""Slots examined together. They fit the cache, so a pass over ten thousand assets takes little memory."""


class Rings:
    """The cells of the assets of one shard.

    Invariants: a ring holds an asset's cells `(newest - size, newest]`, cell c in slot `base + c % size`. Each is
    empty (NaN, no offset) or filled. The first ring stays empty and stands for every asset without one (`base` = 0).
    An asset without a ring has at most one cell, its newest, in slot `single` (0 = none).
    Memory: `4·C + 17` bytes a slot, in a ring or single. Slots are never freed.
    """

    def __init__(self, size: int, n_sensors: int, *, takes_single: bool) -> None:
        """`takes_single`: whether an asset with a single cell needs no ring yet."""
        self.size = size
        self.n_sensors = n_sensors
        self.takes_single = takes_single
        self.values = np.empty((0, n_sensors), dtype=np.float32)
        """[slots, C]"""
        self.first = np.empty(0, dtype=np.int64)
        """[slots], smallest offset that filled the cell."""
        self.last = np.empty(0, dtype=np.int64)
        """[slots], largest."""
        self.is_full = np.empty(0, dtype=bool)
        """[slots], whether every sensor has a value."""
        self.base = np.empty(0, dtype=np.int64)
        """[A], first slot of the asset's ring."""
        self.single = np.empty(0, dtype=np.int64)
        """[A], slot of the asset's only cell while it has no ring."""
        self._n_slots = 0
        self._allocate(1, of=size)

    def reserve(self, n_assets: int) -> None:
        """Grow to n assets. The new ones have no cell."""
        for name in ("base", "single"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old, np.zeros(n_assets - len(old), dtype=np.int64))))

    def place(self, asset: Int64, cell: Int64, newest: Int64) -> Int64:
        """Return [n], the slots of these cells, allocated where missing. Rows sorted by asset, no two for one cell.

        `newest`: [A], newest cell of every asset before these cells.
        """
        base = self.base[asset]
        if base.all():
            return np.asarray(base + cell % self.size)
        begins = np.concatenate(([True], asset[1:] != asset[:-1]))
        is_only = begins & np.concatenate((begins[1:], [True])) & self.takes_single
        stays = (base == 0) & is_only & (self.single[asset] == 0)
        self.single[asset[stays]] = self._allocate(int(stays.sum()), of=1)
        moves = asset[(base == 0) & begins & ~stays]
        self.base[moves] = self._allocate(len(moves), of=self.size)
        moves = moves[self.single[moves] > 0]
        old, new = self.single[moves], self.base[moves] + newest[moves] % self.size
        for column in (self.values, self.first, self.last, self.is_full):
            column[new] = column[old]
        return np.where(stays, self.single[asset], self.base[asset] + cell % self.size)

    def write(self, slot: Int64, values: Float32, offset: Int64) -> None:
        """Fill empty cells. `offset`: [n], of the records."""
        self.values[slot] = values
        self.first[slot] = offset
        self.last[slot] = offset
        self.is_full[slot] = np.isfinite(values).all(axis=1)

    def clear(self, slot: Int64 | slice) -> None:
        """Make cells empty."""
        self.values[slot] = np.nan
        self.first[slot] = NO_OFFSET
        self.last[slot] = NO_OFFSET
        self.is_full[slot] = False

    def filled(self, assets: Int64, newest: Int64) -> Iterator[tuple[Int64, Int64, Int64]]:
        """Yield (slot, asset, cell) of the filled cells of these assets, in parts. `newest`: [A], of every asset."""
        has_ring = self.base[assets] > 0
        alone = assets[~has_ring & (self.single[assets] > 0)]
        yield self.single[alone], alone, newest[alone]
        assets = assets[has_ring]
        at_once = max(1, _CELLS_AT_ONCE // self.size)
        in_ring = np.arange(self.size, dtype=np.int64)
        for begin in range(0, len(assets), at_once):
            asset = assets[begin : begin + at_once]
            slot = self.base[asset][:, None] + in_ring  # (n, size)
            row, column = np.nonzero(self.first[slot] != NO_OFFSET)
            asset = asset[row]
            # From the newest backwards, each slot holds the cell that was written there last.
            yield slot[row, column], asset, newest[asset] - (newest[asset] - column) % self.size

    def _allocate(self, n: int, of: int) -> Int64:
        """Return [n], first slots of n new runs of empty ones. Columns grow by a quarter at least: amortised O(1)."""
        begin, self._n_slots = self._n_slots, self._n_slots + n * of
        if self._n_slots > len(self.first):
            size = max(self._n_slots, len(self.first) * 5 // 4)
            # One column after the other, so that only one is held twice. Unused memory is not touched.
            for name in ("values", "first", "last", "is_full"):
                old: NDArray[Any] = getattr(self, name)
                new = np.empty((size, *old.shape[1:]), dtype=old.dtype)
                new[:begin] = old[:begin]
                setattr(self, name, new)
        self.clear(slice(begin, self._n_slots))
        return np.arange(begin, self._n_slots, of, dtype=np.int64)
