"""Queries of hourly roll-ups: lanes of a fleet, hours of an asset, and the assets and sensors that stand out."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from monitor.clock import to_us
from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store.queries.backend import Backend, Row, Where, iso, limited, number, us
from monitor.store.queries.scores import LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

HOUR_US = 3_600_000_000
MAX_WINDOWS = 200_000
"""Windows that lanes narrower than an hour are drawn from. Reading them takes 0.2 s. With more windows, lanes show
hours instead."""


class HourQueries(Backend):
    """Queries of hourly roll-ups."""

    def asset_named(self, asset: str, fleet: str | None = None) -> Mapping[str, Any] | None:
        """Return id, name and fleet of an asset. None = unknown.

        Raises NotFound if several fleets have an asset of this name and none was chosen.
        """
        where = Where()
        where.add("name = :asset", asset=normal_name(asset))
        where.add("fleet = :fleet", fleet=fleet)
        found = list(self.fetch(f"SELECT id, name, fleet FROM asset {where} ORDER BY fleet", where.values))  # noqa: S608 - constants
        if len(found) > 1:
            names = ", ".join(row["fleet"] for row in found)
            raise NotFound(f"one asset {asset}: fleets {names} have one each; say which with --fleet")
        return found[0] if found else None

    def score_hours(
        self,
        asset: str,
        fleet: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Row]:
        """Yield an asset's hours that overlap [since, until), in order of time. Hours without a window are left out.

        An hour contains the windows that end in it. Its `score` is the highest, None if all are unscored. Hours outlive
        the scores. Raises NotFound like `scores`.
        """
        found = self.asset_named(asset, fleet)
        if found is None:
            return
        values = {
            "asset": found["id"],
            "lowest": _FIRST_US if since is None else _floor(to_us(since)),
            "highest": _LAST_US if until is None else to_us(until) - 1,
        }
        for row in self.fetch(_HOURS, values):
            yield {
                "asset": found["name"],
                "fleet": found["fleet"],
                "start": iso(row["hour_us"]),
                "end": iso(row["hour_us"] + HOUR_US),
                "score": number(row["max_score"]),
                "n_windows": row["n_windows"],
                "n_anomalous": row["n_anomalous"],
                "n_unscored": row["n_unscored"],
            }

    def lanes(self, fleet: str, since: datetime, until: datetime, columns: int) -> dict[str, list[float | None]]:
        """Return, for each asset of a fleet, the highest score in each of `columns` equal parts of [since, until).

        By name of the asset, in order. None = no scored window ends in that part. Columns narrower than an hour come
        from `score`, unless there are more than `MAX_WINDOWS` windows or retention has deleted them: an hour then fills
        all its columns. Where windows are further apart than columns are wide, each fills those since the one before.
        Raises ValueError if `since` is not before `until`.
        """
        low_us, high_us = to_us(since), to_us(until)
        if low_us >= high_us or columns < 1:
            raise ValueError(f"lanes from {since} to {until} in {columns} columns")
        assets = list(self.fetch("SELECT id, name FROM asset WHERE fleet = :fleet ORDER BY name", {"fleet": fleet}))
        lanes: dict[int, list[float | None]] = {row["id"]: [None] * columns for row in assets}
        width_us = -(-(high_us - low_us) // columns)
        values: Row = {"fleet": fleet, "low": low_us, "high": high_us, "width": width_us}
        if width_us >= HOUR_US:
            for row in self.fetch(_BY_COLUMN, values):
                lanes[row["asset_id"]][row["place"]] = number(row["highest"])
        else:
            self._paint_hours(lanes, values)
            self._paint_windows(lanes, values)
        return {row["name"]: lanes[row["id"]] for row in assets}

    def _paint_hours(self, lanes: Mapping[int, list[float | None]], values: dict[str, Any]) -> None:
        low_us, high_us, width_us = (values[name] for name in ("low", "high", "width"))
        for row in self.fetch(_BY_HOUR, values | {"low": _floor(low_us)}):
            first = max(row["hour_us"], low_us) - low_us
            last = min(row["hour_us"] + HOUR_US, high_us) - 1 - low_us
            for place in range(first // width_us, last // width_us + 1):
                lanes[row["asset_id"]][place] = number(row["max_score"])

    def _paint_windows(self, lanes: Mapping[int, list[float | None]], values: dict[str, Any]) -> None:
        """Replace hours by their windows, where these are few enough and still stored."""
        [extent] = self.fetch(_EXTENT, values)
        if not extent["n_windows"] or extent["n_windows"] > MAX_WINDOWS or extent["length_us"] is None:
            return
        lowest_us = values["low"] - LENGTHS * extent["length_us"]
        found: dict[int, dict[int, float | None]] = {}
        for row in self.fetch(_BY_WINDOW, values | {"lowest": lowest_us}):
            found.setdefault(row["asset_id"], {})[row["place"]] = number(row["highest"])
        for asset_id, highest in found.items():
            # Retention deletes the oldest windows: from the first that is left, all of the asset are there.
            lane, first = lanes[asset_id], min(highest)
            lane[first:] = _filled(highest, first, len(lane), most=max(1, HOUR_US // values["width"]))

    def top_assets(self, fleet: str, since: datetime, until: datetime, limit: int | None = None) -> list[Row]:
        """Return the assets of a fleet by the windows of [since, until): first those with most anomalous windows.

        Counted in whole hours.
        """
        values = {"fleet": fleet, "low": _floor(to_us(since)), "high": to_us(until)}
        return [dict(row) | {"score": number(row["score"])} for row in self.fetch(_TOP + limited(limit), values)]

    def top_sensors(
        self,
        asset: str | None = None,
        fleet: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the sensors that the alerts of an asset, a fleet or all were blamed on in [since, until).

        `name`, `share` (of all contributions at the alerts' peaks, each alert weighted by its anomalous windows) and
        `alerts` (their number). The largest share first.
        """
        share: dict[str, float] = {}
        n_alerts: dict[str, int] = {}
        where = Where()
        where.add("asset.name = :asset", asset=None if asset is None else normal_name(asset))
        where.add("asset.fleet = :fleet", fleet=fleet)
        where.add("opened_us < :until", until=us(until))
        where.add("(closed_us IS NULL OR closed_us >= :since)", since=us(since))
        for row in self.fetch(f"{_BLAMED} {where}", where.values):
            for sensor in json.loads(row["sensors"]):
                name = sensor["name"]
                share[name] = share.get(name, 0.0) + sensor["share"] * max(1, row["n_anomalous"])
                n_alerts[name] = n_alerts.get(name, 0) + 1
        total = sum(share.values()) or 1.0
        ranked = sorted(share, key=lambda name: (-share[name], name))[:limit]
        return [{"name": name, "share": share[name] / total, "alerts": n_alerts[name]} for name in ranked]


