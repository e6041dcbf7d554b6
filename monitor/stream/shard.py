"""One fleet in one partition: its assets, their unfinished windows, their alert state.

Input: readings of the fleet in log order, the partitions of unknown assets, a scorer. Output: a `ShardResult` for each
chunk of readings, with everything that the transaction needs. Invariant: only the shard's own methods write its arrays
and register names in its asset index; everything outside reads them.

A chunk passes `admit`, `register` where it brings new assets, and `process`: window → score → decide.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from monitor.decode.admission import first_of_record
from monitor.decode.columns import first_of_asset_and_record
from monitor.store.commit import FleetRows, Snapshot
from monitor.stream.alerting import AlertPolicy, Decider, PastVerdict
from monitor.stream.evidence import EvidenceRecorder
from monitor.stream.window import NEVER, OFFSET_CEILING, Windower, WindowerState, in_slices
from monitor.types import Readings, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from monitor.config import FleetConfig
    from monitor.config.kafka import KafkaConfig
    from monitor.decode import AssetIndex
    from monitor.decode.admission import Admission
    from monitor.store.assets import KnownAsset, Registration
    from monitor.stream.evidence import AlertRow
    from monitor.stream.sensor_alerts import SensorAlerts
    from monitor.stream.window import WindowerOutput
    from monitor.types import (
        AlertChange,
        DataAlertChange,
        EvidencePart,
        Float32,
        Int32,
        Int64,
        Partition,
        Scores,
        Windows,
    )

    ScoreFn = Callable[[Windows, Int64, Sequence[str]], Awaitable[Scores]]
    """`Scorer.score`: windows, event time of their ends [N], names of the sensors."""

T = TypeVar("T", bound=np.generic)

READING_RULES = 3
"""Number of the rules by which records become readings. A release that changes them raises it: records that were
refused before may then be readings, so a rebuild cannot find the former windows."""
WINDOW_RULES = 2
"""Number of the rules by which readings become windows (`window.py`): 2 = an asset's own event time decides. A release
that changes them raises it, and the windows begin anew, once."""


@dataclass(frozen=True, slots=True)
class AdmittedReadings:
    """Readings of a chunk that may enter the windows, and the refused records."""

    readings: Readings
    over_limit: Mapping[int, str] = field(default_factory=dict)
    """Offset → reason, for records of assets beyond `max_assets`."""
    foreign: Mapping[int, str] = field(default_factory=dict)
    """Offset → reason, for records of assets that another partition registered."""
    since: Mapping[str, int] = field(default_factory=dict)
    """Name → offset of its first reading, for assets admitted just now."""
    unregistered: Sequence[str] = ()
    """Names in the index without a database id: `register` them before `process`."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Everything that one chunk of readings led to."""

    rows: FleetRows
    readings: Readings
    """The admitted ones."""
    interval_us: int
    over_limit: Mapping[int, str]
    """Offset → reason, for records of assets beyond `max_assets`."""
    quarantined: Mapping[int, str]
    """Offset → reason, for all refused records, late ones too."""
    late: AbstractSet[int]
    """Offsets of records with a reading behind the watermark."""
    duplicate: AbstractSet[int]
    """Offsets of records whose readings all were duplicates."""
    late_assets: Int32
    """Asset of each late record. One of several assets counts for each of them."""
    duplicate_assets: Int32
    """Asset of each record with a reading without a new value."""
    sensor_alerts: Sequence[DataAlertChange]
    """Changes of alerts about sensors."""
    unscored_reasons: Sequence[str | None]
    """For each slice with windows, the reason why some have no score. None = all have one."""


