"""Single readings, wide or flat, in JSON or MessagePack → columns, at about a microsecond each.

One msgspec struct is made per list of sensors, so that a record goes from bytes to floats without a dict. The law:
a record is taken only if `document.py` would take it, with the same values; whatever is unusual in any way (another
form, a name never seen, a time in the future, a bad value) is left for that page to judge.

Fields beside the sensors must be known by name too, because what a struct skips is not checked. They are learnt from
accepted records: after the first one with `"site": "north"`, such records are fast.

Of a key that stands twice a struct keeps the last value, as the parsers behind `document.py` do.
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
        ts_us, ok = column_us(first_given(good, TIME_FIELDS, None))
        ok &= ts_us <= task.latest_us
        values = compiled.matrix(good)
        ok &= self._has_good_values(values, good, compiled)
        if any(self._beside.values()):
            ok &= np.fromiter(map(len, task.values), np.int64, len(task)) <= _MAX_BYTES_WITH_CONTAINERS
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
                ok[row] &= not any(c is not None and math.isnan(c) for c in cells)
        return ok


def _is_plain(name: str) -> bool:
    """Whether a struct's field may be called so; one odd name must not cost all records their fast way."""
    return name.isprintable() and '"' not in name and "\\" not in name and len(name) <= _MAX_NAME


class _Compiled:
    """The decoder of one shape for one list of sensors."""

    __slots__ = ("_n_sensors", "_rows", "decode", "row")

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        rows: Callable[[Iterable[Any]], Iterable[tuple[Any, ...]]],
        n_sensors: int,
    ) -> None:
        self.decode = decode
        self._rows = rows
        self._n_sensors = n_sensors
        self.row: Callable[[Any], tuple[Any, ...]] = lambda reading: next(iter(rows((reading,))))

    def matrix(self, good: Sequence[Any]) -> Float32:
        """[N, C]; missing is NaN, too large for float32 is infinity."""
        n = len(good) * self._n_sensors
        flat = np.fromiter(chain.from_iterable(self._rows(good)), np.float32, n)
        return flat.reshape(len(good), self._n_sensors)


@lru_cache(maxsize=128)
def _compile(
    sensors: tuple[str, ...], is_flat: bool, is_msgpack: bool, beside: tuple[tuple[str, bool], ...]
) -> _Compiled | None:
    """None where a struct cannot say it: too many sensors, one named like a reserved field, or with a quote in it."""
    if len(sensors) > MAX_FIELDS - len(RESERVED) - _MAX_BESIDE:
        return None
    columns: list[Any] = [(f"v{i}", float | None, None) for i in range(len(sensors))]
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

    return _Compiled(decode, rows, len(sensors))


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
