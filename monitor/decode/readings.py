"""Fast parser of single readings, wide or flat, in JSON or MessagePack: about a microsecond each.

One msgspec struct is made per list of sensors, so that a record goes from bytes to floats without a dict.

Input: a group of records. Output: columns of the records that it accepts, and the rows of the others. Invariant: a
record is accepted only if `document.py` accepts it, with the same values. Everything unusual (another layout, an
unknown name, a time in the future, a bad value) is left to `document.py`.

A struct does not check the fields that it skips, so it must know all fields by name. Extra fields beside the sensors
are learnt from accepted records: after the first one with `"site": "north"`, such records are fast.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from monitor.decode.columns import DecodedColumns, RecordGroup, cells_of
from monitor.decode.document import ASSET_FIELDS, RESERVED, TIME_FIELDS, Document, Layout
from monitor.decode.payload import MAX_FIELDS, PARSE_ERRORS
from monitor.decode.timestamps import parse_column_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from monitor.decode.schema import Router, Token
    from monitor.types import Bool, Float32, Int64

GIVE_UP_AFTER: Final = 32
"""Failures in a row, without a success before, after which a parser does not suit the records."""
_MAX_EXTRA_FIELDS = 64
"""Extra fields that are learnt. A producer may invent names without end."""
_MAX_BYTES_WITH_CONTAINERS = 4_000
"""A shorter record cannot hold more than MAX_FIELDS (2,000) fields, since a field takes two bytes at least."""
_MAX_NAME = 128
"""Characters of an extra field's name that are remembered."""

_Scalar = str | int | float | bool | None
_Time = int | float | str | None
_Asset = str | int | None
_SCALARS = (str, int, float, bool, type(None))


class ReadingParser:
    """Parser of the single readings of one fleet, in one layout and format, with the extra fields met so far."""

    __slots__ = ("_compiled", "_extra_fields", "_is_msgpack", "layout")

    def __init__(self, layout: Layout, *, is_msgpack: bool) -> None:
        self.layout = layout
        self._is_msgpack = is_msgpack
        self._extra_fields: dict[str, bool] = {}  # name → holds an object or a list
        self._compiled: dict[tuple[str, ...], _CompiledParser | None] = {}

    def expect_extra_fields(self, document: Document, sensors: tuple[str, ...]) -> None:
        """Accept, from now on, the extra fields that this accepted record has."""
        for name, value in document.extra_fields(sensors).items():
            is_container = isinstance(value, (dict, list))
            if is_container:
                inside = value.values() if isinstance(value, dict) else value
                if not all(type(item) in _SCALARS for item in inside):
                    continue
            elif type(value) not in _SCALARS:
                continue
            is_new = (
                name not in self._extra_fields
                and len(self._extra_fields) < _MAX_EXTRA_FIELDS
                and _is_possible_field(name)
            )
            if is_new or (is_container and self._extra_fields.get(name) is False):
                self._extra_fields[name] = is_container
                self._compiled.clear()

    def decode(self, group: RecordGroup, router: Router) -> tuple[DecodedColumns | None, Int64]:
        """Return the columns of the accepted records, and the rows [K] of the group that are left, rising."""
        parser = self._parser_for(group.fleet.sensors or ())
        if parser is None:
            return None, np.arange(len(group))
        parsed, failed = parse_each(parser.parse, group.values)
        if not parsed:
            return None, np.arange(len(group))
        rows = np.arange(len(group))
        if failed:
            rows = np.delete(rows, failed)
            group = group.select(rows)

        tokens = first_present(parsed, ASSET_FIELDS, group.keys)
        ts_us, is_good = parse_column_us(first_present(parsed, TIME_FIELDS, None))
        values = parser.matrix(parsed)
        is_good &= ts_us <= group.latest_us
        is_good &= self._has_good_values(values, parsed, parser)
        is_good &= is_of_fleet(tokens, router, group.fleet_number)
        if any(self._extra_fields.values()):
            is_good &= np.fromiter(map(len, group.values), np.int64, len(group)) <= _MAX_BYTES_WITH_CONTAINERS

        position, cell = group.position, cells_of(ts_us, group.fleet.interval_us)
        if not is_good.all():
            keep = np.flatnonzero(is_good)
            failed += rows[~is_good].tolist()
            position, cell, values = position[keep], cell[keep], values[keep]
            tokens = [tokens[i] for i in keep.tolist()]
        columns = DecodedColumns(position, tokens, None, cell, values) if len(position) else None
        return columns, np.array(sorted(failed), np.int64)

    def _parser_for(self, sensors: tuple[str, ...]) -> _CompiledParser | None:
        if sensors not in self._compiled:
            extra = tuple(sorted(item for item in self._extra_fields.items() if item[0] not in sensors))
            self._compiled[sensors] = _compile(sensors, self.layout is Layout.FLAT, self._is_msgpack, extra)
        return self._compiled[sensors]

    def _has_good_values(self, values: Float32, parsed: Sequence[Any], parser: _CompiledParser) -> Bool:
        """Return whether each reading [N] has at least one value, and none that is infinite or written as NaN."""
        is_finite = np.isfinite(values)
        if is_finite.all():
            return np.ones(len(values), np.bool_) if values.shape[1] else np.zeros(len(values), np.bool_)
        is_good: Bool = np.any(is_finite, axis=1) & ~np.any(np.isinf(values), axis=1)
        if self._is_msgpack:  # a written NaN must be distinguished from null. JSON has no NaN
            for row in np.flatnonzero(~is_finite.all(axis=1)).tolist():
                cells = parser.row(parsed[row])
                is_good[row] &= not any(cell is not None and math.isnan(cell) for cell in cells)
        return is_good


