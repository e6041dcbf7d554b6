"""Raw MessagePack blocks → columns: the bytes of many blocks are joined and become one matrix, with no loop in Python.

Takes the usual block only: "start" and "interval", a list of sensor names, raw float32 "values". As with
`readings.py`, the law is: taken only if `document.py` would take it, with the same readings; the rest is left to it.
"""

from __future__ import annotations

import itertools
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from monitor.decode.columns import Piece, Task, cells_of, drop_empty_rows
from monitor.decode.document import ASSET_FIELDS
from monitor.decode.payload import UNREADABLE
from monitor.decode.readings import decode_each, first_given
from monitor.decode.timestamps import MAX_US, column_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.decode.schema import Router
    from monitor.types import Float32, Int64

_MAX_LAYOUTS: Final = 256
"""Orders of sensors remembered per fleet."""
_N_FIELDS: Final = 4
"""Of a block, beside its asset."""


class _Block(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    sensors: msgspec.Raw
    values: bytes
    start: int | float | str
    interval: int | float
    asset: str | int | None = None
    asset_id: str | int | None = None


class _Layout:
    """Where the columns of a block go."""

    __slots__ = ("columns", "n_sensors")

    def __init__(self, names: list[str], sensors: tuple[str, ...]) -> None:
        self.n_sensors = len(names)
        self.columns = None if tuple(names) == sensors else [sensors.index(name) for name in names]
        """None = the fleet's own order."""


class BlockShape:
    """Raw blocks of one fleet."""

    __slots__ = ("_layouts", "_sensors")

    def __init__(self) -> None:
        self._sensors: tuple[str, ...] = ()
        self._layouts: dict[bytes, _Layout] = {}

    def decode(self, task: Task, router: Router) -> tuple[Piece | None, Int64]:
        """Columns of the blocks that fit, and the places in the task of those that do not."""
        self._know(task.fleet.sensors or ())
        good, bad = decode_each(_decode, task.values)
        if not good:
            return None, np.arange(len(task))
        places = np.arange(len(task))
        if bad:
            places = np.delete(places, bad)
            task = task.only(places)

        layouts = self._layouts_of(good)
        row_bytes = np.array([4 * layout.n_sensors if layout else 0 for layout in layouts], np.int64)
        n_bytes = np.fromiter(map(len, map(_values_of, good)), np.int64, len(good))
        n_rows = n_bytes // np.maximum(row_bytes, 1)
        start_us, ok = column_us(list(map(_start_of, good)))
        step_us = np.fromiter(map(_interval_of, good), np.float64, len(good)) * 1e6
        ok &= (row_bytes > 0) & (n_rows > 0) & (n_rows * row_bytes == n_bytes) & (step_us > 0) & (step_us < 1e18)
        last_us = start_us + np.rint(np.where(ok, (n_rows - 1) * step_us, 0.0).clip(max=MAX_US)).astype(np.int64)
        ok &= last_us <= np.minimum(task.latest_us, MAX_US)
        ok &= n_rows <= task.max_rows
        tokens = first_given(good, ASSET_FIELDS, task.keys)
        # `sensors` twice: the list that the struct dropped was never read, and may be no text. The head tells.
        heads = np.fromiter(map(itemgetter(0), task.values), np.uint8, len(task))
        ok &= heads == 0x80 + _N_FIELDS + np.array([type(token) is not bytes for token in tokens])
        if strangers := router.strangers(set(tokens), task.fleet_number):
            ok &= np.fromiter((token not in strangers for token in tokens), np.bool_, len(tokens))

        keep = np.flatnonzero(ok)
        if not len(keep):
            return None, np.arange(len(places) + len(bad))
        raw = list(map(_values_of, good)) if len(keep) == len(good) else [good[i].values for i in keep.tolist()]
        values = self._join(raw, layouts if len(layouts) == 1 else [layouts[i] for i in keep.tolist()])
        rows = n_rows[keep]
        cell = _block_cells(start_us[keep], step_us[keep], rows, task.fleet.interval_us)
        if not np.isfinite(values).all():
            of_block = np.repeat(np.arange(len(keep)), rows)
            is_spoilt = np.bincount(of_block, np.isinf(values).any(axis=1), len(keep)) > 0
            cell, values = cell[~is_spoilt[of_block]], values[~is_spoilt[of_block]]
            of_block = of_block[~is_spoilt[of_block]]
            cell, values, kept = drop_empty_rows(cell, values)
            rows = np.bincount(of_block[kept], minlength=len(keep))
            ok[keep[rows == 0]] = False
            keep, rows = keep[rows > 0], rows[rows > 0]
        left = np.array(sorted([*bad, *places[~ok].tolist()]), np.int64)
        if not len(keep):
            return None, left
        if len(keep) < len(tokens):
            tokens = [tokens[i] for i in keep.tolist()]
        return Piece(task.at[keep], tokens, rows, cell, values), left

    def _know(self, sensors: tuple[str, ...]) -> None:
        if sensors != self._sensors or len(self._layouts) > _MAX_LAYOUTS:
            self._sensors = sensors
            self._layouts.clear()

    def _layouts_of(self, good: Sequence[_Block]) -> list[_Layout | None]:
        """The layout of each block, or a single one where they all share it."""
        raws = list(map(bytes, map(_sensors_of, good)))
        kinds = {raw: self._layout(raw) for raw in set(raws)}
        return list(kinds.values()) if len(kinds) == 1 else [kinds[raw] for raw in raws]

    def _layout(self, raw: bytes) -> _Layout | None:
        if raw not in self._layouts:
            try:
                names = _names.decode(raw)
                usable = bool(names) and len(set(names)) == len(names) and set(names) <= set(self._sensors)
            except UNREADABLE:
                usable = False
            if not usable:  # not remembered: a producer may invent lists of names without end
                return None
            self._layouts[raw] = _Layout(names, self._sensors)
        return self._layouts[raw]

    def _join(self, raw: Sequence[bytes], layouts: Sequence[_Layout | None]) -> Float32:
        """The values [N, C] of all blocks, one below the other; neighbours of one layout are joined as bytes."""
        if len(layouts) == 1 or len(set(map(id, layouts))) == 1:
            return self._join_alike(raw, layouts[0])
        runs = itertools.groupby(zip(layouts, raw, strict=True), key=lambda pair: id(pair[0]))
        blocks = [list(run) for _, run in runs]
        return np.concatenate([self._join_alike([values for _, values in run], run[0][0]) for run in blocks])

    def _join_alike(self, raw: Sequence[bytes], layout: _Layout | None) -> Float32:
        n_sensors = layout.n_sensors if layout else 1
        part: Float32 = np.frombuffer(b"".join(raw), "<f4").reshape(-1, n_sensors).astype(np.float32, copy=False)
        if layout is None or layout.columns is None:
            return part
        values = np.full((len(part), len(self._sensors)), np.nan, np.float32)
        values[:, layout.columns] = part
        return values


def _block_cells(
    start_us: Int64, step_us: np.ndarray[Any, np.dtype[np.float64]], rows: Int64, interval_us: int
) -> Int64:
    """Grid cells [N] of all rows of all blocks."""
    if (step_us == interval_us).all():  # row i lies exactly i cells after row 0
        first, step = cells_of(start_us, interval_us), None
    else:
        first, step = start_us, step_us
    if (rows == rows[0]).all():
        row = np.arange(rows[0])
        late = row[None, :] if step is None else np.rint(row[None, :] * step[:, None]).astype(np.int64)
        cell = (first[:, None] + late).ravel()
    else:
        row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        late = row if step is None else np.rint(row * np.repeat(step, rows)).astype(np.int64)
        cell = np.repeat(first, rows) + late
    return cell if step is None else cells_of(cell, interval_us)


_decode = msgspec.msgpack.Decoder(_Block).decode
_names = msgspec.msgpack.Decoder(list[str])
_sensors_of, _values_of = attrgetter("sensors"), attrgetter("values")
_start_of, _interval_of = attrgetter("start"), attrgetter("interval")
