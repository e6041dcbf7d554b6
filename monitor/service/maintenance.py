"""What must be done now and then beside the river: old rows go, and promises are looked at.

Of several daemons the one that holds the lease `upkeep` deletes; each says in its own log how the budgets stand.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING

from monitor import logs
from monitor.budget import Status
from monitor.errors import MonitorError
from monitor.store import burn, daemons, quarantine, scores
from monitor.store.results import FIRST_US

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from monitor.store.lease import Lease

log = logs.get("upkeep")

EVERY_S = 600.0
REMIND_EVERY_S = 24 * 3600.0
GONE_AFTER = timedelta(days=1)
"""A daemon that has not been heard of for so long is forgotten; it counts as dead long before."""
SWEEP_EVERY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


class Upkeep:
    """Prunes, and looks after what was promised."""

    def __init__(self, config: Config, store: AsyncStore, clock: Clock, lease: Lease | None) -> None:
        """`lease`: None = there is no other daemon."""
        self._config = config
        self._store = store
        self._clock = clock
        self._lease = lease
        self._promises = Promises(config, store, clock)
        self._swept_s = -inf

    async def loop(self) -> None:
        """Look every ten minutes, until cancelled."""
        while True:
            try:
                await self.look()
            except MonitorError as error:
                log.warning("upkeep_failed", error=str(error), doing="trying again later")
            await self._clock.sleep(EVERY_S)

    async def look(self) -> None:
        """Do what is due. Raises StoreUnavailable."""
        # Deleting is the same whoever does it: the lease saves work, and needs no check in each transaction.
        if self._lease is None or await self._lease.look():
            await self._prune()
        await self._promises.look()

    async def _prune(self) -> None:
        now_us = self._clock.now_us()
        await self._store.run(daemons.forget, now_us - GONE_AFTER // MICROSECOND)
        keep = self._config.store.keep_scores
        if keep is None:
            return
        if n := await prune_quarantine(self._store, now_us - keep // MICROSECOND):
            log.info("quarantine_pruned", rows=n, older_than=str(keep))
        before = await outlived(self._store, keep)
        # Between the slowest fleet's scores and the others' lie those that it keeps, perhaps for years, and they are
        # many: now and then is often enough to look for the others' among them.
        now_s = self._clock.monotonic_s()
        sweeps = now_s - self._swept_s >= min(keep / 10, SWEEP_EVERY).total_seconds()
        if before and not sweeps:
            before = dict.fromkeys(before, min(before.values()))
        if deleted := await prune_scores(self._store, before):
            log.info("scores_pruned", rows=deleted.total(), older_than=str(keep), fleets=dict(deleted))
        if sweeps:
            self._swept_s = now_s


# ---------------------------------------------------------------- retention


async def outlived(store: AsyncStore, keep: timedelta) -> dict[str, int]:
    """Return, by fleet, the event time before which its scores are too old: `keep` before the end of its newest window.

    Each goes by its own clock, never by ours: one that stopped keeps its last scores and holds up nobody, and one that
    reads a backlog does not lose them as they are written.
    """
    newest = await store.read(scores.newest_us)
    return {fleet: newest_us - keep // MICROSECOND for fleet, newest_us in newest.items()}


async def prune_scores(store: AsyncStore, before: Mapping[str, int]) -> Counter[str]:
    """Delete each fleet's scores that start before its time, in µs; return how many by fleet. Raises StoreUnavailable.

    One walk from the oldest score on, through all of them; past a fleet's time its rows are stepped over.
    """
    deleted: Counter[str] = Counter()
    at_us = FIRST_US
    slowest_first = sorted(before, key=before.__getitem__)
    for place, fleet in enumerate(slowest_first):
        while at_us < before[fleet]:
            some, at_us = await store.run(scores.prune, slowest_first[place:], at_us, before[fleet])
            deleted += some
    return deleted


async def prune_quarantine(store: AsyncStore, before_us: int) -> int:
    """Delete records that were kept before a moment of our clock; return how many. Raises StoreUnavailable."""
    total = 0
    while n := await store.run(quarantine.prune, before_us):
        total += n
    return total


# ---------------------------------------------------------------- promises


class Promises:
    """Says how each fleet's false-alarm budget stands: when that changes, and daily while it is broken."""

    def __init__(self, config: Config, store: AsyncStore, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._said: dict[str, tuple[Status, float]] = {}
        self._unknown: set[burn.NoPromise] = set()

    async def look(self) -> None:
        """Look once. Raises StoreUnavailable."""
        for fleet in self._config.fleets:
            found = await self._store.read(burn.of_champion, fleet.name)
            if isinstance(found, burn.NoPromise):
                if found not in self._unknown:
                    self._unknown.add(found)
                    why = "its stored threshold is not one this version can read; a retraining writes a new one"
                    log.warning("budget_unknown", fleet=found.fleet, version=found.version, why=why)
                continue
            if found is None:
                continue
            said, said_s = self._said.get(fleet.name, (None, 0.0))
            now_s = self._clock.monotonic_s()
            is_broken = found.status is Status.VIOLATED
            if found.status is said and not (is_broken and now_s - said_s >= REMIND_EVERY_S):
                continue
            self._said[fleet.name] = (found.status, now_s)
            self._say(found)

    def _say(self, found: burn.Standing) -> None:
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
            log.info("budget_certified", **facts)
        else:
            log.info("budget_provisional", **facts, asset_weeks_missing=round(found.own.weeks_missing, 2))
