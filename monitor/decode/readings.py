"""Fast parser of single readings with fixed places, in JSON, MessagePack or as documents: about a microsecond each.

One msgspec struct is made per list of sensors and set of fields, so that a record goes from bytes to floats without a
dict. A `Plan` says where asset, time and sensors lie. It comes from a record that `mapping.py` has read.

Input: a group of records. Output: columns of the records that it accepts, and the rows of the others. Invariant: a
record is accepted only if `mapping.py` gives the same row, with the same values. Everything unusual (another structure,
an unknown field, a text for a number, a time in the future) is left to `mapping.py`.

The struct refuses fields that it does not know, at every level. Fields beside the sensors are learnt from accepted
records: after the first one with `"site": "north"`, such records are fast. A field that could change how a record is
recognised (a higher-ranking name of an asset, a name of an array of readings) is never learnt.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from monitor.decode.cells import is_number_text
from monitor.decode.columns import DecodedColumns, RecordGroup, cells_of
from monitor.decode.keys import is_usable_key
from monitor.decode.mapping import KEY_PATH, NUMBERED, OWN_NAMES, is_time
from monitor.decode.names import (
    ASSET_FIELDS,
    ASSET_NAMES,
    CONTAINER_NAMES,
    SENSOR_NAMES,
    SIDE_NAMES,
    TIME_FIELDS,
    TIME_NAMES,
    VALUE_NAMES,
    WEAK_ASSET_NAMES,
    WEAK_SENSOR_NAMES,
    is_identifier,
    plain,
)
from monitor.decode.payload import MAX_FIELDS, PARSE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from monitor.decode.mapping import Row
    from monitor.decode.schema import Router, Token
    from monitor.decode.shapes import Path
    from monitor.types import Bool, Float32, Int64

GIVE_UP_AFTER: Final = 32
"""Failures in a row, without a success before, after which a parser does not suit the records."""
_MAX_EXTRA_FIELDS = 64
"""Fields beside the sensors that are learnt. A producer may invent names without end."""
_MAX_BYTES_WITH_CONTAINERS = 4_000
"""A shorter record cannot hold more than MAX_FIELDS (2,000) fields, since a field takes two bytes at least."""
_MAX_NAME = 128
"""Characters of an extra field's name that are remembered."""

_Scalar = str | int | float | bool | None
_Time = int | float | str | None
_Asset = str | int | None
_Cell = float | bool | None
_SCALARS = (str, int, float, bool, type(None))
_STRUCTURAL: Final = frozenset(
    (
        *(*VALUE_NAMES, "schema", "after", "before", "op", "newstate", "entityid", "columns", "rows", "nodeid"),
        *("start", "interval", "bn", "bt", "bu", "vb", "vs", "displayname"),
        *("data", "payload", "body", "message", "msg"),
    )
)
"""Names, plain, by which a structure is recognised, or of a text that may be an object of JSON."""
_EXACT, _USUAL, _WEAK = range(3)
"""Tiers of the places of an asset in a record."""
TEXT, ANY, _LIST = "text", "any", "list"
"""Kinds of fields beside the sensors."""


class Plan(NamedTuple):
    """The places of asset and time in the records of one structure."""

    asset: Path
    """KEY_PATH = Kafka's key."""
    time: Path
    shape: str
    is_weak: bool
    """Whether Kafka's key, where there is one, comes before the asset's field."""


def plan_of(row: Row) -> Plan | None:
    """Return the plan of a record with one row. None = its fields have no fixed places."""
    if row.found is None or row.others or row.found.paths is None or row.asset_path is None or row.time_path is None:
        return None
    if "\0" in row.time_path or (row.asset_path != KEY_PATH and "\0" in row.asset_path):
        return None
    if row.found.shape == "nested objects" and any(
        len(path) == 1 and row.cells.get(name) is None for name, path in row.found.paths.items()
    ):
        return None  # with a number there, the record is flat
    return Plan(row.asset_path, row.time_path, row.found.shape, row.is_weak)


