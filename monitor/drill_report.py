"""The result of a drill: its judgement, its words and its picture.

Input: the document of `lifecycle/drills.py`, as the database keeps it. Output: a problem in one sentence or None, texts
of cells and sentences, SVG text. Invariant: no I/O, no numpy and no torch: the daemon, the command line, the console
and the tests read a stored drill alike.

A drill has a problem where

    alarms   healthy copies alarm far more often than the budget allows: what such a version finds means nothing
    blind    hardly any injected fault is detected by the model itself (tests of sensors go on without it)
    worse    a kind of fault is detected clearly less often than by the first drill of this version
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from monitor import drawing, wording
from monitor.alert_health import proportion_at_least

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Document = Mapping[str, Any]

KINDS = ("bias", "ramp", "spike", "noise", "lag", "stuck", "dropout", "broken")
"""Kinds of faults, in the order of `lifecycle/injection.py`."""
MAX_ALARMED = 0.25
"""Share of healthy copies that may alarm, unless the budget allows more."""
MIN_DETECTED = 0.1
"""Share of faults that a model must detect by itself. Versions that work detect most: the last size tried of each
sensor and kind is the one at which 90 % are found, if there is one."""
MODEL_KINDS = ("bias", "ramp", "spike", "noise", "lag", "broken")
"""Kinds that a model detects. A sensor that is stuck or sends nothing fails the tests of sensors."""
MARGIN = 0.3
"""Loss of detected faults of a kind that is clearly worse. Drills of one version on other days differ by less."""
NEVER = 6
"""Level of a cell whose fault is not found. 0 = not drilled."""


class Problem(NamedTuple):
    """The reason why a drill failed."""

    kind: str
    """alarms, blind, worse"""
    text: str
    """A sentence with the numbers."""


# ---------------------------------------------------------------- judgement


def judge(drill: Document, baseline: Document | None) -> Problem | None:
    """Return the problem of a drill. `baseline`: the first drill of the same version. None = this is the first."""
    healthy, version = drill["healthy"], drill["version"]
    limit = max(MAX_ALARMED, 2 * healthy["allowed"])
    if proportion_at_least(healthy["alarmed"], healthy["copies"]) > limit:
        return Problem(
            "alarms",
            f"{version} alarms in {healthy['alarmed']} of {healthy['copies']} healthy stretches, so that an alert no "
            f"longer tells a fault from health",
        )
    cells = [cell for _, kind, cell in cells_of(drill) if kind in MODEL_KINDS and "skipped" not in cell]
    n, n_found = sum(cell["n"] for cell in cells), sum(cell["by"]["process"] for cell in cells)
    if cells and n_found < MIN_DETECTED * n:
        return Problem(
            "blind",
            f"{version} detects {n_found:,} of {n:,} injected faults, even the largest: it is blind",
        )
    worse = [] if baseline is None else [_worse(kind, drill, baseline) for kind in KINDS]
    if found := [text for text in worse if text]:
        return Problem("worse", f"{version} detects less than at its first drill: {'; '.join(found)}")
    return None


def _worse(kind: str, drill: Document, baseline: Document) -> str | None:
    """Return the loss of a kind in words, by the sensors that both drills have. None = there is none."""
    now, before = (_detected(each, kind) for each in (drill, baseline))
    common = now.keys() & before.keys()
    if not common and now and before:  # other sensors were drawn
        pairs = [(sum(n for n, _ in each.values()), sum(k for _, k in each.values())) for each in (now, before)]
    elif common:
        pairs = [(sum(each[name][0] for name in common), sum(each[name][1] for name in common))
                 for each in (now, before)]  # fmt: skip
    else:
        return None
    (n, k), (n_before, k_before) = pairs
    share, share_before = k / n, k_before / n_before
    highest = 1 - proportion_at_least(n - k, n, 0.99)
    lowest = proportion_at_least(k_before, n_before, 0.99)
    if share_before - share < MARGIN or highest >= lowest:
        return None
    size = drill["kinds"][kind].get("reference")
    of = f" of {_size(size, kind, drill)}" if size is not None else ""
    return f"{kind}{of} in {share:.0%} of the copies, {share_before:.0%} then"


def _detected(drill: Document, kind: str) -> dict[str, tuple[int, int]]:
    """Return copies, and those that are detected at the size of reference, by sensor."""
    return {
        name: (cell["n"], cell["reference"]["found"])
        for name, each, cell in cells_of(drill)
        if each == kind and "skipped" not in cell
    }


def cells_of(drill: Document) -> Iterable[tuple[str, str, Document]]:
    """Yield (sensor, kind, cell) of all sensors that were drilled."""
    for sensor in drill["sensors"]:
        for kind, cell in (sensor["kinds"] or {}).items():
            yield sensor["name"], kind, cell


# ---------------------------------------------------------------- words


def cell_text(cell: Document, kind: str, drill: Document) -> str:
    """Return a cell of the table: the minimum detectable size, or the delay of a kind without sizes.

    "–" = not drilled. "> 16" = not even the largest size is detected. "no" = not detected.
    """
    if "skipped" in cell:
        return "–"
    if not cell["is_found"]:
        return "no" if cell["largest"] is None else f"> {_size(cell['largest'], kind, drill)}"
    return _span(cell["delay_s"]) if cell["size"] is None else _size(cell["size"], kind, drill)


def level(cell: Document, kind: str, drill: Document) -> int:
    """Return 1 (found when small or soon) to 5, `NEVER` = not found, 0 = not drilled."""
    if "skipped" in cell:
        return 0
    if not cell["is_found"]:
        return NEVER
    if cell["size"] is None or kind == "lag":
        span = cell["delay_s"] if cell["size"] is None else cell["size"] * drill["interval_s"]
        return 1 + sum(bool(span > share * drill["window_s"]) for share in (0.125, 0.25, 0.5, 1.0))
    return 1 + sum(bool(cell["size"] > edge) for edge in (1.0, 2.0, 4.0, 8.0))


def sentences(drill: Document) -> list[str]:
    """Return the summary of a drill in a few sentences."""
    n, drawn = drill["n_drilled"], drill["n_sensors"]
    which = wording.count(n, "sensor") if n == drawn else f"{n} of {drawn} sensors, drawn by chance"
    copies = f"{drill['copies']} copies of healthy readings each, from {wording.count(drill['assets'], 'asset')}"
    said = [f"{which}, {copies}; a fault has {wording.duration(drill['horizon_s'])} to be detected."]
    sized = [f"{kind} from {_size(each['size'], kind, drill)}" for kind, each in _kinds(drill) if each.get("size")]
    if sized:
        said.append(f"In the median sensor 90 % of the copies are detected: {', '.join(sized)}.")
    timed = [
        f"{kind} after {_span(each['delay_s'])}" for kind, each in _kinds(drill)
        if each.get("unit") is None and each["delay_s"] is not None and each["found"]
    ]  # fmt: skip
    if timed:
        said.append(f"Without a size: {', '.join(timed)}.")
    missed = [f"{kind} in {each['sensors'] - each['found']}" for kind, each in _kinds(drill)
              if each["found"] < each["sensors"]]  # fmt: skip
    if missed:
        said.append(f"Not detected at any size in 90 % of the copies, by sensors: {', '.join(missed)}.")
    return said


LEGEND = (
    "Sizes in spreads of the sensor, its healthy standard deviation; lag by its delay. stuck, dropout, broken: time to "
    'the alert. "> 16": not even that is detected in 90 % of the copies. "–": means nothing for the sensor.'
)


def _kinds(drill: Document) -> list[tuple[str, Document]]:
    return [(kind, drill["kinds"][kind]) for kind in KINDS if drill["kinds"].get(kind, {}).get("sensors")]


def _size(size: float, kind: str, drill: Document) -> str:
    return _span(size * drill["interval_s"]) if kind == "lag" else f"{size:g}"


def _span(seconds: float) -> str:
    """Return a time in at most five characters."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds / size:.2g}{unit}" if seconds < 10 * size else f"{seconds / size:.0f}{unit}"
    return f"{seconds:.3g}s"


# ---------------------------------------------------------------- picture


def picture(drill: Document) -> str:
    """Draw the drill as a table of colours, a row for each sensor and a column for each kind.

    Each cell holds its number. The darker, the larger a fault must be, or the longer it takes.
    """
    rows = [sensor for sensor in drill["sensors"] if sensor["kinds"]]
    cells = [
        [(cell_text(sensor["kinds"][kind], kind, drill), level(sensor["kinds"][kind], kind, drill)) for kind in KINDS]
        for sensor in rows
    ]
    return drawing.heat_table(
        [sensor["name"] for sensor in rows],
        KINDS,
        cells,
        title=f"Minimum detectable faults of {drill['fleet']}, {drill['version']}",
        desc=" ".join([*sentences(drill), LEGEND]),
        key=("small or soon", "large or late", "not detected"),
    )
