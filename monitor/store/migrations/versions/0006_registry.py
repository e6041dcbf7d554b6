"""The registry: verdicts, aliases, events and measurements of model versions, and reasons of jobs.

Existing versions were not judged. The aliases `champion` and `previous` follow from the activations so far.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CHAMPIONS = """
    INSERT INTO model_alias (fleet, alias, version_id, moved_us)
    SELECT fleet, 'champion', id, trained_us FROM model_version WHERE state = 'champion'
"""
_PREVIOUS = """
    INSERT INTO model_alias (fleet, alias, version_id, moved_us)
    SELECT activation.fleet, 'previous', activation.version_id, model_version.trained_us
    FROM model_activation AS activation JOIN model_version ON model_version.id = activation.version_id
    WHERE activation.from_window_end_us = (
        SELECT MAX(earlier.from_window_end_us) FROM model_activation AS earlier
        JOIN model_alias ON model_alias.fleet = earlier.fleet AND alias = 'champion'
        WHERE earlier.fleet = activation.fleet AND earlier.version_id <> model_alias.version_id
    )
"""


def _index_active_jobs(*columns: str) -> None:
    active = sa.text("state IN ('queued', 'running')")
    op.drop_index("uq_job_active", "job")
    op.create_index("uq_job_active", "job", list(columns), unique=True, sqlite_where=active, postgresql_where=active)


def upgrade() -> None:
    op.create_table(
        "model_alias",
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("moved_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["fleet"], ["fleet.name"], name=op.f("fk_model_alias_fleet")),
        sa.ForeignKeyConstraint(["version_id"], ["model_version.id"], name=op.f("fk_model_alias_version_id")),
        sa.PrimaryKeyConstraint("fleet", "alias", name=op.f("pk_model_alias")),
    )
    op.create_table(
        "model_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["fleet"], ["fleet.name"], name=op.f("fk_model_event_fleet")),
        sa.ForeignKeyConstraint(["version_id"], ["model_version.id"], name=op.f("fk_model_event_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_event")),
    )
    op.create_index("ix_model_event_fleet_id", "model_event", ["fleet", "id"])
    op.create_index("ix_model_event_version_id", "model_event", ["version_id"])
    op.create_table(
        "model_check",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["fleet"], ["fleet.name"], name=op.f("fk_model_check_fleet")),
        sa.ForeignKeyConstraint(["version_id"], ["model_version.id"], name=op.f("fk_model_check_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_check")),
    )
    op.create_index("ix_model_check_fleet_kind_id", "model_check", ["fleet", "kind", "id"])
    with op.batch_alter_table("model_version") as table:
        table.add_column(sa.Column("gate_verdict", sa.Text(), nullable=True))
        table.add_column(sa.Column("rolled_back_us", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("pruned_us", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False))
        table.add_column(sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False))
        table.add_column(sa.Column("detail", sa.Text(), nullable=True))
        table.add_column(sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    _index_active_jobs("fleet", "kind")  # a drill must not block a retraining
    op.execute(_CHAMPIONS)
    op.execute(_PREVIOUS)


def downgrade() -> None:
    op.execute("DELETE FROM job WHERE kind <> 'retrain'")
    _index_active_jobs("fleet")
    with op.batch_alter_table("job") as table:
        for name in ("reason", "note", "detail", "attempts"):
            table.drop_column(name)
    op.execute("UPDATE model_version SET state = 'candidate' WHERE state IN ('shadow', 'rejected')")
    op.execute("UPDATE model_version SET state = 'retired' WHERE state = 'rolled_back'")
    with op.batch_alter_table("model_version") as table:
        for name in ("gate_verdict", "rolled_back_us", "pruned_us"):
            table.drop_column(name)
    for name in ("model_check", "model_event", "model_alias"):
        op.drop_table(name)
