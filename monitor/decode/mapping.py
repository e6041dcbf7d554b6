"""Documents → rows: the asset, the time and the cells of each reading, by `[kafka.fields]` or by their own structure.

Input: the documents of one record, its key, headers, topic and timestamp. Output: `Row`s, or a DecodeError with the
configuration that would read the record. Invariant: pure. The result depends on the record and the settings alone.

Without a setting the asset is, in this order: a field of an exact name ("asset", "asset_id"), Kafka's key, a usual name
of an asset (names.py), a usual name of a host or source. In an element of an array its own names come before the key,
which is that of all elements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monitor.decode.cells import CellReader
from monitor.decode.document import Document, bad_time, block_of
from monitor.decode.formatting import describe_value, quote, short_list, toml
from monitor.decode.keys import is_usable_key, key_object
from monitor.decode.names import (
    ASSET_FIELDS,
    ASSET_NAMES,
    SIDE_NAMES,
    TIME_FIELDS,
    TIME_NAMES,
    WEAK_ASSET_NAMES,
    plain,
)
from monitor.decode.reasons import asset_place, place_apart, time_place
from monitor.decode.schema import Fields, asset_name
from monitor.decode.shapes import Found, Path, Scope, by_rank, flattened, items_of, recognise
from monitor.decode.shapes import inside as recognise_inside
from monitor.decode.timestamps import TimeParser, format_of
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.decode.formats import RawRecord
    from monitor.decode.schema import Token
    from monitor.types import Int64

KEY_PATH: Final[Path] = ("\0key",)
"""Path of an asset that Kafka's key names."""
OWN_NAMES: Final = frozenset(
    ("device", "deviceinfo", "enddeviceids", "asset", "machine", "thing", "equipment", "vehicle")
)
"""Objects that describe the asset: "id" and "name" in them are the asset's."""
NUMBERED: Final = ("id", "number", "serial", "imei", "no")
"""Ends of the names of which a whole number is an asset's name."""
_SMALLEST_T = 1e8
"""A number in the field "t" is a time from here on. A smaller one is a temperature."""


@dataclass(slots=True)
class Row:
    """One reading, or the cells of one asset and time."""

    token: Token
    us: int
    cells: dict[str, Any]
    found: Found | None
    """Of the first cells. None = a block."""
    asset_path: Path | None = None
    """KEY_PATH = the key. None = no fixed place."""
    time_path: Path | None = None
    is_weak: bool = False
    """Whether Kafka's key, where there is one, comes before the asset's field."""
    unit: str = ""
    """Notation of the time: s, ms, us, ns, iso, …"""
    block: Document | None = None
    times: Int64 | None = None
    """[N], of a block."""
    others: list[Found] = field(default_factory=list)
    """Further cells of the same asset and time."""


class Rows(list[Row]):
    """The rows of a record."""

    problem: str | None = None
    """The reason why another reading of the record is left out."""


class _Place(NamedTuple):
    """A configured place."""

    text: str
    kind: str
    """path, key, header, topic, kafka"""
    steps: Path


def _place(text: str, *, is_time: bool = False) -> _Place:
    head, _, rest = text.partition(".")
    if text.startswith("header:"):
        return _Place(text, "header", (text.removeprefix("header:"),))
    if head == "key":
        return _Place(text, "key", tuple(rest.split(".")) if rest else ())
    if text == "topic" or (is_time and text == "kafka"):
        return _Place(text, text, ())
    return _Place(text, "path", tuple(text.split(".")))


