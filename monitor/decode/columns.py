"""The data that decoder.py and the fast parsers exchange: records of one kind, and columns of their readings.

Input: parts of a batch. Output: columns which name their records by the position in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.decode.mapping import Mapping
    from monitor.decode.schema import FleetSchema, Token
    from monitor.types import Bool, Float32, Int32, Int64


@dataclass(frozen=True, slots=True)
class RecordGroup:
    """M records of one batch, all JSON or all MessagePack, presumably of one fleet."""

    fleet: FleetSchema
    fleet_number: int
    position: Int64
    """[M], in the batch, rising."""
    values: Sequence[Any]
    """[M], bytes, or documents of formats that have no fast parser."""
    keys: Sequence[bytes | None]
    """[M], Kafka's keys."""
    latest_us: Int64
    """[M], the last event time that is not too far in the future."""
    max_readings: int
    """Readings that one record may have."""
    mapping: Mapping
    """Of the fleet's fields."""

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: Int64) -> RecordGroup:
        """Return the records at these rows of the group."""
        picked = rows.tolist()
        return RecordGroup(
            self.fleet,
            self.fleet_number,
            self.position[rows],
            [self.values[i] for i in picked],
            [self.keys[i] for i in picked],
            self.latest_us[rows],
            self.max_readings,
            self.mapping,
        )


@dataclass(frozen=True, slots=True)
class DecodedColumns:
    """N accepted readings of one fleet, from M records."""

    position: Int64
    """[M], of the records in the batch, rising. A record with readings of several assets stands here once for each."""
    tokens: Sequence[Token]
    """[M], the assets as the records spell them."""
    n_readings: Int64 | None
    """[M], per record, ≥ 1. None = one each."""
    cell: Int64
    """[N]"""
    values: Float32
    """[N, C]"""


def cells_of(ts_us: Int64, interval_us: int) -> Int64:
    """Return the cells of the sampling grid: the nearest multiples of the interval, half an interval rounds up."""
    return (ts_us + interval_us // 2) // interval_us


def drop_empty_readings(cell: Int64, values: Float32) -> tuple[Int64, Float32, Bool]:
    """Leave out the readings without a single value: in a block they are gaps, not errors.

    The third result is a mask of the readings that were kept.
    """
    kept: Bool = np.any(~np.isnan(values), axis=1)
    return (cell, values, kept) if kept.all() else (cell[kept], values[kept], kept)


def first_of_asset_and_record(asset: Int32, offset: Int64) -> Int64:
    """Return the rows that begin the readings of an asset in a record."""
    begins = np.ones(len(asset), np.bool_)
    begins[1:] = (asset[1:] != asset[:-1]) | (offset[1:] != offset[:-1])
    return np.flatnonzero(begins)


def widened(values: Float32, n_sensors: int) -> Float32:
    """Add columns without values for sensors that were learnt later."""
    if values.shape[1] == n_sensors:
        return values
    missing = np.full((len(values), n_sensors - values.shape[1]), np.nan, np.float32)
    return np.concatenate((values, missing), axis=1)
