"""Queries of the console: its tokens, and changes in the database."""

from __future__ import annotations

from monitor.store.queries.backend import Backend, Row, with_times


class ConsoleQueries(Backend):
    """Queries of tokens and of changes."""

    def console_tokens(self) -> list[Row]:
        """Return the tokens by name, without their hashes."""
        times = {"made_us": "made_at", "expires_us": "expires_at", "revoked_us": "revoked_at"}
        return [with_times(row, times) for row in self.fetch(_TOKENS)]

    def console_hashes(self) -> list[Row]:
        """Return id, name, scope, hash, expires_us and revoked_us of each token, for the check of a login."""
        return [dict(row) for row in self.fetch(_HASHES)]

    def changes(self) -> dict[str, tuple[object, ...]]:
        """Return for each topic figures that differ after a change: quick in a large database.

        alerts: also the answers of operators. scores: any window. models: also their history, measurements and jobs.
        ingestion: also the quarantine.
        """
        return {topic: tuple(value for row in self.fetch(sql) for value in row.values()) for topic, sql in _CHANGES}


_TOKENS = "SELECT id, name, scope, made_us, expires_us, revoked_us FROM console_token ORDER BY name"
_HASHES = "SELECT id, name, scope, hash, expires_us, revoked_us FROM console_token ORDER BY id"
# Alerts that are not closed are few, and have an index. A closed one changes by an act alone.
_CHANGES = (
    (
        "alerts",
        """
        SELECT (SELECT MAX(id) FROM alert) AS newest, (SELECT MAX(id) FROM act) AS act,
            (SELECT COUNT(*) FROM maintenance) AS maintenance, COUNT(*) AS n_open,
            SUM(updated_us % 1000000007) AS updated, SUM(n_anomalous) AS anomalous
        FROM alert WHERE state <> 'closed'
        """,
    ),
    (
        "scores",
        "SELECT COUNT(*) AS n, SUM(next_offset) AS read, MAX(saved_us) AS saved FROM source_partition",
    ),
    (
        "models",
        """
        SELECT (SELECT MAX(id) FROM model_version) AS newest, (SELECT SUM(activation_seq) FROM fleet) AS active,
            (SELECT MAX(id) FROM job) AS job, (SELECT MAX(id) FROM model_event) AS event,
            (SELECT MAX(id) FROM model_check) AS measured, COUNT(*) AS n_jobs, SUM(progress) AS progress
        FROM job WHERE state IN ('queued', 'running')
        """,
    ),
    (
        "ingestion",
        """
        SELECT (SELECT MAX(id) FROM quarantine) AS quarantined, (SELECT COUNT(*) FROM daemon) AS daemons,
            (SELECT MAX(heartbeat_us) FROM daemon) AS heartbeat, SUM(log_end) AS log_end
        FROM source_partition
        """,
    ),
)
