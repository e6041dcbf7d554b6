"""The rules of the grid. Input: the raw log of a partition. Output: windows, the fate of each record, and counts.

Each asset has its own clock, its newest cell so far. Its readings and windows are judged by this clock alone.

First each reading is classified in log order (late, first value wins, duplicate). Then, once, at the end of the log,
the windows of each asset are listed in order of their start. That is enough, and simpler than streaming: a closed
window gets no more values, because its cells are late by then, and a complete one needs none. So a window at the end of
the log holds the same values as when it was emitted.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.oracle.log import read_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.oracle.log import FleetRule, RawRecord, Reading, Rules

Fate = Literal["accepted", "late", "duplicate"]
WindowKey = tuple[str, int]
"""(asset, start in µs)."""
WindowFacts = tuple[int, int, int]
"""(n_present, first_offset, last_offset)."""


@dataclass(slots=True)
class Cell:
    """Values of one asset in one cell of the grid."""

    values: list[float | None]
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class Window:
    asset: str
    start: int
    """First cell."""
    n_present: int
    first_offset: int
    last_offset: int


@dataclass
class ExpectedShard:
    """One fleet in one partition, with the clocks and windows of its assets."""

    rule: FleetRule
    newest: dict[str, int] = field(default_factory=dict)
    """By asset: its newest cell."""
    cells: dict[str, dict[int, Cell]] = field(default_factory=dict)
    first_candidate: dict[str, int] = field(default_factory=dict)
    """By asset: its first window that was still open at its first reading."""

    def add(self, reading: Reading) -> Fate:
        newest = self.newest.get(reading.asset, reading.cell)
        if reading.cell < newest - self.rule.lateness_cells:
            return "late"
        held = self.cells.setdefault(reading.asset, {})
        cell = held.get(reading.cell)
        if cell is None:
            held[reading.cell] = Cell(list(reading.values), reading.offset, reading.offset)
        else:
            is_new = False
            for place, value in enumerate(reading.values):
                if value is not None and cell.values[place] is None:  # the first finite value wins
                    cell.values[place] = value
                    is_new = True
            if not is_new:
                return "duplicate"
            cell.first_offset = min(cell.first_offset, reading.offset)
            cell.last_offset = max(cell.last_offset, reading.offset)
        self.newest[reading.asset] = max(newest, reading.cell)
        if reading.asset not in self.first_candidate:
            self.first_candidate[reading.asset] = first_open(reading.cell - self.rule.lateness_cells, self.rule)
        return "accepted"

    def windows(self) -> Iterator[Window]:
        """Yield the emitted windows so far, by asset and in order of start."""
        for asset in self.cells:
            yield from self._windows_of(asset)

    def _windows_of(self, asset: str) -> Iterator[Window]:
        rule, held = self.rule, self.cells[asset]
        closed_until = self.newest[asset] - rule.lateness_cells
        in_order = sorted(held)
        full = {cell for cell, content in held.items() if None not in content.values}
        first = {cell: content.first_offset for cell, content in held.items()}
        last = {cell: content.last_offset for cell, content in held.items()}
        start = self.first_candidate[asset]
        while True:
            cells = range(start, start + rule.length)
            is_complete = full.issuperset(cells)
            is_closed = start + rule.length <= closed_until
            if not is_complete and not is_closed:
                return  # and none after it: windows are emitted in order
            present = cells if is_complete else [cell for cell in cells if cell in held]
            if is_complete or (present and longest_gap(held, start, rule.length) <= rule.max_gap_cells):
                yield Window(
                    asset,
                    start,
                    len(present),
                    min(map(first.__getitem__, present)),
                    max(map(last.__getitem__, present)),
                )
            start += rule.stride
            # Step over windows without any cell, which are never emitted: a clock may leap by years.
            following = bisect_left(in_order, start)
            next_held = in_order[following] if following < len(in_order) else closed_until
            start = max(start, first_open(min(next_held, closed_until), rule))

    def values(self, window: Window) -> list[list[float | None]]:
        """Return the window's values, cell by cell, in the order of the sensors."""
        held, nothing = self.cells[window.asset], [None] * len(self.rule.sensors)
        return [
            list(held[cell].values) if cell in held else list(nothing)
            for cell in range(window.start, window.start + self.rule.length)
        ]


