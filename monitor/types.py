"""What travels through the house: columns on the hot path, frozen objects where things are rare.

No I/O and no torch here, and numpy only as an annotation, so that an operator's command starts fast.

One unit of time inside: integer microseconds of event time since 1970 (suffix `_us`). On the sampling grid
time is a *cell*: cell k is the instant k·interval, and holds the reading nearest to it.
Missing is NaN, everywhere: a value and its mask cannot disagree.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    Int8 = NDArray[np.int8]
    Int32 = NDArray[np.int32]
    Int64 = NDArray[np.int64]
    Float32 = NDArray[np.float32]
    Bool = NDArray[np.bool_]


class Partition(NamedTuple):
    """One Kafka partition: the unit of ownership, of order and of transaction."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


# ---------------------------------------------------------------- hot path: columns


class Unread(bytes):
    """The value of a record that nobody could read: empty, and says why, beginning with a stable word."""

    reason: str

    def __new__(cls, reason: str) -> Unread:
        """`reason`: a sentence for quarantine."""
        value = super().__new__(cls)
        value.reason = reason
        return value


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one partition in offset order, as Kafka gave them. N records."""

    partition: Partition
    offsets: Int64
    """[N], strictly rising; holes are legal (compaction, transactions)."""
    timestamps_us: Int64
    """[N], Kafka's own record timestamps; -1 where the broker has none."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    @property
    def next_offset(self) -> int:
        return int(self.offsets[-1]) + 1

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, which: slice) -> RecordBatch:
        """Some of them, in the same order."""
        return RecordBatch(
            self.partition, self.offsets[which], self.timestamps_us[which], self.keys[which], self.values[which]
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one fleet in one partition, in offset order. N readings of C sensors."""

    fleet: str
    asset: Int32
    """[N], index into the lane's list of assets."""
    cell: Int64
    """[N], grid cell of the event time."""
    offset: Int64
    """[N], of the record that carried the reading; a block's readings share one."""
    values: Float32
    """[N, C], in the sensors' own units; NaN = missing."""

    def __len__(self) -> int:
        return len(self.asset)

    def rows(self, which: slice | Bool) -> Readings:
        """Some of them, in the same order."""
        return Readings(self.fleet, self.asset[which], self.cell[which], self.offset[which], self.values[which])


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one fleet in one partition, ordered by asset and start. N windows, T cells, C sensors."""

    fleet: str
    asset: Int32
    """[N], index into the lane's list of assets."""
    start: Int64
    """[N], first cell; the window covers [start, start + T)."""
    values: Float32
    """[N, T, C], in the sensors' own units; NaN = missing."""
    n_present: Int32
    """[N], cells with at least one sensor, 1..T."""
    first_offset: Int64
    """[N], smallest offset among the records that fed the window."""
    last_offset: Int64
    """[N], largest."""

    def __len__(self) -> int:
        return len(self.asset)


class Verdict(enum.IntEnum):
    """What a score means. Stored as its number."""

    NORMAL = 0
    ANOMALOUS = 1
    UNSCORED = 2


@dataclass(frozen=True, slots=True)
class Contribution:
    """One sensor's part in an anomalous window, at the cell where that sensor's error is largest."""

    name: str
    share: float
    """0..1; the shares of a window sum to 1."""
    expected: float | None
    """What the model rebuilt, in the sensor's unit."""
    actual: float | None
    """What was measured; None = missing."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of the N windows they were computed from, same order."""

    windows: Windows
    score: Float32
    """[N], 1.0 = threshold; NaN = unscored."""
    version: Sequence[str | None]
    """[N], the model version that scored; None = unscored."""
    contributions: dict[int, tuple[Contribution, ...]]
    """Row → sensors, largest share first. Only for anomalous rows."""
    unscored_reason: str | None = None
    """Why the NaN rows have no score."""
    activation_seq: int | None = None
    """Which state of the fleet's activations chose the versions; None = they cannot change meanwhile."""


# ---------------------------------------------------------------- rare: objects


class AlertState(enum.StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    CLOSED = "closed"


class Severity(enum.StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One step of an alert's life. (asset, opened_us) names the alert; a new one begins with `FIRING`."""

    fleet: str
    asset: int
    """Index into the lane's list of assets."""
    opened_us: int
    """End of the first anomalous window of the episode."""
    at_us: int
    """Event time of this step: the end of the window that caused it."""
    state: AlertState
    severity: Severity
    peak_score: float
    peak_us: int
    """End of the window with the highest score so far."""
    n_anomalous: int
    """Anomalous windows so far."""
    contributions: tuple[Contribution, ...]
    """At the peak."""
    version: str
    is_transition: bool = True
    """False: nothing changed but the peak."""


@dataclass(frozen=True, slots=True)
class DataAlertChange:
    """One step of an alert of class `data`: about what reached us, not about how an asset does.

    (kind, partition, from_offset) names the alert; a new one begins with `FIRING`, and closes without recovering.
    """

    kind: str
    """What happened, a stable word: `asset_limit`, `records_lost`."""
    partition: Partition
    fleet: str | None
    """None = whatever is in the partition."""
    from_offset: int
    """Of the first record that is concerned."""
    opened_us: int
    at_us: int
    """Of this step."""
    state: AlertState
    severity: Severity
    n_records: int
    """That are concerned so far."""
    message: str
    """What happened and what to do, for people."""
    is_transition: bool
    """False: nothing changed but the number of records."""


SAMPLE_BYTES = 1024
"""What is kept of a record in quarantine: enough to recognise it by."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record, or a reading of one, that could not be used."""

    partition: Partition
    offset: int
    reason: str
    """Starts with a stable word: `not_json`, `wrong_type`, `late`, … then a colon and the detail."""
    sample: bytes
    """The first bytes of the record, at most SAMPLE_BYTES."""
    at_us: int
    """Kafka's record timestamp; 0 where the broker has none."""

    @property
    def word(self) -> str:
        """The stable word its reason starts with."""
        return self.reason.partition(":")[0]


@dataclass(slots=True)
class Counters:
    """What became of every record below the next offset. The left side equals the sum of the right:
    records = accepted + quarantined + late + duplicate + tombstones.
    """

    records: int = 0
    accepted: int = 0
    """Records whose every reading was used."""
    quarantined: int = 0
    late: int = 0
    """Records with a reading behind the watermark."""
    duplicate: int = 0
    """Records whose every reading fell into a cell already filled."""
    tombstones: int = 0
    """Records without a value."""
    readings: int = 0
    windows: int = 0
    scored: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Stable word of the reason → records in quarantine for it, late ones too."""

    def add(self, other: Counters) -> None:
        for name in self.__slots__:
            if name != "reasons":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        words = self.reasons | other.reasons
        self.reasons = {word: self.reasons.get(word, 0) + other.reasons.get(word, 0) for word in words}


@dataclass(frozen=True, slots=True)
class JobView:
    """A retraining that was asked for, under way, or done."""

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


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A model version as the registry lists it."""

    version: str
    fleet: str
    state: str
    """champion, retired, candidate"""
    trained_at: datetime
    path: str
    """The checkpoint's folder."""
    from_window_end_us: int | None
    """It decides windows that end after this event time; None = never activated."""
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `monitor check` found out."""

    level: str
    """ok, warning, error"""
    subject: str
    """What it is about, as the operator calls it: "broker", "database", "fleet turbines"."""
    text: str
    """What is so, and what the daemon would do about it."""
    fix: str = ""
    """What to do; empty = nothing."""
