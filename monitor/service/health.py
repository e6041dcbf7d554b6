"""Is it alive, is it ready, what has it counted: `/live`, `/ready` and `/metrics`, and the judgement behind them.

Enters: what the event loop tells of itself twice a second (`Health.look`), and words of the daemon about what it is
doing. Leaves: three pages of text, served from threads of their own, so that they answer while the loop stands still.

    /live      200 while the process can still do its work; else 503, and only a restart helps
    /ready     200 while records flow as they should; else 503 with a list of what is missing: wait, or mend that
    /metrics   Prometheus' text format (`metrics.py`)

The law: a page reads facts that were written down before; it asks nobody, waits for nothing and changes nothing.

What the pages show are figures, and the names of topics, fleets and model versions: no readings, no addresses, no error
texts, no secrets. They are plain GETs without cookies or state, so a foreign web page that reaches them through a
visitor's browser (DNS rebinding) learns those names at most; therefore no list of allowed hosts, and nothing but
loopback unless the configuration says so.
"""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitor import metrics
from monitor.errors import CheckpointUnavailable
from monitor.service.pages import pages
from monitor.service.watchdog import BLOCKED_S, LoopWatch, Systemd
from monitor.stream.window import NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping

    from monitor.config import Config
    from monitor.errors import MonitorError
    from monitor.kafka.consumer_group import KafkaSource
    from monitor.stream.pipeline import Pipeline
    from monitor.types import Partition

DEAD_S = 30.0
"""A loop that has not turned for so long is not alive any more: Kafka has given its partitions away."""
DATABASE_S = 10.0
"""Silence of the database after which we are not ready; the daemon writes to it every two seconds."""
IN_HAND_S = 60.0
"""A batch takes this long only when something is stuck."""
NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is ours."""

    partition: Partition
    is_rebuilt: bool
    lag: int | None
    """Records; None = the log's end is not known yet."""


@dataclass(frozen=True, slots=True)
class Facts:
    """How the river stood when the loop last turned."""

    is_member: bool = False
    """Whether the group has told us which partitions are ours."""
    assigned: frozenset[Partition] = frozenset()
    """By the group; claimed or not yet."""
    broker_away_since_s: float | None = None
    in_hand_since_s: float | None = None
    waits_for: MonitorError | None = None
    """What keeps the batch in hand."""
    held: tuple[Held, ...] = ()
    unscored: tuple[str, ...] = ()
    """Fleets whose windows have no score."""
    n_assets: Mapping[str, int] = field(default_factory=dict)
    """By fleet."""
    reached_us: Mapping[str, int] = field(default_factory=dict)
    """By fleet, event time of its newest reading."""


