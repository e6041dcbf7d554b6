"""Fast parser of single readings in records that one flat schema describes: all fields are read in columns.

Input: a group of records of one schema. Output: columns of the records that it accepts, and the rows of the others.
Invariant: a record is accepted only if its documents give the same row in `mapping.py`. The knowledge of the fields is
that of `readings.py`: each field of the schema must be asset, time, a sensor, or known as harmless. A schema with any
other field is left to `mapping.py`, whose accepted records teach the parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.decode.formats.avro_columns import Columns, Leaf, read_columns
from monitor.decode.mapping import KEY_PATH
from monitor.decode.names import is_identifier
from monitor.decode.readings import ANY, TEXT, ParsedFields, Plan, ReadingParser, may_name_asset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.decode.columns import DecodedColumns, RecordGroup
    from monitor.decode.formats import Layout
    from monitor.decode.schema import Router
    from monitor.decode.shapes import Path
    from monitor.types import Bool, Float32, Int64

_NUMBERS = frozenset(("long", "float", "double", "boolean"))


class _Roles(NamedTuple):
    """The use of the fields of a schema."""

    asset: Leaf | None
    """None = Kafka's key."""
    time: Leaf
    sensors: tuple[tuple[int, Leaf], ...]
    """Column and field."""
    null_only: tuple[Leaf, ...]
    """Numbers of which only nulls are known to be harmless."""
    texts: tuple[Leaf, ...]
    has_usual_asset: bool


class ColumnParser(ReadingParser):
    """Parser of the readings of one fleet that have one plan and one flat schema."""

    __slots__ = ("_layout", "_roles")

    def __init__(self, plan: Plan, layout: Layout) -> None:
        super().__init__(plan, layout.name)
        self._layout = layout
        self._roles: dict[tuple[str, ...], _Roles | None] = {}

    def forget(self) -> None:
        """Find the use of the fields again."""
        super().forget()
        self._roles.clear()

    def decode(self, group: RecordGroup, router: Router) -> tuple[DecodedColumns | None, Int64]:
        """Return the columns of the accepted records, and the rows [K] of the group that are left, rising."""
        self.seen, self.times = [], ()
        sensors = group.fleet.sensors or ()
        if sensors not in self._roles:
            self._roles = {sensors: self._find_roles(sensors)}
        roles = self._roles[sensors]
        if roles is None:
            return None, np.arange(len(group))
        columns = read_columns(self._layout.leaves, group.values, self._layout.n_skipped)
        is_good = columns.is_good
        for leaf in roles.null_only:
            is_good &= columns.is_null.get(leaf.path, False)
        times, ts_us, is_time = self._times(roles.time, columns, group)
        fields = ParsedFields(
            list(group.keys) if roles.asset is None else _written(roles.asset, columns),
            times,
            ts_us,
            is_good & is_time,
            _matrix(roles, columns, len(group), len(sensors)),
            [columns.of[leaf.path] for leaf in roles.texts] if group.fleet.is_learning else [],
            [(name, _is_present(path, columns).tolist()) for name, path in self._watched.items() if path in columns.of],
            roles.has_usual_asset,
        )
        return self.accept(group, router, fields)

    def _times(self, leaf: Leaf, columns: Columns, group: RecordGroup) -> tuple[Sequence[Any], Int64, Bool]:
        if leaf.kind == "time":
            return (), columns.of[leaf.path], _is_present(leaf.path, columns)
        times = _written(leaf, columns)
        return times, *group.mapping.times.parse_column_us(times)

    def _find_roles(self, sensors: tuple[str, ...]) -> _Roles | None:
        """Return the use of the fields. None = one of them is not known, or does not fit its use."""
        column_of = {self._paths[name]: c for c, name in enumerate(sensors) if name in self._paths}
        asset = time = None
        found: list[tuple[int, Leaf]] = []
        null_only: list[Leaf] = []
        texts: list[Leaf] = []
        others: list[Path] = []
        for leaf in self._layout.leaves:
            path, is_number = leaf.path, leaf.kind in _NUMBERS
            if path == self.plan.time:
                time = leaf
            elif path == self.plan.asset:
                asset = leaf
            elif path in column_of:
                if not is_number:
                    return None
                found.append((column_of[path], leaf))
            elif leaf.kind == "string" and self._cells.get(path) in sensors:
                return None
            else:
                others.append(path)
                kind = self._kinds.get(path)
                if leaf.kind == "string" and kind in (TEXT, ANY):
                    texts.append(leaf)
                elif is_number and kind == TEXT:
                    null_only.append(leaf)
                elif not (is_number and kind == ANY) and not (leaf.kind == "time" and self._is_harmless(path, ANY)):
                    return None
        has_asset = self.plan.asset == KEY_PATH or (asset is not None and asset.kind in ("string", "long"))
        if time is None or time.kind == "boolean" or not found or not has_asset:
            return None
        # As in readings.py: a nested field beside a sensor with an identifier's name may be the reading instead.
        if any(is_identifier(name) for name in sensors if name in self._paths) and any(len(p) > 1 for p in others):
            return None
        has_usual = self.plan.asset == KEY_PATH and any(may_name_asset(leaf.path) for leaf in self._layout.leaves)
        return _Roles(asset, time, tuple(found), tuple(null_only), tuple(texts), has_usual)


def _written(leaf: Leaf, columns: Columns) -> list[Any]:
    """Return a field as documents have it, None = null."""
    column = columns.of[leaf.path]
    if leaf.kind == "string":
        return column  # type: ignore[no-any-return]
    written: list[Any] = column.tolist()
    absent = columns.is_null.get(leaf.path)
    if absent is not None and absent.any():
        return [None if is_null else value for value, is_null in zip(written, absent.tolist(), strict=True)]
    return written


def _is_present(path: Path, columns: Columns) -> Bool:
    absent = columns.is_null.get(path)
    return np.ones(len(columns.is_good), np.bool_) if absent is None else ~absent


def _matrix(roles: _Roles, columns: Columns, n: int, n_sensors: int) -> Float32:
    values = np.full((n, n_sensors), np.nan, np.float32)
    for c, leaf in roles.sensors:
        column = columns.of[leaf.path]
        if leaf.kind == "long":
            column = column.astype(np.float64)
            if (absent := columns.is_null.get(leaf.path)) is not None:
                column[absent] = np.nan
        values[:, c] = column
    return values
