"""Claims and commits of a partition: each record is accounted for exactly once.

`claim` assigns a partition to one owner under a new epoch. `commit` moves its next offset forward, together with all
results of the records below that offset. Both run inside a transaction that the caller commits.

Invariant: the first statement of a commit is a compare-and-set on (epoch, next_offset). All later statements are plain
inserts: a key that exists already is a broken invariant and is never overwritten.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import text

from monitor.errors import ConfigError, Fenced
from monitor.store import assets, evidence, incidents, life, outbox, quarantine, scores, versions
from monitor.store.commit import Commit, Digest, Saved, Snapshot
from monitor.types import Counters, Partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Claim:
    """State of a partition at its claim. It is valid until another claim raises the epoch."""

    epoch: int
    next_offset: int | None
    """Every record below is accounted for. None = no run has started: choose an offset and call `set_start`."""
    rewind_offset: int | None
    """Read again from here, and suppress output below `next_offset`."""
    rewind_state: dict[str, Any]
    counters: Counters
    digest: Digest | None = None
    snapshots: Sequence[Snapshot] = ()
    n_claims: int = 1
    """Owners since the last commit, this one included. Many of them suggest a record that kills the daemon."""


# ---------------------------------------------------------------- claim

_CLAIM = text("""
    INSERT INTO source_partition (pipeline, topic, partition, epoch, owner, rewind_state, counters)
    VALUES (:pipeline, :topic, :partition, 1, :owner, '{}', '{}')
    ON CONFLICT (pipeline, topic, partition) DO UPDATE SET epoch = source_partition.epoch + 1,
        owner = excluded.owner,
        n_claims = source_partition.n_claims + CASE WHEN source_partition.owner = excluded.owner THEN 0 ELSE 1 END
    RETURNING epoch, next_offset, rewind_offset, rewind_state, counters, digest_offset, state_digest, n_claims
""")
_SNAPSHOTS = text("""
    SELECT fleet, at_offset, state FROM lane_snapshot
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
""")


def claim(connection: Connection, pipeline: str, partition: Partition, owner: str) -> Claim:
    """Take the partition over. Once this is committed, commits under any earlier epoch raise Fenced."""
    key = {"pipeline": pipeline, "topic": partition.topic, "partition": partition.number}
    row = connection.execute(_CLAIM, key | {"owner": owner}).one()
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


_SET_START = text("""
    UPDATE source_partition SET start_offset = :offset, next_offset = :offset, rewind_offset = :offset
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
      AND epoch = :epoch AND (next_offset IS NULL OR next_offset = :offset)
""")
_OTHER_PIPELINE = text("""
    SELECT pipeline FROM source_partition
    WHERE topic = :topic AND partition = :partition AND pipeline <> :pipeline AND next_offset IS NOT NULL
    LIMIT 1
""")


def set_start(connection: Connection, pipeline: str, partition: Partition, epoch: int, offset: int) -> None:
    """Store the offset where the first run starts, before the first record is read. Repeating the call is safe.

    Raises Fenced. Raises ConfigError if another pipeline filled this database from the same partition: windows, assets
    and quarantine would clash.
    """
    values = {"pipeline": pipeline, "topic": partition.topic, "partition": partition.number, "epoch": epoch}
    if other := connection.execute(_OTHER_PIPELINE, values).scalar_one_or_none():
        raise ConfigError(
            f'kafka.group: this database holds what group "{other}" found in {partition}; with group "{pipeline}" take '
            "an empty database (store.url)"
        )
    if connection.execute(_SET_START, values | {"offset": offset}).rowcount != 1:
        raise Fenced(f"{partition}: epoch {epoch} is over, or the partition had begun already")


_POSITIONS = text("SELECT pipeline, topic, partition, next_offset FROM source_partition WHERE next_offset IS NOT NULL")


def positions(connection: Connection) -> dict[tuple[str, Partition], int]:
    """Return the next offset of each partition that was started, by pipeline and partition."""
    return {(row[0], Partition(row[1], row[2])): row[3] for row in connection.execute(_POSITIONS)}


# ---------------------------------------------------------------- commit

_MOVE = text("""
    UPDATE source_partition
    SET next_offset = :new_next, rewind_offset = :rewind_offset, rewind_state = :rewind_state, counters = :counters,
        digest_offset = :digest_offset, state_digest = :state_digest, log_end = :log_end, saved_us = :at_us,
        n_claims = 0
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
      AND epoch = :epoch AND next_offset = :old_next
