"""The structures of documents that are recognised without configuration: a function each, tried in the order of SHAPES.

Input: a document, a dict of JSON-like values. Output: `Found`, the cells of its readings, with the objects around them
(scopes). Which field of the scopes is the asset and which the time is decided in mapping.py. Invariant: pure. The
result depends on the document alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monitor.decode.cells import is_bad, is_number_text, unwrap, value_name
from monitor.decode.formatting import quote, toml
from monitor.decode.names import (
    ASSET_NAMES,
    CONTAINER_NAMES,
    NEUTRAL_NAMES,
    RESERVED,
    SENSOR_NAMES,
    SERIES_CONSTANTS,
    TIME_NAMES,
    VALUE_NAMES,
    WEAK_ASSET_NAMES,
    WEAK_SENSOR_NAMES,
    is_generic,
    is_identifier,
    is_selector,
    plain,
)
from monitor.decode.payload import parse_json
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MAX_DEPTH: Final = 10
"""Levels of objects around the cells."""
_TEXT_NAMES: Final = frozenset(("data", "payload", "body", "message", "msg"))
"""Fields of which a text may be an object of JSON."""
SERIES: Final = "series of a measurement"
MAX_FOUND: Final = 20_000
"""Readings of one record."""

Path = tuple[str, ...]


class Scope(NamedTuple):
    """An object around the cells."""

    fields: dict[str, Any]
    path: Path | None
    """From the document to the object. None = an array or a text of JSON lies between."""
    is_item: bool = False
    """Whether it is an element of an array."""


class Doubt(NamedTuple):
    """A value whose sensor the record does not tell for certain."""

    value: str
    """Name of the field."""
    names: frozenset[object]
    """What may be the sensor's name. The asset's name is none."""
    reason: str


@dataclass(slots=True)
class Found:
    """The cells of one reading, or of one sensor at one time."""

    shape: str
    """Name of the structure."""
    scopes: tuple[Scope, ...]
    """Objects around the cells, the innermost first."""
    cells: dict[str, Any]
    """Name → value as it is written."""
    paths: dict[str, Path] | None = None
    """Name → path of the value in the document, where every record of this structure has it there."""
    asset: str | None = None
    """Asset by the structure itself."""
    time: Any = None
    """Time by the structure itself."""
    used: frozenset[str] = frozenset()
    """Fields of the innermost object that name the sensor or hold its value."""
    is_exact: bool = False
    """Whether every cell is meant as a sensor's: no name is taken for an identifier's."""
    is_flat: bool = False
    """Whether the cells stand beside asset and time, so that not every field is a measurement."""
    value: str = ""
    """Long format: the name of the field with the value."""
    doubt: Doubt | None = None


Scopes = tuple[Scope, ...]


def recognise(documents: Iterable[dict[str, Any]]) -> list[Found]:
    """Return the cells of all documents of one record."""
    documents = list(documents)
    if any(_is_senml(each) for each in documents):
        documents = list(_resolve_senml(documents))
    is_item = len(documents) > 1
    return [found for each in documents for found in inside((Scope(each, None if is_item else (), is_item),))]


def inside(scopes: Scopes) -> list[Found]:
    """Return the cells of the innermost of these objects."""
    if len(scopes) > _MAX_DEPTH:
        return []
    for shape in SHAPES:
        found = shape(scopes)
        if found is not None:
            return found[:MAX_FOUND]
    return []


# ---------------------------------------------------------------- helpers


def step_into(scopes: Scopes, name: str, inner: dict[str, Any]) -> Scopes:
    """Return the scopes of an object in a field of the innermost one."""
    path = scopes[0].path
    return (Scope(inner, None if path is None else (*path, name), scopes[0].is_item), *scopes)


def items_of(scopes: Scopes, items: Iterable[Any]) -> Iterator[Scopes]:
    """Yield the scopes of each object of an array."""
    for item in items:
        if isinstance(item, dict):
            yield (Scope(item, None, is_item=True), *scopes)


def by_rank(fields: dict[str, Any], ranks: dict[str, int]) -> str | None:
    """Return the field whose name has the lowest rank."""
    best, found = len(ranks), None
    for name in fields:
        rank = ranks.get(plain(name), best)
        if rank < best:
            best, found = rank, name
    return found


def object_in_text(value: object) -> dict[str, Any] | None:
    """Return the object that a text of JSON holds."""
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    try:
        return parse_json(value.encode())
    except (DecodeError, UnicodeEncodeError):
        return None


def is_measurement(value: object, *, is_whole_allowed: bool = True) -> bool:
    """Return whether a value is a number, a boolean, or a number in a text."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return True
    return kind is str and is_number_text(value, is_whole_allowed=is_whole_allowed)  # type: ignore[arg-type]


