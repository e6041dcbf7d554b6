"""What the pipeline holds of a partition while it is ours: one lane per fleet, and where a restart would begin.

A *lane* is one fleet in one partition: its assets, their unfinished windows, their alert state.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from monitor.stream.decide import AlertPolicy, Decider, PastVerdict
from monitor.stream.decode import Decoder, FleetSchema
from monitor.stream.window import Windower

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.store.assets import KnownAsset
    from monitor.stream.decode import AssetIndex, Format
    from monitor.types import Counters, Int32, Int64, Partition, Readings

REWIND_EVERY_S = 2.0
"""How often the rewind point is looked for. It only decides how much a restart reads again, never a result."""
MAX_MARKS = 1024
"""Marks kept; fewer only make a restart read a little more."""
SLICE = 8192
"""Readings that go through the river at once: a record may be a block of thousands, and windows are large."""


class Lane:
    """One fleet in one partition."""

    def __init__(self, config: FleetConfig, schema: FleetSchema, assets: AssetIndex) -> None:
        if schema.sensors is None:
            raise ValueError(f"the sensors of {config.name} are not known yet")
        self.config = config
        self.sensors = schema.sensors
        self.assets = assets
        self.ids = np.empty(0, dtype=np.int32)
        """[A], database id of each asset; -1 = its home is another partition."""
        self.windower = Windower(
            length=config.length,
            stride=config.stride,
            lateness_cells=config.lateness_cells,
            max_gap_cells=config.max_gap_cells,
            n_sensors=len(schema.sensors),
        )
        self.decider = Decider(config.name, alert_policy(config))

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
        self.windower.resume(max_cell, next_starts)

    def end_us(self, start: Int64) -> Int64:
        """[N], event time at which windows that start at these cells end."""
        return (start + self.config.length) * self.config.interval_us


class _Mark(NamedTuple):
    """The state of a partition's watermarks before the record at an offset."""

    offset: int
    max_cell: dict[str, int]


class PartitionState:
    """A partition that is ours."""

    def __init__(
        self,
        partition: Partition,
        epoch: int,
        next_offset: int,
        rewind: tuple[int, dict[str, int]],
        counters: Counters,
        decoder: Decoder,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.next_offset = next_offset
        """Every record below is saved."""
        self.counters = counters
        self.decoder = decoder
        self.lanes: dict[str, Lane] = {}
        self._marks = deque([_Mark(*rewind)])
        self._looked_at = time.monotonic()

    @property
    def rewind(self) -> tuple[int, dict[str, int]]:
        """Where a restart begins to read, and the watermarks there."""
        return self._marks[0]

    def mark(self, offset: int) -> None:
        """Remember the watermarks as they are before the record at this offset."""
        self._marks.append(_Mark(offset, {fleet: lane.windower.max_cell for fleet, lane in self.lanes.items()}))
        if len(self._marks) > MAX_MARKS:  # a fleet that fell silent holds the first one: keep every other of the rest
            first = self._marks.popleft()
            self._marks = deque([first, *list(self._marks)[1::2]])

    def advance_rewind(self, next_offset: int) -> None:
        """Forget marks that no unfinished window needs any more."""
        now = time.monotonic()
        if now - self._looked_at < REWIND_EVERY_S:
            return
        self._looked_at = now
        needed = [lane.windower.oldest_needed_offset() for lane in self.lanes.values()]
        oldest = min((offset for offset in needed if offset is not None), default=next_offset)
        while len(self._marks) > 1 and self._marks[1].offset <= oldest:
            self._marks.popleft()


def schemas_of(config: Config) -> list[FleetSchema]:
    """What decoding must know of the fleets, in their order."""
    return [
        FleetSchema(fleet.name, fleet.interval_us, fleet.topics, fleet.assets, fleet.sensors) for fleet in config.fleets
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


def alert_policy(config: FleetConfig) -> AlertPolicy:
    """Read the alert rules of a fleet's configuration."""
    return AlertPolicy(config.alerts.confirm.m, config.alerts.confirm.n, config.alerts.recover)


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