class ParsedFields(NamedTuple):
    """The fields of N records of one plan."""

    tokens: list[Any]
    """[N], as they are written, None = missing."""
    times: Sequence[Any]
    """[N], as they are written. Empty = by a schema, without a doubt about their unit."""
    ts_us: Int64
    """[N]"""
    is_good: Bool
    """[N], False = left to `mapping.py`."""
    values: Float32
    """[N, C]. Missing is NaN, too large for float32 is infinity."""
    texts: list[list[str | None]]
    """Fields that must not hold numbers: they could be sensors that are to be learnt."""
    watched: list[tuple[str, list[bool]]]
    """Name → whether each record has it [N]."""
    has_usual_asset: bool
    """Whether a field names the asset where the key is none."""


class ReadingParser:
    """Parser of the readings of one fleet that have one plan, with the fields met so far."""

    __slots__ = ("_cells", "_compiled", "_kinds", "_paths", "_read", "_watched", "plan", "seen", "times")

    def __init__(self, plan: Plan, read: str) -> None:
        """`read`: json, msgpack, or documents."""
        self.plan = plan
        self._read = read
        self._paths: dict[str, Path] = {}
        """Sensor → path."""
        self._kinds: dict[Path, str] = {}
        """Path → kind, of fields that are neither a sensor nor asset or time."""
        self._cells: dict[Path, str] = {}
        """Path → name, of those fields that are cells."""
        self._watched: dict[str, Path] = {}
        """Name → path, of fields whose occurrence is reported."""
        self._compiled: dict[tuple[str, ...], _CompiledParser | None] = {}
        self.seen: list[tuple[str, list[int]]] = []
        """Of the last group: watched name → rows of the returned columns that have it."""
        self.times: Sequence[Any] = ()
        """Of the last group: the times as they are written."""

    # ------------------------------------------------------------ learning

    def expect(self, row: Row, document: Mapping[str, Any], sensors: Container[str], watched: Iterable[str]) -> None:
        """Accept, from now on, the fields that this accepted record has.

        `watched`: cells that are no sensors yet, whose occurrence is reported.
        """
        assert row.found is not None  # noqa: S101  # plan_of
        cells = {path: name for name, path in (row.found.paths or {}).items()}
        paths, kinds, seen = self._paths.copy(), self._kinds.copy(), self._watched.copy()
        others: list[tuple[Path, Any]] = []
        for path, value in _leaves(document):
            if path in (self.plan.asset, self.plan.time) or not all(map(_is_possible_field, path)):
                continue
            name = cells.get(path)
            if name is None or name not in sensors or name not in row.cells:
                others.append((path, value))
            elif value is None or _kind_of(value) == ANY:
                paths.setdefault(name, path)
        if self._may_be_long(paths):
            kinds, others = {}, []
            if self.plan.asset != KEY_PATH and _may_name_sensor(self.plan.asset[-1]):
                return  # without another number, the asset's field would name the sensor
        for path, value in others:
            kind = _kind_of(value)
            is_possible = path in kinds or (len(kinds) < _MAX_EXTRA_FIELDS and self._is_harmless(path, kind or ANY))
            if is_possible and kind is not None and kinds.get(path, TEXT) == TEXT:
                kinds[path] = kind
        seen |= {name: path for path, name in cells.items() if name in watched and path in kinds}
        self._cells |= {path: name for path, name in cells.items() if path in kinds}
        if (paths, kinds, seen) != (self._paths, self._kinds, self._watched):
            self._paths, self._kinds, self._watched = paths, kinds, seen
            self.forget()

    def _may_be_long(self, paths: Iterable[str]) -> bool:
        """Return whether a field beside these sensors may make a record long format: one of them is called "value"."""
        return self.plan.shape != "wide" and any(plain(name) in VALUE_NAMES for name in paths)

    def forget(self) -> None:
        """Compile again: the known fields have changed."""
        self._compiled.clear()

    def _is_harmless(self, path: Path, kind: str) -> bool:
        """Return whether a field can never change how a record with this plan is recognised."""
        short = plain(path[-1])
        folders = {plain(each) for each in path[:-1]}
        own = {plain(each) for each in (*self.plan.time[:-1], *self.plan.asset[:-1])}
        own |= {plain(each) for cell in self._paths.values() for each in cell[:-1]}
        if folders & (CONTAINER_NAMES.keys() | _STRUCTURAL) - own:
            return False
        if short in _STRUCTURAL or (kind == _LIST and (short in CONTAINER_NAMES or short in TIME_NAMES)):
            return False
        time = self.plan.time
        if path[-1] in TIME_FIELDS or short in TIME_NAMES:
            return path[:-1] == time[:-1] and _is_behind(path[-1], time[-1])
        return not may_name_asset(path) or self._is_behind_asset(path)

    def _is_behind_asset(self, path: Path) -> bool:
        """Return whether a usual name of an asset is only used where the plan's asset is missing."""
        tier, rank = _asset_rank(path)
        if self.plan.asset == KEY_PATH:
            return tier > _EXACT  # where the key is no name, the record is left: `has_usual_asset`
        own_tier, own_rank = _asset_rank(self.plan.asset)
        return tier > own_tier or (tier == own_tier and _scope(path) == _scope(self.plan.asset) and rank > own_rank)

    # ------------------------------------------------------------ decoding

    def decode(self, group: RecordGroup, router: Router) -> tuple[DecodedColumns | None, Int64]:
        """Return the columns of the accepted records, and the rows [K] of the group that are left, rising."""
        self.seen, self.times = [], ()
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

        times = list(map(parser.time, parsed))
        ts_us, is_good = group.mapping.times.parse_column_us(times)
        if parser.has_containers and self._read != "documents":
            is_good &= np.fromiter(map(len, group.values), np.int64, len(group)) <= _MAX_BYTES_WITH_CONTAINERS
        fields = ParsedFields(
            list(group.keys) if parser.asset is None else list(map(parser.asset, parsed)),
            times,
            ts_us,
            is_good,
            parser.matrix(parsed),
            [list(map(text, parsed)) for text in parser.texts] if group.fleet.is_learning else [],
            [(name, [self._is_told(read(each)) for each in parsed]) for name, read in parser.watched],
            parser.asset is None and parser.has_usual_asset,
        )
        columns, left = self.accept(group, router, fields)
        return columns, np.array(sorted([*failed, *rows[left].tolist()]), np.int64)

    def _is_told(self, value: Any) -> bool:
        """Return whether a watched field has a value that could be a sensor's."""
        if type(value) is str:
            return is_number_text(value, is_whole_allowed=self.plan.shape not in ("flat", "nested objects"))
        return value is not None and value == value

    def accept(
        self, group: RecordGroup, router: Router, fields: ParsedFields
    ) -> tuple[DecodedColumns | None, Int64]:
        """Return the columns of the records whose fields can be used, and the rows [K] of the others, rising."""
        tokens, times, ts_us, is_good, values = fields[:5]
        for code in group.mapping.cells.missing:
            values[values == np.float32(code)] = np.nan
        is_good &= ts_us <= group.latest_us
        if plain(self.plan.time[-1]) == "t" and group.mapping.fields.time is None:
            is_good &= [is_time("t", written) for written in times] if len(times) else False
        is_finite = np.isfinite(values)
        if not is_finite.all():
            is_good &= np.any(is_finite, axis=1) & ~np.any(np.isinf(values), axis=1)
            values[np.isnan(values)] = np.nan  # MessagePack can hold any of NaN's bit patterns
        elif not values.shape[1]:
            is_good[:] = False
        is_good &= is_of_fleet(tokens, router, group.fleet_number)
        if self.plan.is_weak or (fields.has_usual_asset and group.mapping.fields.asset is None):
            is_usable = {key: is_usable_key(key) for key in set(group.keys)}
            is_good &= np.array([is_usable[key] != self.plan.is_weak for key in group.keys], np.bool_)
        read = group.mapping.cells.read
        for texts in fields.texts:
            # By an earlier record of this batch, such a field may be a sensor's that the text is a value of.
            if numbers := {text for text in set(texts) if text and _is_number(read(text))}:
                is_good &= np.array([text not in numbers for text in texts], np.bool_)

        position, cell = group.position, cells_of(ts_us, group.fleet.interval_us)
        watched = fields.watched
        if not is_good.all():
            keep = np.flatnonzero(is_good)
            position, cell, values = position[keep], cell[keep], values[keep]
            tokens = [tokens[i] for i in keep.tolist()]
            times = [times[i] for i in keep.tolist()] if times else times
            watched = [(name, [present[i] for i in keep.tolist()]) for name, present in watched]
        self.times = times
        self.seen = [(name, np.flatnonzero(present).tolist()) for name, present in watched if any(present)]
        columns = DecodedColumns(position, tokens, None, cell, values) if len(position) else None
        return columns, np.flatnonzero(~is_good)

    def _parser_for(self, sensors: tuple[str, ...]) -> _CompiledParser | None:
        if sensors not in self._compiled:
            self._compiled = {sensors: self._compile(sensors)}
        return self._compiled[sensors]

    def _compile(self, sensors: tuple[str, ...]) -> _CompiledParser | None:
        known = tuple((name, self._paths[name]) for name in sensors if name in self._paths)
        taken = {path for _, path in known}
        # A text that was met before its field became a sensor's is no harmless field any more.
        taken |= {path for path, name in self._cells.items() if name in sensors}
        kinds = tuple(sorted((path, kind) for path, kind in self._kinds.items() if path not in taken))
        if not known or (any(map(is_identifier, dict(known))) and _has_containers(kinds)):
            return None
        watched = tuple(sorted((name, path) for name, path in self._watched.items() if path not in taken))
        return _compile(self.plan, sensors, known, kinds, watched, self._read)


