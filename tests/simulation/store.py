"""The real functions of `monitor.store` on SQLite in memory, behind an `AsyncStore` with failing calls.

Input: store functions with their arguments. Output: their results, or an error before or after the fact.
Invariant: a call is one transaction in one step, so all transactions have one order. The database's clock is the
simulated one. `Database._watch` checks the offsets and epochs after each transaction, independently of the code
under test.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.errors import Fenced, ModelsChanged, MonitorError, StoreUnavailable
from monitor.store import partitions, sqlite, tables
from monitor.store.commit import Commit, Saved
from monitor.store.error_mapping import map_errors
from monitor.store.url import parse
from monitor.types import Partition
from tests.simulation.clockwork import simulated_now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from sqlalchemy import Engine, Row

    from tests.simulation.clockwork import Process
    from tests.simulation.fault_plan import FaultPlan

MEMORY = Path(":memory:")
ADDRESS = parse("sqlite:///simulated.db")
"""Appears in error messages only."""
UNIX_EPOCH_DAY = 2440587.5
"""Julian day of 1970-01-01."""
DAY_US = 86_400_000_000


class Database:
    """One database of one simulated run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.history: list[tuple[str, str]] | None = None
        """(function, its result or error) of each transaction, in order. None = not kept."""
        self.trace: Callable[[str], None] | None = None
        self._engine: Engine = sqlite.new_engine(MEMORY, 0)
        self._connection = self._engine.connect()
        self._driver: Any = self._connection.connection.dbapi_connection
        _empty_database().backup(self._driver)
        self._driver.create_function("julianday", 1, _julian_day)
        self._positions: dict[tuple[str, Partition], tuple[int, int | None]] = {}
        self._n_changes = self._driver.total_changes

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()
        self._engine.dispose()

    def transact(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `fn(connection, …)` in one transaction: commit if it returns, roll back if it raises."""
        try:
            with map_errors(ADDRESS, ()), self._connection.begin():
                result = fn(self._connection, *args, **kwargs)
        except MonitorError as error:
            if isinstance(error, Fenced | ModelsChanged):
                self.counts[type(error).__name__.lower()] += 1
            self._record(fn, args, kwargs, error)
            raise
        if isinstance(result, Saved):
            self.counts["resolved"] += result.was_done
            self.counts["snapshots"] += 0 if result.was_done else len(args[0].snapshots)
        self._watch(args)
        self._record(fn, args, kwargs, result)
        return result

    def rows(self, sql: str, *values: object) -> Sequence[Row[Any]]:
        """Run one SELECT."""
        with self._connection.begin():
            return self._connection.exec_driver_sql(sql, values).all()

    def position(self, pipeline: str, partition: Partition) -> Row[Any] | None:
        """Return epoch, next_offset and rewind_offset of a partition. None = it was never claimed."""
        found = self.rows(
            "SELECT epoch, next_offset, rewind_offset FROM source_partition"
            " WHERE pipeline = ? AND topic = ? AND partition = ?",
            pipeline, partition.topic, partition.number,
        )  # fmt: skip
        return found[0] if found else None

    def _record(self, fn: Callable[..., Any], args: Any, kwargs: Any, outcome: Any) -> None:
        if self.trace is not None:
            self.trace(f"database: {fn.__name__} {described(args)} {kwargs or ''} → {described(outcome)}")
        if self.history is not None:
            self.history.append((fn.__name__, repr(outcome)))

    def _watch(self, args: tuple[Any, ...]) -> None:
        """Check that offsets and epochs only rise, and that only the owner of the epoch moves an offset."""
        if self._driver.total_changes == self._n_changes:
            return
        self._n_changes = self._driver.total_changes
        before, self._positions = self._positions, {
            (pipeline, Partition(topic, number)): (epoch, next_offset)
            for pipeline, topic, number, epoch, next_offset in self._driver.execute(
                "SELECT pipeline, topic, partition, epoch, next_offset FROM source_partition"
            )
        }  # fmt: skip
        for key, (epoch, next_offset) in self._positions.items():
            if key not in before or before[key] == (epoch, next_offset):
                continue
            old_epoch, old_offset = before[key]
            if epoch < old_epoch or (next_offset or 0) < (old_offset or 0):
                self.violations.append(f"fell: {key} from {before[key]} to {epoch, next_offset}")
            commit = args[0] if args else None
            if next_offset != old_offset and isinstance(commit, Commit):
                expected = commit.epoch, commit.old_next
                if expected != before[key]:
                    self.violations.append(f"fenced, and saved: {key} stood at {before[key]}, saved under {expected}")


@cache
def _empty_database() -> sqlite3.Connection:
    """Create the tables once per process: a copy costs less than the statements."""
    engine = sqlite.new_engine(MEMORY, 0)
    with engine.connect() as connection:
        with connection.begin():
            tables.metadata.create_all(connection)
        template = sqlite3.connect(":memory:")
        driver: Any = connection.connection.dbapi_connection
        driver.backup(template)
    engine.dispose()
    return template


def _julian_day(when: str) -> float:
    """Answer SQLite's `julianday('now')` from the simulated clock."""
    assert when == "now", when
    return UNIX_EPOCH_DAY + simulated_now_us() / DAY_US


def described(value: Any) -> str:
    """Return a value in one line. Of a commit, the fields that explain a run."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ", ".join(map(described, value))
    if not isinstance(value, Commit):
        return str(value)[:300]
    rows = [f"{rows.fleet} {int(rows.asset_ids[asset])}@{start}" for rows in value.fleets
            for asset, start in zip(rows.asset, rows.start_us.tolist(), strict=True)]  # fmt: skip
    return (
        f"{value.partition} epoch {value.epoch}: {value.old_next} to {value.new_next}, rewind {value.rewind_offset} "
        f"{dict(value.rewind_state)}, windows {rows}, quarantined {[each.offset for each in value.quarantined]}, "
        f"gaps {list(value.gaps)}, {value.digest}, snapshots {[each[:2] for each in value.snapshots]}"
    )


class SimulatedStore:
    """The `AsyncStore` of one process, over the worst of connections."""

    def __init__(
        self,
        database: Database,
        process: Process,
        rng: Random,
        fault_plan: FaultPlan,
        freeze: Callable[[Process], None],
    ) -> None:
        self.database = database
        self._process = process
        self._rng = rng
        self._fault_plan = fault_plan
        self._freeze = freeze

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._call(fn, args, kwargs, writes=True)

    async def read(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._call(fn, args, kwargs, writes=False)
        except StoreUnavailable:
            return await self._call(fn, args, kwargs, writes=False)

    async def save(self, commit: Commit) -> Saved:
        saved: Saved
        try:
            saved = await self.run(partitions.commit, commit)
        except StoreUnavailable:
            saved = await self.run(partitions.commit, commit)
        return saved

    async def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any, *, writes: bool) -> Any:
        plan, counts = self._fault_plan, self.database.counts
        await self._process.pause(self._latency_s())
        if self._chance(plan.dies_before):
            await self._dies()
        if self._chance(plan.freezes_before):
            await self._freezes()
        if plan.is_database_down or self._chance(plan.unavailable):
            counts["unavailable"] += 1
            raise StoreUnavailable("simulated: not done")
        if writes and self._chance(plan.overdue):
            counts["overdue"] += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self._rng.random() * 3, self._transact_unheard, fn, args, kwargs)
            raise StoreUnavailable("simulated: not done yet")
        error = result = None
        try:
            result = self.database.transact(fn, *args, **kwargs)
        except MonitorError as refused:
            error = refused
        if self._chance(plan.dies_after):
            await self._dies()
        if self._chance(plan.freezes_after):
            await self._freezes()
        await self._process.pause(self._latency_s())
        if self._chance(plan.unknown):
            counts["unknown"] += writes and error is None
            raise StoreUnavailable("simulated: outcome unknown")
        if error is not None:
            raise error
        return result

    def _transact_unheard(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        with suppress(Fenced, ModelsChanged):
            self.database.transact(fn, *args, **kwargs)

    def _chance(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share

    def _latency_s(self) -> float:
        if self._chance(self._fault_plan.slow):
            self.database.counts["slow"] += 1
            return self._rng.random() * 8
        return self._rng.random() * 0.02

    async def _dies(self) -> None:
        self.database.counts["died at a call"] += 1
        self._process.die()
        await self._process.pause(0)

    async def _freezes(self) -> None:
        self._freeze(self._process)
        await self._process.pause(0)
