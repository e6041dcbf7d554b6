"""Columns of the parsers → one fleet's `Readings` of a batch.

Input: the columns that the parsers made, in any order. Output: readings in offset order, with the numbers of their
assets. Invariant: new assets are numbered in offset order, whichever parser read them.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.decode.columns import DecodedColumns, widened
from monitor.types import Readings

if TYPE_CHECKING:
    from monitor.decode.schema import AssetIndex, FleetSchema
    from monitor.types import Int32, RecordBatch


def join(batch: RecordBatch, fleet: FleetSchema, index: AssetIndex, parts: list[DecodedColumns]) -> Readings:
    """Return one fleet's readings in offset order, with the numbers of their assets."""
    n_sensors = len(fleet.sensors or ())
    if not parts:
        none = np.empty(0, np.int64)
        return Readings(fleet.name, none.astype(np.int32), none, none, np.empty((0, n_sensors), np.float32))
    numbers = _number_assets(index, parts)
    asset = [_per_reading(of_record, part) for of_record, part in zip(numbers, parts, strict=True)]
    position = [_per_reading(part.position, part) for part in parts]
    if len(parts) == 1:
        values = widened(parts[0].values, n_sensors)
        return Readings(fleet.name, asset[0], parts[0].cell, batch.offsets[position[0]], values)
    offset = batch.offsets[np.concatenate(position)]
    readings = Readings(
        fleet.name,
        np.concatenate(asset),
        np.concatenate([part.cell for part in parts]),
        offset,
        np.concatenate([widened(part.values, n_sensors) for part in parts]),
    )
    if (np.diff(offset) >= 0).all():
        return readings
    order = np.argsort(offset, kind="stable")
    return Readings(fleet.name, readings.asset[order], readings.cell[order], offset[order], readings.values[order])


def _number_assets(index: AssetIndex, parts: list[DecodedColumns]) -> list[Int32]:
    """Return, per part, the asset of each record [M]. New assets are numbered in offset order, across the parts."""
    try:
        return [index.numbers(part.tokens) for part in parts]
    except KeyError:
        tokens = ((at, t) for part in parts for at, t in zip(part.position.tolist(), part.tokens, strict=True))
        for _, token in sorted((pair for pair in tokens if pair[1] not in index), key=itemgetter(0)):
            index.add(token)
        return [index.numbers(part.tokens) for part in parts]


def _per_reading(of_record: Any, part: DecodedColumns) -> Any:
    """Turn a column with an entry per record into one with an entry per reading."""
    return of_record if part.n_readings is None else np.repeat(of_record, part.n_readings)
