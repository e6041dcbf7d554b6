"""The subject of an alert of class `data`: the asset, sensor or field that it is about. Existing alerts have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_FORMER_KEY = "uq_alert_topic_partition_kind_from_offset"
_FORMER_COLUMNS = ["topic", "partition", "kind", "from_offset"]
_KEY = f"{_FORMER_KEY}_subject"


def upgrade() -> None:
    with op.batch_alter_table("alert") as table:
        table.add_column(sa.Column("subject", sa.Text(), server_default=sa.text("''"), nullable=False))
        table.drop_constraint(_FORMER_KEY, type_="unique")
        table.create_unique_constraint(_KEY, [*_FORMER_COLUMNS, "subject"])


def downgrade() -> None:
    op.execute("DELETE FROM alert_transition WHERE alert_id IN (SELECT id FROM alert WHERE subject <> '')")
    op.execute("DELETE FROM alert WHERE subject <> ''")
    with op.batch_alter_table("alert") as table:
        table.drop_constraint(_KEY, type_="unique")
        table.create_unique_constraint(_FORMER_KEY, _FORMER_COLUMNS)
        table.drop_column("subject")
