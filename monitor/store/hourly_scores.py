"""Hourly maxima of a fleet's scores, for the test for drift.

Input: a fleet and a time. Output: the hours since then. Invariant: bounded. Of a large fleet one asset in so many is
read, always the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAX_ASSETS = 200
"""Assets that are read: their median says as much as that of thousands."""

_N_ASSETS = text("SELECT COUNT(*) FROM asset WHERE fleet = :fleet")
_HOURS = text("""
    SELECT hour_us, name, max_score FROM asset JOIN score_hour ON score_hour.asset_id = asset.id
    WHERE fleet = :fleet AND asset.id % :every = 0 AND hour_us >= :from_us ORDER BY hour_us, name
""")


class HourRow(NamedTuple):
    """The highest score of an asset in an hour."""

    hour_us: int
    asset: str
    score: float | None
    """None = all unscored."""


def since(connection: Connection, fleet: str, from_us: int) -> list[HourRow]:
    """Return the hours of the fleet's assets that begin at `from_us` or later, in event time."""
    n_assets = connection.execute(_N_ASSETS, {"fleet": fleet}).scalar_one()
    values = {"fleet": fleet, "every": -(-n_assets // MAX_ASSETS) or 1, "from_us": from_us}
    return [HourRow(*row) for row in connection.execute(_HOURS, values)]
