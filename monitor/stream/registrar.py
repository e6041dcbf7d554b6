"""Registration of sensors and assets in the database, which all daemons share.

Input: sensors that a batch taught, names of assets that a batch brought. Output: the sensors of every fleet; the
readings of the assets that this partition has registered. Invariant: a fleet's list of sensors only grows at its end,
and while a model uses it only a training adds to it. An asset belongs to the partition that registered it first. This
is the only place where the sensors of a fleet change: decoders and shards get copies.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from monitor.decode.schema import Growth
from monitor.errors import SensorsChanged
from monitor.store import assets
from monitor.stream.partition import schemas_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.config import Config
    from monitor.decode import FleetSchema
    from monitor.store.assets import KnownAsset
    from monitor.store.engine import AsyncStore
    from monitor.stream.partition import PartitionState
    from monitor.stream.reader import SourceReader
    from monitor.stream.shard import AdmittedReadings, Shard
    from monitor.types import Partition, Readings

Sensors = tuple[str, ...]


class Registrar:
    """Keeps the fleets' sensors, and registers assets."""

    def __init__(self, config: Config, store: AsyncStore, reader: SourceReader, *, is_limited: bool) -> None:
        """`is_limited`: whether `max_assets` counts."""
        self.schemas: list[FleetSchema] = schemas_of(config, is_limited=is_limited)
        self._store = store
        self._reader = reader
        self.unstored: dict[str, Sensors] = {}
        """By fleet, learnt sensors that no transaction has stored yet."""

    # ------------------------------------------------------------------ sensors

    async def learn(self, state: PartitionState, others: Iterable[PartitionState]) -> None:
        """Take over the sensors that a partition's decoder learnt, and give them to the decoders of the others.

        A fleet's first sensors are stored with the results of the batch. Later ones are stored here, and only while the
        fleet has no champion. Raises SensorsChanged: then every shard of the fleet begins again with the new list.
        """
        learnt, state.decoder.learnt = state.decoder.learnt, {}
        first = {fleet: sensors for fleet, sensors in learnt.items() if fleet not in state.shards}
        self.unstored |= first
        self._set({fleet: (sensors, Growth.LEARNING) for fleet, sensors in first.items()}, others)
        for fleet, sensors in learnt.items():
            if fleet not in first:
                grow = partial(assets.grow_sensors, fleet=fleet, sensors=sensors)
                known, is_growing = await self._reader.call(self._store.run, grow)
                growth = Growth.LEARNING if is_growing else Growth.LEARNT
                self.stored([fleet])
                self._set({fleet: (known, growth)}, others)
                raise SensorsChanged(f"fleet {fleet} has {len(known)} sensors: {', '.join(known[:20])}")

    async def load_sensors(self, states: Iterable[PartitionState] = ()) -> bool:
        """Read the stored sensors, and which fleets have a champion, and give both to the decoders of `states`.

        Return whether any sensors changed.
        """
        if all(schema.growth is Growth.LISTED for schema in self.schemas):
            return False
        stored = await self._reader.call(self._store.read, assets.fleets)
        in_use = await self._reader.call(self._store.read, assets.with_champion)
        found = {
            each.name: (sensors, Growth.LEARNT if each.name in in_use else Growth.LEARNING)
            for each in self.schemas
            if each.growth is not Growth.LISTED and (sensors := stored.get(each.name)) is not None
        }
        self.stored(found)
        return self._set(found, states)

    def stored(self, fleets: Iterable[str]) -> None:
        """Note that the sensors of these fleets are in the database."""
        for fleet in list(fleets):
            self.unstored.pop(fleet, None)

    def _set(self, found: Mapping[str, tuple[Sensors, Growth]], states: Iterable[PartitionState]) -> bool:
        former = {each.name: (each.sensors, each.growth) for each in self.schemas}
        changed = {fleet: new for fleet, new in found.items() if new != former[fleet]}
        for fleet, (sensors, growth) in changed.items():
            self.schemas = [
                replace(each, sensors=sensors, growth=growth) if each.name == fleet else each for each in self.schemas
            ]
        for state in states:
            for fleet, (sensors, growth) in found.items():
                state.decoder.set_sensors(fleet, sensors, growth)
        return any(sensors != former[fleet][0] for fleet, (sensors, _) in changed.items())

    # ------------------------------------------------------------------ assets

    async def known_assets(self, partition: Partition) -> dict[str, list[KnownAsset]]:
        """Return the assets that the partition has registered, by fleet."""
        return await self._reader.call(self._store.read, assets.restore, partition)

    async def admit(self, shard: Shard, readings: Readings, partition: Partition) -> AdmittedReadings:
        """Admit new assets up to `max_assets`, and register them unless another partition has."""
        fleet, names = readings.fleet, shard.unknown_names()
        found = await self._reader.call(self._store.read, assets.find, fleet, names) if names else {}
        admitted = shard.admit(readings, found, partition)
        if admitted.unregistered:
            new, waiting = admitted.unregistered, frozenset(admitted.since)
            found = await self._reader.call(self._store.run, assets.register, fleet, new, partition, waiting)
            admitted = shard.register(admitted, found, partition)
        return admitted