def _time_of_cell(cell: dict[str, Any]) -> Any:
    name = by_rank(cell, TIME_NAMES)
    return None if name is None else cell[name]


# ---------------------------------------------------------------- envelopes


def connect_envelope(scopes: Scopes) -> list[Found] | None:
    """Kafka Connect: {"schema": {…}, "payload": {…}}."""
    fields = scopes[0].fields
    if fields.keys() != {"schema", "payload"} or not isinstance(fields["schema"], (dict, str, type(None))):
        return None
    inner = object_in_text(fields["payload"]) or fields["payload"]
    return inside(step_into(scopes, "payload", inner)) if isinstance(inner, dict) else []


def change_event(scopes: Scopes) -> list[Found] | None:
    """Debezium: {"before": …, "after": {…}, "op": "c", "ts_ms": T}. A deleted row is no reading."""
    fields = scopes[0].fields
    if "after" not in fields or not ("op" in fields or "before" in fields):
        return None
    return inside(step_into(scopes, "after", fields["after"])) if isinstance(fields["after"], dict) else []


def home_assistant(scopes: Scopes) -> list[Found] | None:
    """Home Assistant: {"entity_id": E, "state": S, "last_changed": T}, or an event with a new_state of this form."""
    fields = scopes[0].fields
    for name in ("new_state", "data"):
        inner = fields.get(name)
        if isinstance(inner, dict) and ("entity_id" in inner or "new_state" in inner):
            return inside(step_into(scopes, name, inner))
    entity = fields.get("entity_id")
    if not isinstance(entity, str) or "state" not in fields or isinstance(fields["state"], (dict, list)):
        return None
    time = fields.get("last_updated") or fields.get("last_changed")
    return [
        Found(
            "Home Assistant state", scopes, {entity: fields["state"]}, time=time, used=frozenset(("state",)),
            is_exact=True,
        )
    ]  # fmt: skip


# ---------------------------------------------------------------- one sensor in a document


def opc_value(scopes: Scopes) -> list[Found] | None:
    """OPC UA: {"NodeId": N, "DisplayName": D, "Value": V, "SourceTimestamp": T}, V perhaps with its own time."""
    fields = scopes[0].fields
    node = next((name for name in fields if plain(name) in ("nodeid", "id") and _is_node(fields[name])), None)
    value = next((name for name in fields if plain(name) == "value"), None)
    if node is None or value is None:
        return None
    display = next((fields[name] for name in fields if plain(name) == "displayname"), None)
    sensor = display if isinstance(display, str) and display else str(fields[node]).rpartition("s=")[2]
    cell = None if is_bad(fields) else fields[value]
    time = _time_of_cell(fields[value]) if isinstance(fields[value], dict) else None
    used = frozenset((node, value))
    return [Found("OPC UA value", scopes, {sensor: cell}, time=time, used=used, is_exact=True)]


def _is_node(value: object) -> bool:
    return isinstance(value, str) and any(sign in value for sign in ("s=", "i=", "g=", "b="))


def gateway_values(scopes: Scopes) -> list[Found] | None:
    """Kepware: {"timestamp": T, "values": [{"id": "Channel.Device.tag", "v": V, "q": true, "t": T}]}."""
    values = scopes[0].fields.get("values")
    if not isinstance(values, list) or not values or not all(isinstance(v, dict) and "v" in v for v in values):
        return None
    if not all(isinstance(each.get("id"), str) for each in values):
        return None
    found = []
    for item in items_of(scopes, values):
        cell = item[0].fields
        channel, *tag = cell["id"].split(".", 2)
        asset, sensor = (f"{channel}.{tag[0]}", tag[1]) if len(tag) == 2 else (None, cell["id"])
        used = frozenset(("id", "v"))
        value = None if is_bad(cell) else cell["v"]
        found.append(
            Found("gateway values", item, {sensor: value}, asset=asset, time=cell.get("t"), used=used, is_exact=True)
        )
    return found


