"""Alerts that operators have judged, by fleet.

Input: a function that runs a SELECT (`burn.Fetch`). Output: numbers of alerts labelled `fault` and `normal`. Invariant:
only a label that stands counts, and `ignore` is no judgement. This module imports nothing slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from monitor.store.burn import fetch_through

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.burn import Fetch

_COUNTS = """
    SELECT COALESCE(asset.fleet, alert.fleet) AS fleet, label, COUNT(*) AS n
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id
    WHERE label IN ('fault', 'normal') GROUP BY COALESCE(asset.fleet, alert.fleet), label
"""


class JudgedCount(NamedTuple):
    """Judged alerts."""

    n_real: int = 0
    """Labelled `fault`."""
    n: int = 0
    """Labelled `fault` or `normal`."""


def counts(fetch: Fetch) -> dict[str | None, JudgedCount]:
    """Return all judged alerts of each fleet that has some."""
    found: dict[str | None, JudgedCount] = {}
    for row in fetch(_COUNTS, {}):
        before = found.get(row["fleet"], JudgedCount())
        n_real = row["n"] if row["label"] == "fault" else 0
        found[row["fleet"]] = JudgedCount(before.n_real + n_real, before.n + row["n"])
    return found


def read_counts(connection: Connection) -> dict[str | None, JudgedCount]:
    """Return the same over the daemon's connection."""
    return counts(fetch_through(connection))
