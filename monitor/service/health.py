"""Liveness, readiness and the gauges of the daemon: the content of /live, /ready and /metrics.

Input: a snapshot of the pipeline, taken in the event loop twice a second (`Health.update`), and the daemon's own
reports of its start, its heartbeat and its stop. Output: three pages, which `pages.py` serves from other threads.

    /live      200 while the process can do its work, 503 when only a restart helps
    /ready     200 while records flow, 503 with the list of missing conditions
    /metrics   Prometheus' text format (`metrics.py`)

Invariant: a page shows facts that were recorded before. It calls no dependency, waits for nothing and changes nothing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitor import metrics
from monitor.errors import CheckpointUnavailable
from monitor.printable import escape_unprintable
from monitor.service.watchdog import LoopWatch, Systemd
from monitor.store.scores import AHEAD_US
from monitor.stream.window import NEVER
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from monitor.errors import MonitorError
    from monitor.kafka.consumer_group import KafkaSource
    from monitor.stream.pipeline import Pipeline
    from monitor.timing import Timing
    from monitor.types import Partition

MAX_SUBJECTS = 5
"""Assets named in one sentence."""
QUIET_S = 900.0
"""A partition without a record for so long is told of: as long as the shortest silence of an asset."""
MAX_NAMES = 20
"""Partitions named in one sentence."""


@dataclass(frozen=True, slots=True)
class OwnedPartition:
    """A partition that this daemon has claimed."""

    partition: Partition
    is_rebuilt: bool
    lag: int | None
    """Records; None = the end of the log is not known yet."""


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The state of the pipeline and its source at one turn of the event loop."""

    is_member: bool = False
    """The consumer group has assigned this daemon its partitions, perhaps none."""
    assigned: frozenset[Partition] = frozenset()
    """Assigned by the consumer group, and perhaps not claimed in the database yet."""
    broker_unreachable_since_s: float | None = None
    """Monotonic seconds; None = the broker answers."""
    in_hand_since_s: float | None = None
    """Monotonic seconds at which the batch in hand was taken; None = there is none."""
    waits_for: MonitorError | None = None
    """The outage that delays the batch in hand."""
    owned: tuple[OwnedPartition, ...] = ()
    unscored: tuple[str, ...] = ()
    """Fleets without a score for their latest windows."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """By topic of which no record can be read, the word of the reason."""
    untrained: Mapping[str, str] = field(default_factory=dict)
    """By fleet without a model, the data that its training lacks."""
    n_assets: Mapping[str, int] = field(default_factory=dict)
    """By fleet."""
    newest_us: Mapping[str, int] = field(default_factory=dict)
    """By fleet, the event time of its newest reading that is not in the future, µs."""
    data_alerts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By kind of the open data alerts, the assets, sensors or fleets that they are about."""
    quiet: Mapping[Partition, float] = field(default_factory=dict)
    """Seconds since the last record, of partitions that were read to their end."""


