"""Helpers of the store contract: the commits of one partition, and the rows of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, text

from monitor.store import assets, partitions, versions
from monitor.store.commit import Commit, FleetRows, Saved
from monitor.types import AlertChange, AlertState, Contribution, Counters, Partition, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.store.engine import AsyncStore

HOME = Partition("plant.readings", 0)
FLEET = "turbines"
VERSION = "v1"
INTERVAL_US = 600_000_000
LENGTH = 4
NAN = float("nan")
SAVED_US = 1 << 50
"""Processing time of the commits: after all windows."""
THRESHOLD = {"alarms_per_week": 1.0, "step_s": 600.0, "n_episodes": 0, "weeks": 1.0}
CONTRIBUTIONS = (Contribution("power", 0.75, 1800.0, 0.0), Contribution("pitch", 0.25, 2.0, None))


@dataclass
class Owner:
    """The owner of a partition, which commits one window per asset at a time."""

    store: AsyncStore
    partition: Partition
    epoch: int
    next_offset: int
    ids: dict[str, int]

    async def rows(self, scores: dict[str, float], cell: int, **changes: Any) -> FleetRows:
        """Return one window per asset, all of them starting at `cell`. Registers new assets, as the pipeline does."""
        names = list(scores)
        if new := [name for name in names if name not in self.ids]:
            homes = await self.store.run(assets.register, changes.get("fleet", FLEET), new, self.partition)
            self.ids |= {name: home.id for name, home in homes.items()}
        score = np.array(list(scores.values()), np.float32)
        verdict = np.where(np.isnan(score), Verdict.UNSCORED, np.where(score >= 1, Verdict.ANOMALOUS, Verdict.NORMAL))
        n = len(names)
        columns: dict[str, Any] = {
            "fleet": FLEET,
            "asset_ids": np.array([self.ids[name] for name in names], np.int32),
            "asset": np.arange(n, dtype=np.int32),
            "start_us": np.full(n, cell * INTERVAL_US),
            "end_us": np.full(n, (cell + LENGTH) * INTERVAL_US),
            "score": score,
            "verdict": verdict.astype(np.int8),
            "version": [None if np.isnan(value) else VERSION for value in score],
            "n_present": np.full(n, LENGTH, np.int32),
            "first_offset": np.full(n, self.next_offset),
            "last_offset": np.full(n, self.next_offset + 9),
        }
        return FleetRows(**(columns | changes))

    def step(self, *fleets: FleetRows, **changes: Any) -> Commit:
        """Return a commit of the next ten records."""
        facts: dict[str, Any] = {
            "pipeline": "monitor",
            "partition": self.partition,
            "epoch": self.epoch,
            "old_next": self.next_offset,
            "new_next": self.next_offset + 10,
            "rewind_offset": self.next_offset,
            "rewind_state": {"max_cell": {FLEET: self.next_offset}},
            "counters": Counters(records=self.next_offset + 10),
            "at_us": SAVED_US,
            "fleets": fleets,
        }
        return Commit(**(facts | changes))

    async def save(self, commit: Commit) -> Saved:
        """Save, and move on to the next offset."""
        saved = await self.store.save(commit)
        self.next_offset = commit.new_next
        return saved

    async def score(self, cell: int, **scores: float) -> Saved:
        """Save one window per asset."""
        return await self.save(self.step(await self.rows(scores, cell)))


async def own(store: AsyncStore, partition: Partition = HOME, *, owner: str = "me", first: int = 100) -> Owner:
    """Claim a partition, set its start if it is new, and publish a version to score with."""
    claim = await store.run(partitions.claim, "monitor", partition, owner)
    if claim.next_offset is None:
        await store.run(partitions.set_start, "monitor", partition, claim.epoch, first)
    await publish(store)
    return Owner(store, partition, claim.epoch, first if claim.next_offset is None else claim.next_offset, {})


async def publish(store: AsyncStore, version: str = VERSION, fleet: str = FLEET, trained_us: int = 0) -> None:
    """Publish a version."""
    await store.run(
        versions.publish,
        version=version,
        fleet=fleet,
        path=f"/checkpoints/{version}",
        trained_us=trained_us,
        card={"architecture": "conv"},
        metrics={"loss": 0.5},
    )


def change(
    opened: int, at: int, state: AlertState, *, asset: int = 0, peak: float = 2.0, **changes: Any
) -> AlertChange:
    """Return a change of an alert, `opened` and `at` in cells."""
    facts: dict[str, Any] = {
        "fleet": FLEET,
        "asset": asset,
        "opened_us": opened * INTERVAL_US,
        "at_us": at * INTERVAL_US,
        "state": state,
        "severity": Severity.WARNING,
        "peak_score": peak,
        "peak_us": at * INTERVAL_US,
        "n_anomalous": 3,
        "contributions": CONTRIBUTIONS,
        "version": VERSION,
    }
    return AlertChange(**(facts | changes))


def rows_of(connection: Connection, table: str, columns: str = "*") -> list[dict[str, Any]]:
    """Return all rows of a table, sorted."""
    found = connection.execute(text(f"SELECT {columns} FROM {table}")).mappings()
    return sorted((dict(row) for row in found), key=lambda row: [str(value) for value in row.values()])


def count(connection: Connection, tables: Sequence[str]) -> dict[str, int]:
    """Return the number of rows in each table."""
    return {table: connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() for table in tables}