class Mapping:
    """The fields of one fleet, compiled."""

    def __init__(self, fields: Fields | None = None) -> None:
        """Raise ValueError for a time format or zone that does not exist."""
        self.fields = fields = fields or Fields()
        self.cells = CellReader(dict(fields.enum or ()), fields.missing)
        self.times = TimeParser(fields.time_format, fields.timezone)
        self._asset = tuple(_place(each) for each in fields.asset or ())
        self._time = tuple(_place(each, is_time=True) for each in fields.time or ())
        self._sensor = tuple(_place(each) for each in fields.sensor or ())
        self._value = tuple(_place(each) for each in fields.value or ())
        self._items = None if fields.items is None else tuple(fields.items.split("."))
        self._values = _Patterns(fields.values) if fields.values else None
        self._ignore = _Patterns(fields.ignore) if fields.ignore else None

    # ------------------------------------------------------------ the rows of a record

    def rows(self, documents: Sequence[dict[str, Any]], record: RawRecord, topic: str) -> Rows:
        """Return the rows of a record. Raises DecodeError where it has none.

        A reading of many that has no asset or time is left out, unless all are alike.
        """
        rows: dict[tuple[Any, int], Row] = {}
        blocks: list[Row] = []
        problem: str | None = None  # not the error: it would be part of a reference cycle with this frame
        for each in self._found(documents):
            try:
                if isinstance(each, Document):
                    blocks.append(self._block_row(each, record, topic))
                else:
                    self._add(rows, each, record, topic)
            except DecodeError as error:
                if error.detail.startswith("ambiguous"):
                    raise
                problem = problem or error.detail
        found = Rows((*blocks, *rows.values()))
        found.problem = problem
        if not found and problem is not None:
            raise DecodeError(problem)
        return found

    def _found(self, documents: Sequence[dict[str, Any]]) -> Iterator[Found | Document]:
        is_configured = bool(self._items or self._values or self._sensor or self._value)
        if not is_configured:
            plain_ones = []
            for fields in documents:
                block = block_of(fields)
                if block is not None:
                    yield block
                else:
                    plain_ones.append(fields)
            yield from recognise(plain_ones)
            return
        is_item = len(documents) > 1
        for fields in documents:
            scopes: tuple[Scope, ...] = (Scope(fields, None if is_item else (), is_item),)
            if self._items is None:
                yield from self._configured(scopes)
                continue
            items = _at(fields, self._items)
            if isinstance(items, dict):
                items = list(items.values())
            if not isinstance(items, list):
                raise DecodeError(
                    f'wrong_type: items = "{".".join(self._items)}" is {describe_value(items)} in the record; it has '
                    f"{_names(fields)}; correct [kafka.fields] items"
                )
            for item in items_of(scopes, items):
                yield from self._configured(item)

    def _configured(self, scopes: tuple[Scope, ...]) -> Iterator[Found]:
        fields, root = scopes[0].fields, scopes[0].path
        if self._sensor or self._value:
            named = self._find(self._sensor, scopes)[0] if self._sensor else None
            value, path = self._find(self._value, scopes) if self._value else (fields.get("value"), None)
            if isinstance(named, (str, int)) and not isinstance(named, bool) and value is not None:
                yield Found("long format, configured", scopes, {str(named): value}, is_exact=True)
                return
            if named is None and path is None:
                return
            raise DecodeError(
                f"wrong_type: [kafka.fields] sensor and value give {describe_value(named)} and {describe_value(value)}"
            )
        if self._values is None:
            yield from recognise_inside(scopes)
            return
        cells, paths = {}, {}
        for path, value in flattened(fields):
            name = self._values.name_of(path)
            if name is not None:
                cells[name] = value
                paths[name] = path
        shape, known = "values, configured", None if root is None else {n: (*root, *p) for n, p in paths.items()}
        yield Found(shape, scopes, cells, known, is_exact=True)

    def _add(self, rows: dict[tuple[Any, int], Row], found: Found, record: RawRecord, topic: str) -> None:
        cells = found.cells
        if self._ignore is not None:
            cells = {n: v for n, v in cells.items() if self._ignore.name_of(self._path_of(found, n)) is None}
        time, time_path = self._time_of(found.scopes, found.time, record)
        us, unit = self._us(time, time_path)
        token, asset_path, is_weak = self._asset_of(found, record, topic)
        if found.value and len(cells) == 1 and asset_name(token) in cells:
            cells = {found.value: next(iter(cells.values()))}  # the asset's name is no sensor's
        if found.doubt is not None and found.doubt.names == {asset_name(token)}:
            found.doubt = None
        if found.is_flat and not found.is_exact:
            for path in (time_path, asset_path):
                name = self._own_name(found, path)
                if name is not None:
                    cells = {n: v for n, v in cells.items() if n != name}
            if asset_path is None and type(token) is int:  # in an array: without a fixed place
                own = {place.steps[-1] for place in self._asset if place.kind == "path"}
                cells = {n: v for n, v in cells.items() if n not in own or v != token}
        key = (token, us)
        if key not in rows:
            rows[key] = Row(token, us, dict(cells), found, asset_path, time_path, is_weak, unit)
            return
        row = rows[key]
        for name, cell in cells.items():
            if name in row.cells and row.cells[name] != cell and cell is not None and row.cells[name] is not None:
                raise DecodeError(_ambiguous(name, row.found or found, found))
            row.cells[name] = cell
        row.others.append(found)

    @staticmethod
    def _path_of(found: Found, name: str) -> Path:
        if found.paths is not None and name in found.paths:
            return found.paths[name]
        return (*(found.scopes[0].path or ()), *name.split("."))

    @staticmethod
    def _own_name(found: Found, path: Path | None) -> str | None:
        """Return the name of a cell that is really the asset or the time."""
        if path is None:
            return None
        if found.paths is not None:
            return next((name for name, each in found.paths.items() if each == path), None)
        return path[-1]

    def _block_row(self, block: Document, record: RawRecord, topic: str) -> Row:
        scopes = (Scope(block.fields, None),)
        times = block.times(self._time_of(scopes, None, record, is_block=True), self.times)
        found = Found("block", scopes, {})
        token = self._asset_of(found, record, topic)[0]
        return Row(token, int(times[0]) if len(times) else 0, {}, None, block=block, times=times)

    # ------------------------------------------------------------ places

    def _find(self, places: Sequence[_Place], scopes: Sequence[Scope]) -> tuple[Any, Path | None]:
        """Return the value at the first of these places in the scopes, and its path in the document."""
        for place in places:
            for scope in scopes:
                value = _at(scope.fields, place.steps)
                if value is not None:
                    path = scope.path
                    return value, None if path is None else (*path, *_exact(scope.fields, place.steps))
        return None, None

    def _outside(self, place: _Place, record: RawRecord, topic: str) -> Any:
        """Return the value of a place outside the document."""
        if place.kind == "topic":
            return topic
        if place.kind == "header":
            wanted = place.steps[0].casefold()
            return next((_text(v) for n, v in record.headers if n.casefold() == wanted), None)
        if place.kind == "key" and record.key is not None:
            if not place.steps:
                return record.key or None
            value = key_object(record.key)
            return _at(value, place.steps) if isinstance(value, dict) else None
        return None

    # ------------------------------------------------------------ asset

    def _asset_of(self, found: Found, record: RawRecord, topic: str) -> tuple[Token, Path | None, bool]:
        """Return the asset's token, its path in the document, and whether a key would come before it."""
        if not self._asset:
            return _usual_asset(found, record, self.times)
        for at, place in enumerate(self._asset):
            if place.kind == "path":
                value, path = self._find((place,), found.scopes)
            else:
                value = self._outside(place, record, topic)
                path = KEY_PATH if place.kind == "key" and not place.steps else None
            if value is not None and value != "":
                if type(value) in (str, int, bytes):
                    return value, path if at == 0 else None, False
                raise DecodeError(
                    f"bad_asset: {quote(place.text)} is {describe_value(value)}; send the asset's name as a text, or "
                    "correct [kafka.fields] asset"
                )
        places = ", ".join(f'"{place.text}"' for place in self._asset)
        raise DecodeError(
            f"missing_asset: the record has none of [kafka.fields] asset = [{places}]; it has "
            f"{_names(found.scopes[-1].fields)}"
        )

    # ------------------------------------------------------------ time

    def _time_of(
        self, scopes: Sequence[Scope], own: Any, record: RawRecord, *, is_block: bool = False
    ) -> tuple[Any, Path | None]:
        """Return the time as it is written, and its path."""
        for at, place in enumerate(self._time):
            if place.kind == "kafka":
                if record.stamp_us >= 0:
                    return _Us(record.stamp_us), None
                continue
            if place.kind == "path":
                value, path = self._find((place,), scopes)
            else:
                value, path = self._outside(place, record, ""), None
                value = value.decode(errors="replace") if isinstance(value, bytes) else value
            if value is not None:
                return value, path if at == 0 else None
        if self._time:
            places = ", ".join(f'"{place.text}"' for place in self._time)
            raise DecodeError(
                f"missing_ts: the record has none of [kafka.fields] time = [{places}]; it has "
                f"{_names(scopes[-1].fields)}"
            )
        if own is not None:
            return own, None
        found = _usual_time(scopes)
        if found is None:
            if is_block:
                return None, None
            raise DecodeError(_missing_time(scopes, self.times))
        return found

    def _us(self, time: Any, path: Path | None) -> tuple[int, str]:
        if isinstance(time, _Us):
            return int(time), "kafka"
        try:
            return self.times.parse_us(time), format_of(time)
        except ValueError as problem:
            raise DecodeError(bad_time(".".join(path) if path else "the time", time, problem)) from None


