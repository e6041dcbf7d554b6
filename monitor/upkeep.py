"""What must be done now and then beside the river: old rows go, and promises are looked at.

Of several daemons the one that holds the lease `upkeep` deletes; each says in its own log how the budgets stand.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from monitor import logs
from monitor.budget import Status
from monitor.errors import MonitorError
from monitor.store import burn, daemons, quarantine, scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.lease import Lease
    from monitor.store.engine import AsyncStore

log = logs.get("upkeep")

EVERY_S = 600.0
REMIND_EVERY_S = 24 * 3600.0
GONE_AFTER = timedelta(days=1)
"""A daemon that has not been heard of for so long is forgotten; it counts as dead long before."""
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
        if n := await self._in_steps(quarantine.prune, now_us - keep // MICROSECOND):
            log.info("quarantine_pruned", rows=n, older_than=str(keep))
        # By event time: what counts is how far the slowest fleet has come, not what our clock says. One that stopped
        # holds up the others' pruning, but one that reads a long backlog must not lose its scores as they are written.
        newest = [await self._store.read(scores.newest_end_us, fleet.name) for fleet in self._config.fleets]
        reached = [end_us for end_us in newest if end_us is not None]
        if reached and (n := await self._in_steps(scores.prune, min(reached) - keep // MICROSECOND)):
            log.info("scores_pruned", rows=n, older_than=str(keep))

    async def _in_steps(self, prune: Callable[..., int], before_us: int) -> int:
        """In small transactions, so that the river never waits long."""
        total = 0
        while n := await self._store.run(prune, before_us):
            total += n
        return total


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
