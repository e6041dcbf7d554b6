"""Assets in trouble: those whose records are late, refused, ahead or repeated, and those that send nothing any more.

Input: the results of each batch of a partition, with log time. Output: findings, which `data_alerts.py` turns into
alerts. Invariant: an asset is judged by its own records, and its silence by log time. Memory is a few numbers an asset,
and names that no shard knows are forgotten beyond a thousand.

- Shares: each time an asset has sent `BLOCK` records, the shares of late, refused, ahead and repeated ones among them
  are judged. From a half on it is a finding, below a quarter its alert is over.
- Silence: an asset that has sent regularly is silent when others went on for `SILENT_FACTOR` times its longest pause,
  for 15 minutes and for five intervals at least. An alert teaches: the next pause may be a third longer than that one.
  After a restart its usual pauses are not known, and it is silent after six hours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.decode.columns import first_of_asset_and_record
from monitor.decode.formatting import duration_text
from monitor.printable import escape_unprintable
from monitor.stream.window import NEVER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from monitor.stream.shard import Shard, ShardResult
    from monitor.types import Int64, Quarantined, Readings, RecordBatch

BLOCK = 32
"""Records over which the shares of an asset are judged: few, so that an asset of a reading a minute is judged soon."""
OPENS_AT, CLOSES_BELOW = 0.5, 0.25
MAX_UNKNOWN = 1_000
"""Names without a shard whose refused records are counted."""
REGULAR = 20
"""Arrivals after which an asset counts as sending regularly."""
SILENT_FACTOR = 4
SILENT_US = 15 * 60_000_000
"""Shortest silence: longer than most restarts of a device."""
SILENT_INTERVALS = 5
SILENT_AFTER_RESTART_US = 6 * 3_600_000_000
NOT_OF_THE_DEVICE = ("late", "too_many_assets", "no_fleet")
"""Reasons with an alert or a counter of their own."""
LATE, DUPLICATE, REFUSED, AHEAD = range(4)
KIND_OF = ("late_flood", "duplicate_flood", "asset_refused", "asset_ahead")
SILENT = "asset_silent"

Key = tuple[str, str | None, str]
"""(kind, fleet, subject)."""


class Finding(NamedTuple):
    """An asset in trouble, or one that is well again."""

    kind: str
    fleet: str | None
    subject: str
    row: int
    """In the batch: of the record with which it was found."""
    n_records: int = 0
    detail: str = ""
    is_over: bool = False


@dataclass(slots=True)
class _Counts:
    """What the assets of one fleet have sent. A assets."""

    total: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[A], records in this block."""
    bad: Int64 = field(default_factory=lambda: np.zeros((4, 0), np.int64))
    """[4, A], those late, repeated, refused, ahead."""
    last_us: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[A], log time of the last record."""
    pause_us: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[A], longest pause between two records."""
    n_arrivals: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[A], records at different log times. -1 = it sent before the restart, and not since."""
    is_silent: np.ndarray[tuple[int], np.dtype[np.bool_]] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[A]"""

    def grow(self, n_assets: int) -> None:
        """Make room for so many assets, and for those to come."""
        if n_assets > len(self.total):
            more = max(n_assets, len(self.total) * 5 // 4, 16) - len(self.total)
            for name in ("total", "last_us", "pause_us", "n_arrivals", "is_silent"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate((old, np.zeros(more, old.dtype))))
            self.bad = np.concatenate((self.bad, np.zeros((4, more), np.int64)), axis=1)


class AssetHealth:
    """The counts of the assets of one partition."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}
        """By fleet."""
        self._unknown: Counter[tuple[int, str]] = Counter()
        """Refused records by kind and name, of names that no shard knows."""
        self._reasons: dict[str, str] = {}
        """By name: reason of its latest refused record."""

    def update(
        self,
        results: Sequence[ShardResult],
        batch: RecordBatch,
        shards: Mapping[str, Shard],
        quarantined: Sequence[Quarantined],
        log_us: Int64,
        open_alerts: Collection[Key],
    ) -> list[Finding]:
        """Count the records of a batch, and return the findings. `log_us`: [N], log time at each record."""
        for fleet, shard in shards.items():
            if fleet not in self._counts:
                self._counts[fleet] = counts = _Counts()
                counts.grow(len(shard.assets.names))
                sent_before = np.flatnonzero(shard.windower.next_start > NEVER + 1)
                counts.n_arrivals[sent_before] = -1
                counts.last_us[sent_before] = int(log_us[0])
                told = {name for kind, of_fleet, name in open_alerts if kind == SILENT and of_fleet == fleet}
                counts.is_silent[: len(shard.assets.names)] = [name in told for name in shard.assets.names]
            self._counts[fleet].grow(len(shard.assets.names))
        findings: list[Finding] = []
        for result in results:
            counts, readings = self._counts[result.rows.fleet], result.readings
            is_record = first_of_asset_and_record(readings.asset, readings.offset)
            n_assets = len(counts.total)
            counts.total += np.bincount(readings.asset[is_record], minlength=n_assets)
            counts.bad[LATE] += np.bincount(result.late_assets, minlength=n_assets)
            counts.bad[DUPLICATE] += np.bincount(result.duplicate_assets, minlength=n_assets)
            at = np.searchsorted(batch.offsets, readings.offset)
            findings += self._returned(shards[result.rows.fleet], counts, readings, at)
            _note_arrivals(counts, readings, log_us[at], silent_us(shards[result.rows.fleet]))
        if quarantined:
            self._count_refused(batch, shards, quarantined)
        last = len(batch) - 1
        for fleet, shard in shards.items():
            findings += self._judge_shares(fleet, shard, last, open_alerts)
            findings += self._find_silent(fleet, shard, int(log_us[-1]), last)
        for (what, name), n in [each for each in self._unknown.items() if each[1] >= BLOCK]:
            del self._unknown[what, name]
            findings.append(Finding(KIND_OF[what], None, name, last, n, self._advice(what, name)))
        return findings

    # ------------------------------------------------------------------ shares

    def _count_refused(
        self, batch: RecordBatch, shards: Mapping[str, Shard], quarantined: Sequence[Quarantined]
    ) -> None:
        """Count refused records by Kafka's key, the only name that a record without a meaning has."""
        for record in quarantined:
            key = batch.keys[min(int(np.searchsorted(batch.offsets, record.offset)), len(batch) - 1)]
            if key is None or record.word in NOT_OF_THE_DEVICE:
                continue
            name, what = key.decode(errors="replace"), AHEAD if record.word == "future" else REFUSED
            fleet = next((fleet for fleet, shard in shards.items() if name in shard.assets), None)
            if fleet is not None:
                number = int(shards[fleet].assets.numbers([name])[0])
                self._counts[fleet].total[number] += 1
                self._counts[fleet].bad[what, number] += 1
            elif (what, name) in self._unknown or len(self._unknown) < MAX_UNKNOWN:
                self._unknown[what, name] += 1
            else:
                continue
            self._reasons[name] = record.reason
        if len(self._reasons) > MAX_UNKNOWN:
            self._reasons.clear()

    def _judge_shares(
        self, fleet: str, shard: Shard, row: int, open_alerts: Collection[Key]
    ) -> Iterator[Finding]:
        """Judge the assets whose block of records is full, and begin a new block."""
        counts = self._counts[fleet]
        ready = np.flatnonzero(counts.total >= BLOCK)
        if not len(ready):
            return
        total, bad = counts.total[ready], counts.bad[:, ready]
        share = bad / total
        for what, place in zip(*(each.tolist() for each in np.nonzero(share >= OPENS_AT)), strict=True):
            name = shard.assets.names[ready[place]]
            n, of = int(bad[what, place]), int(total[place])
            yield Finding(KIND_OF[what], fleet, name, row, n, self._detail(what, shard, name, n, of))
        if any(kind in KIND_OF for kind, _, _ in open_alerts):
            for what, place in zip(*(each.tolist() for each in np.nonzero(share < CLOSES_BELOW)), strict=True):
                key = (KIND_OF[what], fleet, shard.assets.names[ready[place]])
                if key in open_alerts:
                    yield Finding(*key, row, is_over=True)
        counts.total[ready] = 0
        counts.bad[:, ready] = 0

    def _detail(self, what: int, shard: Shard, name: str, n: int, of: int) -> str:
        """Return the finding and its fix, for operators."""
        lately = f"Lately {n} of {of} records. "
        if what == LATE:
            return lately + (
                "They lie behind its own newest reading by more than the fleet's lateness "
                f"({duration_text(shard.config.lateness_cells * shard.interval_us)}): its clock went back, or it sends "
                "a buffer backwards; correct the clock or the order, or raise the fleet's lateness"
            )
        if what == DUPLICATE:
            return lately + (
                "Their cells were filled already: two devices under one name, a producer that repeats, or an interval "
                f"({duration_text(shard.interval_us)}) longer than that of the device"
            )
        return lately + self._advice(what, name)

    def _advice(self, what: int, name: str) -> str:
        """Return the reason of the latest refused record of an asset, with the fix."""
        fix = "Set the device's clock or its time zone. " if what == AHEAD else ""
        return fix + self._reasons.get(name, "")

    # ------------------------------------------------------------------ silence

    def _returned(self, shard: Shard, counts: _Counts, readings: Readings, at: Int64) -> Iterator[Finding]:
        """Yield the silent assets that have sent something."""
        rows = np.flatnonzero(counts.is_silent[readings.asset])
        for asset, first in zip(*np.unique(readings.asset[rows], return_index=True), strict=True):
            counts.is_silent[asset] = False
            name = shard.assets.names[asset]
            yield Finding(SILENT, readings.fleet, name, int(at[rows[first]]), is_over=True)

    def _find_silent(self, fleet: str, shard: Shard, now_us: int, row: int) -> Iterator[Finding]:
        """Yield the assets that became silent."""
        counts = self._counts[fleet]
        limit_us = np.maximum(silent_us(shard), SILENT_FACTOR * counts.pause_us)
        limit_us[counts.n_arrivals < 0] = SILENT_AFTER_RESTART_US
        is_regular = (counts.n_arrivals < 0) | (counts.n_arrivals >= REGULAR)
        found = np.flatnonzero(is_regular & ~counts.is_silent & (now_us - counts.last_us >= limit_us))
        counts.is_silent[found] = True
        for number in found.tolist():
            name, pause = shard.assets.names[number], int(counts.pause_us[number])
            usual = f" It paused for {duration_text(pause)} at most before." if pause else ""
            yield Finding(
                SILENT,
                fleet,
                name,
                row,
                0,
                f"Others of the partition went on for {duration_text(int(limit_us[number]))}.{usual} Look at the "
                f"device, its gateway and its network; if {escape_unprintable(name)} is out of service, this closes "
                "after a week",
            )


def silent_us(shard: Shard) -> int:
    """Return the shortest silence that is told of, in log time."""
    return max(SILENT_US, SILENT_INTERVALS * shard.interval_us)


def _note_arrivals(counts: _Counts, readings: Readings, log_us: Int64, shortest_us: int) -> None:
    """Learn the pauses of the assets that have sent something. `log_us`: [n], log time of each reading."""
    if not len(readings):
        return
    order = np.argsort(readings.asset, kind="stable")
    asset, at_us = readings.asset[order], log_us[order]
    begin = np.flatnonzero(np.concatenate(([True], asset[1:] != asset[:-1])))
    owner = asset[begin]
    before = np.concatenate(([0], at_us[:-1]))
    before[begin] = np.where(counts.n_arrivals[owner] == 0, at_us[begin], counts.last_us[owner])
    pause = at_us - before
    pause[begin[counts.n_arrivals[owner] < 0]] = 0  # not known: the restart lies between
    limit = np.maximum(shortest_us, SILENT_FACTOR * counts.pause_us[asset])
    learnt = np.where(pause >= limit, pause // (SILENT_FACTOR - 1), pause)
    counts.pause_us[owner] = np.maximum(counts.pause_us[owner], np.maximum.reduceat(learnt, begin))
    counts.n_arrivals[owner] = np.maximum(counts.n_arrivals[owner], 0) + np.add.reduceat((pause > 0) * 1, begin)
    counts.n_arrivals[owner] = np.maximum(counts.n_arrivals[owner], 1)
    counts.last_us[owner] = at_us[np.append(begin[1:], len(asset)) - 1]
