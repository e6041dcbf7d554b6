"""Where a lane's cells are kept: a ring for every asset that goes on sending, one cell for a name heard only once.

Enters: cells to write, by asset (`window.py` says which). Leaves: *slots*, rows of the columns `values`, `first`,
`last` and `is_full`. The law: which cells are held does not depend on where they are. A producer that invents names
gets a cell for each of them and no ring: that takes a hundredth of the memory.
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
"""Slots looked through together: what fits the cache, so that a look at ten thousand assets takes little memory."""


class Rings:
    """The cells of one lane's assets.

    Invariants: a ring holds an asset's cells `(newest - size, newest]`, cell c in slot `base + c % size`, each either
    empty (NaN, no offset) or filled. The first ring stays empty: it is that of every asset that has none (`base` = 0).
    An asset without a ring has at most one cell, its newest, in slot `single` (0 = not even that).
    Memory: `4·C + 17` bytes a slot, whether in a ring or single; slots are never given back.
    """

    def __init__(self, size: int, n_sensors: int, *, takes_single: bool) -> None:
        """`takes_single`: whether an asset may wait for its second cell without a ring."""
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
        """[slots], whether every sensor is there."""
        self.base = np.empty(0, dtype=np.int64)
        """[A], first slot of the asset's ring."""
        self.single = np.empty(0, dtype=np.int64)
        """[A], slot of its only cell, while it has no ring."""
        self._n_slots = 0
        self._take(1, of=size)

    def make_room(self, n_assets: int) -> None:
        """Let there be n assets; the new ones have no cell."""
        for name in ("base", "single"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old, np.zeros(n_assets - len(old), dtype=np.int64))))

    def place(self, asset: Int64, cell: Int64, newest: Int64) -> Int64:
        """[n], the slots of these cells, made where there are none; rows sorted by asset, no two for one cell.

        `newest`: [A], of every asset, as it is before these cells.
        """
        base = self.base[asset]
        if base.all():
            return np.asarray(base + cell % self.size)
        begins = np.concatenate(([True], asset[1:] != asset[:-1]))
        is_only = begins & np.concatenate((begins[1:], [True])) & self.takes_single
        stays = (base == 0) & is_only & (self.single[asset] == 0)
        self.single[asset[stays]] = self._take(int(stays.sum()), of=1)
        moves = asset[(base == 0) & begins & ~stays]
        self.base[moves] = self._take(len(moves), of=self.size)
        moves = moves[self.single[moves] > 0]
        old, new = self.single[moves], self.base[moves] + newest[moves] % self.size
        for column in (self.values, self.first, self.last, self.is_full):
            column[new] = column[old]
        return np.where(stays, self.single[asset], self.base[asset] + cell % self.size)

    def write(self, slot: Int64, values: Float32, offset: Int64) -> None:
        """Fill empty cells."""
        self.values[slot] = values
        self.first[slot] = offset
        self.last[slot] = offset
        self.is_full[slot] = np.isfinite(values).all(axis=1)

    def clear(self, slot: Int64 | slice) -> None:
        """Empty cells."""
        self.values[slot] = np.nan
        self.first[slot] = NO_OFFSET
        self.last[slot] = NO_OFFSET
        self.is_full[slot] = False

    def filled(self, assets: Int64, newest: Int64) -> Iterator[tuple[Int64, Int64, Int64]]:
        """(slot, asset, cell) of the cells that these assets hold, some at a time. `newest`: [A], of every asset."""
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
            # From the newest backwards, each slot holds the cell that was there last.
            yield slot[row, column], asset, newest[asset] - (newest[asset] - column) % self.size

    def _take(self, n: int, of: int) -> Int64:
        """[n], first slots of n new runs of empty ones. Room grows by a quarter at least: amortised constant time."""
        begin, self._n_slots = self._n_slots, self._n_slots + n * of
        if self._n_slots > len(self.first):
            room = max(self._n_slots, len(self.first) * 5 // 4)
            # One column after the other: the old one goes before the next comes. What is not used is not touched.
            for name in ("values", "first", "last", "is_full"):
                old: NDArray[Any] = getattr(self, name)
                new = np.empty((room, *old.shape[1:]), dtype=old.dtype)
                new[:begin] = old[:begin]
                setattr(self, name, new)
        self.clear(slice(begin, self._n_slots))
        return np.arange(begin, self._n_slots, of, dtype=np.int64)