class Health:
    """What is known of the daemon, and what follows from it. Written inside the loop, read from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.doing: str | None = "opening the database"
        """What has to be done before the first record; None = records flow."""
        self.waits_for: MonitorError | None = None
        """What keeps us from that; waiting helps."""
        self.is_draining = False
        self.river: asyncio.Task[None] | None = None
        self.loop: LoopWatch | None = None
        self.facts = Facts()
        self._monotonic = monotonic
        self._told_s = monotonic()
        self._answered_s: float | None = None
        self._look_at: Callable[[], Facts] | None = None
        self._systemd = Systemd()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ told from inside the loop

    def database_answered(self) -> None:
        """Say that a transaction went through just now."""
        self._answered_s = self._monotonic()

    def flows(self, pipeline: Pipeline, source: KafkaSource, river: asyncio.Task[None]) -> None:
        """Say that records flow from now on, and through what."""
        self.doing, self.river = None, river
        self._look_at = lambda: facts_of(pipeline, source)

    def drains(self) -> None:
        """Say that nothing new is taken."""
        self.is_draining = True
        self._systemd.stopping()

    def look(self, now: float) -> None:
        """Write down how things stand; the loop has turned."""
        if self._look_at is not None:
            self.facts = self._look_at()
        self._told_s = now
        self._systemd.turned(now, self.summary)

    # ------------------------------------------------------------------ the judgement

    def dead(self) -> str | None:
        """Say why only a restart helps; None = alive."""
        silent_s = self.loop.silent_s(self._monotonic()) if self.loop is not None else 0.0
        if silent_s > DEAD_S:
            return f"the event loop has not turned for {silent_s:.0f} s"
        river = self.river
        if river is not None and river.done() and not self.is_draining:
            error = None if river.cancelled() else river.exception()
            return f"the river has ended: {type(error).__name__ if error is not None else 'for no reason'}"
        return None

    def missing(self) -> list[dict[str, Any]]:
        """List what keeps records from flowing as they should: `what`, and `why` in a sentence."""
        now, facts = self._monotonic(), self.facts
        found: dict[str, str] = {}
        if (dead := self.dead()) is not None:
            found["process"] = dead
        elif self.loop is not None and (silent_s := now - self._told_s) > BLOCKED_S:
            found["loop"] = f"the event loop has told nothing for {silent_s:.0f} s; what follows is as old"
        if self.is_draining:
            found["draining"] = "finishing the batch in hand, taking nothing new"
        elif self.doing is not None:
            found["start"] = self.doing
        waits_for = self.waits_for or facts.waits_for
        if isinstance(waits_for, CheckpointUnavailable) and not self.is_draining:
            found["checkpoint"] = waits_for.waiting_for
        if self._answered_s is None:
            found["database"] = "has not answered yet"
        elif (silent_s := now - self._answered_s) > DATABASE_S:
            found["database"] = f"has not answered for {silent_s:.0f} s"
        if self.doing is None and not self.is_draining:
            found |= self._river_misses(facts, now)
        return [{"what": what, "why": why} for what, why in found.items()]

    def _river_misses(self, facts: Facts, now: float) -> dict[str, str]:
        found: dict[str, str] = {}
        if facts.broker_away_since_s is not None:
            found["broker"] = f"has not answered for {now - facts.broker_away_since_s:.0f} s"
        elif not facts.is_member:
            found["group"] = "the consumer group has not said yet which partitions are ours"
        claimed = {held.partition for held in facts.held}
        if unclaimed := sorted(facts.assigned - claimed):
            found["claims"] = f"assigned to us and not claimed yet: {_names(unclaimed)}"
        if behind := [held.partition for held in facts.held if not held.is_rebuilt]:
            found["rebuild"] = f"reading again what unfinished windows need: {_names(behind)}"
        if facts.in_hand_since_s is not None and (age_s := now - facts.in_hand_since_s) > IN_HAND_S:
            found["batch"] = f"the batch in hand was taken {age_s:.0f} s ago and is not saved"
        return found

    def notes(self) -> list[str]:
        """Say what an operator may want to know although nothing is missing."""
        facts, found = self.facts, []
        if facts.is_member and not facts.assigned and self.doing is None:
            found.append("the group gives this daemon no partition: the others have all of them")
        found += [f"fleet {fleet}: no model scores its windows yet" for fleet in facts.unscored]
        return found

    def summary(self) -> str:
        """Say in one line how it does."""
        missing = self.missing()
        if missing:
            return "; ".join(f"{each['what']}: {each['why']}" for each in missing)
        lag = sum(held.lag or 0 for held in self.facts.held)
        return f"{len(self.facts.held)} partitions, lag {lag}"

    # ------------------------------------------------------------------ the pages

    def live_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /live."""
        dead = self.dead()
        lag_s = self.loop.worst_lag_s(self._monotonic()) if self.loop is not None else 0.0
        answer: dict[str, Any] = {"live": dead is None, "loop_lag_s": round(lag_s, 3)}
        return (200, answer) if dead is None else (503, answer | {"why": dead})

    def ready_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /ready."""
        missing = self.missing()
        return 503 if missing else 200, {"ready": not missing, "missing": missing, "notes": self.notes()}

    def metrics_page(self) -> tuple[str, bytes]:
        """Answer /metrics: the content type, and the counters and gauges as of now."""
        with self._lock:  # two scrapes at once must not see each other's half-set gauges
            self._set_gauges()
            return CONTENT_TYPE_LATEST, generate_latest(metrics.registry)

    def _set_gauges(self) -> None:
        facts, now = self.facts, self._monotonic()
        metrics.live.set(self.dead() is None)
        metrics.ready.set(not self.missing())
        metrics.loop_lag_seconds.set(self.loop.worst_lag_s(now) if self.loop is not None else 0.0)
        metrics.partitions.set(len(facts.held))
        metrics.partitions_rebuilding.set(sum(not held.is_rebuilt for held in facts.held))
        in_hand = facts.in_hand_since_s
        metrics.batch_in_hand_seconds.set(0.0 if in_hand is None else now - in_hand)
        metrics.lag_records.clear()  # a partition that is another's now has no lag here
        for held in facts.held:
            if held.lag is not None:
                metrics.lag_records.labels(held.partition.topic, str(held.partition.number)).set(held.lag)
        for fleet, n in facts.n_assets.items():
            metrics.assets.labels(fleet).set(n)
        for fleet, reached_us in facts.reached_us.items():
            metrics.watermark_timestamp_seconds.labels(fleet).set(reached_us / 1e6)


def facts_of(pipeline: Pipeline, source: KafkaSource) -> Facts:
    """Read how the river stands. Inside the loop: nothing changes meanwhile."""
    membership = source.membership
    n_assets: dict[str, int] = dict.fromkeys((fleet.name for fleet in pipeline.config.fleets), 0)
    reached_us: dict[str, int] = {}
    held = []
    for partition, state in pipeline.partitions.items():
        end = source.end_offset(partition)
        lag = None if end is None else max(0, end - state.next_offset)
        held.append(Held(partition, state.is_rebuilt, lag))
        for fleet, lane in state.lanes.items():
            n_assets[fleet] += len(lane.assets.names)
            if lane.windower.max_cell != NEVER:
                reached = lane.windower.max_cell * lane.config.interval_us
                reached_us[fleet] = max(reached, reached_us.get(fleet, reached))
    return Facts(
        is_member=membership.is_member,
        assigned=membership.assigned,
        broker_away_since_s=membership.unreachable_since_s,
        in_hand_since_s=pipeline.in_hand_since_s,
        waits_for=pipeline.waits_for,
        held=tuple(held),
        unscored=tuple(sorted(pipeline.unscored)),
        n_assets=n_assets,
        reached_us=reached_us,
    )


def _names(partitions: list[Partition]) -> str:
    shown = ", ".join(map(str, partitions[:NAMES_SHOWN]))
    return shown if len(partitions) <= NAMES_SHOWN else f"{shown} and {len(partitions) - NAMES_SHOWN} more"


@asynccontextmanager
async def watched(config: Config) -> AsyncIterator[Health]:
    """Watch the running loop, and serve the pages if the configuration asks for them. Raises ConfigError."""
    health = Health()
    async with LoopWatch(health.look, session_s=config.kafka.session_timeout.total_seconds()) as health.loop:
        with pages(config.http, health):
            yield health