# ---------------------------------------------------------------- the struct of one list of sensors


class _CompiledParser:
    """The struct of one list of sensors, and how its values are read."""

    __slots__ = ("_n_sensors", "_rows", "parse", "row")

    def __init__(
        self,
        parse: Callable[[bytes], Any],
        rows: Callable[[Iterable[Any]], Iterable[tuple[float | None, ...]]],
        n_sensors: int,
    ) -> None:
        """`rows`: from structs to the values of their sensors."""
        self.parse = parse
        self._rows = rows
        self._n_sensors = n_sensors
        self.row: Callable[[Any], tuple[float | None, ...]] = lambda reading: next(iter(rows((reading,))))

    def matrix(self, parsed: Sequence[Any]) -> Float32:
        """Return the values [N, C]. Missing is NaN, too large for float32 is infinity."""
        n = len(parsed) * self._n_sensors
        flat = np.fromiter(chain.from_iterable(self._rows(parsed)), np.float32, n)
        return flat.reshape(len(parsed), self._n_sensors)


@lru_cache(maxsize=128)
def _compile(
    sensors: tuple[str, ...], is_flat: bool, is_msgpack: bool, extra: tuple[tuple[str, bool], ...]
) -> _CompiledParser | None:
    """Return the parser for these sensors, or None: with too many of them, or a reserved name, or a quote in a name.

    `extra`: name of a field, and True if it holds an object or a list.
    """
    if len(sensors) > MAX_FIELDS - len(RESERVED) - _MAX_EXTRA_FIELDS:
        return None
    try:
        struct = _flat_struct(sensors, extra) if is_flat else _wide_struct(sensors, extra)
        parse = (msgspec.msgpack.Decoder if is_msgpack else msgspec.json.Decoder)(struct).decode
    except (ValueError, TypeError):
        return None
    as_tuple, first, sensors_of = msgspec.structs.astuple, itemgetter(slice(len(sensors))), attrgetter("sensors")

    def rows_of_flat(parsed: Iterable[Any]) -> Iterable[tuple[float | None, ...]]:
        return map(first, map(as_tuple, parsed))

    def rows_of_wide(parsed: Iterable[Any]) -> Iterable[tuple[float | None, ...]]:
        return map(as_tuple, map(sensors_of, parsed))

    return _CompiledParser(parse, rows_of_flat if is_flat else rows_of_wide, len(sensors))


# No reading can be part of a cycle, so the garbage collector need not track it.
_STRUCT: Final[dict[str, Any]] = {"gc": False, "forbid_unknown_fields": True}
_Field = tuple[str, Any, Any]
"""Attribute, type, default."""


def _flat_struct(sensors: tuple[str, ...], extra: tuple[tuple[str, bool], ...]) -> type[Any]:
    # A number or a boolean that belongs to no sensor is an error in a flat reading, so an extra field is a text.
    columns, names = _sensor_fields(sensors)
    others, other_names = _other_fields(extra, str | None)
    fields = [*columns, *others, ("sensors", None, None)]
    return msgspec.defstruct("FlatReading", fields, rename={**names, **other_names}, **_STRUCT)