def labelled(scopes: Scopes) -> list[Found] | None:
    """Prometheus: {"labels": {"__name__": N}, "samples": [{"value": V}]}. Adafruit: {"feed": {"key": N}, "data": …}."""
    fields = scopes[0].fields
    labels, feed = fields.get("labels"), fields.get("feed")
    if isinstance(labels, dict) and _is_name(labels.get("__name__")):
        name = ".".join((labels["__name__"], *_series_tags({n: v for n, v in labels.items() if n != "__name__"})))
        inner = fields.get("samples", [fields])
    elif isinstance(feed, dict) and _is_name(feed.get("key", feed.get("name"))) and "data" in fields:
        name, inner = str(feed.get("key", feed.get("name"))), fields["data"]
    else:
        return None
    found = []
    for item in inner if isinstance(inner, list) else [inner]:
        if isinstance(item, dict) and (value := by_rank(item, VALUE_NAMES)) is not None:
            within = scopes if item is fields else (Scope(item, None, scopes[0].is_item), *scopes)
            used = frozenset(("name", value))
            found.append(Found("labelled", within, {name: item[value]}, used=used, is_exact=True, value=value))
    return found or None


def long_format(scopes: Scopes) -> list[Found] | None:
    """One sensor in a document: {"metric": "temp", "value": 21.5, …}. The name may stand in an object around it."""
    fields = scopes[0].fields
    value = by_rank(fields, VALUE_NAMES)
    if value is None:
        return None
    cell = fields[value]
    if isinstance(cell, list) or (isinstance(cell, dict) and value_name(cell) is None):
        return None
    name = by_rank({n: v for n, v in fields.items() if _is_name(v)}, SENSOR_NAMES)
    others = [n for n, v in fields.items() if n != value and type(v) in (int, float) and _is_candidate(n, float(v))]
    sensor: str | None = None if name is None else fields[name]
    if name is None and not [n for n in others if not is_selector(n)]:
        name = by_rank({n: v for n, v in fields.items() if n != value and _is_name(v)}, WEAK_SENSOR_NAMES)
        sensor = None if name is None else fields[name]
        if name is None and (name := _number_of_sensor(fields)) is not None:
            sensor = f"{name}.{fields[name]}"
        if name is None:
            around = [(n, v) for scope in scopes[1:] for n, v in scope.fields.items() if _is_name(v)]
            sensor = next((v for n, v in around if plain(n) in SENSOR_NAMES or plain(n) == "topic"), None)
    if sensor is None or name == value:
        return None
    used = frozenset((value,) if name is None else (name, value))
    cells = {sensor: None if is_bad(fields) else cell}
    return [Found("long format", scopes, cells, used=used, is_exact=True, value=value)]


def _number_of_sensor(fields: dict[str, Any]) -> str | None:
    """Return the field with the number of a sensor: {"channel": 1}."""
    usual = {n: v for n, v in fields.items() if plain(n) in SENSOR_NAMES or is_selector(n)}
    numbers = [n for n, v in usual.items() if type(v) is int or (type(v) is str and v.isdecimal() and len(v) <= 20)]
    return numbers[0] if len(numbers) == 1 else None


def _doubt(scopes: Scopes, value: str) -> Doubt | None:
    """Return the doubt about a record in which another field may say of which sensor "value" is the value."""
    fields = scopes[0].fields
    others = [n for n, v in fields.items() if n != value and _is_candidate(n, v)]
    folder = scopes[0].path or ()
    names = {".".join((*folder, n)): v for n, v in fields.items() if n != value and _may_select(n, v, not others)}
    for scope in scopes[1:]:
        names |= {n: v for n, v in scope.fields.items() if plain(n) in _WEAK_AROUND and _is_name(v)}
    if not names:
        return None
    name = next(iter(names))
    return Doubt(
        value,
        frozenset(names.values()),
        f"unknown_sensor: {quote(value)} may be the value of the sensor that {quote(name)} names; if so, set "
        f"[kafka.fields] sensor = {toml(name)}, value = {toml('.'.join((*folder, value)))}; if it is a sensor itself: "
        f"values = [{', '.join(toml('.'.join((*folder, n))) for n in (value, *others[:6]))}]",
    )