class _Us(int):
    """Microseconds that need not be parsed."""


# ---------------------------------------------------------------- usual places


def _usual_asset(found: Found, record: RawRecord, times: TimeParser) -> tuple[Token, Path | None, bool]:
    if found.asset is not None:
        return found.asset, None, False
    scopes = found.scopes
    for scope in scopes:
        for name in ASSET_FIELDS:
            value = scope.fields.get(name)
            if value is None or type(value) is dict:
                continue
            if type(value) is str or type(value) is int:
                return value, _join(scope, name), False
            raise DecodeError(f'bad_asset: "{name}" is {describe_value(value)}; send the asset\'s name as a text')
    items = [scope for scope in scopes if scope.is_item]
    hit = _usually_named(items, found, ASSET_NAMES) or _usually_named(items[:1], found, WEAK_ASSET_NAMES)
    if hit is not None:
        return *hit, False
    key = record.key or None
    if key is not None and is_usable_key(key):
        return key, KEY_PATH, False
    hit = _usually_named(scopes, found, ASSET_NAMES) or _usually_named(scopes, found, WEAK_ASSET_NAMES)
    if hit is not None:
        return *hit, True
    if key is not None:
        return key, KEY_PATH, False
    raise DecodeError(_missing_asset(scopes, record, times))


