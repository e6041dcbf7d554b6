"""Times of assets that operators have judged: maintenance, and times labelled fault, ignore or normal.

Input: a function that runs a SELECT (`burn.Fetch`), a fleet, a range of event time. Output: for each asset the judged
times, which the budget leaves out, or takes in where they are labelled normal. Invariant: of several labels on
one moment the newest counts, and maintenance counts in any case. This module imports nothing slow.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from monitor.store.matching import Window
from monitor.types import JudgedTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Fetch = Callable[[str, Mapping[str, object]], Iterable[Mapping[str, Any]]]

IGNORE, NORMAL = "ignore", "normal"
_WINDOWS = """
    SELECT id, fleet, asset, from_us, to_us, cron, duration_us, timezone FROM maintenance
    WHERE from_us < :to_us AND (to_us IS NULL OR to_us > :from_us) ORDER BY id
"""
_LABELS = """
    SELECT asset.name AS asset, from_us, to_us, label FROM interval_label JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet AND removed_us IS NULL AND from_us < :to_us AND to_us > :from_us
    ORDER BY interval_label.id
"""


class Judged(NamedTuple):
    """A time (from_us, to_us] of an asset, with a label."""

    from_us: int
    to_us: int
    label: str


T = TypeVar("T", Judged, JudgedTime)


class LeftOut:
    """The judged times of a fleet's assets in a range of event time."""

    def __init__(
        self, fleet: str, windows: Sequence[Window], labels: Mapping[str, list[Judged]], from_us: int, to_us: int
    ) -> None:
        self._fleet = fleet
        self._windows = windows
        self._labels = labels
        self._range = from_us, to_us
        self._known: dict[str, list[Judged]] = {}

    def __bool__(self) -> bool:
        return bool(self._windows or self._labels)

    def of(self, asset: str) -> list[Judged]:
        """Return the judged times of an asset, in order and without overlap."""
        if asset not in self._known:
            found: list[Judged] = []
            for each in self._labels.get(asset, ()):
                found = put_over(found, each)
            for window in self._windows:
                if window.covers(self._fleet, asset):
                    for start_us, end_us in window.between(*self._range):
                        found = put_over(found, Judged(start_us - 1, end_us - 1, IGNORE))
            self._known[asset] = found
        return self._known[asset]

    def leaves_out(self, asset: str, at_us: int) -> bool:
        """Return True if a moment of an asset counts neither for nor against a model."""
        found = self.of(asset)
        place = bisect_right(found, at_us - 1, key=lambda each: each.from_us) - 1
        return place >= 0 and at_us <= found[place].to_us and found[place].label != NORMAL


def read(fetch: Fetch, fleet: str, from_us: int, to_us: int) -> LeftOut:
    """Read the judged times of a fleet that overlap (from_us, to_us]."""
    windows = list(maintenance(fetch, from_us, to_us).values())
    values = {"fleet": fleet, "from_us": from_us, "to_us": to_us}
    labels: dict[str, list[Judged]] = {}
    for row in fetch(_LABELS, values):
        labels.setdefault(row["asset"], []).append(Judged(row["from_us"], row["to_us"], row["label"]))
    return LeftOut(fleet, windows, labels, from_us, to_us)


def maintenance(fetch: Fetch, from_us: int, to_us: int) -> dict[int, Window]:
    """Return the maintenance windows of all fleets that overlap (from_us, to_us], by their ids."""
    return {row["id"]: Window(*list(row.values())[1:]) for row in fetch(_WINDOWS, {"from_us": from_us, "to_us": to_us})}


def put_over(judged: list[T], new: T) -> list[T]:
    """Return disjoint times in order, with a new one over those that it overlaps."""
    found = without(judged, new.from_us, new.to_us)
    found.append(new)
    return sorted(found, key=lambda each: each.from_us)


def without(judged: Iterable[T], from_us: int, to_us: int) -> list[T]:
    """Return the times without (from_us, to_us]."""
    kept = []
    for each in judged:
        if each.to_us <= from_us or each.from_us >= to_us:
            kept.append(each)
            continue
        if each.from_us < from_us:
            kept.append(each._replace(to_us=from_us))
        if each.to_us > to_us:
            kept.append(each._replace(from_us=to_us))
    return kept