_WEAK_AROUND: Final = frozenset(("name", "key", "item", "type", "label", "code"))
"""Names of fields around an object with a single value that may name its sensor."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d[./]\d\d[./]\d\d", re.ASCII)


def _may_select(name: str, value: object, is_alone: bool) -> bool:
    """Return whether a field beside "value" may name its sensor."""
    if type(value) is int:
        return is_selector(name)
    if not isinstance(value, str) or not _is_name(value) or len(value) > 64 or _DATE.match(value):
        return False
    if _is_neutral(name):
        return False
    return is_alone or is_selector(name) or plain(name) in _WEAK_AROUND


def _is_neutral(name: str) -> bool:
    """Return whether a field of this name, a text, never says which sensor a value is of."""
    short = plain(name)
    if short in SENSOR_NAMES or short in WEAK_SENSOR_NAMES:
        return False
    known = (NEUTRAL_NAMES, TIME_NAMES, ASSET_NAMES, WEAK_ASSET_NAMES)
    return name in RESERVED or any(short in names for names in known) or is_identifier(name)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and not is_number_text(value, is_whole_allowed=True)


# ---------------------------------------------------------------- several readings in a document


def table(scopes: Scopes) -> list[Found] | None:
    """Rows with a common header: {"columns": ["time", "temp"], "values": [[T, 21.5], …]}."""
    fields = scopes[0].fields
    columns = fields.get("columns")
    if not isinstance(columns, list) or not columns or not all(isinstance(each, str) for each in columns):
        return None
    name = next((n for n in ("values", "rows", "data") if isinstance(fields.get(n), list)), None)
    if name is None:
        return None
    rows = [dict(zip(columns, row, strict=False)) for row in fields[name] if isinstance(row, list)]
    return [found for item in items_of(scopes, rows) for found in inside(item)]


def container(scopes: Scopes) -> list[Found] | None:
    """Values, or readings, in an object or array of a usual name: values, fields, data, payload, metrics, …"""
    fields = scopes[0].fields
    names = sorted((CONTAINER_NAMES[plain(n)], n) for n in fields if plain(n) in CONTAINER_NAMES)
    has_numbers = bool(names) and any(
        _is_candidate(name, value)
        for name, value in fields.items()
        if not (type(value) is dict and plain(name) in CONTAINER_NAMES)
    )
    for _, name in names:
        inner = (object_in_text(fields[name]) if plain(name) in _TEXT_NAMES else None) or fields[name]
        if isinstance(inner, dict) and inner:
            within = step_into(scopes, name, inner)
            if inner is not fields[name]:  # a text of JSON
                within = (Scope(inner, None, within[0].is_item), *within[1:])
            if name == "sensors":
                found = _cells(within, "wide", is_exact=True)
                for each in found:
                    each.scopes = scopes  # a sensor may be called "asset" or "time"
                return found
            found = _contained(within, name)
            if has_numbers:
                found = _with_siblings(scopes, found, name)
            if found:
                return found
        elif isinstance(inner, list) and not has_numbers:
            found = [each for item in items_of(scopes, inner) for each in inside(item)]
            if any(each.cells for each in found):
                return found
    return None


def _contained(scopes: Scopes, name: str) -> list[Found]:
    found = [each for each in inside(scopes) if each.cells]
    for each in found:
        if each.shape in ("flat", _ONE_VALUE) and each.scopes[0] is scopes[0]:
            if each.shape == _ONE_VALUE:
                each.paths = None  # fields around it may name the sensor
            each.is_flat, each.shape = False, f'values in "{name}"'
    return found


def _with_siblings(scopes: Scopes, found: list[Found], name: str) -> list[Found]:
    """Add the numbers beside an object of values to its cells. Everything but a plain object gives way to them."""
    if len(found) != 1 or found[0].is_exact or found[0].scopes[1:] != scopes:
        return []
    [inner], beside = found, _cells(scopes, "flat")
    if len(beside) != 1:  # cells with times of their own
        return []
    [outer] = beside
    outer.cells.pop(name, None)
    if outer.paths is not None:
        outer.paths.pop(name, None)
    if inner.cells.keys() & outer.cells.keys():
        return []
    inner.cells |= outer.cells
    inner.paths = None if inner.paths is None or outer.paths is None else inner.paths | outer.paths
    inner.is_flat = True
    return found


def measurement(scopes: Scopes) -> list[Found] | None:
    """Telegraf, line protocol, InfluxDB: {"name": M, "tags": {…}, "fields": {"temp": 21.5}, "timestamp": T}.

    A sensor has the name of its field. A field of a general name has its measurement's before it ("disk.used"), and
    "value" has the name of the measurement, or of the tag that names a sensor or a topic. Values of tags that tell
    series of one asset apart stand behind it ("cpu.usage_idle.cpu0").
    """
    fields = scopes[0].fields
    name, tags, inner = fields.get("name") or fields.get("measurement"), fields.get("tags") or {}, fields.get("fields")
    if not isinstance(inner, dict) or not isinstance(name, str) or not isinstance(tags, dict) or not inner:
        return None
    if any(_is_candidate(n, v) for n, v in fields.items() if type(v) is not dict):
        return None
    within, series = step_into(scopes, "fields", inner), _series_tags(tags)
    if not series and not any(map(is_generic, inner)):
        found = _cells(within, "flat")
        for each in found:
            each.is_flat, each.shape = False, "measurement"
        return found
    topic = next((n for n in tags if (plain(n) in SENSOR_NAMES or plain(n) == "topic") and _is_name(tags[n])), None)
    cells = {}
    for field, cell in inner.items():
        if plain(field) in VALUE_NAMES:
            base = [name] if topic is None else [tags[topic]]
            rest = _series_tags({n: v for n, v in tags.items() if n != topic})
        elif is_identifier(field) and not is_generic(field):
            continue
        else:
            base, rest = [name, field] if is_generic(field) else [field], series
        cells[".".join((*base, *rest))] = cell
    return [Found(SERIES, within, cells, is_exact=True)]


def _series_tags(tags: dict[str, Any]) -> list[str]:
    """Return the values of the tags that tell series of one asset apart, in the order of the tags' names."""
    return [
        str(value)
        for name, value in sorted(tags.items())
        if isinstance(value, (str, int))
        and not any(plain(name) in names for names in (ASSET_NAMES, WEAK_ASSET_NAMES, SERIES_CONSTANTS))
        and value != ""
    ]


