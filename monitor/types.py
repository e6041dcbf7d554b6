"""The data types that the packages exchange: columns on the hot path, frozen objects for rare things.

Event time is counted in integer microseconds since 1970 (suffix `_us`). On the sampling grid it is a *cell*: cell k is
the instant k·interval, and holds the reading nearest to it. A missing value is NaN. There is no separate mask that
could disagree.

Input: nothing, there is no I/O. Output: types. Invariant: importing them is cheap. NumPy is only an annotation, and
torch is not imported, so that operators' commands start fast.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    import numpy as np
    from numpy.typing import NDArray

    Int8 = NDArray[np.int8]
    UInt8 = NDArray[np.uint8]
    Int32 = NDArray[np.int32]
    Int64 = NDArray[np.int64]
    Float32 = NDArray[np.float32]
    Bool = NDArray[np.bool_]

    Reconstruct = Callable[["Scores", Int64, Int64, Sequence[str]], Awaitable["Reconstruction"]]
    """Scores, rows [N] to reconstruct, those of them whose clearing sensors are wanted, names of the sensors."""


class Partition(NamedTuple):
    """One Kafka partition: the unit of ownership, of order and of transaction."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


# ---------------------------------------------------------------- hot path: columns


class Unread(bytes):
    """The empty value of a record that could not be read, with the reason."""

    reason: str

    def __new__(cls, reason: str) -> Unread:
        """`reason`: a sentence for quarantine, beginning with a stable word."""
        value = super().__new__(cls)
        value.reason = reason
        return value


