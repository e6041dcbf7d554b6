"""The difference of two model versions by their cards: sensors, window, members, threshold, states and data.

Input: two versions as `Reader.model` gives them, each with its card. Output: rows with the value of each side, ready
for a table or JSON. Invariants: only what differs is listed, and a part that one card lacks is listed as unknown, not
as different. The cards cannot tell which alerts change: `monitor replay --diff` measures that on history.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from monitor import wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Row = Mapping[str, Any]

MIN_DRIFT = 0.1
"""Drift of a sensor, in spreads, from which it is listed. Two trainings on the same data differ by less."""
LARGE_DRIFT = 1.0
"""Drift of a sensor, in spreads, from which it is marked."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which two versions differ."""

    part: str
    """model, threshold, sensors, data"""
    name: str
    before: str
    after: str
    note: str = ""
    is_large: bool = False
    """It deserves a look before a promotion."""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def differences(before: Row, after: Row) -> list[Change]:
    """Return all in which `after` differs from `before`, in the order of a card."""
    a, b = before["card"], after["card"]
    return [*_model(a, b), *_threshold(a, b), *_sensors(a, b), *_data(a.get("training") or {}, b.get("training") or {})]


_FACTS = ("version", "fleet", "state", "aliases", "trained_at", "why", "gate_verdict")
"""Keys of a version in the document of a difference."""


def difference_document(before: Row, after: Row) -> dict[str, Any]:
    """Return the difference for JSON."""
    return {
        "before": {name: before[name] for name in _FACTS},
        "after": {name: after[name] for name in _FACTS},
        "differences": [change.as_json() for change in differences(before, after)],
        "replay": replay_command(before["version"], after["version"]),
    }


def replay_command(before: str, after: str, days: int = 7) -> str:
    """Return the command that compares two versions on history."""
    return f"monitor replay --from now-{days}d --diff {before} --diff {after}"


# ---------------------------------------------------------------- parts


def _model(a: Row, b: Row) -> Iterator[Change]:
    yield from _changed("model", "architecture", a, b, "architecture")
    if (x := _window(a)) != (y := _window(b)) and None not in (x, y):
        yield Change("model", "window", str(x), str(y), "scores of both versions cover other times", is_large=True)
    first, second = _weights(a), _weights(b)
    if first and second:
        for name in [*first, *(name for name in second if name not in first)]:
            if first.get(name) != second.get(name):
                yield Change("model", f"member {name}", _weight(first.get(name)), _weight(second.get(name)))
    for what, entry, names in (("asset models", "bundle", "own"), ("asset scales", "asset_scales", "assets")):
        before, after = (len((card.get(entry) or {}).get(names) or []) for card in (a, b))
        if before != after:
            yield Change("model", what, str(before), str(after))
    yield from _states(a.get("states"), b.get("states"))
    yield from _changed("model", "calendar", a, b, "calendar")
    yield from _changed("model", "seed", a, b, "seed")


def _window(card: Row) -> str | None:
    if not {"length", "interval_s"} <= card.keys():
        return f"{card['length']} cells" if "length" in card else None
    return f"{card['length']} cells, {wording.duration(card['length'] * card['interval_s'])}"


def _weights(card: Row) -> dict[str, float]:
    return {str(each["name"]): float(each.get("weight", 1.0)) for each in card.get("members") or []}


def _weight(value: float | None) -> str:
    return "–" if value is None else f"weight {wording.number(value, 2)}"


def _states(a: Any, b: Any) -> Iterator[Change]:
    if a != b and (a or b):
        yield Change("model", "states", state_names(a) or "one", state_names(b) or "one", is_large=True)


def state_names(states: Any) -> str:
    """Return the names of the operating states on a card, joined. Empty = the card knows none."""
    found = states.get("states", states.get("names")) if isinstance(states, dict) else states
    if not isinstance(found, list):
        return ""
    return ", ".join(str(each.get("name", "?")) if isinstance(each, dict) else str(each) for each in found)


