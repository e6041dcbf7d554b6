"""Queries that only the console's screens need: counts, and the state of assets and of ingestion at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.store.queries.backend import Backend, Row, with_times

if TYPE_CHECKING:
    from collections.abc import Mapping


class ScreenQueries(Backend):
    """Queries of the console's screens."""

    def open_counts(self) -> list[Row]:
        """Return the open alerts that are not suppressed, counted by class, severity and acknowledgement."""
        return [dict(row) | {"is_acknowledged": bool(row["is_acknowledged"])} for row in self.fetch(_OPEN_COUNTS)]

    def newest_windows(self) -> dict[str, int]:
        """Return the end of the newest window of each fleet that has one, in µs."""
        return {row["fleet"]: row["newest_us"] for row in self.fetch(_NEWEST)}

    def asset_ends(self, fleet: str) -> dict[str, int | None]:
        """Return the end of the last window of each asset of a fleet, in µs. None = it has none yet."""
        return {row["name"]: row["end_us"] for row in self.fetch(_ENDS, {"fleet": fleet})}

    def open_by_asset(self, fleet: str) -> dict[str, Row]:
        """Return, for each asset of a fleet with an open alert of class `process`, its id, state and severity."""
        return {row["asset"]: dict(row) for row in self.fetch(_OPEN_BY_ASSET, {"fleet": fleet})}

    def windows_by_hour(self, since_us: int, until_us: int) -> dict[int, Mapping[str, int]]:
        """Return the windows that ended in each hour of [since, until): all, anomalous and unscored ones.

        Hours in µs, without those that have no window.
        """
        values = {"since": since_us, "until": until_us}
        return {row["hour_us"]: _whole(row) for row in self.fetch(_BY_HOUR, values)}

    def window_counts(self) -> dict[str, Mapping[str, int]]:
        """Return the windows of each fleet so far, and those of them that have a score."""
        return {row["fleet"]: _whole(row) for row in self.fetch(_WINDOWS)}

    def gaps(self, limit: int) -> list[Row]:
        """Return the newest gaps in Kafka's log: offsets that no longer existed when they were due."""
        return [with_times(row, {"at_us": "at"}) for row in self.fetch(_GAPS, {"limit": limit})]


def _whole(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the sums of a row, which PostgreSQL gives as decimals."""
    return {name: int(value) for name, value in row.items() if name.startswith("n")}


_OPEN_COUNTS = """
    SELECT class, severity, CASE WHEN acknowledged_us IS NULL THEN 0 ELSE 1 END AS is_acknowledged, COUNT(*) AS n
    FROM alert WHERE state <> 'closed' AND closed_by_hand_us IS NULL AND suppressed_by IS NULL
    GROUP BY 1, 2, 3
"""
_NEWEST = """
    SELECT fleet, MAX(end_us) AS newest_us FROM last_window JOIN asset ON asset.id = asset_id
    WHERE end_us IS NOT NULL GROUP BY fleet
"""
_ENDS = """
    SELECT name, end_us FROM asset LEFT JOIN last_window ON asset_id = asset.id WHERE fleet = :fleet ORDER BY name
"""
_OPEN_BY_ASSET = """
    SELECT asset.name AS asset, alert.id, state, severity FROM alert JOIN asset ON asset.id = asset_id
    WHERE state <> 'closed' AND closed_by_hand_us IS NULL AND suppressed_by IS NULL AND asset.fleet = :fleet
"""
_BY_HOUR = """
    SELECT hour_us, SUM(n_windows) AS n, SUM(n_anomalous) AS n_anomalous, SUM(n_unscored) AS n_unscored
    FROM score_hour WHERE hour_us >= :since AND hour_us < :until GROUP BY hour_us
"""
_WINDOWS = """
    SELECT fleet, SUM(n_windows) AS n, SUM(n_windows) - SUM(n_unscored) AS n_scored
    FROM score_hour JOIN asset ON asset.id = asset_id GROUP BY fleet
"""
_GAPS = """
    SELECT topic, partition, from_offset, to_offset, to_offset - from_offset AS n, at_us
    FROM gap ORDER BY at_us DESC LIMIT :limit
"""