class Health:
    """The daemon's health. Written in the event loop, read from any thread."""

    def __init__(
        self,
        *,
        session_s: float = 30.0,
        timing: Timing = DEFAULT_TIMING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`session_s`: Kafka's session timeout."""
        self.watch = LoopWatch(self.update, session_s=session_s, timing=timing, monotonic=monotonic)
        """Enter it to measure the running event loop."""
        self._timing = timing
        self._monotonic = monotonic
        self._start_step: str | None = "opening the database"
        """Step of the start that is under way; None = the pipeline runs."""
        self._waits_for: MonitorError | None = None
        """The outage that delays the start."""
        self._at_broker: dict[str, str] = {}
        """Conditions at the broker: word → sentence."""
        self._is_draining = False
        self._pipeline: asyncio.Future[None] | None = None
        self._take_snapshot: Callable[[], StatusSnapshot] | None = None
        self._snapshot = StatusSnapshot()
        self._updated_s = monotonic()
        self._database_answered_s: float | None = None
        self._systemd = Systemd()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ reports, in the event loop

    def starting(self, step: str) -> None:
        """Record the step of the start that is under way."""
        self._start_step = step

    def waiting_for(self, error: MonitorError | None) -> None:
        """Record the outage that delays the start; None = it is over."""
        self._waits_for = error

    def at_broker(self, what: str, why: str | None) -> None:
        """Record a condition at the broker that keeps /ready at 503; None = it is over."""
        self._at_broker.pop(what, None)
        if why is not None:
            self._at_broker[what] = why

    def running(self, pipeline: asyncio.Future[None], take_snapshot: Callable[[], StatusSnapshot]) -> None:
        """Record that the pipeline runs. `pipeline`: its task. `take_snapshot` is called at each turn of the loop."""
        self._start_step, self._pipeline, self._take_snapshot = None, pipeline, take_snapshot

    def draining(self) -> None:
        """Record that the batch in hand is finished and no other is taken."""
        self._is_draining = True
        self._systemd.stopping()

    def database_answered(self) -> None:
        """Record that a transaction was committed just now."""
        self._database_answered_s = self._monotonic()

    def update(self, now: float) -> None:
        """Take a snapshot. The watch calls this at each turn of the event loop."""
        if self._take_snapshot is not None:
            self._snapshot = self._take_snapshot()
        self._updated_s = now
        self._systemd.loop_turned(now, self.summary)

    # ------------------------------------------------------------------ conditions

    def reason_to_restart(self) -> str | None:
        """Return the reason why only a restart helps; None = the process is alive."""
        silent_s = self.watch.silent_s(self._monotonic())
        if silent_s > self._timing.loop_dead_after_s:
            return f"the event loop has not turned for {silent_s:.0f} s"
        if self._pipeline is not None and self._pipeline.done() and not self._is_draining:
            error = None if self._pipeline.cancelled() else self._pipeline.exception()
            return f"the pipeline has ended: {type(error).__name__ if error is not None else 'without an error'}"
        return None

    def missing(self) -> list[dict[str, Any]]:
        """List the conditions that keep /ready at 503: a word `what`, and `why` in a sentence."""
        now = self._monotonic()
        found: dict[str, str] = {}
        if (cause := self.reason_to_restart()) is not None:
            found["process"] = cause
        elif (silent_s := now - self._updated_s) > self._timing.loop_blocked_after_s:
            found["loop"] = f"the event loop has reported nothing for {silent_s:.0f} s; the rest is as old"
        if self._is_draining:
            found["draining"] = "finishing the batch in hand, taking nothing new"
        elif self._start_step is not None:
            found["start"] = self._start_step
        waits_for = self._waits_for or self._snapshot.waits_for
        if isinstance(waits_for, CheckpointUnavailable) and not self._is_draining:
            found["checkpoint"] = waits_for.waiting_for
        if self._database_answered_s is None:
            found["database"] = "has not answered yet"
        elif (silent_s := now - self._database_answered_s) > self._timing.database_silent_after_s:
            found["database"] = f"has not answered for {silent_s:.0f} s"
        if not self._is_draining:
            found |= self._at_broker
        if self._start_step is None and not self._is_draining:
            found |= self._missing_of_pipeline(now)
        return [{"what": what, "why": why} for what, why in found.items()]

    def _missing_of_pipeline(self, now: float) -> dict[str, str]:
        status = self._snapshot
        found: dict[str, str] = {}
        if status.broker_unreachable_since_s is not None:
            found["broker"] = f"has not answered for {now - status.broker_unreachable_since_s:.0f} s"
        elif not status.is_member:
            found["group"] = "the consumer group has not assigned partitions to this daemon yet"
        claimed = {owned.partition for owned in status.owned}
        if unclaimed := sorted(status.assigned - claimed):
            found["claims"] = f"assigned to this daemon and not claimed yet: {_names(unclaimed)}"
        if behind := [owned.partition for owned in status.owned if not owned.is_rebuilt]:
            found["rebuild"] = f"reading again what unfinished windows need: {_names(behind)}"
        if status.in_hand_since_s is not None:
            age_s = now - status.in_hand_since_s
            if age_s > self._timing.batch_stuck_after_s:
                found["batch"] = f"the batch in hand was taken {age_s:.0f} s ago and is not saved"
        return found

    def notes(self) -> list[str]:
        """List remarks for operators that do not affect readiness."""
        status, found = self._snapshot, []
        if status.is_member and not status.assigned and self._start_step is None:
            found.append("the group gives this daemon no partition: the others have all of them")
        found += [
            f"topic {topic}: none of its latest records can be read ({word}); `monitor check` shows why"
            for topic, word in sorted(status.unreadable.items())
        ]
        for fleet in sorted({*status.unscored, *status.untrained}):
            why = status.untrained.get(fleet)
            found.append(f"fleet {fleet}: no model scores its windows yet" + (f"; {why}" if why else ""))
        for kind, subjects in sorted(status.data_alerts.items()):
            more = f" and {len(subjects) - MAX_SUBJECTS} more" if len(subjects) > MAX_SUBJECTS else ""
            names = ", ".join(map(escape_unprintable, subjects[:MAX_SUBJECTS]))
            found.append(f"data alert {kind}, {len(subjects)}: {names}{more}; see `monitor alerts list`")
        if quiet := [partition for partition, for_s in status.quiet.items() if for_s > QUIET_S]:
            found.append(f"no record for {min(map(status.quiet.__getitem__, quiet)) / 60:.0f} minutes: {_names(quiet)}")
        return found

    def summary(self) -> str:
        """Return the state in one line, for systemd."""
        missing = self.missing()
        if missing:
            return "; ".join(f"{each['what']}: {each['why']}" for each in missing)
        lag = sum(owned.lag or 0 for owned in self._snapshot.owned)
        return f"{len(self._snapshot.owned)} partitions, lag {lag}"

    # ------------------------------------------------------------------ the pages

    def live_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /live: the HTTP status and the document."""
        cause = self.reason_to_restart()
        lag_s = self.watch.worst_lag_s(self._monotonic())
        document: dict[str, Any] = {"live": cause is None, "loop_lag_s": round(lag_s, 3)}
        return (200, document) if cause is None else (503, document | {"why": cause})

    def ready_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /ready: the HTTP status and the document."""
        missing = self.missing()
        return 503 if missing else 200, {"ready": not missing, "missing": missing, "notes": self.notes()}

    def metrics_page(self) -> tuple[str, bytes]:
        """Answer /metrics: the content type, and the counters and gauges as of now."""
        with self._lock:  # two scrapes at once must not see each other's half-set gauges
            self._set_gauges()
            return CONTENT_TYPE_LATEST, generate_latest(metrics.registry)

    def _set_gauges(self) -> None:
        status, now = self._snapshot, self._monotonic()
        metrics.live.set(self.reason_to_restart() is None)
        metrics.ready.set(not self.missing())
        metrics.loop_lag_seconds.set(self.watch.worst_lag_s(now))
        metrics.partitions.set(len(status.owned))
        metrics.partitions_rebuilding.set(sum(not owned.is_rebuilt for owned in status.owned))
        in_hand = status.in_hand_since_s
        metrics.batch_in_hand_seconds.set(0.0 if in_hand is None else now - in_hand)
        metrics.lag_records.clear()  # a partition that was revoked has no lag here
        for owned in status.owned:
            if owned.lag is not None:
                metrics.lag_records.labels(owned.partition.topic, str(owned.partition.number)).set(owned.lag)
        for fleet, n in status.n_assets.items():
            metrics.assets.labels(fleet).set(n)
        for fleet, newest_us in status.newest_us.items():
            metrics.watermark_timestamp_seconds.labels(fleet).set(newest_us / 1e6)


def snapshot_of(
    pipeline: Pipeline, source: KafkaSource, untrained: Mapping[str, str] | None = None
) -> StatusSnapshot:
    """Take a snapshot. Call it in the event loop, where nothing changes meanwhile. `untrained`: see its field."""
    membership = source.membership
    now_us = pipeline.clock.now_us()
    n_assets: dict[str, int] = dict.fromkeys((fleet.name for fleet in pipeline.config.fleets), 0)
    newest_us: dict[str, int] = {}
    owned = []
    data_alerts: dict[str, list[str]] = {}
    quiet = {}
    for partition, state in pipeline.partitions.items():
        end = source.end_offset(partition)
        lag = None if end is None else max(0, end - state.next_offset)
        owned.append(OwnedPartition(partition, state.rebuild.is_done, lag))
        for kind, subjects in state.data_alerts.subjects.items():
            data_alerts.setdefault(kind, []).extend(subjects)
        if not lag:
            quiet[partition] = pipeline.clock.monotonic_s() - state.last_read_s
        for fleet, shard in state.shards.items():
            n_assets[fleet] += len(shard.assets.names)
            # A clock that is ahead must not make a fleet look alive that has stopped.
            cells = shard.windower.newest[shard.windower.newest > NEVER]
            in_time = cells[cells * shard.interval_us <= now_us + AHEAD_US]
            if len(cells):
                reached_us = int((in_time if len(in_time) else cells).max()) * shard.interval_us
                newest_us[fleet] = max(reached_us, newest_us.get(fleet, reached_us))
    return StatusSnapshot(
        is_member=membership.is_member,
        assigned=membership.assigned,
        broker_unreachable_since_s=membership.unreachable_since_s,
        in_hand_since_s=pipeline.in_hand_since_s,
        waits_for=pipeline.reader.waits_for,
        owned=tuple(owned),
        unscored=tuple(sorted(pipeline.unscored)),
        unreadable=dict(pipeline.readability.unreadable),
        untrained=dict(untrained or {}),
        n_assets=n_assets,
        newest_us=newest_us,
        data_alerts=data_alerts,
        quiet=quiet,
    )


def _names(partitions: list[Partition]) -> str:
    shown = ", ".join(map(str, partitions[:MAX_NAMES]))
    return shown if len(partitions) <= MAX_NAMES else f"{shown} and {len(partitions) - MAX_NAMES} more"