def _is_number(read: float | None) -> bool:
    return read is not None and read == read


def _may_name_sensor(name: str) -> bool:
    return plain(name) in SENSOR_NAMES or plain(name) in WEAK_SENSOR_NAMES


def _has_containers(kinds: Iterable[tuple[Path, str]]) -> bool:
    return any(len(path) > 1 or kind == _LIST for path, kind in kinds)


def _may_be_number(name: str) -> bool:
    """Return whether a whole number in a field is an asset's name."""
    return name in ASSET_FIELDS or plain(name).endswith(NUMBERED)


def _present(attribute: str) -> Callable[[Any], Any]:
    """Return the reader of a field in an object that may be missing."""
    folder, _, name = attribute.rpartition(".")
    if not folder:
        return attrgetter(name)
    outer = _present(folder)
    return lambda reading: None if (inner := outer(reading)) is None else getattr(inner, name)


def _leaves(fields: Mapping[str, Any], path: Path = ()) -> Iterable[tuple[Path, Any]]:
    for name, value in fields.items():
        if type(value) is dict and len(path) < 8:
            yield from _leaves(value, (*path, name))
            if not value:
                yield (*path, name), None
        else:
            yield (*path, name), value


def _kind_of(value: object) -> str | None:
    if type(value) is list:
        return _LIST if all(type(item) in _SCALARS for item in value) else None
    if value is None or type(value) is str:
        return TEXT
    return ANY if type(value) in _SCALARS else None


