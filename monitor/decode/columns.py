"""What the ways of decoding hand to each other: columns of good readings, still named by where their record stood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.decode.schema import FleetSchema, Token
    from monitor.types import Bool, Float32, Int64


@dataclass(frozen=True, slots=True)
class Task:
    """M records of one batch that look alike and are taken to be one fleet's."""

    fleet: FleetSchema
    fleet_number: int
    at: Int64
    """[M], positions in the batch, rising."""
    values: Sequence[bytes]
    """[M]"""
    keys: Sequence[bytes | None]
    """[M]"""
    latest_us: Int64
    """[M], the last event time that is not too far in the future."""
    max_rows: int
    """Readings that one record may have."""

    def __len__(self) -> int:
        return len(self.values)

    def only(self, rows: Int64) -> Task:
        """The records at these places of the task."""
        picked = rows.tolist()
        return Task(
            self.fleet,
            self.fleet_number,
            self.at[rows],
            [self.values[i] for i in picked],
            [self.keys[i] for i in picked],
            self.latest_us[rows],
            self.max_rows,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Good readings of one fleet: N readings out of M records."""

    at: Int64
    """[M], positions in the batch, rising."""
    tokens: Sequence[Token]
    """[M], how each record spells its asset."""
    n_rows: Int64 | None
    """[M], readings per record, ≥ 1; None = one each."""
    cell: Int64
    """[N]"""
    values: Float32
    """[N, C]"""


def cells_of(ts_us: Int64, interval_us: int) -> Int64:
    """Grid cells: the nearest multiple of the interval, half way rounds up."""
    return (ts_us + interval_us // 2) // interval_us


def drop_empty_rows(cell: Int64, values: Float32) -> tuple[Int64, Float32, Bool]:
    """Leave out the readings without a single value: in a block they are gaps, not errors. Third: which were kept."""
    kept: Bool = np.any(~np.isnan(values), axis=1)
    return (cell, values, kept) if kept.all() else (cell[kept], values[kept], kept)