""")
_POSITION = text("""
    SELECT epoch, next_offset, owner FROM source_partition
    WHERE pipeline = :pipeline AND topic = :topic AND partition = :partition
""")
_PUT_SNAPSHOT = text("""
    INSERT INTO lane_snapshot (pipeline, topic, partition, fleet, at_offset, state)
    VALUES (:pipeline, :topic, :partition, :fleet, :at_offset, :state)
    ON CONFLICT (pipeline, topic, partition, fleet) DO UPDATE
    SET at_offset = excluded.at_offset, state = excluded.state
""")
_PUT_MISSING_RANGE = text("""
    INSERT INTO gap (pipeline, topic, partition, from_offset, to_offset, at_us)
    VALUES (:pipeline, :topic, :partition, :from_offset, :to_offset, :at_us)
""")


def commit(connection: Connection, step: Commit) -> Saved:
    """Write one step of a partition, all of it or nothing.

    1. Move the offset. The compare-and-set fails if this owner was fenced or the step is committed already.
    2. For each fleet: register its sensors, check that the models are still those that scored, admit new assets, and
       insert scores, alerts and their evidence.
    3. Insert alerts of class `data`, quarantined records, snapshots and missing ranges.

    Raises Fenced if another owner claimed the partition: roll back, drop its state, claim again. Raises ModelsChanged
    if another daemon activated a version since these windows were scored.
    """
    key = {"pipeline": step.pipeline, "topic": step.partition.topic, "partition": step.partition.number}
    if not _move_offset(connection, key, step):
        return Saved(was_done=True)
    changed = {rows.fleet for rows in step.fleets if rows.alerts} | {change.fleet for change in step.data_alerts}
    if changed:
        incidents.lock(connection, changed)
    in_force = life.InForce(connection, step.at_us)
    for rows in step.fleets:
        ids = rows.asset_ids
        if rows.sensors is not None:
            stored = assets.register_sensors(connection, rows.fleet, rows.sensors)
            if stored != tuple(rows.sensors):
                raise Fenced(f"{step.partition}: another partition taught {rows.fleet} other sensors at the same time")
        if rows.activation_seq is not None and len(rows.asset):
            versions.check_activation_seq(connection, rows.fleet, rows.activation_seq)
        if rows.admitted:
            assets.admit(connection, {int(ids[index]): offset for index, offset in rows.admitted.items()})
        if len(rows.asset):
            scores.insert(connection, rows, versions.ids(connection, rows.version))
        # By time instead of by asset: which alerts make an incident must not depend on how the records were batched.
        for change in sorted(rows.alerts, key=attrgetter("at_us")):
            asset_id = int(ids[change.asset])
            outbox.write_change(connection, step.channels, asset_id, change, step.at_us, rows.worse, in_force)
        if rows.evidence:
            evidence.write(connection, rows)
    for data_change in step.data_alerts:
        outbox.write_data_change(connection, step.channels, data_change, step.at_us, in_force)
    if step.quarantined:
        quarantine.insert(connection, step.quarantined, step.at_us)
    for snapshot in step.snapshots:
        connection.execute(_PUT_SNAPSHOT, key | snapshot._asdict())
    if step.gaps:
        connection.execute(_PUT_MISSING_RANGE, [key | each._asdict() | {"at_us": step.at_us} for each in step.gaps])
    return Saved()


def _move_offset(connection: Connection, key: dict[str, Any], step: Commit) -> bool:
    """Return True if the offset moved, False if this step is committed already. Raises Fenced."""
    values = {
        "epoch": step.epoch,
        "old_next": step.old_next,
        "new_next": step.new_next,
        "rewind_offset": step.rewind_offset,
        "rewind_state": msgspec.json.encode(step.rewind_state).decode(),
        "counters": msgspec.json.encode(asdict(step.counters)).decode(),
        "digest_offset": None if step.digest is None else step.digest.offset,
        "state_digest": None if step.digest is None else step.digest.value,
        "log_end": step.log_end,
        "at_us": step.at_us,
    }
    if connection.execute(_MOVE, key | values).rowcount == 1:
        return True
    row = connection.execute(_POSITION, key).one_or_none()
    # Within an epoch only its owner moves the offset. So an offset at `new_next` was moved there by this step.
    if row is not None and (row.epoch, row.next_offset) == (step.epoch, step.new_next):
        return False
    stands = f"stands at epoch {row.epoch}, offset {row.next_offset}, owner {row.owner}" if row else "is gone"
    raise Fenced(f"{step.partition}: saving epoch {step.epoch}, offset {step.old_next}, but it {stands}")
