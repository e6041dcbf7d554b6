"""Single readings, wide or flat, in JSON or MessagePack → columns, at about a microsecond each.

One msgspec struct is made per list of sensors, so that a record goes from bytes to floats without a dict. The law:
a record is taken only if `document.py` would take it, with the same values; whatever is unusual in any way (another
form, a name never seen, a time in the future, a bad value) is left for that page to judge.

Fields beside the sensors must be known by name too, because what a struct skips is not checked. They are learnt from
accepted records: after the first one with `"site": "north"`, such records are fast.

A struct keeps the last of a key that stands twice, and does not say so. So the fields that were given are counted, and
so are the keys of the bytes (`repeats.py`): in JSON once for all records together, in MessagePack at the heads of the
maps. Measured, wide with eight sensors: JSON 8 % dearer for it (1.00 → 1.08 µs), MessagePack 20 % (0.83 → 1.0 µs); a
raw block of 64 readings 3 %. That is 2 % of what a reading costs in the whole river, and nothing cheaper is exact.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from monitor.decode.columns import Piece, Task, cells_of
from monitor.decode.document import ASSET_FIELDS, RESERVED, TIME_FIELDS, Document, Form
from monitor.decode.payload import MAX_FIELDS, UNREADABLE
from monitor.decode.repeats import colons_in, may_repeat_json, repeats_json, sensor_entries, top_entries
from monitor.decode.timestamps import column_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from monitor.decode.schema import Router, Token
    from monitor.types import Bool, Float32, Int64

PATIENCE: Final = 32
"""Failures in a row, with no success before, after which a shape is taken to be the wrong one for these records."""
_MAX_BESIDE = 64
"""Names beside the sensors that are learnt; a producer may invent them without end."""
_MAX_BYTES_WITH_CONTAINERS = 4_000
"""A shorter record cannot hold more than MAX_FIELDS (2,000) fields, a field taking two bytes at least."""

_MAX_NAME = 128
"""Characters of a name beside the sensors; a longer one is not worth the memory of being known."""
_ABSENT: Final[float] = np.array([0x7FFA << 48], np.uint64).view(np.float64).tolist()[0]
"""A sensor that a record does not mention. NaN, as null is, but told from it by its bits, in float32 too."""
_ABSENT_BITS: Final = np.array([_ABSENT], np.float32).view(np.uint32)[0]

_Scalar = str | int | float | bool | None
_Time = int | float | str | None
_Asset = str | int | None
_SCALARS = (str, int, float, bool, type(None))


def decode_each(decode: Callable[[bytes], Any], values: Sequence[bytes]) -> tuple[list[Any], list[int]]:
    """Decode what can be decoded; second, the places of what cannot. Gives up early where nothing can.

    A loop in C: `extend` keeps what it has when the decoder raises, and the iterator stands behind the bad record.
    (Joining the records into one JSON array or into lines is no faster, and lets a record leak into its neighbour.)
    """
    good: list[Any] = []
    bad: list[int] = []
    rest = iter(values)
    while True:
        try:
            good.extend(map(decode, rest))
        except UNREADABLE:
            bad.append(len(good) + len(bad))
            if len(bad) >= PATIENCE and not good:
                return good, list(range(len(values)))
        else:
            return good, bad


class ReadingShape:
    """One way single readings can look: the form, the format, and the fields that stand beside the sensors."""

    __slots__ = ("_beside", "_compiled", "_is_msgpack", "form")

    def __init__(self, form: Form, *, is_msgpack: bool) -> None:
        self.form = form
        self._is_msgpack = is_msgpack
        self._beside: dict[str, bool] = {}  # name → holds an object or a list
        self._compiled: dict[tuple[str, ...], _Compiled | None] = {}

    def learn(self, document: Document, sensors: tuple[str, ...]) -> None:
        """Expect, from now on, the fields that this accepted record has beside its sensors."""
        for name, value in document.ignored(sensors).items():
            is_container = isinstance(value, (dict, list))
            if is_container:
                inside = value.values() if isinstance(value, dict) else value
                if not all(type(item) in _SCALARS for item in inside):
                    continue
            elif type(value) not in _SCALARS:
                continue
            is_new = name not in self._beside and len(self._beside) < _MAX_BESIDE and _is_plain(name)
            if is_new or (is_container and self._beside.get(name) is False):
                self._beside[name] = is_container
                self._compiled.clear()

    def decode(self, task: Task, router: Router) -> tuple[Piece | None, Int64]:
        """Columns of the records that fit, and the places in the task of those that do not."""
        compiled = self._for(task.fleet.sensors or ())
        if compiled is None:
            return None, np.arange(len(task))
        good, bad = decode_each(compiled.decode, task.values)
        if not good:
            return None, np.arange(len(task))
        places = np.arange(len(task))
        if bad:
            places = np.delete(places, bad)
            task = task.only(places)
        tokens = first_given(good, ASSET_FIELDS, task.keys)
        times = first_given(good, TIME_FIELDS, None)
        ts_us, ok = column_us(times)
        ok &= ts_us <= task.latest_us
        values = compiled.matrix(good)
        ok &= self._has_good_values(values, good, compiled)
        if any(self._beside.values()):
            ok &= np.fromiter(map(len, task.values), np.int64, len(task)) <= _MAX_BYTES_WITH_CONTAINERS
        ok &= compiled.each_key_once(task, good, tokens, times, values)
        if strangers := router.strangers(set(tokens), task.fleet_number):
            ok &= np.fromiter((token not in strangers for token in tokens), np.bool_, len(tokens))
        at, cell = task.at, cells_of(ts_us, task.fleet.interval_us)
        if not ok.all():
            keep = np.flatnonzero(ok)
            bad += places[~ok].tolist()
            at, cell, values = at[keep], cell[keep], values[keep]
            tokens = [tokens[i] for i in keep.tolist()]
        return Piece(at, tokens, None, cell, values) if len(at) else None, np.array(sorted(bad), np.int64)

    def _for(self, sensors: tuple[str, ...]) -> _Compiled | None:
        if sensors not in self._compiled:
            beside = tuple(sorted(item for item in self._beside.items() if item[0] not in sensors))
            self._compiled[sensors] = _compile(sensors, self.form is Form.FLAT, self._is_msgpack, beside)
        return self._compiled[sensors]

    def _has_good_values(self, values: Float32, good: Sequence[Any], compiled: _Compiled) -> Bool:
        """Rows with at least one value, and none that is infinite or written as NaN."""
        finite = np.isfinite(values)
        if finite.all():
            return np.ones(len(values), np.bool_) if values.shape[1] else np.zeros(len(values), np.bool_)
        ok: Bool = np.any(finite, axis=1) & ~np.any(np.isinf(values), axis=1)
        if self._is_msgpack:  # JSON knows no NaN; in MessagePack it must be told from null
            for row in np.flatnonzero(~finite.all(axis=1)).tolist():
                cells = compiled.row(good[row])
                ok[row] &= not any(c is not None and c is not _ABSENT and math.isnan(c) for c in cells)
        return ok


def _is_plain(name: str) -> bool:
    """Whether a struct's field may be called so; one odd name must not cost all records their fast way."""
    return name.isprintable() and '"' not in name and "\\" not in name and len(name) <= _MAX_NAME


