"""Queries of the evidence of alerts. NumPy is imported when evidence is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.store.queries.backend import MAX_ID, Backend

if TYPE_CHECKING:
    from monitor.explain import Evidence


class EvidenceQueries(Backend):
    """Queries of the evidence of alerts."""

    def evidence(self, alert_id: int) -> Evidence | None:
        """Return the evidence of an alert. None = there is none: another class, or from before schema 0005."""
        if abs(alert_id) > MAX_ID:
            return None
        from monitor.store.evidence_chunks import joined

        return joined(row["body"] for row in self.fetch(_BODIES, {"id": alert_id}))


_BODIES = "SELECT body FROM evidence WHERE alert_id = :id ORDER BY seq"
