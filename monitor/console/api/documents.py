"""The documents of the API: the same keys as `--json` of the command line.

Times are ISO 8601 in UTC. Invariant: a key is added, never renamed. A test compares these classes with the rows that
the database gives.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Object = dict[str, Any]


class Page(BaseModel, Generic[T]):
    """A part of a list."""

    items: list[T]
    next_offset: int | None = Field(description="`offset` of the next part; null = this was the last.")


class Created(BaseModel):
    """The id of something new."""

    id: int


class Me(BaseModel):
    """The sender of the request."""

    name: str
    scope: Literal["read", "act", "admin"]
    by: Literal["token", "session", "proxy", "local"]
    csrf: str = Field(description="For the header X-CSRF-Token of writes. Requests with a bearer token need none.")


# ---------------------------------------------------------------- alerts


class Onset(BaseModel):
    """A sensor's part when the alert fired."""

    share: float
    expected: float | None
    actual: float | None


class Sensor(BaseModel):
    """A sensor's part of the highest score."""

    name: str
    share: float = Field(description="0 to 1.")
    expected: float | None
    actual: float | None
    quantity: str = "value"
    onset: Onset | None = None


class Alert(BaseModel):
    """An alert. Facts of other classes are null."""

    id: int
    class_: str = Field(alias="class", description="process, sensor, data.")
    asset: str | None
    fleet: str | None
    state: str = Field(description="firing, recovering, closed. One closed by hand is closed.")
    pipeline_state: str = Field(description="The state that follows from the scores alone.")
    severity: str
    opened_at: Time
    closed_at: Time | None
    updated_at: Time
    peak_at: Time | None
    peak_score: float | None
    n_anomalous: int | None = Field(description="Anomalous windows.")
    n_records: int | None = Field(description="Records, of classes data and sensor.")
    sensors: list[Sensor]
    clearing: list[str] | None = Field(description="The fewest sensors whose expected values clear the alert.")
    version: str | None
    acknowledged_by: str | None
    acknowledged_at: Time | None
    label: str | None
    label_note: str | None
    closed_by_hand_at: Time | None
    rolled_back_at: Time | None = Field(description="The version that raised it was rolled back then.")
    suppressed_by: str | None = Field(description="shelf, maintenance: nobody is notified.")
    is_flapping: bool
    incident_id: int | None
    kind: str | None
    topic: str | None
    partition: int | None
    from_offset: int | None
    subject: str | None
    sensor: str | None
    message: str | None


class Transition(BaseModel):
    """A step in an alert's life."""

    state: str
    severity: str
    at: Time
    peak_score: float | None
    n_anomalous: int | None
    n_records: int | None


class Act(BaseModel):
    """An act of an operator."""

    id: int
    at: Time
    by: str
    via: str = Field(description="cli, console, api, link, daemon.")
    act: str
    alert_id: int | None
    fleet: str | None
    asset: str | None
    note: str
    detail: Object | None


class Incident(BaseModel):
    """Alerts of a fleet that overlap in time."""

    id: int
    fleet: str | None
    opened_at: Time
    closed_at: Time | None
    severity: str
    n_alerts: int
    alerts: list[int]
    assets: list[str]


class Shelf(BaseModel):
    """Alerts without notifications."""

    id: int
    alert_id: int | None
    fleet: str | None
    asset: str | None
    sensor: str | None
    until: str
    until_at: Time | None
    made_at: Time
    ended_at: Time | None
    ended_why: str | None
    reason: str
    actor: str


class Evidence(BaseModel):
    """The readings, expected values and scores around an alert."""

    sensors: list[str]
    at: list[Time] = Field(description="[N] of the readings.")
    actual: list[list[float | None]] = Field(description="[N][sensors], in the sensors' own units.")
    expected: list[list[float | None]] = Field(description="[N][sensors], what the model expected.")
    spread: list[float | None] = Field(description="[sensors], usual size of the model's error.")
    end: list[Time] = Field(description="[M] of the scored windows.")
    score: list[float | None] = Field(description="[M], 1 = the threshold.")


class SimilarAlert(BaseModel):
    """A past alert with similar evidence."""

    id: int
    asset: str | None
    opened_at: Time
    label: str | None
    label_note: str | None
    similarity: float = Field(description="0 to 1.")


class Explanation(BaseModel):
    """The course of an alert, its sensors, and similar alerts."""

    sentence: str
    clearing: list[str] | None
    similar: list[SimilarAlert]


class AlertDetail(Alert):
    """An alert with its history and its explanation."""

    transitions: list[Transition]
    acts: list[Act]
    incident: Incident | None
    shelves: list[Shelf]
    explanation: Explanation | None = Field(description="null = of another class than process.")


class Health(BaseModel):
    """Figures of alarm health (ISA-18.2, EEMUA 191), per fleet and for all."""

    from_: Time = Field(alias="from")
    to: Time
    fleets: list[Object]
    all: Object


# ---------------------------------------------------------------- maintenance and labels


class Maintenance(BaseModel):
    """A maintenance window."""

    id: int
    fleet: str
    asset: str
    state: str = Field(description="planned, active, over.")
    from_: Time = Field(alias="from")
    to: Time | None
    cron: str | None
    duration_s: float | None
    timezone: str
    next_from: Time | None
    next_to: Time | None
    reason: str
    actor: str
    made_at: Time
    ended_at: Time | None