def _is_behind(name: str, chosen: str) -> bool:
    """Return whether a time is only used where the chosen one is missing."""
    if chosen in TIME_FIELDS:
        return name not in TIME_FIELDS or TIME_FIELDS.index(name) > TIME_FIELDS.index(chosen)
    return name not in TIME_FIELDS and TIME_NAMES[plain(name)] > TIME_NAMES.get(plain(chosen), -1)


def may_name_asset(path: Path) -> bool:
    """Return whether a field has a usual name of an asset."""
    return plain(path[-1]) in ASSET_NAMES or plain(path[-1]) in WEAK_ASSET_NAMES


def _asset_rank(path: Path) -> tuple[int, int]:
    """Return the tier of an asset's place, and its rank there: the order of `mapping.py`, the first is the lowest."""
    name, side = plain(path[-1]), plain(path[-2]) if len(path) > 1 else ""
    if path[-1] in ASSET_FIELDS and side not in SIDE_NAMES:
        return _EXACT, ASSET_FIELDS.index(path[-1])
    if name in ASSET_NAMES:
        return _USUAL, ASSET_NAMES[name]
    if side in OWN_NAMES:
        return _USUAL, len(ASSET_NAMES) + WEAK_ASSET_NAMES.get(name, -1)
    return _WEAK, WEAK_ASSET_NAMES.get(name, -1)