def only_array(scopes: Scopes) -> list[Found] | None:
    """An array of objects in a document without numbers of its own."""
    fields = scopes[0].fields
    arrays = [v for v in fields.values() if isinstance(v, list) and any(isinstance(item, dict) for item in v)]
    if len(arrays) != 1 or any(_is_candidate(name, value) for name, value in fields.items()):
        return None
    found = [each for item in items_of(scopes, arrays[0]) for each in inside(item)]
    return found or None


# ---------------------------------------------------------------- a document is a reading

_ONE_VALUE: Final = "one value"
"""A document with nothing but "value" beside its asset and time, and fields that never name a sensor."""


def flat(scopes: Scopes) -> list[Found]:
    """Fields beside asset and time. Where none is a number, the fields of the objects inside, with dotted names."""
    fields, root = scopes[0].fields, scopes[0].path
    if not any(_is_candidate(name, value) for name, value in fields.items()):
        nested = dict(flattened(fields))
        if any(_is_candidate(".".join(path), value) for path, value in nested.items() if len(path) > 1):
            cells = {".".join(path): value for path, value in nested.items() if path[-1] not in RESERVED}
            paths = None if root is None else {".".join(path): (*root, *path) for path in nested}
            if len(cells) == len(nested) - sum(path[-1] in RESERVED for path in nested):
                return [Found("nested objects", scopes, cells, paths, is_flat=True)]
    found = _cells(scopes, "flat")
    value = next((name for name in fields if plain(name) in VALUE_NAMES), None)
    if value is None:
        return found
    # Whether "value" is a sensor depends on all fields beside it, so that no fast parser may join those of two records.
    doubt = _doubt(scopes, value) if is_measurement(unwrapped(fields[value])) else None
    is_alone = all(n == value or (_is_neutral(n) and type(v) not in (dict, list)) for n, v in fields.items())
    for each in found:
        each.doubt = doubt
        if is_alone:
            each.shape = _ONE_VALUE
        else:
            each.paths = None
    return found


