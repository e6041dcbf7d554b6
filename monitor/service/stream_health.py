"""Streams in trouble: topics that send nothing any more, that are read too slowly, or of which too much is refused.

Input: every half minute, the end of each partition's log and the progress in the database. Output: the conditions that
hold now, at most one of each kind and topic. Invariant: pure. It goes by processing time, because a stream that is
silent has no event time. Times without a look are no evidence.

    stream_silent     a partition that sent regularly has sent nothing for four times its longest pause, and for 15
                      minutes at least. Its pauses are not known after a restart: then for six hours
    lag_high          the oldest unread record is older than ten minutes, and more records are unread than ten minutes
                      before. Over below five minutes
    quarantine_share  of the last 1,000 records of a topic more than 5 % were refused. Over below 2.5 %
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from monitor.decode.formatting import duration_text
from monitor.stream.asset_health import REGULAR, SILENT_AFTER_RESTART_US, SILENT_FACTOR, SILENT_US
from monitor.stream.outcome import REASONS_NOT_COUNTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from monitor.types import Counters, Partition

SILENT, LAG, QUARANTINE = "stream_silent", "lag_high", "quarantine_share"
KINDS = (SILENT, LAG, QUARANTINE)
MINUTE_US = 60_000_000
BEHIND_US, CAUGHT_UP_US = 10 * MINUTE_US, 5 * MINUTE_US
"""Age of the oldest unread record from which on a topic is behind, and below which it is no more."""
LAG_RECORDS = 10
"""Least unread records: transaction markers at the end of a log are offsets without a record."""
KEPT_US = 60 * MINUTE_US
"""Time for which the ends of the logs are remembered."""
SHARE_RECORDS = 1_000
OPENS_AT, CLOSES_BELOW = 0.05, 0.025
"""Shares of refused records among the last `SHARE_RECORDS`."""
UNSEEN_US = 5 * MINUTE_US
"""A longer time between two looks is no evidence: the machine slept, or broker or database were away."""
MAX_NAMES = 5


class Progress(NamedTuple):
    """The progress of one partition in the database."""

    next_offset: int | None
    saved_us: int | None
    """Processing time of the last commit."""
    counters: Counters


class Condition(NamedTuple):
    """A stream in trouble."""

    kind: str
    partition: Partition
    """The worst of the topic."""
    from_offset: int
    n_records: int
    message: str
    """The event and its fix, for operators."""


@dataclass(slots=True)
class _Log:
    """Facts of one partition's log."""

    end: int
    moved_us: int
    """Time at which the end moved last."""
    longest_pause_us: int = 0
    n_moves: int = 0
    samples: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(time, end, unread records) of the latest looks."""


class StreamHealth:
    """The memory of the looks so far."""

    def __init__(self) -> None:
        self._logs: dict[Partition, _Log] = {}
        self._counts: dict[str, deque[tuple[int, dict[str, int]]]] = {}
        """By topic: records, and refused ones by reason, at the latest looks."""
        self._looked_us = 0

    def update(
        self,
        now_us: int,
        ends: Mapping[Partition, int],
        progress: Mapping[Partition, Progress],
        open_kinds: Collection[tuple[str, str]],
    ) -> list[Condition]:
        """Look at all partitions. `open_kinds`: (kind, topic) of the conditions that held before."""
        self._excuse(now_us)
        for gone in self._logs.keys() - ends.keys():
            del self._logs[gone]
        for partition, end in ends.items():
            self._note(partition, end, progress.get(partition), now_us)
        found: list[Condition] = []
        for topic in sorted({partition.topic for partition in ends}):
            of_topic = [partition for partition in sorted(ends) if partition.topic == topic]
            found += self._silent(of_topic, now_us)
            found += self._lag(of_topic, progress, now_us, is_open=(LAG, topic) in open_kinds)
            found += self._quarantine(topic, of_topic, progress, is_open=(QUARANTINE, topic) in open_kinds)
        return found

    def _excuse(self, now_us: int) -> None:
        """Leave the time since the last look out, if it is long."""
        unseen_us = now_us - self._looked_us
        if self._looked_us and (unseen_us > UNSEEN_US or unseen_us < 0):
            for log in self._logs.values():
                log.moved_us += unseen_us
                log.samples.clear()
        self._looked_us = now_us

    def _note(self, partition: Partition, end: int, progress: Progress | None, now_us: int) -> None:
        log = self._logs.get(partition)
        if log is None:
            moved_us, n_read = now_us, 0
            if progress is not None and progress.saved_us is not None:
                n_read = progress.counters.records
                if progress.next_offset is not None and progress.next_offset >= end:
                    moved_us = min(now_us, progress.saved_us)  # nothing has come since the last commit
            log = self._logs[partition] = _Log(end, moved_us, n_moves=-1 if n_read >= REGULAR else 0)
        elif end != log.end:
            pause_us = now_us - log.moved_us
            if log.n_moves >= 0:  # else the restart lies between
                if pause_us >= _limit_us(log):
                    pause_us //= SILENT_FACTOR - 1  # the next pause may be a third longer than this one
                log.longest_pause_us = max(log.longest_pause_us, pause_us)
            log.end, log.moved_us, log.n_moves = end, now_us, max(log.n_moves, 0) + 1
        unread = 0 if progress is None or progress.next_offset is None else max(0, end - progress.next_offset)
        log.samples.append((now_us, end, unread))
        while log.samples[0][0] < now_us - KEPT_US:
            log.samples.popleft()

    def _silent(self, partitions: list[Partition], now_us: int) -> Iterator[Condition]:
        used = [each for each in partitions if self._logs[each].n_moves < 0 or self._logs[each].n_moves >= REGULAR]
        silent = [each for each in used if now_us - self._logs[each].moved_us >= _limit_us(self._logs[each])]
        if silent:
            first = min(silent, key=lambda each: self._logs[each].moved_us)
            log = self._logs[first]
            pause = duration_text(log.longest_pause_us)
            usual = f" It paused for {pause} at most before." if log.longest_pause_us else ""
            what = first.topic if len(silent) == len(used) else f"{_names(silent)} of {len(used)} partitions"
            yield Condition(
                SILENT, first, log.end, 0,
                f"{what}: no record for {_minutes(now_us - log.moved_us)}.{usual} Look at the producer, its "
                "gateway and its network; if it is out of service, take the topic off the settings",
            )  # fmt: skip

    def _lag(
        self, partitions: list[Partition], progress: Mapping[Partition, Progress], now_us: int, *, is_open: bool
    ) -> Iterator[Condition]:
        behind = []
        for partition in partitions:
            samples, of = self._logs[partition].samples, progress.get(partition)
            unread = samples[-1][2]
            if of is None or of.next_offset is None or unread < LAG_RECORDS:
                continue
            # The record at the next offset was there at the first look at which the log was longer.
            age_us = now_us - next(at_us for at_us, end, _ in samples if end > of.next_offset)
            before = next((n for at_us, _, n in reversed(samples) if at_us <= now_us - BEHIND_US), None)
            is_growing = before is not None and unread > before
            if age_us >= (CAUGHT_UP_US if is_open else BEHIND_US) and (is_open or is_growing):
                behind.append((age_us, unread, partition, of.next_offset))
        if behind:
            age_us, _, worst, next_offset = max(behind)
            n = sum(unread for _, unread, _, _ in behind)
            yield Condition(
                LAG, worst, next_offset, n,
                f"{worst.topic}: {n:,} records wait to be read, the oldest for {_minutes(age_us)} or longer, and "
                "they become more. Look at the daemons' log and load; start another daemon, or raise a fleet's stride",
            )  # fmt: skip

    def _quarantine(
        self, topic: str, partitions: list[Partition], progress: Mapping[Partition, Progress], *, is_open: bool
    ) -> Iterator[Condition]:
        known = [progress[each].counters for each in partitions if each in progress]
        records = sum(each.records for each in known)
        reasons: dict[str, int] = {}
        for each in known:
            for word, n in each.reasons.items():
                if f"{word}:" not in REASONS_NOT_COUNTED:
                    reasons[word] = reasons.get(word, 0) + n
        samples = self._counts.setdefault(topic, deque())
        if samples and records < samples[-1][0]:
            samples.clear()
        samples.append((records, reasons))
        while len(samples) > 1 and samples[1][0] <= records - SHARE_RECORDS:
            samples.popleft()
        records_before, before = samples[0]
        n_records, n_bad = records - records_before, sum(reasons.values()) - sum(before.values())
        if n_records < SHARE_RECORDS:
            if is_open:
                yield Condition(QUARANTINE, partitions[0], 0, 0, "")  # too few records to tell: it goes on
            return
        if n_bad > (CLOSES_BELOW if is_open else OPENS_AT) * n_records:
            word = max(reasons, key=lambda each: reasons[each] - before.get(each, 0))
            first = next(each for each in partitions if each in progress)
            yield Condition(
                QUARANTINE, first, progress[first].next_offset or 0, n_bad,
                f"{topic}: {n_bad:,} of the last {n_records:,} records were refused, most of them as {word}. "
                "`monitor quarantine list` shows them, `monitor check` how records are read",
            )  # fmt: skip


def _limit_us(log: _Log) -> int:
    if log.n_moves < 0:
        return SILENT_AFTER_RESTART_US
    return max(SILENT_US, SILENT_FACTOR * log.longest_pause_us)


def _minutes(duration_us: int) -> str:
    is_short = duration_us < 120 * MINUTE_US
    return f"{duration_us // MINUTE_US} minutes" if is_short else duration_text(duration_us)


def _names(partitions: list[Partition]) -> str:
    shown = ", ".join(map(str, partitions[:MAX_NAMES]))
    return shown if len(partitions) <= MAX_NAMES else f"{shown} and {len(partitions) - MAX_NAMES} more"
