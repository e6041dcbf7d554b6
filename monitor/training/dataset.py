"""Training windows from a fleet's past records, by the decoder and windower of the pipeline.

Input: record batches of any partitions. Output: a `TrainingSet` of at most `MAX_VALUES` values.
Invariant: windows that the pipeline would not score are not trained on. Assets that the database does not know are
admitted as in a pipeline that starts with this history. Times that alerts and people have a say on are applied by
`judge`. A sensor with an alert of its own is missing for that time, and so are readings outside of its configured
range. Everything that is left out here is listed in `TrainingSet.skipped`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.config.spacing import Spacing, interval_for
from monitor.config.values import format_duration
from monitor.decode.admission import Admission
from monitor.decode.columns import widened
from monitor.errors import NotEnoughData
from monitor.models.spec import MAX_VALUES, TrainingSet, UsedTime
from monitor.stream.partition import make_decoder, schemas_of
from monitor.stream.sensor_health import SensorTests
from monitor.stream.window import NEVER, Windower, in_slices
from monitor.training.judge import judge
from monitor.training.period import LATEST_ROWS, length_for_assets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.decode import Decoder
    from monitor.training.judge import Judged
    from monitor.training.period import SuggestedLength
    from monitor.types import Float32, Int32, Int64, Partition, Readings, RecordBatch, Windows

    FaultySensors = Mapping[str, Sequence[tuple[int, int, str]]]
    """Asset → event time (from_us, to_us] of its alerts about sensors, and the sensors."""

MAX_MEASURED = 200_000
"""Readings of which the spacing is measured. With more of them there are windows enough."""
MAX_ASSETS = 8
"""Assets from which the length of windows is chosen."""
EVICT_EVERY = 256
"""Batches between two evictions of readings that are too old."""


class _PartitionWindows(NamedTuple):
    """A partition's windows, as in a TrainingSet."""

    values: Float32
    asset: Int32
    """Numbers of the names in the whole set."""
    end_us: Int64


@dataclass(slots=True)
class _PartitionHistory:
    decoder: Decoder
    admission: Admission
    readings: list[Readings] = field(default_factory=list)


