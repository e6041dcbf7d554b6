"""Every table of the database, once. Times are integer µs since 1970 (`_us`), documents are JSON in TEXT.

`*_us` is event time unless it says otherwise; processing time appears only where a human asks "when did we …":
`saved_us`, `requested_us`, `heartbeat_us` and their like. Nothing in the river reads those back.

Foreign keys stand on the rare tables. `score` and `last_window` have none: on PostgreSQL each would cost a trigger per
row, and ids reach them only from `assets.resolve` and `versions.ids`, inside the same transaction.
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

fleet = Table(
    "fleet",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sensors", Text),  # JSON list in the models' order; NULL = not learnt yet
    Column("activation_seq", Integer, nullable=False, server_default="0"),  # rises with each activation of a version
)

asset = Table(
    "asset",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("topic", Text, nullable=False),  # home: the partition that spoke of it first, and the only one that may
    Column("partition", Integer, nullable=False),
    Column("since_offset", BigInteger, nullable=False, server_default="0"),  # of the record that was its first
    UniqueConstraint("fleet", "name"),
    Index(None, "topic", "partition"),
)

# Beside the asset and not in it: it is rewritten with every save, and narrow rows cost a quarter.
last_window = Table(
    "last_window",
    metadata,
    Column("asset_id", Integer, primary_key=True, autoincrement=False),
    Column("start_us", BigInteger, nullable=False),  # of the asset's last window; pruning may have taken its score
    Column("end_us", BigInteger),  # NULL = from before schema 0002, and pruned
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
    # Time first: a save then appends to the end of one B-tree instead of touching a page per asset (measured: 3 against
    # 7-15 µs a row), and retention cuts off its beginning. One asset's rows are found through the distinct starts: see
    # `assets.restore` and `queries/scores.py`.
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

# Of two classes. `process`: an asset is anomalous. `data`: what should have reached us did not, or more than we take;
# such an alert has no asset, score, sensors or version, and whoever judges assets (budget, training, digests) joins
# `asset` and so does not see it. stream/data_alerts.py says what its times are.
alert = Table(
    "alert",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("class", Text, nullable=False, server_default="process"),  # process, data
    Column("asset_id", Integer, ForeignKey("asset.id")),  # NULL = of class data, like the others that may be NULL
    Column("opened_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # types.AlertState
    Column("severity", Text, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("closed_us", BigInteger),
    Column("peak_score", Float),
    Column("peak_us", BigInteger),
    Column("n_anomalous", Integer, nullable=False),  # windows; of class data: records
    Column("sensors", Text, nullable=False),  # JSON list of {name, share, expected, actual} at the peak
    Column("version", Text),
    Column("acknowledged_by", Text),
    Column("label", Text),
    Column("kind", Text),  # of class data, like all below: asset_limit, records_lost
    Column("topic", Text),
    Column("partition", Integer),
    Column("fleet", Text),  # NULL = whatever is in the partition
    Column("from_offset", BigInteger),  # of the first record that is concerned
    Column("message", Text),  # what happened and what to do
    UniqueConstraint("asset_id", "opened_us"),
    UniqueConstraint("topic", "partition", "kind", "from_offset"),
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
    Column("peak_score", Float),  # so far; NULL = of class data
    Column("n_anomalous", Integer, nullable=False),  # so far
    PrimaryKeyConstraint("alert_id", "seq"),
)

source_partition = Table(
    "source_partition",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),  # rises with each claim; who holds the greatest may save
    Column("owner", Text, nullable=False),
    Column("n_claims", Integer, nullable=False, server_default="1"),  # since the last save
    Column("start_offset", BigInteger),  # where the first run began; NULL = claimed, not begun
    Column("next_offset", BigInteger),  # every record below it is accounted for
    Column("rewind_offset", BigInteger),  # the oldest record an unfinished window still needs
    Column("rewind_state", Text, nullable=False),  # JSON object, the pipeline's own
    Column("digest_offset", BigInteger),  # a rebuild that has come to this offset …
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
    Column("state", LargeBinary, nullable=False),  # the pipeline's own
    PrimaryKeyConstraint("pipeline", "topic", "partition", "fleet"),
)

gap = Table(
    "gap",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("from_offset", BigInteger, nullable=False),
    Column("to_offset", BigInteger, nullable=False),  # first offset that was there again
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
    Column("owner", Text),  # the daemon that took it
    Column("version", Text),  # what came of it
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
    Column("status", Text, nullable=False),  # one sentence for a human
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),  # what only one daemon may do at a time
    Column("holder", Text, nullable=False),  # a daemon's owner
    Column("epoch", Integer, nullable=False),  # rises with each change of hands; work under a former one is fenced
    Column("until_us", BigInteger, nullable=False),  # by the database's own clock
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dedup_key", Text, nullable=False, unique=True),  # channel, alert and step: the same for every try
    Column("channel", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON object, what is sent
    Column("created_us", BigInteger, nullable=False),  # processing time, like the two below
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_try_us", BigInteger, nullable=False),
    Column("delivered_us", BigInteger),  # NULL = not yet
    Column("error", Text),  # what the last try met
    Index(
        "ix_outbox_due",
        "next_try_us",
        sqlite_where=text("delivered_us IS NULL"),
        postgresql_where=text("delivered_us IS NULL"),
    ),
)