def _scope(path: Path) -> Path:
    """Return the object in which `mapping.py` finds this asset, directly or in an object beside its values."""
    return path[:-2] if len(path) > 1 and plain(path[-2]) in SIDE_NAMES else path[:-1]


def _is_possible_field(name: str) -> bool:
    """Return True if a struct can have such a field. Without this check one odd name would make all records slow."""
    return name.isprintable() and '"' not in name and "\\" not in name and len(name) <= _MAX_NAME


# ---------------------------------------------------------------- the struct of one list of sensors


class _CompiledParser(NamedTuple):
    """The struct of one list of sensors, and how its fields are read."""

    parse: Callable[[Any], Any]
    time: Callable[[Any], Any]
    asset: Callable[[Any], Any] | None
    """None = Kafka's key."""
    rows: Callable[[Iterable[Any]], Iterable[tuple[float | None, ...]]]
    """From structs to the values of their sensors."""
    columns: tuple[int, ...] | None
    """Column of each value. None = every sensor, in order."""
    n_sensors: int
    texts: tuple[Callable[[Any], Any], ...]
    watched: tuple[tuple[str, Callable[[Any], Any]], ...]
    has_containers: bool
    has_usual_asset: bool
    """Whether a field names the asset where the key is none."""

    def matrix(self, parsed: Sequence[Any]) -> Float32:
        """Return the values [N, C]. Missing is NaN, too large for float32 is infinity."""
        n = self.n_sensors if self.columns is None else len(self.columns)
        flat = np.fromiter(chain.from_iterable(self.rows(parsed)), np.float32, len(parsed) * n)
        part = flat.reshape(len(parsed), n)
        if self.columns is None:
            return part
        values = np.full((len(parsed), self.n_sensors), np.nan, np.float32)
        values[:, self.columns] = part
        return values


# No reading can be part of a cycle, so the garbage collector need not track it.
_STRUCT: Final[dict[str, Any]] = {"gc": False, "forbid_unknown_fields": True}
_TYPES: Final[dict[str, Any]] = {TEXT: str | None, ANY: _Scalar, _LIST: list[_Scalar] | str | None}


@lru_cache(maxsize=128)
def _compile(
    plan: Plan,
    sensors: tuple[str, ...],
    known: tuple[tuple[str, Path], ...],
    kinds: tuple[tuple[Path, str], ...],
    watched: tuple[tuple[str, Path], ...],
    read: str,
) -> _CompiledParser | None:
    """Return the parser of these fields. None = no struct can have them: too many, or an odd name."""
    if len(known) + len(kinds) > MAX_FIELDS - 2:
        return None
    leaves: dict[Path, Any] = {path: _Cell for _, path in known}  # the sensors come first
    leaves[plan.time] = Any if read == "documents" else _Time  # a document may have a datetime
    if plan.asset != KEY_PATH:
        if plan.asset in leaves:
            return None
        leaves[plan.asset] = _Asset if _may_be_number(plan.asset[-1]) else str | None
    for path, kind in kinds:
        leaves.setdefault(path, _TYPES[kind])
    needed = {path[:n] for path in (*(p for _, p in known), plan.time, plan.asset) for n in range(1, len(path))}
    tree: dict[str, Any] = {}
    for path, kind in leaves.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                return None
        if path[-1] in node:
            return None
        node[path[-1]] = kind
    try:
        struct, attributes = _struct(tree, (), needed)
        if read == "documents":
            parse: Callable[[Any], Any] = lambda fields: msgspec.convert(fields, struct)  # noqa: E731
        else:
            parse = (msgspec.msgpack.Decoder if read == "msgpack" else msgspec.json.Decoder)(struct).decode
    except (ValueError, TypeError):
        return None
    names = [name for name, _ in known]
    paths = [path for _, path in known]
    n_before = sum(len(path) == len(paths[0]) and path[:-1] == paths[0][:-1] for path in needed)
    columns = None if tuple(names) == sensors else tuple(sensors.index(name) for name in names)
    return _CompiledParser(
        parse,
        attrgetter(attributes[plan.time]),
        None if plan.asset == KEY_PATH else attrgetter(attributes[plan.asset]),
        _rows(paths, attributes, n_before),
        columns,
        len(sensors),
        tuple(attrgetter(attributes[path]) for path, kind in kinds if kind == TEXT and path[:-1] in {(), *needed}),
        tuple((name, _present(attributes[path])) for name, path in watched if path in attributes),
        _has_containers(kinds),
        any(map(may_name_asset, leaves.keys() - {plan.asset})),
    )


