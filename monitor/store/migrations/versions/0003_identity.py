"""The database's identity: a random name, the consumer group derived from it, and the time of the first start.

A database with records of the group "monitor" keeps that group, the default before this revision. Notifications of an
existing database go on as before: its first start counts as 1970.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = op.create_table(
        "identity",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("consumer_group", sa.Text(), nullable=False),
        sa.Column("first_started_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identity")),
    )
    started = op.get_bind().execute(
        sa.text("SELECT DISTINCT pipeline FROM source_partition WHERE next_offset IS NOT NULL")
    )
    former = set(started.scalars())
    name = secrets.token_hex(4)
    group = "monitor" if "monitor" in former else f"monitor-{name}"
    first_us = 0 if former else None
    op.bulk_insert(identity, [{"name": name, "consumer_group": group, "first_started_us": first_us}])


def downgrade() -> None:
    op.drop_table("identity")
