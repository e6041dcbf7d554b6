"""Queries of all rows of a range, for files.

Each reads a page at a time, so memory stays constant on both databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.budget import DAY_US
from monitor.store.queries.alerts import AlertQueries
from monitor.store.queries.backend import Row, Where, us
from monitor.store.queries.hours import HourQueries
from monitor.store.queries.scores import LENGTHS, VERDICTS, ScoreQueries, window_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

PAGE = 10_000
ALERT_PAGE = 1_000


class ExportQueries(AlertQueries, ScoreQueries, HourQueries):
    """Queries for files."""

    def export_scores(
        self,
        asset: str | None = None,
        fleet: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: str | None = None,
    ) -> Iterator[Row]:
        """Yield the windows of an asset or of a fleet that end in [since, until), in order of their start.

        The rows are those of `scores`. Raises NotFound if several fleets have an asset of this name.
        """
        where = Where()
        where.add("end_us >= :since", since=us(since))
        where.add("end_us < :until", until=us(until))
        where.add("verdict = :verdict", verdict=None if verdict is None else VERDICTS.index(verdict))
        where.add("score.start_us < :until", until=us(until))
        if asset is None:
            where.add("asset.fleet = :fleet", fleet=fleet)
            yield from self._of_fleet(where)
        elif (found := self.asset_named(asset, fleet)) is not None:
            where.values["asset"] = found["id"]
            yield from self._of_asset(where)

    def _of_fleet(self, where: Where) -> Iterator[Row]:
        """Page through the primary key."""
        where.add("(score.start_us, asset_id) > (:after_us, :after_id)", after_us=self._lowest_us(where), after_id=-1)
        while True:
            rows = list(self.fetch(f"{_WINDOWS} {where} ORDER BY score.start_us, asset_id LIMIT {PAGE}", where.values))
            yield from (window_row(row, row["asset"], row["fleet"]) for row in rows)
            if len(rows) < PAGE:
                return
            where.values |= {"after_us": rows[-1]["start_us"], "after_id": rows[-1]["asset_id"]}

    def _of_asset(self, where: Where) -> Iterator[Row]:
        """Step through the days that have scores. A day's rows of one asset are few."""
        low_us = self._lowest_us(where)
        where.add("instant.start_us BETWEEN :low AND :high", low=low_us, high=low_us)
        while True:
            [row] = self.fetch("SELECT MIN(start_us) AS start_us FROM score WHERE start_us >= :low", {"low": low_us})
            if row["start_us"] is None or row["start_us"] >= where.values.get("until", _LAST_US):
                return
            day = {"low": row["start_us"], "high": row["start_us"] + DAY_US - 1}
            sql = f"{_DAY} {where} ORDER BY instant.start_us"
            found = self.fetch(sql, where.values | day)
            yield from (window_row(row, row["asset"], row["fleet"]) for row in found)
            low_us = day["high"] + 1

    def _lowest_us(self, where: Where) -> int:
        """Return a time before the start of the first window."""
        if "since" not in where.values:
            return -_LAST_US
        [row] = self.fetch("SELECT MAX(end_us - start_us) AS length_us FROM last_window")
        return int(where.values["since"]) - LENGTHS * (row["length_us"] or 0)  # type: ignore[call-overload, no-any-return]

    def export_alerts(self, **filters: Any) -> Iterator[Row]:
        """Yield alerts, newest first. `filters`: those of `alerts`, without `limit` and `sort`."""
        size, seen = ALERT_PAGE, set[int]()
        until = filters.pop("until", None)
        while True:
            page = self.alerts(**filters, until=until, limit=size)
            new = [alert for alert in page if alert["id"] not in seen]
            yield from new
            if len(page) < size:
                return
            last = page[-1]["opened_at"]
            if page[0]["opened_at"] == last and not new:  # all of this moment, and more than a page of them
                size *= 2
                continue
            seen = {alert["id"] for alert in page if alert["opened_at"] == last}
            until = _just_after(last)


def _just_after(moment: str) -> datetime:
    from datetime import datetime, timedelta

    return datetime.fromisoformat(moment) + timedelta(microseconds=1)


_LAST_US = 2**62
_COLUMNS = """
    SELECT score.start_us, asset_id, asset.name AS asset, asset.fleet, end_us, score, verdict, n_present, version
"""
_WINDOWS = f"""
    {_COLUMNS} FROM score JOIN asset ON asset.id = asset_id LEFT JOIN model_version ON model_version.id = version_id
"""
_DAY = f"""
    WITH RECURSIVE instant (start_us) AS (
        SELECT MIN(start_us) FROM score WHERE start_us BETWEEN :low AND :high
        UNION ALL
        SELECT (SELECT MIN(start_us) FROM score WHERE start_us > instant.start_us)
        FROM instant WHERE instant.start_us BETWEEN :low AND :high
    )
    {_COLUMNS} FROM instant JOIN asset ON asset.id = :asset
    JOIN score ON score.start_us = instant.start_us AND asset_id = :asset
    LEFT JOIN model_version ON model_version.id = version_id
"""  # noqa: S608 - a constant
