"""A partition's claim and its saves: the protocol that loses nothing and doubles nothing.

`claim` gives a partition to one owner under a new epoch; `save` moves its next offset forward together with all that
the records up to there led to. Both are functions of a connection inside a transaction that the caller commits.

Law: the first statement of a save is the compare-and-set on (epoch, next_offset). Everything after it is plain
inserts: a key that is already there is a broken invariant, never something to overwrite.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import text

from monitor.errors import ConfigError, Fenced
from monitor.store import assets, outbox, quarantine, scores, versions
from monitor.types import Counters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from monitor.store.outbox import Channel
    from monitor.types import AlertChange, DataAlertChange, Float32, Int8, Int32, Int64, Partition, Quarantined


# ---------------------------------------------------------------- what is saved


@dataclass(frozen=True, slots=True)
class FleetRows:
    """What one lane (partition, fleet) adds in one save. N windows, A assets in the lane."""

    fleet: str
    asset_ids: Int32
    """[A], database id by lane index; -1 = an asset of another partition, which has no rows here."""
    asset: Int32
    """[N], lane index."""
    start_us: Int64
    """[N], of the window; (asset, start) is the key."""
    end_us: Int64
    """[N]; all windows of a lane are equally long."""
    score: Float32
    """[N], 1.0 = threshold; NaN = unscored, stored as NULL."""
    verdict: Int8
    """[N], types.Verdict."""
    version: Sequence[str | None]
    """[N], the model version that scored."""
    n_present: Int32
    """[N], cells with at least one sensor."""
    first_offset: Int64
    """[N], smallest offset that fed the window."""
    last_offset: Int64
    """[N]"""
    alerts: Sequence[AlertChange] = ()
    """In order."""
    sensors: Sequence[str] | None = None
    """Learnt just now; None = known already."""
    recent: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Lane index → its last scored verdicts, end_us * 2 + is_anomalous, oldest first; those of `asset` that are not
    here have none that matters.
    """
    let_in: Mapping[int, int] = field(default_factory=dict)
    """Lane index → offset since which an asset is in, for those that came in with this step."""
    activation_seq: int | None = None
    """Which state of the fleet's activations chose the versions; None = whatever holds."""


class Gap(NamedTuple):
    """Offsets that Kafka no longer had when we came for them: [from_offset, to_offset)."""

    from_offset: int
    to_offset: int


class Digest(NamedTuple):
    """What a rebuild that has come to an offset must find."""

    offset: int
    value: str
    """The pipeline's own words."""


class Snapshot(NamedTuple):
    """What is unfinished in a lane that fell silent: its part of a rebuild begins here."""

    fleet: str
    at_offset: int
    """The records below it are in the state."""
    state: bytes | None
    """The pipeline's own; None = as it was saved last."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One step of one partition: the offset moves from `old_next` to `new_next`, and this is what came of it."""

    pipeline: str
    partition: Partition
    epoch: int
    """From the claim."""
    old_next: int
    new_next: int
    """> old_next"""
    rewind_offset: int
    """The oldest record an unfinished window still needs; ≤ new_next."""
    rewind_state: Mapping[str, Any]
    """What the windows cannot rebuild from records (watermarks, …); plain JSON types."""
    counters: Counters
    """Since the partition's start, this step included."""
    at_us: int
    """Processing time, for people."""
    log_end: int | None = None
    """End of Kafka's log as last seen."""
    fleets: Sequence[FleetRows] = ()
    quarantined: Sequence[Quarantined] = ()
    gaps: Sequence[Gap] = ()
    data_alerts: Sequence[DataAlertChange] = ()
    """In order."""
    channels: Sequence[Channel] = ()
    """Who is told of the alerts."""
    digest: Digest | None = None
    """The latest; belongs to this rewind offset."""
    snapshots: Sequence[Snapshot] = ()

    def __post_init__(self) -> None:
        if self.new_next <= self.old_next:  # the offset is what tells a step done from one not done
            raise ValueError(f"a save must move the offset: {self.old_next} → {self.new_next}")