class Shard:
    """The state of one fleet in one partition."""

    def __init__(
        self,
        config: FleetConfig,
        kafka: KafkaConfig,
        sensors: Sequence[str],
        assets: AssetIndex,
        *,
        admission: Admission,
        decider: Decider | None = None,
        sensor_alerts: SensorAlerts | None = None,
    ) -> None:
        """`admission`: of the same asset index. `decider`: None = by the fleet's alert rules.

        `sensor_alerts`: None = nothing is alerted about sensors.
        """
        self.config = config
        self.interval_us = config.interval_us
        self.sensors = tuple(sensors)
        self.assets = assets
        self.fingerprint = fingerprint(config, kafka, sensors)
        self._narrower = {fingerprint(config, kafka, sensors[:n]): n for n in range(1, len(sensors))}
        """Fingerprint of a former run with the first n of these sensors → n."""
        self.ids = np.empty(0, dtype=np.int32)
        """[A], database id of each asset. -1 = foreign: another partition registered it."""
        self.since = np.empty(0, dtype=np.int64)
        """[A], offset of each asset's first admitted reading. Earlier ones were refused."""
        self.snapshot_offset: int | None = None
        """Position of the latest snapshot: it holds the records below. None = there is none."""
        self.is_reconfigured = False
        """Whether the settings of the windows differ from those of the former run."""
        self.is_widened = False
        """Whether the former run had the same settings and fewer sensors. The windows go on: the records that they need
        are read again, with the new sensors."""
        self.widenings: list[tuple[int, int]] = []
        """(offset, n): below this offset, the list had n sensors. A reading of the later ones alone was refused then,
        and moved no clock."""
        self.windower = Windower(
            length=config.length,
            stride=config.stride,
            lateness_cells=config.lateness_cells,
            max_gap_cells=config.max_gap_cells,
            n_sensors=len(self.sensors),
        )
        self.decider = decider or Decider(config.name, AlertPolicy.of(config.alerts))
        self._evidence = EvidenceRecorder(length=config.length, stride=config.stride, interval_us=self.interval_us)
        self.sensor_alerts = sensor_alerts
        self._admission = admission
        self._n_foreign = 0
        # [A]: offset of the last reading · whether the asset is in the snapshot · offset of the first reading after it
        self._last_offset = np.empty(0, dtype=np.int64)
        self._in_snapshot = np.empty(0, dtype=np.bool_)
        self._returned_at = np.empty(0, dtype=np.int64)

    def resume(
        self, known: Sequence[KnownAsset], former_fingerprints: Mapping[str, str] | None, next_offset: int = 0
    ) -> None:
        """Load the assets as the database has them. `former_fingerprints`: by fleet, those of the former run.

        `next_offset`: where that run ended.
        """
        former = self.fingerprint if former_fingerprints is None else former_fingerprints.get(self.config.name)
        self.is_widened = former in self._narrower
        if self.is_widened and former is not None:
            self.widenings.append((next_offset, self._narrower[former]))
        self.is_reconfigured = former != self.fingerprint and not self.is_widened
        stride, interval_us = self.config.stride, self.interval_us
        next_starts = {}
        for index, asset in enumerate(known):
            self.decider.restore(
                index, (PastVerdict(*verdict) for verdict in asset.recent), asset.open_alert, asset.closed_us
            )
            if asset.open_alert is not None and asset.last_start_us is not None:
                last_end_us = asset.last_end_us or asset.last_start_us + self.config.length * interval_us
                self._evidence.restore(index, asset.open_alert.opened_us, last_end_us)
            if asset.last_start_us is not None:
                next_starts[index] = (asset.last_start_us // interval_us // stride + 1) * stride
        self.ids = np.array([asset.id for asset in known], dtype=np.int32)
        self.since = np.array([asset.since_offset for asset in known], dtype=np.int64)
        self.windower.resume(next_starts)

    # ------------------------------------------------------------------ new assets

    @property
    def has_new_assets(self) -> bool:
        """Whether the latest batch may have assets that are not admitted, or foreign ones."""
        has_new_names = len(self.assets.names) > self.assets.n_registered
        return has_new_names or bool(self._admission.waiting) or self._n_foreign > 0

    def unknown_names(self) -> list[str]:
        """Return the new names of the latest batch that no partition is known to have registered."""
        return self._admission.unknown_names()

    def admit(self, readings: Readings, found: Mapping[str, Registration], partition: Partition) -> AdmittedReadings:
        """Admit new assets up to `max_assets`, in the order of the log.

        `found`: the registrations of those `unknown_names` that have one.
        """
        over_limit: dict[int, str] = {}
        foreign: dict[int, str] = {}
        since: dict[str, int] = {}
        if self._admission.is_pending:
            elsewhere = self._admission.exclude([n for n, each in found.items() if each.partition != partition])
            foreign = self._refused(readings, elsewhere)
            readings, since, over_limit = self._admission.admit(_without(readings, elsewhere))
        admitted = AdmittedReadings(readings, over_limit, foreign, since, self.assets.names[len(self.ids) :])
        return admitted if admitted.unregistered else self._exclude_foreign(admitted)

    def register(
        self, admitted: AdmittedReadings, found: Mapping[str, Registration], partition: Partition
    ) -> AdmittedReadings:
        """Store the database ids of new assets. `found`: the registrations of all `unregistered` names.

        Another partition may have registered a name since `admit`: its readings are refused.
        """
        new = admitted.unregistered
        ids = [found[name].id if found[name].partition == partition else -1 for name in new]
        self.ids = np.concatenate((self.ids, np.array(ids, dtype=np.int32)))
        self.since = np.concatenate((self.since, np.zeros(len(new), dtype=np.int64)))
        self._n_foreign = int(np.count_nonzero(self.ids < 0))
        return self._exclude_foreign(replace(admitted, unregistered=()))

    def _exclude_foreign(self, admitted: AdmittedReadings) -> AdmittedReadings:
        indexes: Int32 = np.flatnonzero(self.ids < 0).astype(np.int32)
        if not len(indexes):
            return admitted
        foreign = {**admitted.foreign, **self._refused(admitted.readings, indexes)}
        return replace(admitted, readings=_without(admitted.readings, indexes), foreign=foreign)

    def _refused(self, readings: Readings, assets: Int32) -> dict[int, str]:
        rows = np.flatnonzero(np.isin(readings.asset, assets))
        return {
            offset: f'wrong_partition: asset "{self.assets.names[asset]}" is read from another partition; key its '
            "records by the asset, so that all of them go to one partition"
            for offset, asset in first_of_record(readings, rows)
        }

    # ------------------------------------------------------------------ window → score → decide

    async def process(self, admitted: AdmittedReadings, score: ScoreFn) -> ShardResult:
        """Add readings to the windows, score the finished ones and decide on alerts."""
        all_readings = admitted.readings
        since = self._store_since(admitted.since) if admitted.since else {}
        late: dict[int, str] = {}
        duplicates: list[Int64] = []
        late_assets: list[Int32] = []
        duplicate_assets: list[Int32] = []
        scores: list[Scores] = []
        alerts: list[AlertChange] = []
        evidence: list[tuple[Sequence[AlertRow], Windows, Float32, Float32]] = []
        sensor_alerts: list[DataAlertChange] = []
        for readings in in_slices(all_readings):
            output = self._push(readings)
            if len(output.late):
                late = self._late_reasons(readings, output) | late
                late_assets.append(_asset_by_record(readings, output.late))
            if len(output.duplicate):
                duplicates.append(readings.offset[output.duplicate])
                duplicate_assets.append(_asset_by_record(readings, output.duplicate))
            ends_us = (output.windows.start + self.config.length) * self.interval_us
            scored = await score(replace(output.windows, names=self.assets.names), ends_us, self.sensors)
            changes = self.decider.decide(scored, ends_us)
            if in_alert := self._evidence.select(scored.windows.asset, ends_us, changes):
                changes, expected = await self._reconstruct(scored, in_alert, changes)
                evidence.append((in_alert, output.windows, scored.score, expected))
            alerts += changes
            if self.sensor_alerts is not None:
                sensor_alerts += self.sensor_alerts.decide(scored, ends_us, self.assets.names, self.sensors)
            scores.append(scored)
        return ShardResult(
            rows=self.rows(scores, alerts, since, self._evidence.parts(self.sensors, evidence)),
            readings=all_readings,
            interval_us=self.interval_us,
            over_limit=admitted.over_limit,
            quarantined={**admitted.foreign, **admitted.over_limit, **late},
            late=late.keys(),
            duplicate=_all_duplicate(all_readings.offset, duplicates) - late.keys() if duplicates else set(),
            late_assets=_joined(late_assets, np.int32),
            duplicate_assets=_joined(duplicate_assets, np.int32),
            sensor_alerts=sensor_alerts,
            unscored_reasons=[each.unscored_reason for each in scores if len(each.score)],
        )

    async def _reconstruct(
        self, scored: Scores, in_alert: Sequence[AlertRow], changes: list[AlertChange]
    ) -> tuple[list[AlertChange], Float32]:
        """Return the changes with their clearing sensors, and the expected values [n, T, C] of windows in alerts.

        The clearing sensors are those of the window that fired: later ones are full of the fault, on all sensors.
        """
        rows = np.array([each.row for each in in_alert], dtype=np.int64)
        if scored.reconstruct is None:
            return changes, np.full((len(rows), *scored.windows.values.shape[1:]), np.nan, dtype=np.float32)
        fired = {each.row: each.opened_us for each in in_alert if each.is_first}
        found = await scored.reconstruct(scored, rows, np.array(list(fired), dtype=np.int64), self.sensors)
        clearing = {}
        for row, sensors in found.clearing.items():
            asset = int(scored.windows.asset[row])
            clearing[asset, fired[row]] = sensors
            self.decider.set_clearing(asset, fired[row], sensors)
        changes = [
            replace(each, clearing=clearing[each.asset, each.opened_us])
            if (each.asset, each.opened_us) in clearing else each
            for each in changes
        ]  # fmt: skip
        return changes, found.expected

    def rows(
        self,
        scores: Sequence[Scores] = (),
        alerts: Sequence[AlertChange] = (),
        since: Mapping[int, int] | None = None,
        evidence: Sequence[EvidencePart] = (),
    ) -> FleetRows:
        """Put results into the columns of the database. `since`: asset index → offset of its first reading."""
        windows = [each.windows for each in scores]
        asset = _joined([each.asset for each in windows], np.int32)
        start = _joined([each.start for each in windows], np.int64)
        score = _joined([each.score for each in scores], np.float32)
        verdict = np.where(score >= 1.0, Verdict.ANOMALOUS, Verdict.NORMAL)
        verdict[np.isnan(score)] = Verdict.UNSCORED
        seqs = [each.activation_seq for each in scores if each.activation_seq is not None and len(each.score)]
        return FleetRows(
            fleet=self.config.name,
            asset_ids=self.ids,
            asset=asset,
            start_us=start * self.interval_us,
            end_us=(start + self.config.length) * self.interval_us,
            score=score,
            verdict=verdict.astype(np.int8),
            version=[version for each in scores for version in each.version],
            n_present=_joined([each.n_present for each in windows], np.int32),
            first_offset=_joined([each.first_offset for each in windows], np.int64),
            last_offset=_joined([each.last_offset for each in windows], np.int64),
            alerts=alerts,
            worse=self.config.alerts.worse.factor,
            evidence=evidence,
            recent=self.decider.recent(asset),
            admitted=since or {},
            activation_seq=min(seqs, default=None),
        )

    def _store_since(self, since: Mapping[str, int]) -> dict[int, int]:
        """Store the first offset of assets admitted just now. Return those of this partition, by asset index."""
        indexes = self.assets.numbers(list(since)).tolist()
        ours = {n: offset for n, offset in zip(indexes, since.values(), strict=True) if self.ids[n] >= 0}
        if ours:
            self.since[list(ours)] = list(ours.values())
        return ours

    def _push(self, readings: Readings) -> WindowerOutput:
        """Add readings to the windows, and note where each asset was read last."""
        self._grow(len(self.assets.names))
        self._last_offset[readings.asset] = readings.offset  # of several readings the last one counts
        if self.snapshot_offset is not None:
            rows = np.flatnonzero(self._in_snapshot[readings.asset])
            np.minimum.at(self._returned_at, readings.asset[rows], readings.offset[rows])
        return self.windower.push(readings)

    def _grow(self, n_assets: int) -> None:
        """Make room for so many assets, and for those to come: amortised constant time for a new asset."""
        n_rooms = len(self._last_offset)
        if n_assets > n_rooms:
            more = max(n_assets, n_rooms * 5 // 4, 16) - n_rooms
            self._last_offset = np.concatenate((self._last_offset, np.full(more, -1, dtype=np.int64)))
            self._in_snapshot = np.concatenate((self._in_snapshot, np.zeros(more, dtype=np.bool_)))
            self._returned_at = np.concatenate((self._returned_at, np.full(more, OFFSET_CEILING, dtype=np.int64)))

    def _late_reasons(self, readings: Readings, output: WindowerOutput) -> dict[int, str]:
        """Return the reason of each late record, by offset: that of its first late reading."""
        config, reasons = self.config, dict[int, str]()
        for row, behind in zip(output.late.tolist(), output.late_by.tolist(), strict=True):
            offset = int(readings.offset[row])
            if offset not in reasons:
                asset, behind_s = self.assets.names[readings.asset[row]], behind * config.interval.total_seconds()
                reasons[offset] = (
                    f"late: {asset}'s reading came {behind_s:g} s behind its watermark (its newest reading less the "
                    f"lateness); raise the fleet's lateness (now {config.lateness.total_seconds():g} s) if it is usual"
                )
        return reasons

    # ------------------------------------------------------------------ rebuild and recovery

    def refill(self, readings: Readings) -> None:
        """Add readings that are committed already, and drop the windows that they emit.

        Every asset of this shard was registered before its first reading was committed. An unknown one belongs to
        another partition, or was refused. So was a reading of sensors that the list lacked then. Readings in the
        snapshot are not added again. A window may be emitted again where older readings than the asset needs are read
        by chance.
        """
        is_ours = np.isin(readings.asset, np.flatnonzero(self.ids >= 0))
        readings = readings.rows(is_ours)
        readings = readings.rows(readings.offset >= self.since[readings.asset])
        for offset, n_sensors in self.widenings:
            had_value = np.isfinite(readings.values[:, :n_sensors]).any(axis=1)
            readings = readings.rows((readings.offset >= offset) | had_value)
        if self.snapshot_offset is not None and len(readings) and readings.offset[0] < self.snapshot_offset:
            in_snapshot = np.flatnonzero(self._in_snapshot)
            is_new = (readings.offset >= self.snapshot_offset) | ~np.isin(readings.asset, in_snapshot)
            readings = readings.rows(is_new)
        if len(readings):
            self._push(readings)

    def needed_offsets(self) -> Int64:
        """Return [A], the oldest record that a restart needs for each asset. `OFFSET_CEILING` = none."""
        needed = self.windower.needed_offsets()
        from_snapshot = self._still_in_snapshot(needed)
        needed[from_snapshot] = self._returned_at[from_snapshot]
        return needed

    def _still_in_snapshot(self, needed: Int64) -> Int64:
        """Return the assets that need the latest snapshot. `needed`: [A], their oldest needed records."""
        if self.snapshot_offset is None:
            return np.empty(0, dtype=np.int64)
        assets = np.flatnonzero(self._in_snapshot)
        return assets[needed[assets] < self.snapshot_offset]

    def last_offsets(self, n_assets: int) -> Int64:
        """Return [A], the offset of each asset's last reading. -1 = none since the restart."""
        self._grow(n_assets)
        return self._last_offset[:n_assets]

    def digest(self) -> str | None:
        """Return the digest of the needed cells. None = no reading yet."""
        if not (self.windower.newest > NEVER).any():
            return None
        return f"{self.windower.cells_digest(self.ids):016x}"

    def take_snapshot(self, at_offset: int, assets: Int64) -> Snapshot:
        """Begin the rebuild of these assets at this offset, and that of assets that need the former snapshot."""
        assets = np.union1d(assets, self._still_in_snapshot(self.windower.needed_offsets()))
        self._hold_snapshot(at_offset, assets)
        return Snapshot(self.config.name, at_offset, self._encode(self.windower.snapshot(assets)))

    def _hold_snapshot(self, at_offset: int, assets: Int64) -> None:
        self.snapshot_offset = at_offset
        self._in_snapshot[:] = False
        self._in_snapshot[assets] = True
        self._returned_at[:] = OFFSET_CEILING

    def restore(self, snapshot: Snapshot) -> None:
        """Load a snapshot after `resume`. One of other settings is ignored."""
        if self.is_reconfigured:
            return
        with np.load(io.BytesIO(snapshot.state), allow_pickle=False) as columns:
            if str(columns["fingerprint"]) not in (self.fingerprint, *self._narrower):
                return
            state = WindowerState(**{field.name: columns[field.name] for field in fields(WindowerState)})
        # Sensors that were added later have no values in the snapshot.
        new = np.full((len(state.values), len(self.sensors) - state.values.shape[1]), np.nan, dtype=np.float32)
        state = replace(state, values=np.concatenate((state.values, new), axis=1))
        by_id = np.argsort(self.ids, kind="stable")
        asset, cell_asset = (
            by_id[np.searchsorted(self.ids, ids, sorter=by_id)] for ids in (state.asset, state.cell_asset)
        )
        self.windower.restore(replace(state, asset=asset, cell_asset=cell_asset))
        self._grow(len(self.assets.names))
        self._hold_snapshot(snapshot.at_offset, asset)

    def _encode(self, state: WindowerState) -> bytes:
        """Return unfinished windows as npz, with database ids for asset indexes."""
        out = io.BytesIO()
        columns = {field.name: getattr(state, field.name) for field in fields(state)}
        columns |= {"asset": self.ids[state.asset], "cell_asset": self.ids[state.cell_asset]}
        np.savez(out, fingerprint=np.array(self.fingerprint), **columns)
        return out.getvalue()


def fingerprint(fleet: FleetConfig, kafka: KafkaConfig, sensors: Sequence[str]) -> str:
    """Identify the settings on which windows depend, and those that decide which readings there are."""
    grid = (fleet.interval_us, fleet.length, fleet.stride, fleet.lateness_cells, fleet.max_gap_cells)
    windows = (*grid, tuple(sensors), WINDOW_RULES)
    readings = (fleet.assets, fleet.topics, kafka.format, kafka.max_record_bytes, str(kafka.max_skew), READING_RULES)
    places = str(fleet.fields.over(kafka.fields))
    return hashlib.sha256(repr((windows, readings, places)).encode()).hexdigest()[:8]


def _without(readings: Readings, assets: Int32) -> Readings:
    return readings.rows(~np.isin(readings.asset, assets))


def _asset_by_record(readings: Readings, rows: Int64) -> Int32:
    """Return the assets of these rows, one of the same asset and record once."""
    asset = readings.asset[rows]
    return asset[first_of_asset_and_record(asset, readings.offset[rows])]


def _joined(parts: Iterable[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _all_duplicate(offset: Int64, duplicates: Sequence[Int64]) -> set[int]:
    """Return the offsets of records whose readings all are duplicates. `offset`: [N], of all readings, in order."""
    found, n_duplicate = np.unique(np.concatenate(duplicates), return_counts=True)
    n_readings = np.searchsorted(offset, found, "right") - np.searchsorted(offset, found)
    return set(found[n_duplicate == n_readings].tolist())