class History:
    """Readings of one fleet, as columns, until windows are made of them."""

    def __init__(
        self,
        config: Config,
        fleet: FleetConfig,
        sensors: Sequence[str] | None,
        known: Mapping[str, Sequence[str]] | None = None,
        *,
        until_us: int | None = None,
    ) -> None:
        """`sensors`: None = as configured, else learnt. `known`: assets by partition, as "topic/number".

        Where the configuration lists no sensors, those that the records have besides these are added at the end.
        `until_us`: readings after it are left out, since one clock that is ahead would end the history of all others.
        """
        self._until_cell = None if until_us is None else until_us // fleet.interval_us
        self.fleet = fleet
        self._known = known or {}
        self.n_readings = 0
        self._newest_cell = NEVER
        self._n_batches = 0
        self._spacing: Spacing | None = None
        self._config = config
        self._schemas = schemas_of(config)
        self._number = next(number for number, schema in enumerate(self._schemas) if schema.name == fleet.name)
        self._sensors = self._schemas[self._number].sensors if sensors is None else tuple(sensors)
        self._schemas[self._number] = replace(self._schemas[self._number], sensors=self._sensors)
        self._partitions: dict[Partition, _PartitionHistory] = {}

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors of the fleet. Where the configuration does not list them, those of the records so far."""
        return self._sensors or ()

    @property
    def n_assets(self) -> int:
        """Number of assets with readings."""
        return len({name for part in self._partitions.values() for name in self._names(part)})

    def add(self, batch: RecordBatch) -> None:
        """Add a batch. Records that cannot be decoded are left out: the pipeline reports them."""
        part = self._partitions.get(batch.partition)
        if part is None:
            part = self._partitions[batch.partition] = self._new_partition(batch.partition)
        decoded = part.decoder.decode(batch)
        self._share_sensors(part.decoder)
        for readings in decoded.readings:
            if readings.fleet != self.fleet.name or not len(readings):
                continue
            admitted = part.admission.admit(readings)[0] if part.admission.is_pending else readings
            if self._until_cell is not None:
                admitted = admitted.rows(admitted.cell <= self._until_cell)
            if not len(admitted):
                continue
            self._newest_cell = max(self._newest_cell, int(admitted.cell.max()))
            recent = admitted.rows(admitted.cell >= self._first_cell)
            part.readings.append(recent)
            self.n_readings += len(recent)
            self._n_batches += 1
            if self._n_batches >= EVICT_EVERY:
                self._evict()

    def windows(self, judged: Judged | None = None, faulty_sensors: FaultySensors | None = None) -> TrainingSet:
        """Make windows of the last `retrain.history`. Raises NotEnoughData if there is no reading at all."""
        if not self.n_readings:
            raise NotEnoughData(
                f"no reading of fleet {self.fleet.name} lies in {', '.join(self._config.topics_of(self.fleet))} yet; "
                f"{self.fleet.retrain.min_windows} windows of {self.fleet.length} cells are needed"
            )
        self._evict()
        self._spacing = self._measure_spacing()
        numbers: dict[str, int] = defaultdict(lambda: len(numbers))
        stride = self._stride()
        sensor_times: list[UsedTime] = []
        sets = [
            self._windows_of(part, stride, faulty_sensors or {}, numbers, sensor_times)
            for _, part in sorted(self._partitions.items())
        ]
        every = TrainingSet(
            values=np.concatenate([one.values for one in sets]),
            asset=np.concatenate([one.asset for one in sets]),
            end_us=np.concatenate([one.end_us for one in sets]),
            assets=tuple(numbers),
            stride_factor=stride // self.fleet.stride,
            skipped=tuple(sensor_times),
        )
        new_normal = self.fleet.retrain.new_normal
        return judge(
            every,
            judged or {},
            span_us=self.fleet.length * self.fleet.interval_us,
            step_us=stride * self.fleet.interval_us,
            new_normal_us=None if new_normal is None else new_normal // timedelta(microseconds=1),
        )

    def choose_length(self, present: int | None) -> SuggestedLength | None:
        """Choose the length of the windows, and use it. None = the configuration has one.

        `present`: length of the champion's windows. None = there is no champion.
        """
        if self.fleet.window is not None:
            return None
        self._evict()
        chosen = length_for_assets(self._series(), self.fleet.interval.total_seconds(), present)
        n_windows = (self.n_readings - self.n_assets * chosen.cells) // self.fleet.stride
        if n_windows < self.fleet.retrain.min_windows and chosen.cells > self.fleet.length:
            few = f"{self.n_readings:,} readings are too few for windows of {chosen.reason}"
            chosen = chosen._replace(cells=present or self.fleet.length, reason=few)
        self.fleet = self.fleet.with_length(chosen.cells)
        return chosen

    def _series(self) -> list[Float32]:
        """Return the readings [N, C] of the assets with most of them, a row for each cell, NaN = missing."""
        found: list[tuple[int, Float32]] = []
        for _, part in sorted(self._partitions.items()):
            if not part.readings:
                continue
            asset = np.concatenate([readings.asset for readings in part.readings])
            cell = np.concatenate([readings.cell for readings in part.readings])
            values = np.concatenate([widened(readings.values, len(self.sensors)) for readings in part.readings])
            for index in np.unique(asset).tolist():
                rows = np.flatnonzero((asset == index) & (cell > cell[asset == index].max() - LATEST_ROWS))
                series = np.full((int(np.ptp(cell[rows])) + 1, len(self.sensors)), np.nan, dtype=np.float32)
                series[cell[rows] - cell[rows].min()] = values[rows]
                found.append((len(rows), series))
        found.sort(key=lambda each: -each[0])
        return [series for _, series in found[:MAX_ASSETS]]

    def time_until(self, n_more: int) -> str:
        """Return the time until there are `n_more` windows, in words, at one reading per asset and interval.

        Where readings are further apart it never comes. Then return the interval that fits.
        """
        interval, spacing = self.fleet.interval, self._spacing
        if spacing is not None and spacing.leaves_holes_in(interval):
            return (
                f"{spacing.words} and the interval is {format_duration(interval)}, so hardly a window is full; set the "
                f'fleet\'s interval = "{format_duration(interval_for(spacing))}"'
            )
        wait_s = n_more * self.fleet.stride * self.fleet.interval.total_seconds() / max(1, self.n_assets)
        return f"about {_duration(wait_s)} of readings from {self.n_assets or 'an'} asset{'s' * (self.n_assets != 1)}"

    def _measure_spacing(self) -> Spacing | None:
        """Return the time between two readings of an asset. None = too few, or so many that windows are no problem."""
        if not 3 < self.n_readings < MAX_MEASURED:
            return None
        gaps = []
        for part in self._partitions.values():
            if part.readings:
                asset = np.concatenate([readings.asset for readings in part.readings])
                cell = np.concatenate([readings.cell for readings in part.readings])
                order = np.lexsort((cell, asset))
                step = np.diff(cell[order])
                gaps.append(step[(np.diff(asset[order]) == 0) & (step > 0)])
        steps = np.concatenate(gaps) if gaps else np.empty(0)
        if len(steps) < 3:
            return None
        usual, short, long = np.quantile(steps, (0.5, 0.1, 0.9)) * self.fleet.interval.total_seconds()
        return Spacing(float(usual), float(short), float(long))

    # ------------------------------------------------------------------ partitions

    def _new_partition(self, partition: Partition) -> _PartitionHistory:
        decoder = make_decoder(self._config, self._schemas)
        for names in decoder.assets:
            names.defer_registration()  # assets of other fleets are not used here
        index, schema = decoder.assets[self._number], self._schemas[self._number]
        return _PartitionHistory(decoder, Admission(index, schema, expected=self._known.get(str(partition), ())))

    def _share_sensors(self, decoder: Decoder) -> None:
        """Give the sensors that a partition's decoder learnt to the decoders of the other partitions."""
        learnt, decoder.learnt = decoder.learnt, {}
        self._schemas = [replace(each, sensors=learnt.get(each.name, each.sensors)) for each in self._schemas]
        self._sensors = self._schemas[self._number].sensors
        for part in self._partitions.values():
            for fleet, sensors in learnt.items():
                part.decoder.set_sensors(fleet, sensors)

    @property
    def _first_cell(self) -> int:
        """First cell of the history, by the newest reading so far."""
        return self._newest_cell - self.fleet.retrain.history // self.fleet.interval

    def _evict(self) -> None:
        """Drop readings older than the history: a topic may keep far more than a training uses."""
        for part in self._partitions.values():
            kept = [readings.rows(readings.cell >= self._first_cell) for readings in part.readings]
            part.readings = [readings for readings in kept if len(readings)]
        pieces = [readings for part in self._partitions.values() for readings in part.readings]
        self.n_readings = sum(len(readings) for readings in pieces)
        self._n_batches = 0

    def _stride(self) -> int:
        n_windows = self.n_readings // self.fleet.stride
        per_window = self.fleet.length * max(1, len(self.sensors))
        return self.fleet.stride * max(1, -(-n_windows * per_window // MAX_VALUES))

    def _windows_of(
        self,
        part: _PartitionHistory,
        stride: int,
        faulty_sensors: FaultySensors,
        numbers: dict[str, int],
        sensor_times: list[UsedTime],
    ) -> _PartitionWindows:
        fleet = self.fleet
        windower = Windower(
            length=fleet.length,
            stride=stride,
            lateness_cells=fleet.lateness_cells,
            max_gap_cells=fleet.max_gap_cells,
            n_sensors=len(self.sensors),
        )
        parts: list[Windows] = []
        for readings in part.readings:
            wide = replace(readings, values=widened(readings.values, len(self.sensors)))
            for piece in in_slices(wide):
                windows = windower.push(piece).windows
                if len(windows):
                    parts.append(windows)
        part.readings.clear()
        if not parts:
            empty = np.empty((0, fleet.length, len(self.sensors)), dtype=np.float32)
            return _PartitionWindows(empty, np.empty(0, np.int32), np.empty(0, np.int64))
        names = self._names(part)
        values = np.concatenate([windows.values for windows in parts])
        asset = np.concatenate([windows.asset for windows in parts])
        end_us = (np.concatenate([windows.start for windows in parts]) + fleet.length) * fleet.interval_us
        sensor_times += self._leave_out_sensors(values, names, asset, end_us, faulty_sensors)
        values = SensorTests(self.sensors, fleet, None).inspect(values).values  # without impossible readings
        number_of = np.array([numbers[name] for name in names], dtype=np.int32)
        return _PartitionWindows(values, number_of[asset], end_us)

    def _leave_out_sensors(
        self, values: Float32, names: Sequence[str], asset: Int32, end_us: Int64, faulty: FaultySensors
    ) -> list[UsedTime]:
        """Set the readings of sensors to NaN that had an alert then. Else a stuck sensor would be learnt as healthy."""
        length, interval_us = self.fleet.length, self.fleet.interval_us
        cells, newest_us = np.arange(-length, 0) * interval_us, int(end_us.max())
        left_out = []
        for index, name in enumerate(names):
            for from_us, to_us, sensor in faulty.get(name, ()):
                # The first window with the finding may be full of the fault.
                begin_us = from_us - length * interval_us
                rows = np.flatnonzero((asset == index) & (end_us > begin_us) & (end_us + cells[0] <= to_us))
                if sensor in self.sensors and len(rows):
                    at_us, column = end_us[rows, None] + cells, self.sensors.index(sensor)
                    is_faulty = (at_us > begin_us) & (at_us <= to_us)
                    values[rows, :, column] = np.where(is_faulty, np.nan, values[rows, :, column])
                    time = UsedTime(name, begin_us, min(to_us, newest_us), "left_out", "sensor")
                    left_out.append(time._replace(n_windows=len(rows), sensor=sensor))
        return left_out

    def _names(self, part: _PartitionHistory) -> list[str]:
        return part.decoder.assets[self._number].names



def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