class IntervalLabel(BaseModel):
    """A label on a time of an asset."""

    id: int
    fleet: str
    asset: str
    from_: Time = Field(alias="from")
    to: Time
    label: str
    note: str
    actor: str
    made_at: Time
    removed_at: Time | None


# ---------------------------------------------------------------- fleets, scores, models


class Fleet(BaseModel):
    """A fleet."""

    fleet: str
    sensors: list[str] | None = Field(description="null = not registered yet.")
    assets: int


class Asset(BaseModel):
    """An asset."""

    asset: str
    fleet: str
    topic: str
    partition: int
    last_start: Time | None = Field(description="Start of the last window.")


class Window(BaseModel):
    """A window with its score."""

    asset: str
    fleet: str
    start: Time
    end: Time
    score: float | None = Field(description="1 = the threshold; null = unscored.")
    verdict: str
    version: str | None
    n_present: int


class Hour(BaseModel):
    """The windows of an asset that end in one hour."""

    asset: str
    fleet: str
    start: Time
    end: Time
    score: float | None = Field(description="The highest.")
    n_windows: int
    n_anomalous: int
    n_unscored: int


class Scores(BaseModel):
    """The scores of an asset: its windows, or its hours where there are more windows than `limit`."""

    by: Literal["windows", "hours"]
    windows: list[Window]
    hours: list[Hour]


class Model(BaseModel):
    """A model version."""

    fleet: str
    asset: None
    version: str
    state: str = Field(description="candidate, shadow, rejected, champion, retired, rolled_back.")
    trained_at: Time
    metrics: Object
    decides_after: Time | None
    derived_from: str | None = Field(description="The trained version with the same weights; null = it was trained.")
    path: str
    aliases: list[str] = Field(description="champion, challenger, previous.")
    gate_verdict: Object | None = Field(description="null = the gate did not judge it.")
    why: str | None = Field(description="The reason of its state in one sentence.")
    rolled_back_at: Time | None
    pruned_at: Time | None = Field(description="Its checkpoint was removed then; null = it is kept.")


class ModelEvent(BaseModel):
    """An event in the life of a model version."""

    at: Time
    fleet: str
    version: str | None
    event: str = Field(description="trained, derived, proposed, shadowed, rejected, promoted, rolled_back, pruned.")
    actor: str
    via: str
    note: str
    detail: Object | None


class ModelDetail(Model):
    """A model version with its card and its events, the newest first."""

    card: Object
    events: list[ModelEvent]


class ModelCheck(BaseModel):
    """A measurement of a version after its training."""

    kind: str = Field(description="drill, drift (of scores), input_drift (of readings), shadow.")
    fleet: str
    version: str
    at: Time
    requested_by: str
    problem: str | None = Field(description="null = it passed.")
    result: Object


class ModelSide(BaseModel):
    """One of two compared versions."""

    version: str
    fleet: str
    state: str
    aliases: list[str]
    trained_at: Time
    why: str | None
    gate_verdict: Object | None


class Difference(BaseModel):
    """One thing in which two versions differ."""

    part: str = Field(description="model, threshold, sensors, data.")
    name: str
    before: str
    after: str
    note: str
    is_large: bool = Field(description="It deserves a look before a promotion.")


class ModelDiff(BaseModel):
    """The difference of two versions by their cards."""

    before: ModelSide
    after: ModelSide
    differences: list[Difference]
    replay: str = Field(description="The command that compares their alerts on history.")


class Moved(BaseModel):
    """A promotion or a roll-back."""

    fleet: str
    version: str = Field(description="The champion now.")
    former: str | None = Field(description="The champion before; null = there was none.")
    decides_after: Time | None = Field(description="It decides windows that end after; null = all.")
    daemons: int = Field(description="Running daemons; 0 = it takes effect when one starts.")


class Preview(BaseModel):
    """The alerts that a budget and a number of confirmations would have raised."""

    budget: str
    confirm: str
    threshold: float | None = Field(description="As a multiple of the present one.")
    alerts: int | None
    alerts_per_asset_week: float | None
    weeks: float | None = Field(description="Asset-weeks.")
    is_present: bool
    is_estimate: bool
    reason: str | None


class Job(BaseModel):
    """A training."""

    id: int
    fleet: str
    kind: str
    state: str = Field(description="queued, running, done, failed.")
    progress: float = Field(description="0 to 1.")
    message: str
    requested_by: str
    version: str | None
    requested_at: Time
    started_at: Time | None
    finished_at: Time | None
    reason: str = Field(description="first, schedule, drift, regime, sensors, operator; empty = of an older release.")
    note: str
    detail: Object | None


# ---------------------------------------------------------------- ingestion


class Partition(BaseModel):
    """A partition of a topic."""

    pipeline: str
    topic: str
    partition: int
    epoch: int
    owner: str
    start_offset: int | None
    next_offset: int
    log_end: int | None
    lag: int | None = Field(description="Records; null = unknown yet.")
    counters: Object
    saved_at: Time | None


class Daemon(BaseModel):
    """A running daemon."""

    owner: str
    pipeline: str
    started_at: Time
    heartbeat_at: Time
    status: str


class Ingestion(BaseModel):
    """The partitions and the daemons that read them."""

    partitions: list[Partition]
    daemons: list[Daemon]


class Quarantined(BaseModel):
    """A record that could not be used."""

    topic: str
    partition: int
    offset: int
    reason: str
    sample: str
    at: Time


class QuarantineCount(BaseModel):
    """Quarantined records with one reason."""

    reason: str
    records: int
    oldest_at: Time
    newest_at: Time
