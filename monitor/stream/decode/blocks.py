"""Raw MessagePack blocks → columns: the bytes of many blocks are joined and become one matrix, with no loop in Python.

Takes the usual block only: "start" and "interval", a list of sensor names, raw float32 "values". As with
`readings.py`, the law is: taken only if `document.py` would take it, with the same readings; the rest is left to it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from monitor.stream.decode.columns import Piece, Task, cells_of, drop_empty_rows
from monitor.stream.decode.document import ASSET_FIELDS, UNREADABLE
from monitor.stream.decode.readings import _first_given, decode_each
from monitor.stream.decode.times import MAX_US, column_us

if TYPE_CHECKING:
    from monitor.stream.decode.schema import Router
    from monitor.types import Float32, Int64

_MAX_LAYOUTS: Final = 256
"""Orders of sensors remembered per fleet."""


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
        self._layouts: dict[bytes, _Layout | None] = {}

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

        layouts = [self._layout(bytes(block.sensors)) for block in good]
        row_bytes = np.array([4 * layout.n_sensors if layout else 0 for layout in layouts], np.int64)
        n_bytes = np.fromiter(map(len, map(_values_of, good)), np.int64, len(good))
        n_rows = n_bytes // np.maximum(row_bytes, 1)
        start_us, ok = column_us(list(map(_start_of, good)))
        step_us = np.fromiter(map(_interval_of, good), np.float64, len(good)) * 1e6
        ok &= (row_bytes > 0) & (n_rows > 0) & (n_rows * row_bytes == n_bytes) & (step_us > 0) & (step_us < 1e18)
        last_us = start_us + np.rint(np.where(ok, (n_rows - 1) * step_us, 0.0).clip(max=MAX_US)).astype(np.int64)
        ok &= last_us <= np.minimum(task.latest_us, MAX_US)
        tokens = _first_given(good, ASSET_FIELDS, task.keys)
        if strangers := router.strangers(set(tokens), task.fleet_number):
            ok &= np.fromiter((token not in strangers for token in tokens), np.bool_, len(tokens))

        keep = np.flatnonzero(ok)
        matrices = self._matrices([(good[i].values, layouts[i]) for i in keep.tolist()])
        if len(keep) and np.isinf(matrices).any():
            of_block = np.repeat(np.arange(len(keep)), n_rows[keep])
            spoilt = np.unique(of_block[np.isinf(matrices).any(axis=1)])
            matrices = matrices[~np.isin(of_block, spoilt)]
            ok[keep[spoilt]] = False
            keep = np.delete(keep, spoilt)
        if not len(keep):
            return None, np.array(sorted([*bad, *places.tolist()]), np.int64)

        rows = n_rows[keep]
        cell = _block_cells(start_us[keep], step_us[keep], rows, task.fleet.interval_us)
        if not np.isfinite(matrices).all():
            of_block = np.repeat(np.arange(len(keep)), rows)
            cell, matrices, kept = drop_empty_rows(cell, matrices)
            rows = np.bincount(of_block[kept], minlength=len(keep))
            ok[keep[rows == 0]] = False
            keep, rows = keep[rows > 0], rows[rows > 0]
        bad += places[~ok].tolist()
        piece = Piece(task.at[keep], [tokens[i] for i in keep.tolist()], rows, cell, matrices)
        return piece if len(keep) else None, np.array(sorted(bad), np.int64)

    def _know(self, sensors: tuple[str, ...]) -> None:
        if sensors != self._sensors or len(self._layouts) > _MAX_LAYOUTS:
            self._sensors = sensors
            self._layouts.clear()

    def _layout(self, raw: bytes) -> _Layout | None:
        if raw not in self._layouts:
            try:
                names = _names.decode(raw)
                usable = bool(names) and len(set(names)) == len(names) and set(names) <= set(self._sensors)
            except UNREADABLE:
                usable = False
            self._layouts[raw] = _Layout(names, self._sensors) if usable else None
        return self._layouts[raw]

    def _matrices(self, blocks: list[tuple[bytes, _Layout | None]]) -> Float32:
        """The values [N, C] of all blocks, one below the other; neighbours of one layout are joined as bytes."""
        parts: list[Float32] = []
        begin = 0
        for end in range(1, len(blocks) + 1):
            layout = blocks[begin][1]
            if layout is None or (end < len(blocks) and blocks[end][1] is layout):
                continue
            raw = b"".join([values for values, _ in blocks[begin:end]])
            part = np.frombuffer(raw, "<f4").reshape(-1, layout.n_sensors).astype(np.float32, copy=False)
            if layout.columns is not None:
                wide = np.full((len(part), len(self._sensors)), np.nan, np.float32)
                wide[:, layout.columns] = part
                part = wide
            parts.append(part)
            begin = end
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, len(self._sensors)), np.float32)


def _block_cells(start_us: Int64, step_us: np.ndarray[Any, np.dtype[np.float64]], rows: Int64, interval_us: int) -> Int64:
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
_values_of, _start_of, _interval_of = attrgetter("values"), attrgetter("start"), attrgetter("interval")
