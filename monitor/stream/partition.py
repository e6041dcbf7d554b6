"""State of a claimed partition: its decoder, one shard per fleet, the recovery point.

Input: the claim, with the state that the former owner stored; then batches from the rewind offset on. Output: the
records that are new, and shards ready for them. Invariant: records below the next offset were committed before. They
only rebuild the unfinished windows, and lead to no second result.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor import logs
from monitor.decode import AssetIndex, Decoder, FleetSchema
from monitor.decode.admission import Admission
from monitor.decode.schema import Fields, Growth
from monitor.kafka.record_format import format_options
from monitor.store.commit import Commit, MissingRange
from monitor.stream.alerting import AlertPolicy
from monitor.stream.data_alerts import DataAlerts
from monitor.stream.recovery import Mark, Rebuild, RecoveryPoint
from monitor.stream.sensor_alerts import SensorAlerts
from monitor.stream.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.store.assets import KnownAsset
    from monitor.store.outbox import Channel
    from monitor.store.partitions import Claim
    from monitor.stream.alerting import Decider
    from monitor.stream.shard import ShardResult
    from monitor.timing import Timing
    from monitor.types import DataAlertChange, Partition, RecordBatch

log = logs.get("pipeline")


class PartitionState:
    """A partition from its claim until it is revoked or fenced."""

    def __init__(
        self,
        partition: Partition,
        claim: Claim,
        known: Mapping[str, Sequence[KnownAsset]],
        config: Config,
        schemas: Sequence[FleetSchema],
        timing: Timing,
        make_decider: Callable[[FleetConfig, AssetIndex], Decider],
    ) -> None:
        """`known`: by fleet, the assets that this partition has registered. `schemas`: in the order of `config`."""
        if claim.next_offset is None:
            raise ValueError(f"the first offset of {partition} is not stored yet")
        stored = claim.rewind_state
        fleets = [fleet.name for fleet in config.fleets]
        indexes = {fleet: AssetIndex(asset.name for asset in assets) for fleet, assets in known.items()}
        self.partition = partition
        self.epoch = claim.epoch
        self.next_offset = claim.next_offset
        """Every record below is committed."""
        self.n_claims = claim.n_claims
        """Owners since the last commit, this one included. A stop that was asked for resets it."""
        self.counters = claim.counters
        self.decoder = make_decoder(config, schemas, indexes)
        self.decoder.restore_format(stored.get("format", {}))
        self.data_alerts = DataAlerts(partition, stored, fleets)
        self.decoder.newest_stamp_us = stored.get("newest_stamp_us", -1)
        begin = Mark(claim.rewind_offset or 0, self.decoder.newest_stamp_us)
        self.recovery = RecoveryPoint(begin, timing.rewind_look_every_s)
        self.rebuild = Rebuild(partition, claim.next_offset, self.recovery, claim.digest)
        self.shards: dict[str, Shard] = {}
        """By fleet, those whose sensors are known."""
        self.last_read_s = 0.0
        """Monotonic seconds at the last batch, or at the claim."""
        self.is_over = False
        """Whether the rest of the partition does not matter to this run."""
        self._config = config
        self._fleets = frozenset(fleets)
        self._make_decider = make_decider
        self._former_fingerprints: Mapping[str, str] | None = stored.get("made_by")
        self._former_sensor_alerts: Mapping[str, Mapping[str, Any]] = stored.get("sensor_alerts", {})
        self.ended_alerts = [
            change
            for fleet in self._former_sensor_alerts.keys() - set(fleets)
            for change in self._sensor_alerts(fleet, AlertPolicy(1, 1, 1)).end()
        ]
        """Changes of alerts about fleets that were deleted. Taken by the next batch."""
        self._former_widenings: Mapping[str, Sequence[tuple[int, int]]] = stored.get("widenings", {})
        self._admissions: dict[str, Admission] = {}
        for schema, index in zip(schemas, self.decoder.assets, strict=True):
            # Assets whose first record is not committed were admitted by a batch that was lost: it comes again.
            assets = enumerate(known.get(schema.name, ()))
            waiting = [number for number, asset in assets if asset.since_offset >= claim.next_offset]
            self._admissions[schema.name] = Admission(index, schema, waiting=waiting)
        for schema in schemas:
            if schema.sensors is not None:
                self.begin_shard(schema.name, known.get(schema.name, ()))
        for snapshot in claim.snapshots:
            is_valid = stored.get("snapshots", {}).get(snapshot.fleet) == snapshot.at_offset
            if is_valid and snapshot.fleet in self.shards:
                self.shards[snapshot.fleet].restore(snapshot)

    def begin_shard(self, fleet: str, known: Sequence[KnownAsset] = ()) -> Shard:
        """Begin the shard of a fleet whose sensors are known."""
        number = next(n for n, schema in enumerate(self.decoder.fleets) if schema.name == fleet)
        config, index = self._config.fleets[number], self.decoder.assets[number]
        shard = self.shards[fleet] = Shard(
            config,
            self._config.kafka,
            self.decoder.fleets[number].sensors or (),
            index,
            admission=self._admissions[fleet],
            decider=self._make_decider(config, index),
            sensor_alerts=self._sensor_alerts(fleet, AlertPolicy.of(config.alerts)),
        )
        shard.widenings = list(self._former_widenings.get(fleet, ()))
        shard.resume(known, self._former_fingerprints, self.next_offset)
        if shard.is_reconfigured and known:  # without assets there are no former windows
            log.info("reconfigured", fleet=fleet, partition=str(self.partition), doing="new windows from here")
        return shard

    def _sensor_alerts(self, fleet: str, policy: AlertPolicy) -> SensorAlerts:
        found = SensorAlerts(self.partition, fleet, policy)
        found.restore(self._former_sensor_alerts.get(fleet, {}))
        return found

    def take_sensor_alerts(self, results: Sequence[ShardResult]) -> list[DataAlertChange]:
        """Return the changes of alerts about sensors that belong to this batch."""
        ended, self.ended_alerts = self.ended_alerts, []
        return [*ended, *(change for result in results for change in result.sensor_alerts)]

    def rebuild_windows(self, batch: RecordBatch) -> RecordBatch:
        """Rebuild the windows from the records below the next offset. Return the records behind them."""
        n_committed = int(np.searchsorted(batch.offsets, self.next_offset))
        if n_committed:
            self.decoder.may_learn = False  # a sensor that was not learnt then is not learnt now
            self.rebuild.fill(batch.rows(slice(0, n_committed)), self.decoder, self.shards)
            self.decoder.may_learn = True
        if n_committed < len(batch):
            self.rebuild.end(self.next_offset, self.shards)
        return batch.rows(slice(n_committed, None))

    def gap_commit(self, pipeline: str, to_offset: int, *, at_us: int, channels: Sequence[Channel]) -> Commit:
        """Return the transaction that moves the offset behind records that retention removed.

        It stores the gap, its data alert, and snapshots of the unfinished windows, which cannot be rebuilt any more.
        """
        lost = self.data_alerts.record_loss(self.next_offset, to_offset, at_us)
        snapshots = self.recovery.skip_to(to_offset, self.shards, self.decoder.newest_stamp_us)
        return Commit(
            pipeline=pipeline,
            partition=self.partition,
            epoch=self.epoch,
            old_next=self.next_offset,
            new_next=to_offset,
            rewind_offset=to_offset,
            rewind_state=self.stored_state,
            snapshots=snapshots,
            counters=self.counters,
            at_us=at_us,
            gaps=[MissingRange(self.next_offset, to_offset)],
            data_alerts=[lost],
            channels=channels,
        )

    @property
    def has_former_sensors(self) -> bool:
        """Whether a shard was begun with other sensors than the decoder has now."""
        known = {schema.name: schema.sensors for schema in self.decoder.fleets}
        return any(shard.sensors != known[fleet] for fleet, shard in self.shards.items())

    def advance(self, commit: Commit) -> None:
        """Move on to the offset of a transaction that is in the database."""
        self.next_offset, self.n_claims, self.counters = commit.new_next, 0, commit.counters

    @property
    def stored_state(self) -> dict[str, Any]:
        """The part of the state that a restart cannot read from records: the column `rewind_state`. Plain JSON."""
        oldest = self.recovery.oldest.offset
        of_format = self.decoder.format_state(oldest)
        later = {fleet: [each for each in s.widenings if each[0] > oldest] for fleet, s in self.shards.items()}
        widenings = {fleet: each for fleet, each in later.items() if each}
        former = self._former_sensor_alerts  # of fleets whose shard has not begun yet
        sensors = {fleet: each for fleet, each in former.items() if fleet in self._fleets - self.shards.keys()}
        for fleet, shard in self.shards.items():
            if shard.sensor_alerts is not None and (of_shard := shard.sensor_alerts.stored_state):
                sensors[fleet] = of_shard
        return ({"format": of_format} if of_format else {}) | ({"widenings": widenings} if widenings else {}) | (
            {"sensor_alerts": sensors} if sensors else {}
        ) | {
            "newest_stamp_us": self.recovery.oldest.newest_stamp_us,
            "snapshots": {f: s.snapshot_offset for f, s in self.shards.items() if s.snapshot_offset is not None},
            "made_by": {fleet: shard.fingerprint for fleet, shard in self.shards.items()},
        } | self.data_alerts.stored_state


def schemas_of(config: Config, *, is_limited: bool = True) -> list[FleetSchema]:
    """Return the fleets' facts for decoding, in their order. `is_limited`: whether `max_assets` counts."""
    return [
        FleetSchema(
            fleet.name,
            fleet.interval_us,
            fleet.topics,
            fleet.assets,
            fleet.sensors,
            max_assets=fleet.max_assets if is_limited else None,
            fields=fields_of(config, fleet),
            growth=Growth.LEARNING if fleet.sensors is None else Growth.LISTED,
        )
        for fleet in config.fleets
    ]


def fields_of(config: Config, fleet: FleetConfig) -> Fields:
    """Return the places of a fleet's fields, for decoding."""
    given = config.fields_of(fleet).model_dump()
    enum = given.pop("enum")
    return Fields(**given, enum=None if enum is None else tuple(sorted(enum.items())))


def make_decoder(
    config: Config, schemas: Sequence[FleetSchema], assets: Mapping[str, AssetIndex] | None = None
) -> Decoder:
    """Make the decoder of one partition by `[kafka]`, for the pipeline and for training alike."""
    return Decoder(
        schemas,
        assets=assets,
        format=config.kafka.format,
        options=format_options(config.kafka),
        max_record_bytes=config.kafka.max_record_bytes,
        max_skew_us=config.kafka.max_skew // timedelta(microseconds=1),
    )