class _Compiled:
    """The decoder of one shape for one list of sensors."""

    __slots__ = ("_beside", "_is_flat", "_is_msgpack", "_key_colons", "_n_sensors", "_rows", "decode", "row")

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        rows: Callable[[Iterable[Any]], Iterable[tuple[Any, ...]]],
        sensors: tuple[str, ...],
        beside: tuple[tuple[str, str], ...],
        *,
        is_flat: bool,
        is_msgpack: bool,
    ) -> None:
        """`beside`: attribute and name of each field that may stand beside the sensors."""
        self.decode = decode
        self._rows = rows
        self._n_sensors = len(sensors)
        self._key_colons = np.array([1 + name.count(":") for name in sensors], np.int64)
        """What the key of each sensor adds to the colons of a record."""
        self._beside = [(attrgetter(attribute), 1 + name.count(":")) for attribute, name in beside]
        self._is_flat = is_flat
        self._is_msgpack = is_msgpack
        self.row: Callable[[Any], tuple[Any, ...]] = lambda reading: next(iter(rows((reading,))))

    def matrix(self, good: Sequence[Any]) -> Float32:
        """[N, C]; missing is NaN, too large for float32 is infinity."""
        n = len(good) * self._n_sensors
        flat = np.fromiter(chain.from_iterable(self._rows(good)), np.float32, n)
        return flat.reshape(len(good), self._n_sensors)

    def each_key_once(
        self, task: Task, good: Sequence[Any], tokens: Sequence[Token], times: Sequence[Any], values: Float32
    ) -> Bool:
        """[N], the records in which certainly no key stands twice. An explicit null beside the sensors is not certain.

        Makes every NaN of `values` the usual one.
        """
        is_absent = _take_absent(values)
        if self._is_msgpack:
            return self._each_once_msgpack(task, good, are_given(tokens) + are_given(times), is_absent)
        return self._each_once_json(task, good, tokens, times, is_absent)

    def _each_once_msgpack(self, task: Task, good: Sequence[Any], others: Int64, is_absent: Bool | None) -> Bool:
        given = np.full(len(good), self._n_sensors) if is_absent is None else np.count_nonzero(~is_absent, axis=1)
        has_map = np.zeros(len(good), np.bool_)
        for beside, _ in self._beside:
            column = list(map(beside, good))
            others = others + are_given(column)
            if dict in set(map(type, column)):  # whose own keys nobody has counted
                has_map |= np.fromiter((type(item) is dict for item in column), np.bool_, len(column))
        once: Bool = top_entries(task.values) == others + (given if self._is_flat else 1)
        if not self._is_flat:
            once &= sensor_entries(task.values) == given
        return once & ~has_map

    def _each_once_json(
        self, task: Task, good: Sequence[Any], tokens: Sequence[Token], times: Sequence[Any], is_absent: Bool | None
    ) -> Bool:
        n_each = int(self._key_colons.sum()) + (not self._is_flat)
        given = [] if is_absent is None else [-(is_absent @ self._key_colons)]
        columns = [(tokens, 1), (times, 1), *((list(map(beside, good)), colons) for beside, colons in self._beside)]
        n = len(good) * n_each + sum(int(part.sum()) for part in given)
        if not may_repeat_json(task.values, n + sum(_n_colons(column, of_key) for column, of_key in columns)):
            return np.ones(len(good), np.bool_)
        for column, of_key in columns:
            given.append(np.fromiter((_n_colons((item,), of_key) for item in column), np.int64, len(good)))
        return ~repeats_json(task.values, n_each + sum(given, np.zeros(len(good), np.int64)))


