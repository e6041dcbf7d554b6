"""Judged alerts as a threshold learns from them, and the labels that are new.

Input: a connection. Output: the alerts of a fleet that are labelled `fault` or `normal`, each with the highest
threshold at which it would have opened. Invariant: only a label that stands counts. Retention changes nothing here:
alerts and their evidence are kept.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

from monitor.store.evidence_chunks import joined
from monitor.types import JudgedAlert

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.explain import Evidence

MAX_JUDGED = 200
"""Judged alerts that a threshold learns from, the newest. Reading the evidence of one takes about 2 ms."""

_JUDGED = text("""
    SELECT alert.id, label, version,
        COALESCE((SELECT MAX(act.id) FROM act WHERE act.alert_id = alert.id AND act = 'label'), 0) AS act_id
    FROM alert JOIN asset ON asset.id = alert.asset_id
    WHERE asset.fleet = :fleet AND class = 'process' AND label IN ('fault', 'normal')
    ORDER BY act_id DESC, alert.id DESC LIMIT :n
""")
_CARDS = text("SELECT version, card FROM model_version WHERE version IN :versions").bindparams(
    bindparam("versions", expanding=True)
)
_EVIDENCE = text("SELECT body FROM evidence WHERE alert_id = :id ORDER BY seq")
_NEWEST_ACT = text("SELECT COALESCE(MAX(id), 0) FROM act")
_LABELS = text("""
    SELECT fleet, COUNT(*) AS n FROM act
    WHERE id > :after AND id <= :until AND act = 'label' AND alert_id IS NOT NULL AND fleet IS NOT NULL
    GROUP BY fleet
""")


class NewLabels(NamedTuple):
    """Labels of alerts that were put, changed or removed."""

    newest: int
    """Id of the newest act."""
    by_fleet: dict[str, int]
    """Their number."""


def new_labels(connection: Connection, after: int) -> NewLabels:
    """Return the labels after an act. Quick where there is no new act, so it may be asked often."""
    newest: int = connection.execute(_NEWEST_ACT).scalar_one()
    if newest <= after:
        return NewLabels(newest, {})
    rows = connection.execute(_LABELS, {"after": after, "until": newest})
    return NewLabels(newest, {row.fleet: row.n for row in rows})


def judged_alerts(connection: Connection, fleet: str, confirm: int, among: int, step_us: int) -> list[JudgedAlert]:
    """Return the newest judged alerts of a fleet, in the order of their labels, with their levels.

    `confirm`, `among`, `step_us`: the present alert policy, and the time between two windows of an asset.
    """
    rows = list(connection.execute(_JUDGED, {"fleet": fleet, "n": MAX_JUDGED}))[::-1]
    named = sorted({row.version for row in rows if row.version})
    cards = connection.execute(_CARDS, {"versions": named}) if named else ()
    factors = {row.version: _factor(row.card) for row in cards}
    found = []
    for row in rows:
        # At 1 it did open, whatever the present policy and the evidence say.
        level = max(1.0, level_of(_evidence(connection, row.id), confirm, among, step_us))
        found.append(JudgedAlert(row.label == "fault", level * factors.get(row.version, 1.0)))
    return found


def level_of(evidence: Evidence | None, confirm: int, among: int, step_us: int) -> float:
    """Return the highest threshold at which an alert would have opened, as a multiple of its own. 0 = unknown.

    It is the largest of the `confirm`-th highest scores of `among` windows. Where a long alert's scores are thinned
    out, it is a lower bound: fewer windows are left in the time of so many.
    """
    if evidence is None:
        return 0.0
    scores, ends = evidence.score.tolist(), evidence.end_us.tolist()
    level, first = 0.0, 0
    for last, end_us in enumerate(ends):
        while end_us - ends[first] >= among * step_us:
            first += 1
        if last - first + 1 >= confirm:
            level = max(level, sorted(scores[first : last + 1])[-confirm])
    return float(level)


def _evidence(connection: Connection, alert_id: int) -> Evidence | None:
    try:
        return joined(row.body for row in connection.execute(_EVIDENCE, {"id": alert_id}))
    except ValueError:  # of a later release
        return None


def _factor(card: str) -> float:
    """Return the factor of a version's threshold by labels. 1.0 = none, or an unreadable card."""
    try:
        return float(json.loads(card)["labels"]["factor"])
    except (KeyError, TypeError, ValueError):
        return 1.0
