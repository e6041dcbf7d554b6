"""Periodic maintenance beside the pipeline: retention, and reports on the false-alarm budgets.

Input: `store.keep_scores`, the scores and alerts in the database. Output: deleted rows and
checkpoints, log events. Invariant: of several daemons, the one that holds the lease `upkeep` deletes. Each reports the
budgets in its own log.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING

from monitor import alert_health, logs, metrics
from monitor.budget import BudgetReport, Status, UnreadableThreshold
from monitor.errors import MonitorError
from monitor.service.checkpoint_pruning import CheckpointPruning
from monitor.store import burn, daemons, judged, quarantine, score_hours, scores
from monitor.store.results import FIRST_US
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.scores import PruneStep
    from monitor.timing import Timing

log = logs.get("upkeep")

MICROSECOND = timedelta(microseconds=1)


class Maintenance:
    """Deletes rows that are too old, and reports the budgets."""

    def __init__(
        self, config: Config, store: AsyncStore, clock: Clock, lease: Lease | None, timing: Timing = DEFAULT_TIMING
    ) -> None:
        """`lease`: None = there is no other daemon."""
        self._config = config
        self._store = store
        self._clock = clock
        self._lease = lease
        self._timing = timing
        self._budgets = BudgetReports(config, store, clock, timing)
        self._checkpoints = CheckpointPruning(config, store, clock)
        self._swept_s = -inf

    async def loop(self) -> None:
        """Run one round every ten minutes, until cancelled."""
        while True:
            try:
                await self.run_once()
            except MonitorError as error:
                log.warning("upkeep_failed", error=str(error), doing="trying again later")
            await self._clock.sleep(self._timing.maintenance_every_s)

    async def run_once(self) -> None:
        """Run the deletions and reports that are due. Raises StoreUnavailable."""
        # Two daemons may delete the same rows: the lease only saves work, so no transaction checks it.
        if self._lease is None or await self._lease.acquire():
            await self._prune()
        await self._budgets.report()

    async def _prune(self) -> None:
        now_us = self._clock.now_us()
        await self._store.run(daemons.delete_stale, now_us - round(self._timing.daemon_forgotten_after_s * 1e6))
        keep = self._config.store.keep_scores
        if keep is None:
            await self._checkpoints.run_once({})
            return
        if n := await prune_quarantine(self._store, now_us - keep // MICROSECOND):
            log.info("quarantine_pruned", rows=n, older_than=str(keep))
        expiry = before = await expiry_by_fleet(self._store, keep)
        # The scores of the fleet that is furthest behind may be kept for years, with expired scores of the others
        # between them. They are many, so they are rarely scanned.
        now_s = self._clock.monotonic_s()
        sweeps = now_s - self._swept_s >= min(keep.total_seconds() / 10, self._timing.sweep_every_s)
        if before and not sweeps:
            before = dict.fromkeys(before, min(before.values()))
        if deleted := await prune_scores(self._store, before):
            log.info("scores_pruned", rows=deleted.total(), older_than=str(keep), fleets=dict(deleted))
        if sweeps:
            hours = await expiry_by_fleet(self._store, max(keep, score_hours.KEEP))
            if deleted := await prune_scores(self._store, hours, score_hours.prune):
                log.info("score_hours_pruned", rows=deleted.total(), fleets=dict(deleted))
            self._swept_s = now_s
        await self._checkpoints.run_once(expiry)  # after the scores: it counts those that name a version


# ---------------------------------------------------------------- retention


async def expiry_by_fleet(store: AsyncStore, keep: timedelta) -> dict[str, int]:
    """Return, by fleet, the event time before which its scores expire, µs: `keep` before the end of its newest window.

    Each fleet goes by its own event time, without windows in the future. A fleet that stopped keeps its last scores and
    delays no other. A fleet that reads a backlog does not lose its scores as they are written.
    """
    newest = await store.read(scores.newest_us)
    return {fleet: newest_us - keep // MICROSECOND for fleet, newest_us in newest.items()}


async def prune_scores(
    store: AsyncStore, before: Mapping[str, int], prune: PruneStep = scores.prune
) -> Counter[str]:
    """Delete each fleet's scores that start before its time, µs. Return the number of rows by fleet.

    `prune` deletes one step of them, or of their hours. One scan of all fleets from the oldest row on. It skips the
    rows of a fleet after its time. Raises StoreUnavailable.
    """
    deleted: Counter[str] = Counter()
    at_us = FIRST_US
    slowest_first = sorted(before, key=before.__getitem__)
    for place, fleet in enumerate(slowest_first):
        while at_us < before[fleet]:
            some, at_us = await store.run(prune, slowest_first[place:], at_us, before[fleet])
            deleted += some
    return deleted


async def prune_quarantine(store: AsyncStore, before_us: int) -> int:
    """Delete quarantined records stored before a processing time, µs. Return their number. Raises StoreUnavailable."""
    total = 0
    while n := await store.run(quarantine.prune, before_us):
        total += n
    return total


# ---------------------------------------------------------------- budgets


class BudgetReports:
    """Logs the state of each fleet's false-alarm budget: when it changes, and daily while it is violated."""

    def __init__(self, config: Config, store: AsyncStore, clock: Clock, timing: Timing = DEFAULT_TIMING) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._timing = timing
        self._logged: dict[str, tuple[Status, float]] = {}
        """By fleet, the status that was logged last, and when."""
        self._unknown: set[UnreadableThreshold] = set()

    async def report(self) -> None:
        """Log the changes and the reminders. Raises StoreUnavailable."""
        known = await self._store.read(judged.read_counts)
        for fleet in self._config.fleets:
            n_real, n_judged = known.get(fleet.name, (0, 0))
            at_least = alert_health.proportion_at_any_time(n_real, n_judged) if n_judged else 0.0
            metrics.real_alerts_ratio_at_least.labels(fleet.name).set(at_least)
            found = await self._store.read(burn.champion_budget_report, fleet.name)
            if isinstance(found, UnreadableThreshold):
                if found not in self._unknown:
                    self._unknown.add(found)
                    why = "its stored threshold is not one this version can read; a retraining writes a new one"
                    log.warning("budget_unknown", fleet=found.fleet, version=found.version, why=why)
                continue
            if found is None:
                continue
            metrics.budget_burn_ratio.labels(fleet.name).set(found.recent.ratio)
            metrics.budget_violated.labels(fleet.name).set(found.status is Status.VIOLATED)
            if self._is_due(found):
                self._logged[fleet.name] = (found.status, self._clock.monotonic_s())
                self._log(found)

    def _is_due(self, found: BudgetReport) -> bool:
        status, logged_s = self._logged.get(found.fleet, (None, 0.0))
        if found.status is not status:
            return True
        is_old = self._clock.monotonic_s() - logged_s >= self._timing.budget_reminder_every_s
        return found.status is Status.VIOLATED and is_old

    def _log(self, found: BudgetReport) -> None:
        used = found.recent if found.recent.status is Status.VIOLATED else found.own
        facts = {
            "fleet": found.fleet,
            "version": found.version,
            "alarms": used.n_alarms,
            "allowed": round(used.allowed, 1),
            "asset_weeks": round(used.weeks, 2),
            "alarms_per_week": f"{used.per_week:.2g} ({used.at_least_per_week:.2g} to {used.at_most_per_week:.2g})",
        }
        if found.status is Status.VIOLATED:
            worst = [f"{name}: {each.n_alarms} of {each.allowed:.1f} allowed" for name, each in found.worst[:3]]
            todo = f"`monitor models show {found.version}`: label what were faults, retrain where machines changed"
            log.warning("budget_violated", **facts, worst=worst, do=todo)
        elif found.status is Status.CERTIFIED:
            log.info("budget_certified", **facts, basis=str(found.own.basis))
        else:
            log.info("budget_provisional", **facts, asset_weeks_missing=round(found.own.weeks_missing, 2))
