"""Alembic's entry point. The connection, with its transaction, comes from `schema.py`."""

from __future__ import annotations

from alembic import context

from monitor.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column: it rebuilds the table
)
context.run_migrations()
