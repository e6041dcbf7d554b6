"""Answers of operators, incidents, evidence, hourly scores, and access to the console. Existing alerts have none."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEW_OF_ALERT = (
    "asset_name",
    "sensor",
    "clearing",
    "incident_id",
    "stored_us",
    "acknowledged_us",
    "acknowledged_peak",
    "label_note",
    "closed_by_hand_us",
    "suppressed_by",
    "is_flapping",
)
_LISTED = (
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
)

# An hour contains the windows that end in it. % has the sign of its left side, in both databases.
_HOUR = "end_us - (end_us % 3600000000 + 3600000000) % 3600000000"
_HOURS_OF_STORED_SCORES = f"""
    INSERT INTO score_hour (hour_us, asset_id, max_score, n_windows, n_anomalous, n_unscored)
    SELECT {_HOUR}, asset_id, MAX(score), COUNT(*), SUM(CASE WHEN verdict = 1 THEN 1 ELSE 0 END),
        SUM(CASE WHEN verdict = 2 THEN 1 ELSE 0 END)
    FROM score GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - constants


def upgrade() -> None:
    op.create_table(
        "console_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_token")),
        sa.UniqueConstraint("name", name=op.f("uq_console_token_name")),
    )
    op.create_table(
        "incident",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=True),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("n_alerts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    op.create_index("ix_incident_fleet_opened_us", "incident", ["fleet", "opened_us"])
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("to_us", sa.BigInteger(), nullable=True),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("duration_us", sa.BigInteger(), nullable=True),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance")),
    )
    op.create_table(
        "score_hour",
        sa.Column("hour_us", sa.BigInteger(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("max_score", sa.REAL(), nullable=True),
        sa.Column("n_windows", sa.Integer(), nullable=False),
        sa.Column("n_anomalous", sa.Integer(), nullable=False),
        sa.Column("n_unscored", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour_us", "asset_id", name=op.f("pk_score_hour")),
        sqlite_with_rowid=False,
    )
    op.execute(_HOURS_OF_STORED_SCORES)
    op.create_table(
        "used_link",
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("used_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_used_link")),
    )
    op.create_table(
        "interval_label",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("to_us", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("removed_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_interval_label_asset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interval_label")),
    )
    op.create_index("ix_interval_label_asset_id_from_us", "interval_label", ["asset_id", "from_us"])
    op.create_table(
        "act",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=True),
        sa.Column("fleet", sa.Text(), nullable=True),
        sa.Column("asset", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["alert_id"], ["alert.id"], name=op.f("fk_act_alert_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_act")),
    )
    op.create_index("ix_act_alert_id", "act", ["alert_id"])
    op.create_table(
        "evidence",
        sa.Column("alert_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("n_cells", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alert.id"], name=op.f("fk_evidence_alert_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("alert_id", "seq", name=op.f("pk_evidence")),
    )
    op.create_table(
        "shelf",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=True),
        sa.Column("fleet", sa.Text(), nullable=True),
        sa.Column("asset", sa.Text(), nullable=True),
        sa.Column("sensor", sa.Text(), nullable=True),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("until", sa.Text(), nullable=False),
        sa.Column("peak_score", sa.Float(), nullable=True),
        sa.Column("since_alert_id", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("ended_why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["alert_id"], ["alert.id"], name=op.f("fk_shelf_alert_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shelf")),
    )
    op.create_index("ix_shelf_active", "shelf", ["ended_us"])
    with op.batch_alter_table("alert") as table:
        table.add_column(sa.Column("asset_name", sa.Text(), nullable=True))
        table.add_column(sa.Column("sensor", sa.Text(), nullable=True))
        table.add_column(sa.Column("clearing", sa.Text(), nullable=True))
        table.add_column(sa.Column("incident_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("stored_us", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("acknowledged_us", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("acknowledged_peak", sa.Float(), nullable=True))
        table.add_column(sa.Column("label_note", sa.Text(), nullable=True))
        table.add_column(sa.Column("closed_by_hand_us", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("suppressed_by", sa.Text(), nullable=True))
        table.add_column(sa.Column("is_flapping", sa.Boolean(), server_default=sa.false(), nullable=False))
        table.create_index("ix_alert_incident_id_closed_us", ["incident_id", "closed_us"])
        table.create_index("ix_alert_closed_us", ["closed_us"])
        table.drop_index("ix_alert_opened_us")
        table.create_index("ix_alert_listed", list(_LISTED))
        table.create_foreign_key(op.f("fk_alert_incident_id"), "incident", ["incident_id"], ["id"])
    with op.batch_alter_table("identity") as table:
        table.add_column(sa.Column("link_key", sa.Text(), nullable=True))
    op.create_table(
        "notified",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "channel", name=op.f("pk_notified")),
    )
    with op.batch_alter_table("outbox") as table:
        table.add_column(sa.Column("severity", sa.Text(), server_default="warning", nullable=False))
        table.add_column(sa.Column("digest_key", sa.Text(), nullable=True))
    _remember_notified()


def _remember_notified() -> None:
    """Open alerts that were notified at their opening: their end will be too. Their id is in the payload."""
    connection = op.get_bind()
    opened = connection.execute(
        sa.text("""
            SELECT channel, dedup_key, body, created_us FROM outbox
            WHERE dedup_key LIKE :firing OR dedup_key LIKE :critical ORDER BY id
        """),
        {"firing": "%:firing", "critical": "%:critical"},
    ).all()
    alerts = connection.execute(sa.text("SELECT id, severity FROM alert WHERE state <> 'closed'")).all()
    is_open = {row.id: row.severity for row in alerts}
    rows: dict[tuple[str, int], tuple[str, str, int]] = {}
    for channel, dedup_key, body, created_us in opened:
        alert_id = json.loads(body)["id"]
        if alert_id in is_open:
            key = dedup_key.removeprefix(f"{channel}:").rpartition(":")[0]
            rows[channel, alert_id] = (key, is_open[alert_id], created_us)
    for (channel, alert_id), (key, severity, at_us) in rows.items():
        connection.execute(
            sa.text("""
                INSERT INTO notified (channel, subject, key, suffix, severity, at_us)
                VALUES (:channel, :subject, :key, '', :severity, :at_us)
            """),
            {"channel": channel, "subject": f"alert {alert_id}", "key": key, "severity": severity, "at_us": at_us},
        )


def downgrade() -> None:
    op.execute("DELETE FROM alert_transition WHERE alert_id IN (SELECT id FROM alert WHERE class = 'sensor')")
    for name in ("evidence", "act", "shelf"):  # they refer to alerts
        op.drop_table(name)
    op.execute("DELETE FROM alert WHERE class = 'sensor'")
    with op.batch_alter_table("outbox") as table:
        table.drop_column("digest_key")
        table.drop_column("severity")
    with op.batch_alter_table("identity") as table:
        table.drop_column("link_key")
    with op.batch_alter_table("alert") as table:
        table.drop_constraint("fk_alert_incident_id", type_="foreignkey")
        table.drop_index("ix_alert_incident_id_closed_us")
        table.drop_index("ix_alert_closed_us")
        table.drop_index("ix_alert_listed")
        table.create_index("ix_alert_opened_us", ["opened_us"])
        for name in _NEW_OF_ALERT:
            table.drop_column(name)
    for name in ("incident", "maintenance", "interval_label", "score_hour", "console_token", "used_link", "notified"):
        op.drop_table(name)