def _usually_named(
    scopes: Sequence[Scope], found: Found, ranks: dict[str, int]
) -> tuple[Token, Path | None] | None:
    """Return the asset that one of these names gives in the first of the scopes that has one."""
    for scope in scopes:
        hit = _named(scope, ranks, found.used if scope is found.scopes[0] else frozenset())
        if hit is not None:
            return hit
    return None


def _named(scope: Scope, ranks: dict[str, int], used: frozenset[str]) -> tuple[Token, Path | None] | None:
    """Return the asset that a field of one of these names gives, in the object or in one beside its values."""
    best: tuple[int, Token, Path | None] | None = None
    for name, value in scope.fields.items():
        if name in used:
            continue
        short = plain(name)
        if type(value) is dict:
            if short in SIDE_NAMES:
                inner = Scope(value, _join(scope, name), scope.is_item)
                hit = _best(inner, ranks)
                if hit is None and short in OWN_NAMES and ranks is ASSET_NAMES:
                    hit = _best(inner, WEAK_ASSET_NAMES, len(ASSET_NAMES))
                if hit is not None and (best is None or hit[0] < best[0]):
                    best = hit
        elif short in ranks and (best is None or ranks[short] < best[0]) and _is_asset(short, value):
            best = (ranks[short], value, _join(scope, name))
    return None if best is None else best[1:]


def _best(scope: Scope, ranks: dict[str, int], first: int = 0) -> tuple[int, Token, Path | None] | None:
    found = [
        (first + ranks[plain(name)], value, _join(scope, name))
        for name, value in scope.fields.items()
        if plain(name) in ranks and _is_asset(plain(name), value)
    ]
    return min(found, key=lambda each: each[0]) if found else None


def _is_asset(short: str, value: object) -> bool:
    """Return whether a value can be an asset's name. A number is one only where the field's name says so."""
    if type(value) is str:
        return 0 < len(value.strip()) <= 128
    return type(value) is int and short.endswith(NUMBERED)


def _usual_time(scopes: Sequence[Scope]) -> tuple[Any, Path | None] | None:
    for scope in scopes:
        for name in TIME_FIELDS:
            value = scope.fields.get(name)
            if value is not None and type(value) is not dict:
                return value, _join(scope, name)
        usable = {n: v for n, v in scope.fields.items() if plain(n) in TIME_NAMES and is_time(n, v)}
        name = by_rank(usable, TIME_NAMES)  # type: ignore[assignment]
        if name is not None:
            return usable[name], _join(scope, name)
    for scope in scopes:
        for side, inner in scope.fields.items():
            if type(inner) is dict and plain(side) in SIDE_NAMES:
                usable = {n: v for n, v in inner.items() if plain(n) in TIME_NAMES and is_time(n, v)}
                name = by_rank(usable, TIME_NAMES)  # type: ignore[assignment]
                if name is not None:
                    path = _join(scope, side)
                    return usable[name], None if path is None else (*path, name)
    return None