def _is_candidate(name: str, value: object) -> bool:
    """Return whether a field beside asset and time is a measurement, by its name and value."""
    return (
        is_measurement(unwrapped(value), is_whole_allowed=False)
        and name not in RESERVED
        and plain(name) not in TIME_NAMES
        and not is_identifier(name)
    )


def _cells(scopes: Scopes, shape: str, *, is_exact: bool = False) -> list[Found]:
    """Return one reading of the innermost object, or one per time where its cells have their own times."""
    fields, root = scopes[0].fields, scopes[0].path
    cells: dict[str, Any] = {}
    times: dict[str, Any] = {}
    is_plain = root is not None
    for name, value in fields.items():
        if shape == "flat" and name in RESERVED:
            continue
        if type(value) is dict:
            if value_name(value) is not None:
                is_plain = False
                if (time := _time_of_cell(value)) is not None:
                    times[name] = time
            elif is_exact:  # an object inside the values: its fields have dotted names
                is_plain = False
                cells |= {".".join((name, *path)): cell for path, cell in flattened(value)}
                continue
        cells[name] = value
    if times:
        timed = [
            Found(shape, scopes, {name: cells[name]}, time=time, is_exact=is_exact, is_flat=not is_exact)
            for name, time in times.items()
        ]
        rest = {name: cell for name, cell in cells.items() if name not in times and is_measurement(unwrapped(cell))}
        return [*timed, Found(shape, scopes, rest, is_exact=is_exact, is_flat=not is_exact)] if rest else timed
    paths = {name: (*(root or ()), name) for name in cells} if is_plain else None
    return [Found(shape, scopes, cells, paths, is_exact=is_exact, is_flat=not is_exact)]


def unwrapped(cell: object) -> object:
    """Return the value of a cell, also of one that is an object around it."""
    return unwrap(cell) if type(cell) is dict else cell


def flattened(fields: dict[str, Any], depth: int = 0) -> Iterator[tuple[Path, Any]]:
    """Yield the path and value of each field, and of the fields of the objects inside."""
    for name, value in fields.items():
        if type(value) is dict and value_name(value) is None:
            if depth < _MAX_DEPTH:
                for path, inner in flattened(value, depth + 1):
                    yield (name, *path), inner
        elif type(value) is not list:
            yield (name,), value


# ---------------------------------------------------------------- SenML (RFC 8428)


def _is_senml(document: dict[str, Any]) -> bool:
    names = document.keys()
    return bool(names & {"v", "vb", "vs"}) and bool(names & {"n", "bn"}) and bool(names & {"bn", "bt", "bu", "u"})


def _resolve_senml(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the records of a pack with their base name, base time and base value applied."""
    base_name, base_time, base_value = "", 0.0, 0.0
    for each in documents:
        base_name = str(each.get("bn", base_name))
        base_time = _number(each.get("bt"), base_time)
        base_value = _number(each.get("bv"), base_value)
        value = each.get("v", each.get("vb", each.get("vs")))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = value + base_value
        name, time = str(each.get("n", "")), base_time + _number(each.get("t"), 0.0)
        document: dict[str, Any] = {"sensor": name or base_name, "value": value}
        if time >= 2**28:  # smaller times are relative to the receiver's clock
            document["time"] = time
        if base_name and name:
            document["asset"] = base_name.rstrip(":/._-") or base_name
        yield document


def _number(value: object, default: float) -> float:
    return float(value) if type(value) in (int, float) and abs(value) < 1e15 else default  # type: ignore[arg-type]


SHAPES: Final[tuple[Callable[[Scopes], list[Found] | None], ...]] = (
    connect_envelope,
    change_event,
    home_assistant,
    opc_value,
    gateway_values,
    table,
    labelled,
    measurement,
    long_format,
    container,
    only_array,
    flat,
)
"""Structures in the order in which they are tried. The last one takes every document."""