@dataclass(frozen=True, slots=True)
class Saved:
    """What the database made of a Commit."""

    was_done: bool = False
    """The answer to an earlier COMMIT of this very step was lost; it had succeeded."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition, ours until somebody claims it with a greater epoch."""

    epoch: int
    next_offset: int | None
    """Every record below is accounted for; None = never begun: choose, and call `begin`."""
    rewind_offset: int | None
    """Read again from here, with output suppressed below `next_offset`."""
    rewind_state: dict[str, Any]
    counters: Counters
    digest: Digest | None = None
    snapshots: Sequence[Snapshot] = ()
    n_claims: int = 1
    """With this one, since the last save: many who saved nothing may have died of what comes next."""


# ---------------------------------------------------------------- claim

_CLAIM = text("""
    INSERT INTO source_partition (pipeline, topic, partition, epoch, owner, rewind_state, counters)
    VALUES (:pipeline, :topic, :partition, 1, :owner, '{}', '{}')
    ON CONFLICT (pipeline, topic, partition) DO UPDATE SET epoch = source_partition.epoch + 1,
        owner = excluded.owner,
        n_claims = source_partition.n_claims + CASE WHEN source_partition.owner = excluded.owner THEN 0 ELSE 1 END
    RETURNING epoch, next_offset, rewind_offset, rewind_state, counters, digest_offset, state_digest,
        n_claims
""")

_SNAPSHOTS = text("""
    SELECT fleet, at_offset, state FROM lane_snapshot
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
""")
_FORGET_SNAPSHOTS = text("""
    DELETE FROM lane_snapshot
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition AND at_offset < :rewind_offset
""")


def claim(connection: Connection, pipeline: str, partition: Partition, owner: str) -> Claim:
    """Take the partition over: from the commit on, saves under any earlier epoch are Fenced."""
    key = {"pipeline": pipeline, "topic": partition.topic, "partition": partition.number}
    row = connection.execute(_CLAIM, key | {"owner": owner}).one()
    # A lane that went on since has no use for it: its windows are rebuilt from records.
    connection.execute(_FORGET_SNAPSHOTS, key | {"rewind_offset": row.rewind_offset or 0})
    return Claim(
        epoch=row.epoch,
        next_offset=row.next_offset,
        rewind_offset=row.rewind_offset,
        rewind_state=msgspec.json.decode(row.rewind_state),
        counters=Counters(**msgspec.json.decode(row.counters)),
        digest=None if row.state_digest is None else Digest(row.digest_offset, row.state_digest),
        snapshots=tuple(Snapshot(*each) for each in connection.execute(_SNAPSHOTS, key)),
        n_claims=row.n_claims,
    )


_BEGIN = text("""
    UPDATE source_partition SET start_offset = :offset, next_offset = :offset, rewind_offset = :offset
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
      AND epoch = :epoch AND (next_offset IS NULL OR next_offset = :offset)
""")


_BEGUN_BY = text("""
    SELECT pipeline FROM source_partition
    WHERE topic = :topic AND partition = :partition AND pipeline <> :pipeline AND next_offset IS NOT NULL
    LIMIT 1
""")


def begin(connection: Connection, pipeline: str, partition: Partition, epoch: int, offset: int) -> None:
    """Fix where the first run starts, before the first record is read; again is no harm. Raises Fenced, and ConfigError
    where another pipeline filled this database from the same partition: windows, assets and quarantine would clash.
    """
    values = {"pipeline": pipeline, "topic": partition.topic, "partition": partition.number, "epoch": epoch}
    if other := connection.execute(_BEGUN_BY, values).scalar_one_or_none():
        raise ConfigError(
            f'kafka.group: this database holds what group "{other}" found in {partition}; with group "{pipeline}" take '
            "an empty database (store.url)"
        )
    if connection.execute(_BEGIN, values | {"offset": offset}).rowcount != 1:
        raise Fenced(f"{partition}: epoch {epoch} is over, or the partition had begun already")


# ---------------------------------------------------------------- save