def _wide_struct(sensors: tuple[str, ...], extra: tuple[tuple[str, bool], ...]) -> type[Any]:
    columns, names = _sensor_fields(sensors)
    others, other_names = _other_fields(extra, _Scalar)
    inner = msgspec.defstruct("Sensors", columns, rename=names, **_STRUCT)
    return msgspec.defstruct("WideReading", [("sensors", inner), *others], rename=other_names, **_STRUCT)


def _sensor_fields(sensors: tuple[str, ...]) -> tuple[list[_Field], dict[str, str]]:
    """Return a field per sensor, and the name of each attribute on the wire."""
    fields: list[_Field] = [(f"v{i}", float | None, None) for i in range(len(sensors))]
    return fields, {f"v{i}": name for i, name in enumerate(sensors)}


def _other_fields(extra: tuple[tuple[str, bool], ...], scalar: Any) -> tuple[list[_Field], dict[str, str]]:
    """Return the fields for asset, time and extra fields, and the name of each extra attribute on the wire."""
    container: Any = scalar | list[_Scalar] | dict[str, _Scalar]
    fields: list[_Field] = [(name, _Asset, None) for name in ASSET_FIELDS]
    fields += [(name, _Time, None) for name in TIME_FIELDS]
    fields += [(f"b{i}", container if holds else scalar, None) for i, (_, holds) in enumerate(extra)]
    return fields, {f"b{i}": name for i, (name, _) in enumerate(extra)}


def _is_possible_field(name: str) -> bool:
    """Return True if a struct can have such a field. Without this check one odd name would make all records slow."""
    return name.isprintable() and '"' not in name and "\\" not in name and len(name) <= _MAX_NAME


# ---------------------------------------------------------------- shared by the fast parsers


def parse_each(parse: Callable[[bytes], Any], values: Sequence[bytes]) -> tuple[list[Any], list[int]]:
    """Parse each value. Return the results and the rows that failed.

    Gives up after `GIVE_UP_AFTER` values if every one failed. The loop runs in C: `extend` keeps its results when the
    parser raises, and the iterator stands behind the bad value. (Joining the records into one JSON array or into lines
    is no faster, and a malformed record could then change the next one.)
    """
    parsed: list[Any] = []
    failed: list[int] = []
    rest = iter(values)
    while True:
        try:
            parsed.extend(map(parse, rest))
        except PARSE_ERRORS:
            failed.append(len(parsed) + len(failed))
            if len(failed) >= GIVE_UP_AFTER and not parsed:
                return parsed, list(range(len(values)))
        else:
            return parsed, failed


def first_present(parsed: Sequence[Any], names: Sequence[str], default: Sequence[Any] | None) -> list[Any]:
    """Return, per record, the first of these fields that is not null, else its default of [N]."""
    column: list[Any] = []
    for name in names:  # usually all records use the same field
        column = list(map(attrgetter(name), parsed))
        types = set(map(type, column))
        if type(None) not in types:
            return column
        if len(types) > 1:
            break
    else:
        return list(default) if default is not None else column
    fields = attrgetter(*names)
    fallback = default if default is not None else [None] * len(parsed)
    return [
        next((value for value in fields(record) if value is not None), other)
        for record, other in zip(parsed, fallback, strict=True)
    ]


def is_of_fleet(tokens: Sequence[Token], router: Router, fleet: int) -> Bool:
    """Return whether each token [N] is a valid name of an asset of this fleet."""
    foreign = router.foreign(set(tokens), fleet)
    if not foreign:
        return np.ones(len(tokens), np.bool_)
    return np.fromiter((token not in foreign for token in tokens), np.bool_, len(tokens))


def peek_tokens(values: Sequence[bytes], keys: Sequence[bytes | None], *, is_msgpack: bool) -> list[Token | None]:
    """Return only the asset of each record, to find its fleet. None = the record cannot be read."""
    parsed, failed = parse_each((_peek_msgpack if is_msgpack else _peek_json).decode, values)
    if len(failed) == len(values):
        return [None] * len(values)
    for row in failed:
        parsed.insert(row, _AssetOnly())
    tokens: list[Token | None] = first_present(parsed, ASSET_FIELDS, keys)
    for row in failed:
        tokens[row] = None
    return tokens


class _AssetOnly(msgspec.Struct, gc=False):
    asset: str | int | None = None
    asset_id: str | int | None = None


_peek_json = msgspec.json.Decoder(_AssetOnly)
_peek_msgpack = msgspec.msgpack.Decoder(_AssetOnly)