def _threshold(a: Row, b: Row) -> Iterator[Change]:
    first, second = a.get("threshold"), b.get("threshold")
    if not isinstance(first, dict) or not isinstance(second, dict):
        return
    if (x := first.get("raw")) and (y := second.get("raw")) and x != y:
        note = f"× {wording.number(y / x)}, of each version's own scores"
        yield Change("threshold", "raw score", wording.number(x), wording.number(y), note)
    if (x := _rule(first)) != (y := _rule(second)):
        yield Change("threshold", "an alarm", x, y, is_large=True)
    if (x := first.get("alarms_per_week")) != (y := second.get("alarms_per_week")):
        yield Change("threshold", "budget a week", _number(x), _number(y), is_large=True)
    if (x := first.get("bound_per_week")) != (y := second.get("bound_per_week")) and None not in (x, y):
        yield Change("threshold", "at most a week", _number(x), _number(y), "by the held-out windows, 95 %")
    if (x := first.get("state")) != (y := second.get("state")):
        yield Change("threshold", "certificate", str(x or "–"), str(y or "–"))


def _rule(threshold: Row) -> str:
    if "confirm" not in threshold:
        return "–"
    return f"{threshold['confirm']} of {threshold['among']} windows"


def _sensors(a: Row, b: Row) -> Iterator[Change]:
    first, second = a.get("sensors") or [], b.get("sensors") or []
    if first and second:
        for name in second:
            if name not in first:
                yield Change("sensors", name, "–", "used", "new", is_large=True)
        for name in first:
            if name not in second:
                yield Change("sensors", name, "used", "–", "gone", is_large=True)
    yield from _drifts(_scales(a), _scales(b))


def _scales(card: Row) -> dict[str, Row]:
    found = card.get("scaler")
    rows = found if isinstance(found, list) else []
    keys = {"name", "centre", "scale"}
    return {str(each["name"]): each for each in rows if isinstance(each, dict) and keys <= each.keys()}


def _drifts(a: Mapping[str, Row], b: Mapping[str, Row]) -> Iterator[Change]:
    """Yield the sensors with another healthy level or spread, the largest drift first."""
    found = []
    for name in a.keys() & b.keys():
        x, y = a[name], b[name]
        kinds = str(x.get("kind", "continuous")), str(y.get("kind", "continuous"))
        if "absent" in kinds:
            if kinds[0] != kinds[1]:
                found.append((float("inf"), Change("sensors", name, kinds[0], kinds[1], is_large=True)))
            continue
        scale = float(x["scale"]) or 1.0
        drift, ratio = (float(y["centre"]) - float(x["centre"])) / scale, float(y["scale"]) / scale
        if abs(drift) >= MIN_DRIFT or not 1 / (1 + MIN_DRIFT) <= ratio <= 1 + MIN_DRIFT:
            moved = wording.number(drift, 2).replace("-", "−")
            note = f"moved {moved} spreads, spread × {wording.number(ratio, 2)}"
            change = Change("sensors", name, _level(x), _level(y), note, is_large=abs(drift) >= LARGE_DRIFT)
            found.append((abs(drift), change))
    yield from (change for _, change in sorted(found, key=lambda each: (-each[0], each[1].name)))


def _level(scale: Row) -> str:
    return f"{wording.number(scale['centre'])} ± {wording.number(scale['scale'], 2)}"


def _data(a: Row, b: Row) -> Iterator[Change]:
    for name, key in (("windows used", "n_train"), ("held out", "n_held_out"), ("assets", "n_assets")):
        if (x := a.get(key)) != (y := b.get(key)) and None not in (x, y):
            yield Change("data", name, f"{x:,}", f"{y:,}")
    for name, key in (("from", "from"), ("to", "to")):
        if (x := a.get(key)) != (y := b.get(key)) and None not in (x, y):
            yield Change("data", name, _minute(x), _minute(y))
    first, second = a.get("left_out") or {}, b.get("left_out") or {}
    for reason in dict.fromkeys([*first, *second]) if first and second else ():
        x, y = int(first.get(reason) or 0), int(second.get(reason) or 0)
        if x != y:
            yield Change("data", f"left out: {reason.replace('_', ' ')}", f"{x:,}", f"{y:,}")
    for name, key in (("data digest", "data_digest"), ("configuration", "config_digest")):
        if (x := a.get(key)) != (y := b.get(key)) and None not in (x, y):
            yield Change("data", name, str(x)[:12], str(y)[:12])


def _minute(text: Any) -> str:
    return str(text).replace("T", " ")[:16]


def _changed(part: str, name: str, a: Row, b: Row, key: str) -> Iterator[Change]:
    x, y = a.get(key), b.get(key)
    if x != y and None not in (x, y):
        yield Change(part, name, str(x), str(y))


def _number(value: Any) -> str:
    return wording.number(value, 2) if isinstance(value, int | float) else "–"
