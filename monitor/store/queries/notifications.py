"""Queries of notifications: the state of each channel."""

from __future__ import annotations

from monitor.store.queries.backend import Backend, Row, with_times

_ABANDONED_US = 2**62
"""`outbox.ABANDONED_US`, whose package a command that reads need not import."""
_TIMES = {"oldest_waiting_us": "oldest_waiting_at", "last_delivered_us": "last_delivered_at"}
_CHANNELS = """
    SELECT channel AS name,
        SUM(CASE WHEN delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned THEN 1 ELSE 0 END)
            AS waiting,
        SUM(CASE WHEN delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned AND attempts > 0
            THEN 1 ELSE 0 END) AS failing,
        SUM(CASE WHEN delivered_us IS NULL AND next_try_us = :abandoned THEN 1 ELSE 0 END) AS given_up,
        SUM(CASE WHEN delivered_us IS NOT NULL THEN 1 ELSE 0 END) AS delivered,
        MIN(CASE WHEN delivered_us IS NULL AND next_try_us < :abandoned THEN created_us END) AS oldest_waiting_us,
        MAX(delivered_us) AS last_delivered_us
    FROM outbox GROUP BY channel ORDER BY channel
"""
_ERRORS = """
    SELECT channel, error FROM outbox
    WHERE id IN (SELECT MAX(id) FROM outbox WHERE delivered_us IS NULL AND error IS NOT NULL GROUP BY channel)
"""


class NotificationQueries(Backend):
    """Queries of notifications."""

    def channels(self) -> list[Row]:
        """Return the state of each channel that was ever written to. Delivered notifications are kept for a week."""
        errors = {row["channel"]: row["error"] for row in self.fetch(_ERRORS)}
        rows = self.fetch(_CHANNELS, {"abandoned": _ABANDONED_US})
        return [
            with_times({name: int(value) if name in _COUNTS else value for name, value in row.items()}, _TIMES)
            | {"error": errors.get(row["name"])}
            for row in rows
        ]


_COUNTS = ("waiting", "failing", "given_up", "delivered")
