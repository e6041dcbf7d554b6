"""The tables of the database. Times are integer µs since 1970 (`_us`), documents are JSON in TEXT.

`*_us` is event time unless its comment says otherwise. Processing time (`saved_us`, `requested_us`, `heartbeat_us`, …)
is for operators: the pipeline never reads it back.

Tables with few rows have foreign keys. `score` and `last_window` have none: on PostgreSQL each would cost a trigger per
row. Their ids come only from `assets.register` and `versions.ids`.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row, which the migration writes.
identity = Table(
    "identity",
    metadata,
    Column("name", Text, primary_key=True),  # random
    Column("consumer_group", Text, nullable=False),  # the default of [kafka] group
    Column("first_started_us", BigInteger),  # processing time of the first daemon; NULL = none has started
)

fleet = Table(
    "fleet",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sensors", Text),  # JSON list in the models' order; NULL = not registered yet
    Column("activation_seq", Integer, nullable=False, server_default="0"),  # rises with each activation of a version
)

asset = Table(
    "asset",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("topic", Text, nullable=False),  # of the first partition with a reading of it; others are rejected
    Column("partition", Integer, nullable=False),
    Column("since_offset", BigInteger, nullable=False, server_default="0"),  # of its first accepted record
    UniqueConstraint("fleet", "name"),
    Index(None, "topic", "partition"),
)

# A table of its own, because it is rewritten with every commit: narrow rows cost a quarter.
last_window = Table(
    "last_window",
    metadata,
    Column("asset_id", Integer, primary_key=True, autoincrement=False),
    Column("start_us", BigInteger, nullable=False),  # of the asset's last window; its score may be pruned
    Column("end_us", BigInteger),  # NULL = written before schema 0002, and pruned since
    Column("recent", Text),  # JSON list, its last scored verdicts, end_us * 2 + is_anomalous; NULL = none is anomalous
)

score = Table(
    "score",
    metadata,
    Column("asset_id", Integer, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("score", REAL),  # 1.0 = threshold; NULL = unscored
    Column("verdict", SmallInteger, nullable=False),  # types.Verdict
    Column("version_id", Integer),  # NULL = unscored
    Column("n_present", Integer, nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("last_offset", BigInteger, nullable=False),
    # Time first: a commit then appends to the end of one B-tree instead of touching a page per asset (measured: 3
    # against 7-15 µs a row), and retention deletes from its beginning. One asset's rows are found through the distinct
    # starts: see `queries/scores.py`.
    PrimaryKeyConstraint("start_us", "asset_id"),
    sqlite_with_rowid=False,
)

model_version = Table(
    "model_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Text, nullable=False, unique=True),
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("state", Text, nullable=False),  # candidate, champion, retired
    Column("path", Text, nullable=False),  # the checkpoint's folder
    Column("trained_us", BigInteger, nullable=False),  # processing time
    Column("card", Text, nullable=False),  # JSON object
    Column("metrics", Text, nullable=False),  # JSON object
    Index(
        "uq_model_version_champion",
        "fleet",
        unique=True,
        sqlite_where=text("state = 'champion'"),
        postgresql_where=text("state = 'champion'"),
    ),
)

model_activation = Table(
    "model_activation",
    metadata,
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("from_window_end_us", BigInteger, nullable=False),  # it decides windows that end after this
    Column("version_id", Integer, ForeignKey("model_version.id"), nullable=False),
    PrimaryKeyConstraint("fleet", "from_window_end_us"),
)

_OPEN = text("state <> 'closed'")

# Of two classes. `process`: an asset is anomalous. `data`: records are missing, rejected, late or misleading. An alert
# of class `data` has no asset, score, sensors or version. Queries about assets (budget, training, digests) join `asset`
# and so exclude it. stream/data_alerts.py defines its times.
alert = Table(
    "alert",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("class", Text, nullable=False, server_default="process"),  # process, data
    Column("asset_id", Integer, ForeignKey("asset.id")),  # NULL in class data, like the nullable columns below
    Column("opened_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # types.AlertState
    Column("severity", Text, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("closed_us", BigInteger),
    Column("peak_score", Float),
    Column("peak_us", BigInteger),
    Column("n_anomalous", Integer, nullable=False),  # windows; in class data: records
    Column("sensors", Text, nullable=False),  # JSON list of {name, share, …} at the peak, and `onset`
    Column("version", Text),
    Column("acknowledged_by", Text),
    Column("label", Text),
    Column("kind", Text),  # only in class data, like all below: asset_limit, records_lost
    Column("topic", Text),
    Column("partition", Integer),
    Column("fleet", Text),  # NULL = all fleets in the partition
    Column("from_offset", BigInteger),  # of the first record concerned
    Column("subject", Text, nullable=False, server_default=text("''")),  # asset, sensor or field; '' = none
    Column("message", Text),  # event and remedy
    UniqueConstraint("asset_id", "opened_us"),
    UniqueConstraint("topic", "partition", "kind", "from_offset", "subject"),
    Index(None, "opened_us"),
    Index("uq_alert_open", "asset_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
)

alert_transition = Table(
    "alert_transition",
    metadata,
    Column("alert_id", Integer, ForeignKey("alert.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),  # 1, 2, … within the alert
    Column("state", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("peak_score", Float),  # so far; NULL in class data
    Column("n_anomalous", Integer, nullable=False),  # so far
    PrimaryKeyConstraint("alert_id", "seq"),
)

source_partition = Table(
    "source_partition",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),  # rises with each claim; only the owner of the greatest may commit
    Column("owner", Text, nullable=False),
    Column("n_claims", Integer, nullable=False, server_default="1"),  # since the last commit
    Column("start_offset", BigInteger),  # start of the first run; NULL = claimed, not started
    Column("next_offset", BigInteger),  # every record below it is accounted for
    Column("rewind_offset", BigInteger),  # the oldest record that an unfinished window needs
    Column("rewind_state", Text, nullable=False),  # JSON object, opaque
    Column("digest_offset", BigInteger),  # a rebuild that has reached this offset …
    Column("state_digest", Text),  # … must have this state of its windows; NULL = none written yet
    Column("counters", Text, nullable=False),  # JSON object, types.Counters since start_offset
    Column("log_end", BigInteger),  # end of Kafka's log as last seen; lag = log_end - next_offset
    Column("saved_us", BigInteger),  # processing time
    PrimaryKeyConstraint("pipeline", "topic", "partition"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("record_offset", BigInteger, nullable=False),  # OFFSET is a reserved word
    Column("reason", Text, nullable=False),
    Column("sample", LargeBinary, nullable=False),  # ≤ 1 KiB
    Column("at_us", BigInteger, nullable=False),  # Kafka's record timestamp; 0 = none
    Column("saved_us", BigInteger, nullable=False),  # processing time
    Index("uq_quarantine_position", "topic", "partition", "record_offset", unique=True),
)

lane_snapshot = Table(
    "lane_snapshot",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("fleet", Text, nullable=False),
    Column("at_offset", BigInteger, nullable=False),  # the records below it are in the state
    Column("state", LargeBinary, nullable=False),  # opaque
    PrimaryKeyConstraint("pipeline", "topic", "partition", "fleet"),
)

gap = Table(
    "gap",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("from_offset", BigInteger, nullable=False),
    Column("to_offset", BigInteger, nullable=False),  # first offset that exists again
    Column("at_us", BigInteger, nullable=False),  # processing time
    PrimaryKeyConstraint("pipeline", "topic", "partition", "from_offset"),
)

_ACTIVE = text("state IN ('queued', 'running')")

job = Table(
    "job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),  # retrain
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("state", Text, nullable=False),  # queued, running, done, failed
    Column("progress", Float, nullable=False),  # 0..1
    Column("message", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("owner", Text),  # the daemon that started it
    Column("version", Text),  # the result
    Column("requested_us", BigInteger, nullable=False),  # processing time, like the two below
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Index("uq_job_active", "fleet", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
)

daemon = Table(
    "daemon",
    metadata,
    Column("owner", Text, primary_key=True),  # unique per process
    Column("pipeline", Text, nullable=False),
    Column("started_us", BigInteger, nullable=False),  # processing time
    Column("heartbeat_us", BigInteger, nullable=False),  # processing time
    Column("status", Text, nullable=False),  # one sentence for an operator
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),  # of the exclusive right
    Column("holder", Text, nullable=False),  # a daemon's owner
    Column("epoch", Integer, nullable=False),  # rises with each change of its holder; work under a former one is fenced
    Column("until_us", BigInteger, nullable=False),  # by the database's clock
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dedup_key", Text, nullable=False, unique=True),  # channel, alert and step: the same for every attempt
    Column("channel", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON object, the payload
    Column("created_us", BigInteger, nullable=False),  # processing time, like the two below
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_try_us", BigInteger, nullable=False),
    Column("delivered_us", BigInteger),  # NULL = not yet
    Column("error", Text),  # outcome of the last attempt
    Index(
        "ix_outbox_due",
        "next_try_us",
        sqlite_where=text("delivered_us IS NULL"),
        postgresql_where=text("delivered_us IS NULL"),
    ),
)
