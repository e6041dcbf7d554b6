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
    Boolean,
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
    false,
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
    Column("link_key", Text),  # base64, signs the links in notifications; NULL = none was made yet
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
    #
    # PostgreSQL: not partitioned by week. It gives little: with 100 million rows of 1,000 assets (two busy cores, 32 MB
    # of shared buffers) a day of an asset is read in 12 to 72 ms, in 99 partitions in 19 to 62 ms, at first reads in up
    # to 0.2 s either way, and commits of 1,000 rows are equally fast. Deleting a week, a million rows, takes 5 s in
    # steps of 0.12 s or less, against 0.03 s. And it costs: a commit that meets a new week would wait for an exclusive
    # lock on the table, event times may lie anywhere between 1970 and 2100, and as each fleet is pruned by its own
    # event time, old partitions would remain, with rows to be deleted one by one.
    PrimaryKeyConstraint("start_us", "asset_id"),
    sqlite_with_rowid=False,
)

# Scores by hour of their windows' ends: long times stay quick to show.
score_hour = Table(
    "score_hour",
    metadata,
    Column("hour_us", BigInteger, nullable=False),  # start of the hour
    Column("asset_id", Integer, nullable=False),
    Column("max_score", REAL),  # NULL = all unscored
    Column("n_windows", Integer, nullable=False),
    Column("n_anomalous", Integer, nullable=False),
    Column("n_unscored", Integer, nullable=False),
    PrimaryKeyConstraint("hour_us", "asset_id"),
    sqlite_with_rowid=False,
)

