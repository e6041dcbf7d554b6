"""Orders for the training process: everything that it needs from the database.

Input: a job. Output: the order. Invariant: the process itself never opens the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.lifecycle.training_process import TrainingOrder
from monitor.store import assets, training_times, versions
from monitor.store.confirmed_faults import confirmed_faults

if TYPE_CHECKING:
    from monitor.config import Config, FleetConfig
    from monitor.store.engine import AsyncStore
    from monitor.types import JobView, VersionInfo


async def order_of(
    config: Config,
    store: AsyncStore,
    fleet: FleetConfig,
    job: JobView,
    *,
    has_champion: bool,
    challenger: VersionInfo | None = None,
) -> TrainingOrder:
    """Return the order of a job. `has_champion`: there is one, and its checkpoint can be read."""
    stored = (await store.read(assets.fleets)).get(fleet.name)
    champion = await store.read(versions.champion, fleet.name) if has_champion else None
    return TrainingOrder(
        config=str(config.path),
        fleet=fleet.name,
        sensors=fleet.sensors or stored,
        judged=await store.read(training_times.judged_times, fleet.name),
        faulty_sensors=await store.read(training_times.sensor_times, fleet.name),
        known=await store.read(assets.names_by_partition, fleet.name),
        length=fleet.length if fleet.window is None and has_champion else None,
        kind=job.kind,
        champion=None if champion is None else champion.path,
        challenger=None if challenger is None else challenger.path,
        faults=await store.read(confirmed_faults, fleet.name, fleet.retrain.remember_faults),
        detail=job.detail or {},
    )