def _struct(tree: dict[str, Any], path: Path, needed: set[Path]) -> tuple[type[Any], dict[Path, str]]:
    """Return the struct of an object, and the dotted attribute of each leaf below it."""
    fields: list[Any] = []
    rename: dict[str, str] = {}
    attributes: dict[Path, str] = {}
    optional: list[Any] = []
    for i, (name, kind) in enumerate(tree.items()):
        attribute, here = f"f{i}", (*path, name)
        rename[attribute] = name
        if isinstance(kind, dict):
            inner, below = _struct(kind, here, needed)
            attributes |= {leaf: f"{attribute}.{dotted}" for leaf, dotted in below.items()}
            if here in needed:
                fields.append((attribute, inner))
            else:
                optional.append((attribute, inner | None, None))
        else:
            optional.append((attribute, kind, None))
            attributes[here] = attribute
    return msgspec.defstruct("Reading", [*fields, *optional], rename=rename, **_STRUCT), attributes


def _rows(
    paths: Sequence[Path], attributes: Mapping[Path, str], n_before: int
) -> Callable[[Iterable[Any]], Iterable[tuple[Any, ...]]]:
    """Return the function from structs to the values at these paths.

    `n_before`: fields of the struct before its sensors, if all lie in one object (see `_struct`).
    """
    folder = paths[0][:-1]
    dotted = [attributes[path] for path in paths]
    if all(path[:-1] == folder for path in paths):
        as_tuple, cells = msgspec.structs.astuple, itemgetter(slice(n_before, n_before + len(paths)))
        if not folder:
            return lambda parsed: map(cells, map(as_tuple, parsed))
        inner = attrgetter(dotted[0].rpartition(".")[0])
        return lambda parsed: map(cells, map(as_tuple, map(inner, parsed)))
    several = attrgetter(*dotted)
    return lambda parsed: map(several, parsed)


# ---------------------------------------------------------------- shared by the fast parsers


def parse_each(parse: Callable[[Any], Any], values: Sequence[Any]) -> tuple[list[Any], list[int]]:
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


def peek_tokens(
    values: Sequence[bytes], keys: Sequence[bytes | None], paths: Sequence[Path], read: str
) -> list[Token | None]:
    """Return only the asset of each record, to find its fleet. None = the record names none at these places."""
    tokens: list[Token | None] = [None] * len(values)
    left = list(range(len(values)))
    for path in [*paths, *((name,) for name in ASSET_FIELDS if (name,) not in paths)]:
        if not left or path == KEY_PATH:
            continue
        parse, asset = _peek(path, read)
        parsed, failed = parse_each(parse, [values[i] for i in left])
        if not parsed:
            continue
        for row in failed:
            parsed.insert(row, None)
        found = [None if each is None else asset(each) for each in parsed]
        for at, token in zip(left, found, strict=True):
            tokens[at] = token
        left = [at for at in left if tokens[at] is None]
    for at in left:
        tokens[at] = keys[at]
    return tokens


@lru_cache(maxsize=64)
def _peek(path: Path, read: str) -> tuple[Callable[[bytes], Any], Callable[[Any], Any]]:
    struct: Any = msgspec.defstruct("Peek", [("f", _Asset, None)], rename={"f": path[-1]}, gc=False)
    for name in reversed(path[:-1]):
        struct = msgspec.defstruct("Peek", [("f", struct)], rename={"f": name}, gc=False)
    decoder = (msgspec.msgpack.Decoder if read == "msgpack" else msgspec.json.Decoder)(struct)
    return decoder.decode, attrgetter(".".join(["f"] * len(path)))