def is_time(name: str, value: object) -> bool:
    """Return whether a value can be the time in a field of this name."""
    if value is None or type(value) in (dict, bool):
        return False
    if plain(name) == "t":
        return isinstance(value, str) or (type(value) in (int, float) and value >= _SMALLEST_T)  # type: ignore[operator]
    return True


def _join(scope: Scope, name: str) -> Path | None:
    return None if scope.path is None else (*scope.path, name)


# ---------------------------------------------------------------- paths and globs


def _at(value: Any, steps: Sequence[str]) -> Any:
    """Return the value at a path, None = there is none. A field may have a dotted name itself."""
    if isinstance(value, dict) and len(steps) > 1 and (whole := ".".join(steps)) in value:
        return value[whole]
    for step in steps:
        if isinstance(value, dict):
            if step in value:
                value = value[step]
            else:
                folded = step.casefold()
                value = next((v for n, v in value.items() if n.casefold() == folded), None)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _exact(fields: dict[str, Any], steps: Sequence[str]) -> Path:
    """Return the names by which the fields spell a path that exists."""
    if len(steps) > 1 and ".".join(steps) in fields:
        return (".".join(steps),)
    path: list[str] = []
    value: Any = fields
    for step in steps:
        if not isinstance(value, dict):
            return ("\0", *path)  # within a list: no fixed place
        name = step if step in value else next(n for n in value if n.casefold() == step.casefold())
        path.append(name)
        value = value[name]
    return tuple(path)


class _Patterns:
    """Paths and globs. A value's name is its path without the folder that all patterns share."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._globs = re.compile("|".join(translate(each.casefold()) for each in patterns))
        self._leaves = {each.casefold() for each in patterns if "." not in each}
        folders = [_folder(each) for each in patterns]
        shared = folders[0]
        for each in folders[1:]:
            shared = shared[: next((i for i, (a, b) in enumerate(zip(shared, each, strict=False)) if a != b), None)]
            shared = shared[: len(each)]
        self._n_shared = len(shared)

    def name_of(self, path: Path) -> str | None:
        """Return the name of the value at a path. None = no pattern matches."""
        if self._globs.match(".".join(path).casefold()):
            return ".".join(path[self._n_shared :]) or path[-1]
        return path[-1] if path[-1].casefold() in self._leaves else None


def _folder(pattern: str) -> Path:
    """Return the steps of a pattern above its last one, up to the first glob."""
    steps: list[str] = []
    for step in pattern.casefold().split(".")[:-1]:
        if any(sign in step for sign in "*?["):
            break
        steps.append(step)
    return tuple(steps)


def _text(value: bytes) -> str | None:
    try:
        return value.decode().strip('"') or None
    except UnicodeDecodeError:
        return None


# ---------------------------------------------------------------- reasons


def _names(fields: dict[str, Any]) -> str:
    return short_list(tuple(fields), 10) or "no field"


def _missing_asset(scopes: Sequence[Scope], record: RawRecord, times: TimeParser) -> str:
    place = f"header:{record.headers[0][0]}" if record.headers else asset_place(scopes, times) or "topic"
    more = "" if place == "topic" else ', or asset = "topic" where the whole topic is one asset'
    return (
        'missing_asset: neither an "asset" field nor a Kafka key says which asset this is; the record has '
        f'{_names(scopes[-1].fields)}; name the field: [kafka.fields] asset = {toml(place)}{more}'
    )


def _missing_time(scopes: Sequence[Scope], times: TimeParser) -> str:
    place = time_place(scopes, times)
    fix = 'time = "kafka"' if place is None else f"time = {toml(place)}"
    return (
        f'missing_ts: there is no "ts", and the record has {_names(scopes[-1].fields)}; send the event time as ISO '
        f"8601 text or in seconds since 1970, or set [kafka.fields] {fix}"
        + (", which takes Kafka's timestamp" if place is None else "")
    )


def _ambiguous(name: str, first: Found, second: Found) -> str:
    place = place_apart(first, second)
    fix = (
        "give each reading its own time, or a field with the name of its asset"
        if place is None
        else f"name the field that tells the assets apart: [kafka.fields] asset = {toml(place)}"
    )
    return f"ambiguous: the record gives {quote(name)} twice at one time of one asset; {fix}"