model_version = Table(
    "model_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Text, nullable=False, unique=True),
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("state", Text, nullable=False),  # candidate, shadow, rejected, champion, retired, rolled_back
    Column("path", Text, nullable=False),  # the checkpoint's folder
    Column("trained_us", BigInteger, nullable=False),  # processing time
    Column("card", Text, nullable=False),  # JSON object
    Column("metrics", Text, nullable=False),  # JSON object
    Column("gate_verdict", Text),  # JSON object, the gate's; NULL = it was not judged
    Column("rolled_back_us", BigInteger),  # processing time; NULL = it never was
    Column("pruned_us", BigInteger),  # processing time of the removal of its checkpoint; NULL = it is kept
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

# Names of versions that move: `champion` decides, `challenger` is the newest that waits for a decision, `previous` is
# the one that a roll-back returns to.
model_alias = Table(
    "model_alias",
    metadata,
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("alias", Text, nullable=False),  # champion, challenger, previous
    Column("version_id", Integer, ForeignKey("model_version.id"), nullable=False),
    Column("moved_us", BigInteger, nullable=False),  # processing time
    PrimaryKeyConstraint("fleet", "alias"),
)

# The history of model versions. Rows are only added, by the transaction that acts.
model_event = Table(
    "model_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),  # processing time
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("version_id", Integer, ForeignKey("model_version.id")),  # NULL = about the fleet
    Column("event", Text, nullable=False),  # types.ModelEvent
    Column("actor", Text, nullable=False),  # a person, or "monitor"
    Column("via", Text, nullable=False),  # cli, console, api, daemon
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("detail", Text),  # JSON object; NULL = none
    Index(None, "fleet", "id"),
    Index(None, "version_id"),
)

# Measurements of a version after its training: drills, tests for drift, comparisons in shadow.
model_check = Table(
    "model_check",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),  # types.ModelCheckKind
    Column("fleet", Text, ForeignKey("fleet.name"), nullable=False),
    Column("version_id", Integer, ForeignKey("model_version.id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),  # processing time
    Column("requested_by", Text, nullable=False),
    Column("problem", Text),  # one sentence; NULL = it passed
    Column("result", Text, nullable=False),  # JSON object
    Index(None, "fleet", "kind", "id"),
)

_OPEN = text("state <> 'closed'")

# Of three classes. `process`: an asset is anomalous. `sensor`: a sensor of an asset is stuck, dead, noisy or out of
# range. `data`: records are missing, rejected, late or misleading. Only an alert of class `process` has an `asset_id`,
# scores, sensors and a version. Queries about assets (budget, training, digests) join `asset`, which excludes others.
# stream/data_alerts.py defines the times of the others.
#
# `state` and what belongs to it are the pipeline's: a function of the records. Answers of operators stand beside them
# and never change them, so a replay gives the same alerts.
alert = Table(
    "alert",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("class", Text, nullable=False, server_default="process"),  # types.AlertClass
    Column("asset_id", Integer, ForeignKey("asset.id")),  # NULL in other classes, like the nullable columns below
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
    Column("label", Text),  # types.Label
    Column("kind", Text),  # not in class process, like all up to `message`: asset_limit, stuck
    Column("topic", Text),
    Column("partition", Integer),
    Column("fleet", Text),  # NULL = all fleets in the partition
    Column("from_offset", BigInteger),  # of the first record concerned
    Column("subject", Text, nullable=False, server_default=text("''")),  # asset, sensor or field; '' = none
    Column("message", Text),  # event and remedy
    Column("asset_name", Text),  # of class sensor, and of class data where it is about one asset
    Column("sensor", Text),  # of class sensor
    Column("clearing", Text),  # JSON list, the fewest sensors whose expected values clear the alarm; NULL = unknown
    Column("incident_id", Integer, ForeignKey("incident.id")),  # NULL = of an alert from before schema 0005
    Column("stored_us", BigInteger),  # processing time of its opening; NULL = of an alert from before schema 0005
    # Answers of operators, up to `suppressed_by`.
    Column("acknowledged_us", BigInteger),  # processing time
    Column("acknowledged_peak", Float),  # `peak_score` then, or when it was closed by hand: worse at a multiple of it
    Column("label_note", Text),
    Column("closed_by_hand_us", BigInteger),  # event time; NULL = not closed by hand
    Column("suppressed_by", Text),  # shelf, maintenance, flapping: nobody is notified; NULL = not suppressed
    Column("is_flapping", Boolean, nullable=False, server_default=false()),  # the asset's alerts come and go
    UniqueConstraint("asset_id", "opened_us"),
    UniqueConstraint("topic", "partition", "kind", "from_offset", "subject"),
    # All that a list filters and sorts by: of a million alerts, any list is found in this index alone, in 0.3 s. The
    # rows with their sensors and messages are four times as large.
    Index(
        "ix_alert_listed",
        "opened_us",
        "class",
        "state",
        "severity",
        "asset_id",
        "fleet",
        "asset_name",
        "topic",
        "label",
        "acknowledged_us",
        "suppressed_by",
        "closed_by_hand_us",
        "peak_score",
        "closed_us",
        "updated_us",
        "id",
    ),
    Index(None, "closed_us"),
    Index("uq_alert_open", "asset_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index(None, "incident_id", "closed_us"),
)

# Alerts of a fleet that overlap in time.
incident = Table(
    "incident",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fleet", Text),  # NULL = of alerts about a whole partition
    Column("opened_us", BigInteger, nullable=False),
    Column("closed_us", BigInteger),  # NULL = an alert of it is open
    Column("severity", Text, nullable=False),  # the highest of its alerts so far
    Column("n_alerts", Integer, nullable=False),
    Index(None, "fleet", "opened_us"),
)

# What happened around an alert: readings, expected values and scores. Chunks in order of time; joined, they are the
# evidence. `store/evidence.py` defines their form.
evidence = Table(
    "evidence",
    metadata,
    Column("alert_id", Integer, ForeignKey("alert.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("n_cells", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("alert_id", "seq"),
)

# Who did what, when and from where. Rows are only added.
act = Table(
    "act",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),  # processing time
    Column("actor", Text, nullable=False),  # a person, or "monitor"
    Column("via", Text, nullable=False),  # cli, console, api, link, daemon
    Column("act", Text, nullable=False),  # types.Act
    Column("alert_id", Integer, ForeignKey("alert.id", ondelete="CASCADE")),  # NULL = not about one alert
    Column("fleet", Text),
    Column("asset", Text),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("detail", Text),  # JSON object; NULL = none
    Index(None, "alert_id"),
)

# Alerts that are not notified until something ends it.
shelf = Table(
    "shelf",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alert_id", Integer, ForeignKey("alert.id", ondelete="CASCADE")),  # NULL = of all alerts that match
    Column("fleet", Text),
    Column("asset", Text),  # name or glob
    Column("sensor", Text),  # only alerts blamed on it
    Column("made_us", BigInteger, nullable=False),  # processing time, like the two below
    Column("until_us", BigInteger, nullable=False),  # at the latest
    Column("ended_us", BigInteger),  # NULL = in force
    Column("until", Text, nullable=False),  # as it was given: 7d, recovered, worse:2x, 5x/1d
    Column("peak_score", Float),  # highest of its open alerts when it was made, for `worse`
    Column("since_alert_id", Integer, nullable=False, server_default="0"),  # later alerts count for 5x/1d
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("ended_why", Text),
    Index("ix_shelf_active", "ended_us"),
)

# Times in which assets are scored, and nobody is notified.
maintenance = Table(
    "maintenance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fleet", Text, nullable=False),  # name or glob
    Column("asset", Text, nullable=False),  # name or glob
    Column("from_us", BigInteger, nullable=False),  # event time; of a recurring one: it begins to recur
    Column("to_us", BigInteger),  # event time; NULL = recurs without an end
    Column("cron", Text),  # start of each occurrence; NULL = once
    Column("duration_us", BigInteger),  # of each occurrence
    Column("timezone", Text, nullable=False, server_default="UTC"),  # of `cron`
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("made_us", BigInteger, nullable=False),  # processing time, like the one below
    Column("ended_us", BigInteger),  # cancelled, or over; NULL = in force
)

# An operator's word on a time of an asset, for training and budget.
interval_label = Table(
    "interval_label",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("asset_id", Integer, ForeignKey("asset.id"), nullable=False),
    Column("from_us", BigInteger, nullable=False),
    Column("to_us", BigInteger, nullable=False),
    Column("label", Text, nullable=False),  # types.Label
    Column("note", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("made_us", BigInteger, nullable=False),  # processing time, like the one below
    Column("removed_us", BigInteger),  # NULL = in force
    Index(None, "asset_id", "from_us"),
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
    Column("kind", Text, nullable=False),  # retrain, drill, judge
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
    Column("reason", Text, nullable=False, server_default=text("''")),  # schedule, drift, operator, …
    Column("note", Text, nullable=False, server_default=text("''")),  # of the person who requested it
    Column("detail", Text),  # JSON object, further facts of the request; NULL = none
    Column("attempts", Integer, nullable=False, server_default="0"),  # starts; a stop of the daemon undoes one
    Index("uq_job_active", "fleet", "kind", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
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
    Column("severity", Text, nullable=False, server_default="warning"),  # quiet hours hold a warning back
    Column("digest_key", Text),  # dedup_key of the digest that is sent instead of it; NULL = none
    Index(
        "ix_outbox_due",
        "next_try_us",
        sqlite_where=text("delivered_us IS NULL"),
        postgresql_where=text("delivered_us IS NULL"),
    ),
)

# The alerts and incidents whose beginning a channel was notified of: their end goes there too.
notified = Table(
    "notified",
    metadata,
    Column("channel", Text, nullable=False),
    Column("subject", Text, nullable=False),  # "alert ID" or "incident ID"
    Column("key", Text, nullable=False),  # of the alert that the notification was about
    Column("suffix", Text, nullable=False),  # of the keys of further steps; '' = the alert began once
    Column("severity", Text, nullable=False),  # the highest that was notified
    Column("at_us", BigInteger, nullable=False),  # processing time
    PrimaryKeyConstraint("subject", "channel"),
)

# Access to the console from other machines.
console_token = Table(
    "console_token",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # of its holder, for the history
    Column("hash", Text, nullable=False),
    Column("scope", Text, nullable=False),  # read, act, admin
    Column("made_us", BigInteger, nullable=False),  # processing time, like all below
    Column("expires_us", BigInteger),  # NULL = never
    Column("revoked_us", BigInteger),  # NULL = valid
)

# Links of notifications that were used: each serves once.
used_link = Table(
    "used_link",
    metadata,
    Column("nonce", Text, primary_key=True),
    Column("used_us", BigInteger, nullable=False),  # processing time
)