Headers = tuple[tuple[str, bytes], ...]
"""The headers of one record."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """N records of one partition in offset order, as Kafka returned them."""

    partition: Partition
    offsets: Int64
    """[N], strictly rising. Gaps are legal (compaction, transactions)."""
    timestamps_us: Int64
    """[N], Kafka's record timestamps; -1 where the broker has none."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None
    """[N], (name, value) of each header in order. None = no record has any."""
    schemas: Mapping[int, str] = field(default_factory=dict)
    """Id → schema of a registry, in the form of `decode/formats/framing.py`. Shared by batches, never changed."""

    @property
    def next_offset(self) -> int:
        return int(self.offsets[-1]) + 1

    def __len__(self) -> int:
        return len(self.values)

    def with_schemas(self, schemas: Mapping[int, str]) -> RecordBatch:
        """Return the batch with the schemas that its records name."""
        return replace(self, schemas=schemas)

    def rows(self, which: slice) -> RecordBatch:
        """Return a slice of the batch."""
        return RecordBatch(
            self.partition,
            self.offsets[which],
            self.timestamps_us[which],
            self.keys[which],
            self.values[which],
            self.headers[which] if self.headers is not None else None,
            self.schemas,
        )

    def pick(self, rows: Int64) -> RecordBatch:
        """Return the records at these rising rows."""
        at = rows.tolist()
        return RecordBatch(
            self.partition,
            self.offsets[rows],
            self.timestamps_us[rows],
            [self.keys[i] for i in at],
            [self.values[i] for i in at],
            [self.headers[i] for i in at] if self.headers is not None else None,
            self.schemas,
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """N readings of C sensors, of one fleet in one partition, in offset order."""

    fleet: str
    asset: Int32
    """[N], index into the shard's list of assets."""
    cell: Int64
    """[N], grid cell of the event time."""
    offset: Int64
    """[N], offset of the reading's record. The readings of a block share one."""
    values: Float32
    """[N, C], in the sensors' own units; NaN = missing."""

    def __len__(self) -> int:
        return len(self.asset)

    def rows(self, which: slice | Bool) -> Readings:
        """Return the selected rows, in the same order."""
        return Readings(self.fleet, self.asset[which], self.cell[which], self.offset[which], self.values[which])


@dataclass(frozen=True, slots=True)
class Windows:
    """N windows of T cells and C sensors, of one fleet in one partition, ordered by asset and start."""

    fleet: str
    asset: Int32
    """[N], index into the shard's list of assets."""
    start: Int64
    """[N], first cell; the window covers [start, start + T)."""
    values: Float32
    """[N, T, C], in the sensors' own units; NaN = missing."""
    n_present: Int32
    """[N], cells with a value of at least one sensor, 1..T."""
    first_offset: Int64
    """[N], smallest offset among the window's records."""
    last_offset: Int64
    """[N], largest offset among them."""
    names: Sequence[str] = ()
    """Names of the assets, by index: those with a threshold of their own are scored by it. Empty = not known."""

    def __len__(self) -> int:
        return len(self.asset)


class Verdict(enum.IntEnum):
    """The meaning of a score. Stored as its number."""

    NORMAL = 0
    ANOMALOUS = 1
    UNSCORED = 2


@dataclass(frozen=True, slots=True)
class Contribution:
    """One sensor's part of an anomaly score, and its values at the cell where its error is largest."""

    name: str
    share: float
    """0..1; the shares of a window sum to 1."""
    expected: float | None
    """Value that the model reconstructed, in the sensor's unit."""
    actual: float | None
    """Measured value; None = missing."""
    quantity: str = "value"
    """Of expected and actual: `value`, or `change` since the window began, of a sensor that counts up or down."""


class Reconstruction(NamedTuple):
    """The model's view of N windows that belong to alerts."""

    expected: Float32
    """[N, T, C], in the sensors' own units, NaN = unknown. An angle's is the one nearest to the measured value, a
    counter's is its level."""
    clearing: dict[int, tuple[str, ...]]
    """Row → the fewest sensors whose replacement by expected values brings the window below the threshold. Empty = no
    small set does. Only of the rows that were asked for."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of N windows, in their order."""

    windows: Windows
    score: Float32
    """[N], 1.0 = threshold; NaN = unscored."""
    version: Sequence[str | None]
    """[N], model version of the score; None = unscored."""
    contributions: dict[int, tuple[Contribution, ...]]
    """Row → sensors, largest share first. Only of anomalous rows."""
    unscored_reason: str | None = None
    """Reason of the NaN rows."""
    activation_seq: int | None = None
    """Number of the fleet's activations when the versions were chosen; None = no version can be activated meanwhile."""
    reconstruct: Reconstruct | None = None
    """Reconstructs some of these windows, for the evidence of alerts. None = the scorer has no model that could."""
    findings: UInt8 | None = None
    """[N, C], result of the tests of the sensors, as in `stream/sensor_health.py`. None = not tested."""


# ---------------------------------------------------------------- rare: objects


class AlertState(enum.StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    CLOSED = "closed"


class Severity(enum.StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class AlertClass(enum.StrEnum):
    """The thing in trouble, so the people who must act."""

    PROCESS = "process"
    """The machine: its readings are anomalous."""
    SENSOR = "sensor"
    """A sensor: stuck, dead, noisy, out of range."""
    DATA = "data"
    """The records: lost, late, missing, refused."""


class Label(enum.StrEnum):
    """An operator's word on an alert or on a time of an asset."""

    FAULT = "fault"
    """It was real. Training leaves it out, and it is no false alarm."""
    NORMAL = "normal"
    """It was nothing. Training may learn it, and it is a false alarm."""
    IGNORE = "ignore"
    """Neither counts: training leaves it out, and so does the budget."""


class JudgedTime(NamedTuple):
    """A time (from_us, to_us] of an asset on which an alert or a person has a say in training, in event time."""

    from_us: int
    to_us: int
    reason: str
    """A key of `training.words.REASONS`: open, unlabelled, shelved, fault, ignore, normal, accepted, maintenance."""
    source: str = ""
    """The thing that `id` numbers: alert, label, shelf, maintenance."""
    id: int | None = None
    since_us: int | None = None
    """Beginning of the whole alert, label, shelf or maintenance that this is a part of. None = `from_us`."""

    @property
    def begin_us(self) -> int:
        return self.from_us if self.since_us is None else self.since_us


class JudgedAlert(NamedTuple):
    """An alert that an operator has judged."""

    is_fault: bool
    """Labelled `fault`. False = labelled `normal`."""
    level: float
    """The highest threshold at which it opens, as a multiple of the calibrated one of the version that raised it."""


@dataclass(frozen=True, slots=True)
class ConfirmedFault:
    """An alert that an operator labelled `fault`, with its kept evidence."""

    alert: int
    """Its id."""
    asset: str
    opened_us: int
    sensors: tuple[str, ...]
    """Those that explain it, most important first."""
    note: str
    """The operator's, with the label."""
    chunks: tuple[bytes, ...]
    """Stored chunks of the evidence, in order (`store/evidence_chunks.py`)."""


class Act(enum.StrEnum):
    """Something that an operator, or monitor itself, did about alerts. The history keeps each."""

    ACKNOWLEDGE = "acknowledge"
    UNACKNOWLEDGE = "unacknowledge"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    LABEL = "label"
    CLOSE = "close"
    REOPEN = "reopen"
    PLAN_MAINTENANCE = "plan_maintenance"
    END_MAINTENANCE = "end_maintenance"


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One change of an alert about an asset. (asset, opened_us) identifies the alert. Its first change is `FIRING`."""

    fleet: str
    asset: int
    """Index into the shard's list of assets."""
    opened_us: int
    """End of the first anomalous window of the episode."""
    at_us: int
    """Event time of this change: the end of its window."""
    state: AlertState
    severity: Severity
    peak_score: float
    peak_us: int
    """End of the window with the highest score so far."""
    n_anomalous: int
    """Anomalous windows so far."""
    contributions: tuple[Contribution, ...]
    """Contributions to the highest score."""
    version: str
    is_transition: bool = True
    """False: only the peak changed."""
    clearing: tuple[str, ...] | None = None
    """The fewest sensors whose replacement by their expected values clears the alarm. None = not computed."""
    onset: tuple[Contribution, ...] = ()
    """Contributions to the window that fired the alert. Later windows are full of the fault, and a model then finds
    nothing right: the sensors that it blames first are nearest to the cause."""


@dataclass(frozen=True, slots=True)
class EvidencePart:
    """N cells and M scores that are added to the evidence of an alert, in order of time."""

    asset: int
    """Index into the shard's list of assets."""
    opened_us: int
    """With the asset it identifies the alert."""
    sensors: tuple[str, ...]
    """[C]"""
    cell_us: Int64
    """[N], event time of each cell."""
    values: Float32
    """[N, C], NaN = missing."""
    expected: Float32
    """[N, C], the model's reconstruction in the sensors' own units, NaN = unknown."""
    end_us: Int64
    """[M], ends of the scored windows."""
    score: Float32
    """[M], 1.0 = threshold."""
    limit: int
    """Cells, and scores, that are kept at most: those of four windows."""
    earlier_start_us: tuple[int, ...] = ()
    """Of the part that begins the evidence: starts of the windows that may have ended up to one window earlier. Their
    stored scores come first."""


@dataclass(frozen=True, slots=True)
class DataAlertChange:
    """One change of an alert of class `data` or `sensor`: about the records, or about a sensor.

    (kind, partition, from_offset, subject) identifies an alert of class `data`, (kind, partition, opened_us, subject)
    one of class `sensor`. Its first change is `FIRING`. It closes without recovering.
    """

    kind: str
    """A stable word: `asset_limit`, `records_lost`, …"""
    partition: Partition
    fleet: str | None
    """None = all fleets in the partition."""
    from_offset: int
    """Offset of the first affected record."""
    opened_us: int
    at_us: int
    """Time of this change."""
    state: AlertState
    severity: Severity
    n_records: int
    """Affected records so far. In class `sensor`: windows."""
    message: str
    """The event and its fix, for operators."""
    is_transition: bool
    """False: only the number of records changed."""
    subject: str = ""
    """The asset, sensor or field that it is about. Empty = the fleet or the partition."""
    alert_class: AlertClass = AlertClass.DATA
    asset: str | None = None
    """Asset that it is about, if it is about one."""
    sensor: str | None = None
    """Sensor that it is about, in class `sensor`."""


SAMPLE_BYTES = 1024
"""Size of the sample of a quarantined record, enough to recognise it."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record, or one of its readings, that could not be used."""

    partition: Partition
    offset: int
    reason: str
    """A stable word such as `not_json`, `wrong_type` or `late`, then a colon and the detail."""
    sample: bytes
    """The first bytes of the record, at most SAMPLE_BYTES."""
    at_us: int
    """Kafka's record timestamp; 0 where the broker has none."""

    @property
    def word(self) -> str:
        """The stable word at the beginning of the reason."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something in the records of one batch that an operator should know, although no record was refused for it."""

    kind: str
    """A stable word: `new_sensor`, `looks_long`, …"""
    fleet: str
    subject: str
    """The sensor, field or asset that it is about: one alert per kind, fleet and subject."""
    detail: str
    """The finding and its fix, for operators."""
    offset: int
    """Of the first such record in the batch."""
    n_records: int
    assets: frozenset[str] = frozenset()
    """The assets whose records show it."""


@dataclass(slots=True)
class Counters:
    """The fate of every record below the next offset.

    records = accepted + quarantined + late + duplicate + tombstones.
    """

    records: int = 0
    accepted: int = 0
    """Records of which every reading was used."""
    quarantined: int = 0
    late: int = 0
    """Records with a reading older than its asset's watermark allows."""
    duplicate: int = 0
    """Records of which every reading fell into a filled cell."""
    tombstones: int = 0
    """Records without a value."""
    readings: int = 0
    windows: int = 0
    scored: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Stable word of the reason → quarantined records, late ones included."""

    def add(self, other: Counters) -> None:
        for name in self.__slots__:
            if name != "reasons":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        words = self.reasons | other.reasons
        self.reasons = {word: self.reasons.get(word, 0) + other.reasons.get(word, 0) for word in words}


@dataclass(frozen=True, slots=True)
class JobView:
    """A retraining, a drill, or a comparison in shadow: queued, running or ended."""

    id: int
    fleet: str
    state: str
    """queued, running, done, failed"""
    progress: float
    """0..1"""
    message: str
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    version: str | None = None
    requested_by: str = ""
    kind: str = "retrain"
    """retrain, drill, judge (a challenger is compared with the champion on the records since its training)"""
    reason: str = ""
    """first, schedule, drift, regime, sensors, operator. Empty: a job of an earlier release."""
    note: str = ""
    """Of the person who requested it."""
    detail: dict[str, Any] | None = None
    """Further facts of the request."""
    attempts: int = 0
    """Starts by daemons that ended it or died. A stop of the daemon does not count."""

    def eta(self, now: datetime) -> timedelta | None:
        """Return the time that is left, if the rest goes as fast as the part before. None = too early to say."""
        if self.started_at is None or self.finished_at is not None or self.progress < ETA_FROM:
            return None
        return (now - self.started_at) * (1.0 / self.progress - 1.0)


ETA_FROM = 0.02
"""Share of a job that must be done before its pace says anything."""


class ModelState(enum.StrEnum):
    """The state of a model version."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    REJECTED = "rejected"
    CHAMPION = "champion"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"


class ModelCheckKind(enum.StrEnum):
    """A kind of measurement of a model version after its training."""

    DRILL = "drill"
    DRIFT = "drift"
    INPUT_DRIFT = "input_drift"
    SHADOW = "shadow"


class Alias(enum.StrEnum):
    """A name of a fleet's version that moves to another one."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    PREVIOUS = "previous"


class ModelEvent(enum.StrEnum):
    """An event in the life of a model version. The registry keeps each with who, when and why."""

    TRAINED = "trained"
    DERIVED = "derived"
    PROPOSED = "proposed"
    SHADOWED = "shadowed"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A model version as the registry lists it."""

    version: str
    fleet: str
    state: str
    """candidate (waits for a decision), shadow (is compared on live records), rejected (by the gate), champion,
    retired, rolled_back"""
    trained_at: datetime
    path: str
    """Folder of the checkpoint."""
    from_window_end_us: int | None
    """The version scores windows that end after this event time; None = never activated."""
    metrics: dict[str, float] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    """champion, challenger, previous: those that name it."""
    verdict: dict[str, Any] | None = None
    """The gate's, as a JSON object; None = it was not judged."""
    rolled_back_at: datetime | None = None
    """Processing time; None = it is not rolled back."""
    pruned_at: datetime | None = None
    """Processing time of the removal of its checkpoint; None = it is kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of `monitor check`."""

    level: str
    """ok, warning, error"""
    subject: str
    """The thing checked, in the operator's words: "broker", "database", "fleet turbines"."""
    text: str
    """The state, and the daemon's reaction to it."""
    fix: str = ""
    """The operator's action; empty = none."""
    exit_code: int = 1
    """Of a command that reports it as an error: that of a daemon which meets it at its start."""