_MOVE = text("""
    UPDATE source_partition
    SET next_offset = :new_next, rewind_offset = :rewind_offset, rewind_state = :rewind_state, counters = :counters,
        digest_offset = :digest_offset, state_digest = :state_digest, log_end = :log_end, saved_us = :at_us,
        n_claims = 0
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
      AND epoch = :epoch AND next_offset = :old_next
""")

_WHERE_IT_STANDS = text("""
    SELECT epoch, next_offset, owner FROM source_partition
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
""")

_SNAPSHOT = text("""
    INSERT INTO lane_snapshot (pipeline, topic, partition, fleet, at_offset, state)
    VALUES (:pipeline, :topic, :partition, :fleet, :at_offset, :state)
    ON CONFLICT (pipeline, topic, partition, fleet) DO UPDATE
    SET at_offset = excluded.at_offset, state = excluded.state
""")

_STILL = text("""
    UPDATE lane_snapshot SET at_offset = :at_offset
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition AND fleet = :fleet
""")

_GAP = text("""
    INSERT INTO gap (pipeline, topic, partition, from_offset, to_offset, at_us)
    VALUES (:pipeline, :topic, :partition, :from_offset, :to_offset, :at_us)
""")


def save(connection: Connection, commit: Commit) -> Saved:
    """Write one step of a partition, all of it or nothing.

    Raises Fenced when the partition is no longer ours: roll back, drop its state, claim again; ModelsChanged when
    another daemon activated a version since these windows were scored. Saving a step that is
    committed already changes nothing and says so (`was_done`): within an epoch only its owner moves the offset, so
    finding it where we wanted it means that we put it there.
    """
    key = {"pipeline": commit.pipeline, "topic": commit.partition.topic, "partition": commit.partition.number}
    moved = connection.execute(
        _MOVE,
        key
        | {
            "epoch": commit.epoch,
            "old_next": commit.old_next,
            "new_next": commit.new_next,
            "rewind_offset": commit.rewind_offset,
            "rewind_state": msgspec.json.encode(commit.rewind_state).decode(),
            "counters": msgspec.json.encode(asdict(commit.counters)).decode(),
            "digest_offset": None if commit.digest is None else commit.digest.offset,
            "state_digest": None if commit.digest is None else commit.digest.value,
            "log_end": commit.log_end,
            "at_us": commit.at_us,
        },
    ).rowcount
    if moved != 1:
        row = connection.execute(_WHERE_IT_STANDS, key).one_or_none()
        if row is None or (row.epoch, row.next_offset) != (commit.epoch, commit.new_next):
            stands = f"stands at epoch {row.epoch}, offset {row.next_offset}, owner {row.owner}" if row else "is gone"
            raise Fenced(f"{commit.partition}: saving epoch {commit.epoch}, offset {commit.old_next}, but it {stands}")
        return Saved(was_done=True)

    for rows in commit.fleets:
        if rows.sensors is not None and assets.learn(connection, rows.fleet, rows.sensors) != tuple(rows.sensors):
            raise Fenced(f"{commit.partition}: another partition taught {rows.fleet} other sensors at the same time")
        if rows.activation_seq is not None and len(rows.asset):
            versions.expect_seq(connection, rows.fleet, rows.activation_seq)
        ids = rows.asset_ids
        if rows.let_in:
            assets.let_in(connection, {int(ids[index]): since for index, since in rows.let_in.items()})
        if len(rows.asset):
            recent = {int(ids[index]): verdicts for index, verdicts in rows.recent.items()}
            scores.insert(connection, ids[rows.asset], versions.ids(connection, rows.version), rows, recent)
        for change in rows.alerts:
            outbox.apply(connection, commit.channels, int(ids[change.asset]), change, commit.at_us)
    for data_change in commit.data_alerts:
        outbox.apply_data(connection, commit.channels, data_change, commit.at_us)
    if commit.quarantined:
        quarantine.insert(connection, commit.quarantined, commit.at_us)
    for snapshot in commit.snapshots:
        connection.execute(_STILL if snapshot.state is None else _SNAPSHOT, key | snapshot._asdict())
    if commit.gaps:
        connection.execute(_GAP, [key | gap._asdict() | {"at_us": commit.at_us} for gap in commit.gaps])
    return Saved()