def _take_absent(values: Float32) -> Bool | None:
    """[N, C], which sensors are absent, unless none is; they become NaN like all others that are missing."""
    is_absent: Bool = values.view(np.uint32) == _ABSENT_BITS
    if not is_absent.any():
        return None
    values[is_absent] = np.nan
    return is_absent


def _n_colons(column: Sequence[Any], of_key: int) -> int:
    """Colons that the values of a field bring, and those of its key wherever it is given."""
    kinds = set(map(type, column))
    if kinds == {str}:
        return len(column) * of_key + colons_in(column)
    if kinds.isdisjoint(_NOT_PLAIN):
        return len(column) * of_key
    n = 0
    for item in column:
        if item is None or type(item) is bytes:  # Kafka's key is no field
            continue
        n += of_key
        if type(item) is dict:
            n += len(item) + colons_in(item)
            item = item.values()
        if type(item) is str:
            n += item.count(":")
        elif type(item) not in _SCALARS:
            n += colons_in(inner for inner in item if type(inner) is str)
    return n


def are_given(column: Sequence[Any]) -> Int64:
    """[N], 1 where the payload has the field: it is not null, and not Kafka's key."""
    kinds = set(map(type, column))
    if kinds.isdisjoint(_NOT_GIVEN):
        return np.ones(len(column), np.int64)
    return np.fromiter((type(item) not in _NOT_GIVEN for item in column), np.int64, len(column))


