"""Queries of windows and their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.budget import DAY_US
from monitor.clock import to_us
from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store.queries.backend import Backend, Row, Where, iso, limited, number, us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

VERDICTS = ("normal", "anomalous", "unscored")
"""Names by the number of types.Verdict."""
LENGTHS = 4
"""Rows are found by their start. A window that ends after a time starts at most one window length before it. So many
lengths of the latest window leave room for windows of an earlier, longer setting."""


class ScoreQueries(Backend):
    """Queries of scores."""

    def scores(
        self,
        asset: str,
        fleet: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Yield an asset's windows that end in [since, until), in order of time. With a limit, only the newest.

        An unknown asset has none. Raises NotFound if several fleets have an asset of this name and none was chosen.
        """
        where = Where()
        where.add("asset.name = :asset", asset=normal_name(asset))
        where.add("asset.fleet = :fleet", fleet=fleet)
        found = list(self.fetch(f"{_ASSET} {where} ORDER BY fleet", where.values))
        if len(found) > 1:
            names = ", ".join(row["fleet"] for row in found)
            raise NotFound(f"one asset {asset}: fleets {names} have one each; say which with --fleet")
        for row in found:
            if row["last_end_us"] is not None:
                yield from self._scores(row, us(since), us(until), verdict, limit)

    def _scores(
        self,
        asset: Mapping[str, Any],
        since_us: int | None,
        until_us: int | None,
        verdict: str | None,
        limit: int | None,
    ) -> Iterator[Row]:
        lowest = _FIRST_US if since_us is None else since_us - LENGTHS * (asset["last_end_us"] - asset["last_start_us"])
        highest = asset["last_start_us"] if until_us is None else min(until_us, asset["last_start_us"])
        values: Row = {"asset": asset["id"], "lowest": lowest, "highest": highest}
        where = Where()
        where.add("end_us >= :since", since=since_us)
        where.add("end_us < :until", until=until_us)
        where.add("verdict = :verdict", verdict=None if verdict is None else VERDICTS.index(verdict))
        values |= where.values
        rows: Iterable[Mapping[str, Any]]
        if limit is None:
            rows = self.fetch(f"{_FORWARD} {where} ORDER BY instant.start_us", values)
        else:
            rows = reversed(self._newest(where, values, limit))
        for row in rows:
            yield window_row(row, asset["name"], asset["fleet"])

    def _newest(self, where: Where, values: Row, limit: int) -> list[Mapping[str, Any]]:
        """Return the newest windows, the newest first. Both databases sort all instants of a query before its limit."""
        sql = f"{_BACKWARD} {where} ORDER BY instant.start_us DESC{limited(limit)}"
        span_us, lowest = DAY_US, values["lowest"]
        while True:
            low = max(lowest, values["highest"] - span_us)
            found = list(self.fetch(sql, values | {"lowest": low}))
            if len(found) >= limit or low == lowest:
                return found
            span_us *= 8

    def scored_windows(
        self, fleet: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[tuple[str, int, float]]:
        """Yield a fleet's scored windows that end in [since, until): asset, end in µs, score.

        In order of time. Read one day of starts at a time, because PostgreSQL returns the result of a query as a whole.
        """
        for row in self.fetch(_EXTENT):
            if row["first_us"] is None:
                return
            last_us = row["last_us"] if until is None else min(row["last_us"], to_us(until))
            where = Where()
            where.add("asset.fleet = :fleet", fleet=fleet)
            where.add("end_us >= :since", since=us(since))
            where.add("end_us < :until", until=us(until))
            for low_us in range(row["first_us"], last_us + 1, DAY_US):
                day = {"low": low_us, "high": min(low_us + DAY_US, last_us + 1)}
                for window in self.fetch(_SCORED.format(where=where), where.values | day):
                    yield window["asset"], window["end_us"], window["score"]


def window_row(row: Mapping[str, Any], asset: str, fleet: str) -> Row:
    """Return a scored window with the keys of `monitor scores show --json`. `row`: its columns of `score`."""
    return {
        "asset": asset,
        "start": iso(row["start_us"]),
        "end": iso(row["end_us"]),
        "score": number(row["score"]),
        "verdict": VERDICTS[row["verdict"]],
        "version": row["version"],
        "fleet": fleet,
        "n_present": row["n_present"],
    }


_ASSET = """
    SELECT asset.id, asset.name, asset.fleet, score.start_us AS last_start_us, score.end_us AS last_end_us
    FROM asset LEFT JOIN last_window ON last_window.asset_id = asset.id
    LEFT JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
"""
# Scores are stored in order of time, all assets mixed. Step from one distinct start to the next, an index seek each,
# and look up the asset's window there.
_STEP = """
    WITH RECURSIVE instant (start_us) AS (
        SELECT {first}(start_us) FROM score WHERE start_us BETWEEN :lowest AND :highest
        UNION ALL
        SELECT (SELECT {first}(start_us) FROM score WHERE start_us {beyond} instant.start_us)
        FROM instant WHERE instant.start_us BETWEEN :lowest AND :highest
    )
    SELECT instant.start_us, end_us, score, verdict, n_present, version
    FROM instant
    JOIN score ON score.start_us = instant.start_us AND asset_id = :asset
        AND score.start_us BETWEEN :lowest AND :highest
    LEFT JOIN model_version ON model_version.id = version_id
"""
_EXTENT = "SELECT MIN(start_us) AS first_us, MAX(start_us) AS last_us FROM score"
_SCORED = """
    SELECT asset.name AS asset, end_us, score FROM score JOIN asset ON asset.id = asset_id
    {where} AND score IS NOT NULL AND score.start_us >= :low AND score.start_us < :high
    ORDER BY score.start_us, asset_id
"""
_FORWARD = _STEP.format(first="MIN", beyond=">")
_BACKWARD = _STEP.format(first="MAX", beyond="<")
_FIRST_US = -(2**62)
