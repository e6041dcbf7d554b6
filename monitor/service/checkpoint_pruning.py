"""Removal of checkpoints that the rule of `store/pruning.py` does not keep.

Input: the registry, `[fleet.retrain] keep_versions` and `store.keep_scores`. Output: marked versions, removed folders.
Invariant: a folder is removed a round after its version was marked. By then every daemon has read the mark. A kill at
any point leaves a mark, or a draft, and a later round goes on from it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from monitor import logs
from monitor.models import checkpoint_files
from monitor.store import pruning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.store.engine import AsyncStore

log = logs.get("upkeep")

FRESH_S = 3600.0
"""A folder that was written, or found intact by a training, within this time stays: its version may be published again
just now."""


class CheckpointPruning:
    """Removes the checkpoints that are not kept."""

    def __init__(self, config: Config, store: AsyncStore, clock: Clock, *, fresh_s: float = FRESH_S) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._fresh_s = fresh_s

    async def run_once(self, stored_from_us: Mapping[str, int]) -> None:
        """Remove the folders that were marked in earlier rounds, then mark. Raises StoreUnavailable.

        `stored_from_us`: by fleet, the event time before which its scores expire. A missing fleet's never do.
        """
        now_us = self._clock.now_us()
        for version, path in await self._store.read(pruning.marked, now_us - 1):
            await self._remove(version, Path(path))
        for fleet in self._config.fleets:
            await self._mark(fleet, stored_from_us.get(fleet.name), now_us)
        folder = self._config.store.checkpoints
        for name in await asyncio.to_thread(checkpoint_files.remove_drafts, folder):
            log.info("checkpoint_draft_removed", name=name, why="its process was killed while it wrote or removed it")

    async def _mark(self, fleet: FleetConfig, stored_from_us: int | None, now_us: int) -> None:
        lateness_us = round(fleet.lateness.total_seconds() * 1e6)
        call = (fleet.name, stored_from_us, now_us, lateness_us)
        from_us = await self._store.read(pruning.needed_from_us, *call)
        chosen = await self._store.read(pruning.prunable, fleet.name, fleet.retrain.keep_versions, from_us)
        if not chosen:
            return
        n_scores = await self._store.read(pruning.count_scores, fleet.name, chosen)
        rule = (fleet.name, fleet.retrain.keep_versions, from_us)
        for pruned in await self._store.run(pruning.mark, *rule, n_scores, now_us):
            log.info(
                "checkpoint_pruned",
                fleet=fleet.name,
                version=pruned.version,
                scores_that_name_it=pruned.n_scores,
                why="no alias names it, and it decides no window that is stored or unfinished",
            )

    async def _remove(self, version: str, path: Path) -> None:
        age_s = await asyncio.to_thread(checkpoint_files.age_s, path)
        if age_s is None or age_s < self._fresh_s:
            return
        try:
            await asyncio.to_thread(checkpoint_files.remove, path)
        except (OSError, ValueError) as error:
            log.warning("checkpoint_not_removed", version=version, error=str(error), doing="trying again later")