_NOT_GIVEN = {type(None), bytes}
_NOT_PLAIN = {*_NOT_GIVEN, str, list, dict}


@lru_cache(maxsize=128)
def _compile(
    sensors: tuple[str, ...], is_flat: bool, is_msgpack: bool, beside: tuple[tuple[str, bool], ...]
) -> _Compiled | None:
    """None where a struct cannot say it: too many sensors, one named like a reserved field, or with a quote in it."""
    if len(sensors) > MAX_FIELDS - len(RESERVED) - _MAX_BESIDE:
        return None
    columns = [(f"v{i}", float | None, _ABSENT) for i in range(len(sensors))]
    names = {f"v{i}": name for i, name in enumerate(sensors)}
    # Flat, a number or a boolean that is no sensor's is an error; beside "sensors" it is nothing to us.
    plain: Any = str | None if is_flat else _Scalar
    inside: Any = plain | list[_Scalar] | dict[str, _Scalar]
    others: list[Any] = [(name, _Asset, None) for name in ASSET_FIELDS] + [(name, _Time, None) for name in TIME_FIELDS]
    others += [(f"b{i}", inside if holds else plain, None) for i, (_, holds) in enumerate(beside)]
    other_names = {f"b{i}": name for i, (name, _) in enumerate(beside)}
    # No cycle can pass through a decoded reading, so the garbage collector need not know of it.
    options: dict[str, Any] = {"gc": False, "forbid_unknown_fields": True}
    try:
        if is_flat:
            fields: list[Any] = [*columns, *others, ("sensors", None, None)]
            reading = msgspec.defstruct("FlatReading", fields, rename={**names, **other_names}, **options)
        else:
            inner = msgspec.defstruct("Sensors", columns, rename=names, **options)
            reading = msgspec.defstruct("WideReading", [("sensors", inner), *others], rename=other_names, **options)
        decode = (msgspec.msgpack.Decoder if is_msgpack else msgspec.json.Decoder)(reading).decode
    except (ValueError, TypeError):
        return None
    as_tuple = msgspec.structs.astuple
    if is_flat:
        first = itemgetter(slice(len(sensors)))

        def rows(good: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
            return map(first, map(as_tuple, good))

    else:
        sensors_of = attrgetter("sensors")

        def rows(good: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
            return map(as_tuple, map(sensors_of, good))

    return _Compiled(decode, rows, sensors, tuple(other_names.items()), is_flat=is_flat, is_msgpack=is_msgpack)


def first_given(good: Sequence[Any], names: Sequence[str], default: Sequence[Any] | None) -> list[Any]:
    """Per record the first of these fields that is not null; usually it is the same one for all."""
    column: list[Any] = []
    for name in names:
        column = list(map(attrgetter(name), good))
        kinds = set(map(type, column))
        if type(None) not in kinds:
            return column
        if len(kinds) > 1:
            break
    else:
        return list(default) if default is not None else column
    fields = attrgetter(*names)
    fallback = default if default is not None else [None] * len(good)
    return [
        next((given for given in fields(reading) if given is not None), other)
        for reading, other in zip(good, fallback, strict=True)
    ]


def tokens_only(values: Sequence[bytes], keys: Sequence[bytes | None], *, is_msgpack: bool) -> list[Token | None]:
    """Just the assets, to find the fleets: None where the record cannot be read."""
    good, bad = decode_each((_peek_msgpack if is_msgpack else _peek_json).decode, values)
    if len(bad) == len(values):
        return [None] * len(values)
    for place in bad:
        good.insert(place, _Peek())
    tokens: list[Token | None] = first_given(good, ASSET_FIELDS, keys)
    for place in bad:
        tokens[place] = None
    return tokens


class _Peek(msgspec.Struct, gc=False):
    asset: str | int | None = None
    asset_id: str | int | None = None


_peek_json = msgspec.json.Decoder(_Peek)
_peek_msgpack = msgspec.msgpack.Decoder(_Peek)
