"""Queries of the evidence of alerts. NumPy is imported when evidence is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monitor.store.queries.backend import MAX_ID, Backend, Row, iso, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.explain import Evidence

SEARCHED = 300
"""Alerts among which similar ones are sought: the newest of the fleet."""


class EvidenceQueries(Backend):
    """Queries of the evidence of alerts."""

    def evidence(self, alert_id: int) -> Evidence | None:
        """Return the evidence of an alert. None = there is none: another class, or from before schema 0005."""
        if abs(alert_id) > MAX_ID:
            return None
        chunks = [row["body"] for row in self.fetch(CHUNKS, {"id": alert_id})]
        cards = [row["card"] for row in self.fetch(CARD, {"id": alert_id})] if chunks else []
        return evidence_of(chunks, cards[0] if cards else None)

    def similar(self, alert_id: int, n: int = 5) -> list[Row]:
        """Return the alerts with the most similar evidence, of the newest of the same fleet, with their labels.

        `similarity`: 0..1. Empty = the alert has no evidence, or there is no other.
        """
        from monitor.explain import signature, similar_signatures

        own = self.evidence(alert_id)
        if own is None:
            return []
        wanted = signature(own)
        chunks: dict[int, list[bytes]] = {}
        for row in self.fetch(_OTHER_BODIES, {"id": alert_id, "limit": SEARCHED}):
            chunks.setdefault(row["alert_id"], []).append(row["body"])
        spreads: dict[str, dict[str, float]] = {}
        found = []
        for row in self.fetch(_OTHERS, {"id": alert_id, "limit": SEARCHED}):
            version = row["version"]
            if version not in spreads:
                spreads[version] = _spread(row["card"])
            other = _read(chunks.get(row["id"], []), spreads[version])
            if other is not None:
                found.append((similar_signatures(wanted, signature(other)), row))
        found.sort(key=lambda each: (-each[0], -each[1]["opened_us"], each[1]["id"]))
        return [
            {
                "id": row["id"],
                "asset": row["asset"],
                "opened_at": iso(row["opened_us"]),
                "label": row["label"],
                "label_note": row["label_note"],
                "similarity": round(alike, 3),
            }
            for alike, row in found[:n]
        ]


def evidence_of(chunks: list[Any], card: str | None) -> Evidence | None:
    """Decode the evidence of an alert. `chunks`, `card`: the results of `CHUNKS` and `CARD`. None = there is none."""
    return _read(chunks, _spread(card))


def arrays_of(evidence: Evidence) -> Row:
    """Return evidence as lists with ISO times, for JSON. NaN is None."""
    from monitor.explain import bands

    def rows(values: Any) -> list[list[float | None]]:
        return [[number(each) for each in row] for row in values.tolist()]

    return {
        "sensors": list(evidence.sensors),
        "at": [iso(at_us) for at_us in evidence.cell_us.tolist()],
        "actual": rows(evidence.values),
        "expected": rows(evidence.expected),
        "spread": [number(each) for each in bands(evidence).spread.tolist()],
        "end": [iso(end_us) for end_us in evidence.end_us.tolist()],
        "score": [number(each) for each in evidence.score.tolist()],
    }


def _read(chunks: list[Any], spread: Mapping[str, float]) -> Evidence | None:
    import numpy as np

    from monitor.store.evidence_chunks import joined

    evidence = joined(chunks)
    if evidence is None or not spread:
        return evidence
    of_sensors = [spread.get(name, np.nan) for name in evidence.sensors]
    return replace(evidence, spread=np.array(of_sensors, dtype=np.float32))


def _spread(card: str | None) -> dict[str, float]:
    """Return the usual size of a model's errors by sensor. Empty = the card of an older release."""
    found: dict[str, float] = {} if card is None else json.loads(card).get("spread") or {}
    return found


CHUNKS = "SELECT body FROM evidence WHERE alert_id = :id ORDER BY seq"
CARD = """
    SELECT card FROM alert JOIN model_version ON model_version.version = alert.version WHERE alert.id = :id
"""
_NEWEST = """
    SELECT other.id FROM alert AS other JOIN asset AS its ON its.id = other.asset_id
    WHERE its.fleet = (SELECT asset.fleet FROM alert JOIN asset ON asset.id = alert.asset_id WHERE alert.id = :id)
        AND other.id <> :id AND EXISTS (SELECT 1 FROM evidence WHERE evidence.alert_id = other.id)
    ORDER BY other.opened_us DESC LIMIT :limit
"""
_OTHERS = f"""
    SELECT alert.id, asset.name AS asset, opened_us, label, label_note, alert.version, card FROM alert
    JOIN asset ON asset.id = alert.asset_id
    LEFT JOIN model_version ON model_version.version = alert.version
    WHERE alert.id IN ({_NEWEST})
"""  # noqa: S608 - constants
_OTHER_BODIES = f"SELECT alert_id, body FROM evidence WHERE alert_id IN ({_NEWEST}) ORDER BY alert_id, seq"  # noqa: S608
