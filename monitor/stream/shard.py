"""What the pipeline holds of a partition while it is ours: one lane per fleet, and where a restart would begin.

A *lane* is one fleet in one partition: its assets, their unfinished windows, their alert state.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from monitor.decode import Decoder, FleetSchema
from monitor.stream.alerting import AlertPolicy, Decider, PastVerdict
from monitor.stream.data_alerts import DataAlerts
from monitor.stream.recovery import fingerprint
from monitor.stream.window import Windower

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.config.kafka import KafkaConfig
    from monitor.config.tree import AlertConfig
    from monitor.decode import AssetIndex, Format
    from monitor.store.assets import KnownAsset
    from monitor.store.commit import Digest
    from monitor.store.partitions import Claim
    from monitor.stream.recovery import Rewind, Taken
    from monitor.types import Counters, Int32, Int64, Partition, Readings, Windows

SLICE = 8192
"""Readings that go through the river at once: a record may be a block of thousands, and windows are large."""


class Lane:
    """One fleet in one partition."""

    def __init__(self, config: FleetConfig, schema: FleetSchema, assets: AssetIndex, kafka: KafkaConfig) -> None:
        if schema.sensors is None:
            raise ValueError(f"the sensors of {config.name} are not known yet")
        self.config = config
        self.sensors = schema.sensors
        self.fingerprint = fingerprint(config, kafka, schema.sensors)
        self.assets = assets
        self.ids = np.empty(0, dtype=np.int32)
        """[A], database id of each asset; -1 = its home is another partition."""
        self.since = np.empty(0, dtype=np.int64)
        """[A], offset of each asset's first reading that counts: what came before it was refused."""
        self.newest_offset = -1
        """Of the lane's last reading."""
        self.snapshot: Taken | None = None
        self.windower = Windower(
            length=config.length,
            stride=config.stride,
            lateness_cells=config.lateness_cells,
            max_gap_cells=config.max_gap_cells,
            n_sensors=len(schema.sensors),
        )
        self.decider = Decider(config.name, alert_policy(config.alerts))

    def resume(self, known: Sequence[KnownAsset], max_cell: int) -> None:
        """Take up the assets where the database left them."""
        stride, interval_us = self.config.stride, self.config.interval_us
        next_starts = {}
        for index, asset in enumerate(known):
            self.decider.restore(
                index, (PastVerdict(*verdict) for verdict in asset.recent), asset.open_alert, asset.closed_us
            )
            if asset.last_start_us is not None:
                next_starts[index] = (asset.last_start_us // interval_us // stride + 1) * stride
        self.ids = np.array([asset.id for asset in known], dtype=np.int32)
        self.since = np.array([asset.since_offset for asset in known], dtype=np.int64)
        self.windower.resume(max_cell, next_starts)

    def let_in(self, since: Mapping[str, int]) -> dict[int, int]:
        """Take in assets, by name, since an offset; return those that are ours, by number."""
        ours = {number: offset for name, offset in since.items() if self.ids[number := self.assets.add(name)] >= 0}
        if ours:
            self.since[list(ours)] = list(ours.values())
        return ours

    def refill(self, readings: Readings) -> Windows:
        """Feed readings that are saved already; return the windows that they emit again, which should be none.

        Every asset of ours was registered before its first reading was saved: an unknown one is another's, or was
        refused. What a snapshot holds is not fed again.
        """
        if self.snapshot is not None:
            readings = readings.rows(readings.offset >= self.snapshot.at_offset)
        is_ours = np.isin(readings.asset, np.flatnonzero(self.ids >= 0))
        readings = readings.rows(is_ours)
        readings = readings.rows(readings.offset >= self.since[readings.asset])
        if len(readings):
            self.newest_offset = int(readings.offset[-1])
        return self.windower.push(readings).windows

    def needed_offset(self) -> int | None:
        """Return the oldest record that a restart needs for this lane; None = nothing."""
        oldest = self.windower.oldest_needed_offset()
        if oldest is None or self.snapshot is None:
            return oldest
        return max(oldest, self.snapshot.at_offset)

    def end_us(self, start: Int64) -> Int64:
        """[N], event time at which windows that start at these cells end."""
        return (start + self.config.length) * self.config.interval_us


class PartitionState:
    """A partition that is ours."""

    def __init__(
        self,
        partition: Partition,
        epoch: int,
        next_offset: int,
        rewind: Rewind,
        counters: Counters,
        decoder: Decoder,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.next_offset = next_offset
        """Every record below is saved."""
        self.rewind = rewind
        self.counters = counters
        self.decoder = decoder
        self.lanes: dict[str, Lane] = {}
        self.data_alerts = DataAlerts(partition, [])
        self.expected: Digest | None = None
        """What the rebuild must find when it comes to an offset; None = that is behind us."""
        self.is_rebuilt = rewind.offset >= next_offset
        """Whether the windows are as they were before the last restart."""
        self.n_claims = 1
        """With ours, since anybody saved."""
        self.is_excused = False
        """Whether the rebuild need not come to the state that was: records are gone, or it was told already."""
        self._made_by: Mapping[str, str] | None = None

    def continue_from(self, claim: Claim) -> None:
        """Take up the last owner's data alerts; remember what its windows were, and under which settings."""
        self._made_by = claim.rewind_state.get("made_by")
        self.n_claims = claim.n_claims
        self.data_alerts = DataAlerts(self.partition, claim.rewind_state.get("data_alerts", []))
        if not self.is_rebuilt:
            self.expected = claim.digest

    def is_reconfigured(self, fleet: str) -> bool:
        """Whether a fleet's windows are others than those of the run before."""
        return self._made_by is not None and self._made_by.get(fleet) != self.lanes[fleet].fingerprint

    def rewind_state(self) -> dict[str, Any]:
        """What a restart cannot learn from records; plain JSON types."""
        return {
            "max_cell": self.rewind.max_cell,
            "made_by": {fleet: lane.fingerprint for fleet, lane in self.lanes.items()},
            "admission": self.decoder.admission_states(),
            "data_alerts": self.data_alerts.state,
        }


def schemas_of(config: Config) -> list[FleetSchema]:
    """What decoding must know of the fleets, in their order."""
    return [
        FleetSchema(
            fleet.name,
            fleet.interval_us,
            fleet.topics,
            fleet.assets,
            fleet.sensors,
            max_assets=fleet.max_assets,
            max_new_assets_per_min=fleet.max_new_assets_per_min,
        )
        for fleet in config.fleets
    ]


def decoder_for(
    config: Config, schemas: Sequence[FleetSchema], assets: Mapping[str, AssetIndex] | None = None
) -> Decoder:
    """Make the decoder of one partition, as `[kafka]` wants it: for the river and for training alike."""
    return Decoder(
        schemas,
        assets=assets,
        format=cast("Format", config.kafka.format),
        max_record_bytes=config.kafka.max_record_bytes,
        max_skew_us=config.kafka.max_skew // timedelta(microseconds=1),
    )


def alert_policy(alerts: AlertConfig) -> AlertPolicy:
    """Read the alert rules of a fleet's configuration."""
    return AlertPolicy(alerts.confirm.m, alerts.confirm.n, alerts.recover)


def in_slices(readings: Readings) -> Iterator[Readings]:
    """Cut readings into parts that fit the cache; windows do not depend on where."""
    if len(readings) <= SLICE:
        yield readings
        return
    for start in range(0, len(readings), SLICE):
        yield readings.rows(slice(start, start + SLICE))


def without(readings: Readings, unwanted: Int32) -> Readings:
    """Leave out the readings of some assets."""
    return readings.rows(~np.isin(readings.asset, unwanted))
