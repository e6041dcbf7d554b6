"""Derived versions: the champion's weights under the budget, alert policy and knobs of the configuration, and under
the threshold that operators' labels ask for (`models/label_factor.py`).

Input: the configuration that the daemon was started with, the loaded champions, and labels of alerts. Output: published
and activated versions. Invariant: nothing is trained. A derived version decides windows after every decided one, like
any other, so a replay gives the same alerts as live. The same champion and terms give the same version: a daemon that
was killed in between does it again, and of several daemons one does it.

Settings are compared once for each start of the daemon and fleet: daemons with different configurations must not derive
in turn. Labels come at any time, and a training begins without them. So fleets that learn from labels are compared
again, by their labels alone.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from monitor import logs
from monitor.clock import to_us
from monitor.errors import NotFound
from monitor.lifecycle.training_process import Trained
from monitor.models.label_factor import learnt_factor
from monitor.models.terms import Terms
from monitor.store import label_levels
from monitor.stream.score import misfit
from monitor.types import ModelEvent

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.models.detector import TrainedModel
    from monitor.store.engine import AsyncStore

log = logs.get("champions")


LOOK_EVERY_S = 10.0
"""Between two queries for new labels."""
LEARN_EVERY_S = 24 * 3600.0
"""Between two comparisons with new labels: a version is one answer to all labels of a day, not to each."""
LEARN_SOON_S, MANY_LABELS = 3600.0, 5
"""With so many new labels, an operator is at work and wants to see their effect the same day."""


class Recalibration:
    """Derives versions for fleets with a configuration that differs from their champion's terms."""

    def __init__(self, config: Config, champions: Champions, store: AsyncStore, clock: Clock) -> None:
        self._config = config
        self._champions = champions
        self._store = store
        self._clock = clock
        self.pending = {fleet.name for fleet in config.fleets}
        """Fleets not compared since the start."""
        self._labels = {fleet.name: _Labels() for fleet in config.fleets if fleet.alerts.learn_from_labels}
        self._newest_act = 0
        self._looked_s = -math.inf

    async def run(self, token: tuple[str, int] | None) -> None:
        """Compare each pending fleet with its champion, and derive a version where they differ.

        `token`: the fencing token of the lease `training`, None = there is no other daemon. Raises Fenced,
        StoreUnavailable and CheckpointUnavailable: call again.
        """
        await self._look_for_labels()
        due = {fleet.name for fleet in self._config.fleets if self._is_due(fleet)}
        if not self.pending | due:
            return
        await self._champions.refresh()  # another daemon may have derived it
        for fleet in self._config.fleets:
            if fleet.name in self.pending | due:
                await self._compare(fleet, token, labels_alone=fleet.name not in self.pending)
                self.pending.discard(fleet.name)

    async def _look_for_labels(self) -> None:
        if not self._labels or self._clock.monotonic_s() - self._looked_s < LOOK_EVERY_S:
            return
        found = await self._store.read(label_levels.new_labels, self._newest_act)
        self._newest_act, self._looked_s = found.newest, self._clock.monotonic_s()
        for name, n in found.by_fleet.items():
            if name in self._labels:
                self._labels[name].n_new += n

    def _is_due(self, fleet: FleetConfig) -> bool:
        """Return whether the fleet has enough new labels, or a version that was compared with none."""
        labels, champion = self._labels.get(fleet.name), self._champions.detector_of(fleet)
        if labels is None or champion is None:
            return False
        waited_s = self._clock.monotonic_s() - labels.compared_s
        is_enough = waited_s >= (LEARN_SOON_S if labels.n_new >= MANY_LABELS else LEARN_EVERY_S)
        return (labels.n_new > 0 and is_enough) or champion.version != labels.compared

    async def _label_factor(self, fleet: FleetConfig, champion: TrainedModel) -> float:
        """Return the factor that the labels of now ask for. 1.0 = the fleet does not learn from them, or has none."""
        labels = self._labels.get(fleet.name)
        if labels is None:
            return 1.0
        policy = fleet.alerts.confirm
        step_us = round(champion.card.threshold.step_s * 1e6)
        call = (fleet.name, policy.m, policy.n, step_us)
        judged = await self._store.read(label_levels.judged_alerts, *call)
        labels.n_new, labels.compared_s = 0, self._clock.monotonic_s()
        return learnt_factor(judged)

    async def _compare(self, fleet: FleetConfig, token: tuple[str, int] | None, *, labels_alone: bool) -> None:
        labels = self._labels.get(fleet.name)
        if labels is not None:
            labels.compared = None  # an error below means that it is compared again
        champion = self._champions.detector_of(fleet)
        version = None if champion is None else await self._settled(fleet, champion, token, labels_alone=labels_alone)
        if labels is not None:
            labels.compared = version

    async def _settled(
        self, fleet: FleetConfig, champion: TrainedModel, token: tuple[str, int] | None, *, labels_alone: bool
    ) -> str:
        """Derive and activate a version where terms or labels differ. Return the version that then stands."""
        if misfit(champion, fleet.length, fleet.sensors or champion.sensors):
            return champion.version  # a training follows, with the terms of the configuration
        factor = await self._label_factor(fleet, champion)
        wanted = replace(champion.terms if labels_alone else Terms.of(fleet), label_factor=factor)
        if unknown := sorted(wanted.knobs.keys() - set(champion.sensors)):
            log.warning("sensor_settings_unknown", fleet=fleet.name, sensors=unknown, known=list(champion.sensors),
                        doing="their [fleet.sensor] settings have no effect on scores")  # fmt: skip
        wanted = wanted.of_sensors(champion.sensors)
        found = champion.terms.differences(wanted)
        if not found:
            return champion.version
        folder = Path(self._config.store.checkpoints)
        try:
            derived = await asyncio.to_thread(_derive, champion, wanted, folder)
        except (NotFound, OSError) as error:
            log.warning("threshold_not_derived", fleet=fleet.name, version=champion.version, differs=found,
                        why=str(error), fix=f"monitor retrain {fleet.name}",
                        until_then="the threshold of the version decides")  # fmt: skip
            return champion.version
        await self._champions.activate(fleet, derived, token, event=ModelEvent.DERIVED)
        log.info("threshold_derived", fleet=fleet.name, version=derived.version, of=champion.version, why=found)
        return derived.version


@dataclass(slots=True)
class _Labels:
    """Labels of a fleet that learns from them."""

    n_new: int = 0
    """Put, changed or removed since the last comparison."""
    compared_s: float = -math.inf
    """Time of the last comparison, by the monotonic clock."""
    compared: str | None = None
    """Version that was compared last, or that came of it."""


def _derive(champion: TrainedModel, wanted: Terms, folder: Path) -> Trained:
    """Save the version with other terms. Raises NotFound (no held-out scores) or OSError."""
    model = champion.derive(wanted)
    version = model.save(folder)
    trained_us = to_us(datetime.fromisoformat(model.card.trained_at))
    return Trained(version, str(folder / version), model.sensors, model.registry_card(), trained_us)