def first_open(watermark: int, rule: FleetRule) -> int:
    """Return the smallest multiple of stride such that its window ends after the watermark.

    It may lie before the asset's first reading: an earlier reading may arrive later, and its windows must be emitted as
    for sorted input. Windows without any cell are skipped.
    """
    start = (watermark - rule.length) // rule.stride * rule.stride
    while start + rule.length <= watermark:
        start += rule.stride
    return start


def longest_gap(held: dict[int, Cell], start: int, length: int) -> int:
    """Return the longest run of cells without any sensor, runs at either end included."""
    longest = run = 0
    for cell in range(start, start + length):
        run = 0 if cell in held else run + 1
        longest = max(longest, run)
    return longest


@dataclass
class AdmittedAssets:
    """The admitted assets of one fleet in one partition, up to `max_assets`."""

    rule: FleetRule
    names: set[str] = field(default_factory=set)

    def reject_word(self, asset: str) -> str | None:
        """Admit the asset if it is known or if there is room. Else return the word of the rejection."""
        if asset in self.names:
            return None
        if len(self.names) >= self.rule.max_assets:
            return "too_many_assets"
        self.names.add(asset)
        return None


@dataclass
class Expectation:
    """The expected rows of one partition."""

    shards: dict[str, ExpectedShard] = field(default_factory=dict)
    """By fleet."""
    windows: dict[WindowKey, WindowFacts] = field(default_factory=dict)
    fleet_of: dict[str, str] = field(default_factory=dict)
    """By asset with an accepted reading."""
    quarantine: dict[int, str] = field(default_factory=dict)
    """By offset, the stable word of the reason. Late records are included."""
    counts: dict[str, int] = field(default_factory=dict)
    """Records by fate (records, accepted, quarantined, late, duplicate, tombstones), then `readings` used."""


def expect(
    log: Iterable[RawRecord], rules: Rules, topic: str = "", foreign: frozenset[str] = frozenset()
) -> Expectation:
    """Apply the rules to a log, record by record. `foreign`: assets that are registered in another partition.

    A record may have readings of several assets and fleets. With a late reading it counts as late, although its other
    readings are used. Else it is quarantined if an asset was refused, by the word of the first fleet. Else a record
    with a used reading counts as accepted. Else it is a duplicate.
    """
    expected = Expectation()
    admitted: dict[str, AdmittedAssets] = {}
    counts = dict.fromkeys(("records", "accepted", "quarantined", "late", "duplicate", "tombstones", "readings"), 0)
    for offset, found in read_log(log, rules, topic):
        counts["records"] += 1
        if found is None:
            counts["tombstones"] += 1
        elif isinstance(found, str):
            counts["quarantined"] += 1
            expected.quarantine[offset] = found
        else:
            fates: list[Fate] = []
            refused: dict[str, set[str]] = {}
            for reading in found:
                of_fleet = admitted.setdefault(reading.fleet, AdmittedAssets(rules.fleet(reading.fleet)))
                is_foreign = reading.asset in foreign
                word = "wrong_partition" if is_foreign else of_fleet.reject_word(reading.asset)
                if word is not None:
                    refused.setdefault(reading.fleet, set()).add(word)
                    continue
                shard = expected.shards.setdefault(reading.fleet, ExpectedShard(rules.fleet(reading.fleet)))
                fates.append(shard.add(reading))
            counts["readings"] += fates.count("accepted")
            if "late" in fates:
                counts["late"] += 1
                expected.quarantine[offset] = "late"
            elif refused:
                counts["quarantined"] += 1
                words = next(refused[fleet.name] for fleet in rules.fleets if fleet.name in refused)
                expected.quarantine[offset] = min(words)  # too_many_assets before wrong_partition
            elif "accepted" in fates:
                counts["accepted"] += 1
            else:
                counts["duplicate"] += 1
    for shard in expected.shards.values():
        for window in shard.windows():
            key = (window.asset, window.start * shard.rule.interval_us)
            expected.windows[key] = (window.n_present, window.first_offset, window.last_offset)
        for asset in shard.cells:
            expected.fleet_of[asset] = shard.rule.name
    expected.counts = counts
    return expected


def expected_windows(log: Iterable[RawRecord], rules: Rules, topic: str = "") -> dict[WindowKey, WindowFacts]:
    return expect(log, rules, topic).windows


def expected_quarantine(log: Iterable[RawRecord], rules: Rules, topic: str = "") -> dict[int, str]:
    return expect(log, rules, topic).quarantine
