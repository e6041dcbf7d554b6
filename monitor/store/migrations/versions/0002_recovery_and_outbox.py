"""Recovery (digests, snapshots), coordination of daemons (leases), the outbox, and alerts of class `data`.

`last_window.recent` begins empty. Open alerts stay open, but one or two anomalous windows that had not opened an alert
yet are forgotten once.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ONLY_OF_ASSETS: dict[str, sa.types.TypeEngine[Any]] = {
    "asset_id": sa.Integer(),
    "peak_score": sa.Float(),
    "peak_us": sa.BigInteger(),
    "version": sa.Text(),
}
_DATA_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "kind": sa.Text(),
    "topic": sa.Text(),
    "partition": sa.Integer(),
    "fleet": sa.Text(),
    "from_offset": sa.BigInteger(),
    "message": sa.Text(),
}
_DATA_KEY = "uq_alert_topic_partition_kind_from_offset"


def upgrade() -> None:
    op.add_column("fleet", sa.Column("activation_seq", sa.Integer(), server_default="0", nullable=False))
    op.add_column("asset", sa.Column("since_offset", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("source_partition", sa.Column("n_claims", sa.Integer(), server_default="1", nullable=False))
    op.add_column("source_partition", sa.Column("digest_offset", sa.BigInteger(), nullable=True))
    op.add_column("source_partition", sa.Column("state_digest", sa.Text(), nullable=True))
    op.add_column("last_window", sa.Column("recent", sa.Text(), nullable=True))
    op.add_column("last_window", sa.Column("end_us", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("last_window") as table:
        table.drop_column("anomalous_us")
    op.execute("""
        UPDATE last_window SET end_us = (
            SELECT end_us FROM score WHERE score.start_us = last_window.start_us AND asset_id = last_window.asset_id
        )
    """)
    with op.batch_alter_table("alert") as table:
        table.add_column(sa.Column("class", sa.Text(), server_default="process", nullable=False))
        for name, kind in _DATA_COLUMNS.items():
            table.add_column(sa.Column(name, kind, nullable=True))
        for name, kind in _ONLY_OF_ASSETS.items():
            table.alter_column(name, existing_type=kind, nullable=True)
        table.create_unique_constraint(_DATA_KEY, ["topic", "partition", "kind", "from_offset"])
    with op.batch_alter_table("alert_transition") as table:
        table.alter_column("peak_score", existing_type=sa.Float(), nullable=True)
    op.create_index("uq_quarantine_position", "quarantine", ["topic", "partition", "record_offset"], unique=True)
    op.create_table(
        "lane_snapshot",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("at_offset", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "topic", "partition", "fleet", name=op.f("pk_lane_snapshot")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dedup_key", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_us", sa.BigInteger(), nullable=False),
        sa.Column("delivered_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("dedup_key", name=op.f("uq_outbox_dedup_key")),
    )
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["next_try_us"],
        unique=False,
        sqlite_where=sa.text("delivered_us IS NULL"),
        postgresql_where=sa.text("delivered_us IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("outbox")
    op.drop_table("lease")
    op.drop_table("lane_snapshot")
    op.drop_index("uq_quarantine_position", "quarantine")
    op.execute("DELETE FROM alert_transition WHERE alert_id IN (SELECT id FROM alert WHERE class = 'data')")
    op.execute("DELETE FROM alert WHERE class = 'data'")
    with op.batch_alter_table("alert_transition") as table:
        table.alter_column("peak_score", existing_type=sa.Float(), nullable=False)
    with op.batch_alter_table("alert") as table:
        table.drop_constraint(_DATA_KEY, type_="unique")
        for name, kind in _ONLY_OF_ASSETS.items():
            table.alter_column(name, existing_type=kind, nullable=False)
        for name in ("class", *_DATA_COLUMNS):
            table.drop_column(name)
    with op.batch_alter_table("last_window") as table:
        table.drop_column("end_us")
        table.drop_column("recent")
        table.add_column(sa.Column("anomalous_us", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("source_partition") as table:
        table.drop_column("state_digest")
        table.drop_column("digest_offset")
        table.drop_column("n_claims")
    with op.batch_alter_table("asset") as table:
        table.drop_column("since_offset")
    with op.batch_alter_table("fleet") as table:
        table.drop_column("activation_seq")