def _filled(highest: Mapping[int, float | None], first: int, end: int, most: int) -> list[float | None]:
    """Return the columns [first, end). One without a window has the score of the next, if that one is not late.

    Late is more than the usual step between windows, or `most` columns.
    """
    places = sorted(highest)
    steps = sorted(after - before for before, after in pairwise(places))
    reach = min(steps[len(steps) // 2], most) if steps else 1
    lane = [highest.get(place) for place in range(first, end)]
    for place in places:
        for before in range(place - 1, max(first - 1, place - reach), -1):
            if before in highest:
                break
            lane[before - first] = highest[place]
    return lane


def _floor(time_us: int) -> int:
    """Return the start of the hour."""
    return time_us // HOUR_US * HOUR_US


_FIRST_US, _LAST_US = -(2**62), 2**62
# Hours are stored in order of time, all assets mixed: see `queries/scores.py`.
_HOURS = """
    WITH RECURSIVE instant (hour_us) AS (
        SELECT MIN(hour_us) FROM score_hour WHERE hour_us BETWEEN :lowest AND :highest
        UNION ALL
        SELECT (SELECT MIN(hour_us) FROM score_hour WHERE hour_us > instant.hour_us)
        FROM instant WHERE instant.hour_us BETWEEN :lowest AND :highest
    )
    SELECT instant.hour_us, max_score, n_windows, n_anomalous, n_unscored
    FROM instant JOIN score_hour ON score_hour.hour_us = instant.hour_us AND asset_id = :asset
    WHERE instant.hour_us BETWEEN :lowest AND :highest
    ORDER BY instant.hour_us
"""
_OF_FLEET = "asset_id IN (SELECT id FROM asset WHERE fleet = :fleet)"
_BY_COLUMN = f"""
    SELECT asset_id, (CASE WHEN hour_us < :low THEN 0 ELSE hour_us - :low END) / :width AS place,
        MAX(max_score) AS highest
    FROM score_hour
    WHERE hour_us > :low - {HOUR_US} AND hour_us < :high AND max_score IS NOT NULL AND {_OF_FLEET}
    GROUP BY 1, 2
"""  # noqa: S608 - constants, like below
_BY_HOUR = f"""
    SELECT asset_id, hour_us, max_score FROM score_hour
    WHERE hour_us >= :low AND hour_us < :high AND max_score IS NOT NULL AND {_OF_FLEET}
"""  # noqa: S608
_EXTENT = f"""
    SELECT
        (SELECT SUM(n_windows) FROM score_hour WHERE hour_us > :low - {HOUR_US} AND hour_us < :high AND {_OF_FLEET})
            AS n_windows,
        (SELECT MAX(end_us - start_us) FROM last_window WHERE {_OF_FLEET}) AS length_us
"""  # noqa: S608
_BY_WINDOW = f"""
    SELECT asset_id, (end_us - :low) / :width AS place, MAX(score) AS highest FROM score
    WHERE start_us >= :lowest AND start_us < :high AND end_us >= :low AND end_us < :high
        AND {_OF_FLEET}
    GROUP BY 1, 2
"""  # noqa: S608
_TOP = """
    SELECT asset.name AS asset, asset.fleet, score, n_anomalous, n_windows, n_unscored
    FROM (
        SELECT asset_id, MAX(max_score) AS score, SUM(n_anomalous) AS n_anomalous, SUM(n_windows) AS n_windows,
            SUM(n_unscored) AS n_unscored
        FROM score_hour WHERE hour_us >= :low AND hour_us < :high GROUP BY asset_id
    ) AS hours JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet
    ORDER BY n_anomalous DESC, COALESCE(score, -1) DESC, asset.name
"""
_BLAMED = "SELECT sensors, n_anomalous FROM alert JOIN asset ON asset.id = asset_id"
