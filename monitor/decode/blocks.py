"""Fast parser of raw MessagePack blocks: their bytes are joined into one matrix, without a loop over the readings.

Input: a group of records. Output: columns of the records that it accepts, and the rows of the others. Invariant: a
record is accepted only if `document.py` accepts it, with the same readings. This parser knows the common form of a raw
block only: "start" and "interval", a list of sensor names, raw float32 "values", and at most an asset.
"""

from __future__ import annotations

import itertools
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from monitor.decode.columns import DecodedColumns, RecordGroup, cells_of, drop_empty_readings
from monitor.decode.names import ASSET_FIELDS
from monitor.decode.payload import PARSE_ERRORS
from monitor.decode.readings import first_present, is_of_fleet, parse_each
from monitor.decode.timestamps import MAX_US, parse_column_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.decode.schema import Router, Token
    from monitor.types import Bool, Float32, Int64

_MAX_ORDERS: Final = 256
"""Orders of sensors remembered per fleet."""
_N_FIELDS: Final = 4
"""Fields of a block, besides its asset."""


class _Block(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    sensors: msgspec.Raw
    values: bytes
    start: int | float | str
    interval: int | float
    asset: str | int | None = None
    asset_id: str | int | None = None


class _SensorOrder(NamedTuple):
    """The sensors of a block, in its order."""

    n_sensors: int
    columns: list[int] | None
    """Column of each among the fleet's sensors. None = the fleet's own order."""


class _Grid(NamedTuple):
    """The readings of each block [N], by its times and its number of bytes."""

    start_us: Int64
    step_us: NDArray[np.float64]
    n_readings: Int64


class BlockParser:
    """Parser of the raw blocks of one fleet. Remembers the orders of sensors that it met."""

    __slots__ = ("_orders", "_sensors")

    def __init__(self) -> None:
        self._sensors: tuple[str, ...] = ()
        self._orders: dict[bytes, _SensorOrder] = {}

    def decode(self, group: RecordGroup, router: Router) -> tuple[DecodedColumns | None, Int64]:
        """Return the columns of the accepted blocks, and the rows [K] of the group that are left, rising."""
        self._forget_orders(group.fleet.sensors or ())
        blocks, failed = parse_each(_parse_block, group.values)
        if not blocks:
            return None, np.arange(len(group))
        rows = np.arange(len(group))
        if failed:
            rows = np.delete(rows, failed)
            group = group.select(rows)

        orders = self._orders_of(blocks)
        tokens = first_present(blocks, ASSET_FIELDS, group.keys)
        grid, is_good = _read_grid(blocks, orders, group)
        is_good &= _has_no_other_entries(group.values, tokens)
        is_good &= is_of_fleet(tokens, router, group.fleet_number)
        keep = np.flatnonzero(is_good)
        if len(keep):
            cell, values, n_readings = self._readings(blocks, orders, grid, keep, group.fleet.interval_us)
            is_good[keep[n_readings == 0]] = False
            keep, n_readings = keep[n_readings > 0], n_readings[n_readings > 0]
        left = np.array(sorted([*failed, *rows[~is_good].tolist()]), np.int64)
        if not len(keep):
            return None, left
        if len(keep) < len(tokens):
            tokens = [tokens[i] for i in keep.tolist()]
        return DecodedColumns(group.position[keep], tokens, n_readings, cell, values), left

    def _readings(
        self,
        blocks: Sequence[_Block],
        orders: Sequence[_SensorOrder | None],
        grid: _Grid,
        keep: Int64,
        interval_us: int,
    ) -> tuple[Int64, Float32, Int64]:
        """Return cells [N] and values [N, C] of the blocks at `keep`, and the number of readings of each [M].

        A block with an infinite value, or without any value, has 0 readings here: `document.py` finds the reason.
        """
        raw = list(map(_values_of, blocks)) if len(keep) == len(blocks) else [blocks[i].values for i in keep.tolist()]
        values = self._join(raw, orders if len(orders) == 1 else [orders[i] for i in keep.tolist()])
        n_readings = grid.n_readings[keep]
        cell = _cells(grid.start_us[keep], grid.step_us[keep], n_readings, interval_us)
        if np.isfinite(values).all():
            return cell, values, n_readings
        block = np.repeat(np.arange(len(keep)), n_readings)
        has_infinity = np.bincount(block, np.isinf(values).any(axis=1), len(keep)) > 0
        is_usable = ~has_infinity[block]
        cell, values, kept = drop_empty_readings(cell[is_usable], values[is_usable])
        return cell, values, np.bincount(block[is_usable][kept], minlength=len(keep))

    # ------------------------------------------------------------ the order of the sensors

    def _forget_orders(self, sensors: tuple[str, ...]) -> None:
        """Forget the orders when the fleet's sensors have changed, or when there are too many."""
        if sensors != self._sensors or len(self._orders) > _MAX_ORDERS:
            self._sensors = sensors
            self._orders.clear()

    def _orders_of(self, blocks: Sequence[_Block]) -> list[_SensorOrder | None]:
        """Return the order of each block, or a single one for all of them. None = not usable."""
        raws = list(map(bytes, map(_sensors_of, blocks)))
        orders = {raw: self._order(raw) for raw in set(raws)}
        return list(orders.values()) if len(orders) == 1 else [orders[raw] for raw in raws]

    def _order(self, raw: bytes) -> _SensorOrder | None:
        if raw not in self._orders:
            try:
                names = _parse_names(raw)
                is_usable = bool(names) and len(set(names)) == len(names) and set(names) <= set(self._sensors)
            except PARSE_ERRORS:
                is_usable = False
            if not is_usable:  # not remembered: a producer may invent lists of names without end
                return None
            columns = None if tuple(names) == self._sensors else [self._sensors.index(name) for name in names]
            self._orders[raw] = _SensorOrder(len(names), columns)
        return self._orders[raw]

    # ------------------------------------------------------------ the values

    def _join(self, raw: Sequence[bytes], orders: Sequence[_SensorOrder | None]) -> Float32:
        """Return the values [N, C] of all blocks. Neighbours of one order are joined as bytes."""
        if len(orders) == 1 or len(set(map(id, orders))) == 1:
            return self._join_alike(raw, orders[0])
        runs = itertools.groupby(zip(orders, raw, strict=True), key=lambda pair: id(pair[0]))
        blocks = [list(run) for _, run in runs]
        return np.concatenate([self._join_alike([values for _, values in run], run[0][0]) for run in blocks])

    def _join_alike(self, raw: Sequence[bytes], order: _SensorOrder | None) -> Float32:
        n_sensors = order.n_sensors if order else 1
        part: Float32 = np.frombuffer(b"".join(raw), "<f4").reshape(-1, n_sensors).astype(np.float32, copy=False)
        if order is None or order.columns is None:
            return part
        values = np.full((len(part), len(self._sensors)), np.nan, np.float32)
        values[:, order.columns] = part
        return values


def _read_grid(
    blocks: Sequence[_Block], orders: Sequence[_SensorOrder | None], group: RecordGroup
) -> tuple[_Grid, Bool]:
    """Return the grid of the blocks, and a mask [N] of those within the limits of times and readings."""
    row_bytes = np.array([4 * order.n_sensors if order else 0 for order in orders], np.int64)
    n_bytes = np.fromiter(map(len, map(_values_of, blocks)), np.int64, len(blocks))
    n_readings = n_bytes // np.maximum(row_bytes, 1)
    start_us, is_good = parse_column_us(list(map(_start_of, blocks)))
    step_us = np.fromiter(map(_interval_of, blocks), np.float64, len(blocks)) * 1e6
    is_good &= (row_bytes > 0) & (n_readings > 0) & (n_readings * row_bytes == n_bytes)
    is_good &= (step_us > 0) & (step_us < 1e18)
    duration_us = np.rint(np.where(is_good, (n_readings - 1) * step_us, 0.0).clip(max=MAX_US)).astype(np.int64)
    is_good &= start_us + duration_us <= np.minimum(group.latest_us, MAX_US)
    is_good &= n_readings <= group.max_readings
    return _Grid(start_us, step_us, n_readings), is_good


def _has_no_other_entries(values: Sequence[bytes], tokens: Sequence[Token]) -> Bool:
    """Return True for each map [N] with just the entries of a block, by its first byte.

    Of a "sensors" that stands twice, the struct keeps the last as raw bytes. It does not check the first.
    """
    heads = np.fromiter(map(itemgetter(0), values), np.uint8, len(values))
    is_named = np.array([type(token) is not bytes for token in tokens])  # bytes: Kafka's key, no field of the block
    has_no_others: Bool = heads == 0x80 + _N_FIELDS + is_named
    return has_no_others


def _cells(start_us: Int64, step_us: NDArray[np.float64], n_readings: Int64, interval_us: int) -> Int64:
    """Return the cells [N] of all readings of all blocks."""
    if (step_us == interval_us).all():  # reading i lies exactly i cells after reading 0
        first, step = cells_of(start_us, interval_us), None
    else:
        first, step = start_us, step_us
    if (n_readings == n_readings[0]).all():
        row = np.arange(n_readings[0])
        offset = row[None, :] if step is None else np.rint(row[None, :] * step[:, None]).astype(np.int64)
        cell = (first[:, None] + offset).ravel()
    else:
        row = np.arange(n_readings.sum()) - np.repeat(np.cumsum(n_readings) - n_readings, n_readings)
        offset = row if step is None else np.rint(row * np.repeat(step, n_readings)).astype(np.int64)
        cell = np.repeat(first, n_readings) + offset
    return cell if step is None else cells_of(cell, interval_us)


_parse_block = msgspec.msgpack.Decoder(_Block).decode
_parse_names = msgspec.msgpack.Decoder(list[str]).decode
_sensors_of, _values_of = attrgetter("sensors"), attrgetter("values")
_start_of, _interval_of = attrgetter("start"), attrgetter("interval")
