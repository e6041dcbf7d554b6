"""Derived versions: the champion's weights under the budget, alert policy and knobs of the configuration.

Input: the configuration that the daemon was started with, and the loaded champions. Output: published and activated
versions. Invariant: nothing is trained. A derived version decides windows after every decided one, like any other, so a
replay gives the same alerts as live. The same champion and terms give the same version: a daemon that was killed in
between does it again, and of several daemons one does it.

Once for each start of the daemon and fleet: daemons with different configurations must not derive in turn.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from monitor import logs
from monitor.clock import to_us
from monitor.errors import NotFound
from monitor.lifecycle.training_process import Trained
from monitor.models.terms import Terms
from monitor.stream.score import misfit

if TYPE_CHECKING:
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.models.detector import TrainedModel

log = logs.get("champions")


class Recalibration:
    """Derives versions for fleets with a configuration that differs from their champion's terms."""

    def __init__(self, config: Config, champions: Champions) -> None:
        self._config = config
        self._champions = champions
        self.pending = {fleet.name for fleet in config.fleets}
        """Fleets not compared since the start."""

    async def run(self, token: tuple[str, int] | None) -> None:
        """Compare each pending fleet with its champion, and derive a version where they differ.

        `token`: the fencing token of the lease `training`, None = there is no other daemon. Raises Fenced,
        StoreUnavailable and CheckpointUnavailable: call again.
        """
        if not self.pending:
            return
        await self._champions.refresh()  # another daemon may have derived it
        for fleet in self._config.fleets:
            if fleet.name in self.pending:
                await self._compare(fleet, token)
                self.pending.discard(fleet.name)

    async def _compare(self, fleet: FleetConfig, token: tuple[str, int] | None) -> None:
        champion = self._champions.detector_of(fleet)
        if champion is None or misfit(champion, fleet.length, fleet.sensors or champion.sensors):
            return  # a training follows, with the terms of the configuration
        wanted = Terms.of(fleet)
        if unknown := sorted(wanted.knobs.keys() - set(champion.sensors)):
            log.warning("sensor_settings_unknown", fleet=fleet.name, sensors=unknown, known=list(champion.sensors),
                        doing="their [fleet.sensor] settings have no effect on scores")  # fmt: skip
        wanted = wanted.of_sensors(champion.sensors)
        found = champion.terms.differences(wanted)
        if not found:
            return
        folder = Path(self._config.store.checkpoints)
        try:
            derived = await asyncio.to_thread(_derive, champion, wanted, folder)
        except (NotFound, OSError) as error:
            log.warning("threshold_not_derived", fleet=fleet.name, version=champion.version, differs=found,
                        why=str(error), fix=f"monitor retrain {fleet.name}",
                        until_then="the threshold of the version decides")  # fmt: skip
            return
        await self._champions.activate(fleet, derived, token)
        log.info("threshold_derived", fleet=fleet.name, version=derived.version, of=champion.version, why=found)


def _derive(champion: TrainedModel, wanted: Terms, folder: Path) -> Trained:
    """Save the version with other terms. Raises NotFound (no held-out scores) or OSError."""
    model = champion.derive(wanted)
    version = model.save(folder)
    trained_us = to_us(datetime.fromisoformat(model.card.trained_at))
    return Trained(version, str(folder / version), model.sensors, model.registry_card(), trained_us)
