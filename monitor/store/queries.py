"""What operators ask, as textual SQL that both databases understand. Plain dictionaries leave, ready for `--json`.

Times leave as ISO 8601 text in UTC. The contracts of the command line (names and meaning of the keys) live here; keys
may be added, never renamed. Imports nothing heavy: this is on the way of every read command.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from monitor.clock import from_us, to_us
from monitor.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

Row = dict[str, Any]

VERDICTS = ("normal", "anomalous", "unscored")
"""By the number of types.Verdict."""


class Reader(ABC):
    """A database, open for reading. A context manager."""

    @abstractmethod
    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterable[Mapping[str, Any]]:
        """Run one SELECT; `:name` stands for a value. Raises StoreUnavailable, SchemaMismatch."""

    @abstractmethod
    def glob(self, column: str, value: str) -> str:
        """Return the condition that `column` matches the pattern bound as `:value` (see `pattern`)."""

    @abstractmethod
    def pattern(self, glob: str) -> str:
        """Translate `*` and `?` into what `glob` compares with."""

    @abstractmethod
    def close(self) -> None:
        """Close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------ alerts

    def alerts(
        self,
        *,
        fleet: str | None = None,
        asset: str | None = None,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return alerts opened in [since, until), newest first. `asset` may be a pattern; state "open": not closed."""
        where = _Where()
        where.add("asset.fleet = :fleet", fleet=fleet)
        if asset is not None:
            where.add(self.glob("asset.name", "asset"), asset=self.pattern(asset))
        if state == "open":
            where.add("alert.state <> :closed", closed="closed")
        else:
            where.add("alert.state = :state", state=state)
        where.add("opened_us >= :since", since=_us(since))
        where.add("opened_us < :until", until=_us(until))
        sql = f"{_ALERTS} {where} ORDER BY opened_us DESC, alert.id DESC{_limit(limit)}"
        return [_alert(row) for row in self.fetch(sql, where.values)]

    def alert(self, alert_id: int) -> Row:
        """Return one alert with its transitions. Raises NotFound."""
        for row in self.fetch(f"{_ALERTS} WHERE alert.id = :id", {"id": alert_id}):
            steps = self.fetch(_TRANSITIONS, {"id": alert_id})
            return _alert(row) | {
                "transitions": [
                    {
                        "state": step["state"],
                        "severity": step["severity"],
                        "at": iso(step["at_us"]),
                        "peak_score": number(step["peak_score"]),
                        "n_anomalous": step["n_anomalous"],
                    }
                    for step in steps
                ]
            }
        raise NotFound(f"alert {alert_id}")

    # ------------------------------------------------------------------ scores

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
        """Yield an asset's windows that end in [since, until), in order of time; with a limit, the newest ones.

        Raises NotFound when several fleets have an asset of this name and none was chosen. An unknown asset has none.
        """
        where = _Where()
        where.add("asset.name = :asset", asset=asset)
        where.add("asset.fleet = :fleet", fleet=fleet)
        found = list(self.fetch(f"{_ASSET} {where} ORDER BY fleet", where.values))
        if len(found) > 1:
            names = ", ".join(row["fleet"] for row in found)
            raise NotFound(f"one asset {asset}: fleets {names} have one each; say which with --fleet")
        for row in found:
            if row["last_end_us"] is not None:
                yield from self._scores(row, _us(since), _us(until), verdict, limit)

    def _scores(
        self,
        asset: Mapping[str, Any],
        since_us: int | None,
        until_us: int | None,
        verdict: str | None,
        limit: int | None,
    ) -> Iterator[Row]:
        # Rows are found by their start. A window that ends after `since` starts at most a window's length before it;
        # four lengths of today's window leave room for a window that was longer once.
        lowest = _FIRST_US if since_us is None else since_us - 4 * (asset["last_end_us"] - asset["last_start_us"])
        highest = asset["last_start_us"] if until_us is None else min(until_us, asset["last_start_us"])
        values: Row = {"asset": asset["id"], "lowest": lowest, "highest": highest}
        where = _Where()
        where.add("end_us >= :since", since=since_us)
        where.add("end_us < :until", until=until_us)
        where.add("verdict = :verdict", verdict=None if verdict is None else VERDICTS.index(verdict))
        values |= where.values
        rows: Iterable[Mapping[str, Any]]
        if limit is None:
            rows = self.fetch(f"{_FORWARD} {where} ORDER BY instant.start_us", values)
        else:
            newest = self.fetch(f"{_BACKWARD} {where} ORDER BY instant.start_us DESC{_limit(limit)}", values)
            rows = reversed(list(newest))
        for row in rows:
            yield {
                "asset": asset["name"],
                "start": iso(row["start_us"]),
                "end": iso(row["end_us"]),
                "score": number(row["score"]),
                "verdict": VERDICTS[row["verdict"]],
                "version": row["version"],
                "fleet": asset["fleet"],
                "n_present": row["n_present"],
            }

    def scored_windows(
        self, fleet: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[tuple[str, int, float]]:
        """Yield a fleet's scored windows that end in [since, until): asset, end in µs, score.

        In order of time, a day of starts at once: PostgreSQL hands over an answer as a whole.
        """
        for row in self.fetch(_EXTENT):
            if row["first_us"] is None:
                return
            last_us = row["last_us"] if until is None else min(row["last_us"], to_us(until))
            where = _Where()
            where.add("asset.fleet = :fleet", fleet=fleet)
            where.add("end_us >= :since", since=_us(since))
            where.add("end_us < :until", until=_us(until))
            for low_us in range(row["first_us"], last_us + 1, _DAY_US):
                day = {"low": low_us, "high": min(low_us + _DAY_US, last_us + 1)}
                for window in self.fetch(_SCORED.format(where=where), where.values | day):
                    yield window["asset"], window["end_us"], window["score"]

    # ------------------------------------------------------------------ quarantine, models, jobs

    def quarantine(
        self,
        *,
        topic: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return records that could not be used, newest first. `reason`: how it begins; the times are Kafka's."""
        where = _Where()
        where.add("topic = :topic", topic=topic)
        where.add("substr(reason, 1, length(:reason)) = :reason", reason=reason)
        where.add(f"{_RECORD_US} >= :since", since=_us(since))
        where.add(f"{_RECORD_US} < :until", until=_us(until))
        sql = f"{_QUARANTINE} {where} ORDER BY id DESC{_limit(limit)}"
        return [
            {
                "topic": row["topic"],
                "partition": row["partition"],
                "offset": row["record_offset"],
                "reason": row["reason"],
                "sample": bytes(row["sample"]).decode("utf-8", "backslashreplace"),
                "at": iso(row["moment_us"]),
            }
            for row in self.fetch(sql, where.values)
        ]

    def models(self, *, fleet: str | None = None) -> list[Row]:
        """Return model versions, newest first. `asset` is None: a version decides for its whole fleet."""
        where = _Where()
        where.add("fleet = :fleet", fleet=fleet)
        return [
            {
                "fleet": row["fleet"],
                "asset": None,
                "version": row["version"],
                "state": row["state"],
                "trained_at": iso(row["trained_us"]),
                "metrics": json.loads(row["metrics"]),
                "decides_after": iso(row["from_us"]),
                "path": row["path"],
            }
            for row in self.fetch(f"{_MODELS} {where} ORDER BY trained_us DESC, id DESC", where.values)
        ]

    def model(self, version: str | None = None, *, fleet: str | None = None) -> Row:
        """Return one version with its card; none named: the champion, of the only fleet that has one if none is chosen.

        Raises NotFound, saying what there is.
        """
        known = self.models(fleet=fleet)
        key, value = ("state", "champion") if version is None else ("version", version)
        wanted = [row for row in known if row[key] == value]
        if len(wanted) == 1:
            [card] = self.fetch(_CARD, {"version": wanted[0]["version"]})
            return wanted[0] | {"card": json.loads(card["card"])}
        if version is not None:
            raise NotFound(f"version {version}; `monitor models list` shows the {len(known)} there are")
        names = ", ".join(row["fleet"] for row in wanted)
        if names:
            raise NotFound(f"one champion: fleets {names} have one each; say which with --fleet")
        of_fleet = f" of {fleet}" if fleet else ""
        raise NotFound(f"a champion{of_fleet}; `monitor models list` shows the versions there are")

    def jobs(self, *, fleet: str | None = None, limit: int | None = None) -> list[Row]:
        """Return jobs, newest first."""
        where = _Where()
        where.add("fleet = :fleet", fleet=fleet)
        times = {"requested_us": "requested_at", "started_us": "started_at", "finished_us": "finished_at"}
        return [
            _with_times(row, times)
            for row in self.fetch(f"{_JOBS} {where} ORDER BY id DESC{_limit(limit)}", where.values)
        ]

    # ------------------------------------------------------------------ what there is, and how far it is

    def fleets(self) -> list[Row]:
        """Return the fleets: name, sensors (None = not learnt yet), number of assets."""
        return [
            {
                "fleet": row["name"],
                "sensors": None if row["sensors"] is None else json.loads(row["sensors"]),
                "assets": row["n_assets"],
            }
            for row in self.fetch(_FLEETS)
        ]

    def assets(self, *, fleet: str | None = None) -> list[Row]:
        """Return the assets by fleet and name, with their home and the start of their last window."""
        where = _Where()
        where.add("fleet = :fleet", fleet=fleet)
        return [
            _with_times(row, {"last_start_us": "last_start"})
            for row in self.fetch(f"{_ASSETS} {where} ORDER BY fleet, name", where.values)
        ]

    def partitions(self) -> list[Row]:
        """Return the partitions with offsets, lag (None = not known yet) and counters."""
        rows = []
        for row in self.fetch(_PARTITIONS):
            lag = None if row["log_end"] is None else max(0, row["log_end"] - row["next_offset"])
            counters = {"counters": json.loads(row["counters"]), "lag": lag}
            rows.append(_with_times(row, {"saved_us": "saved_at"}) | counters)
        return rows

    def daemons(self) -> list[Row]:
        """Return the daemons, the one heard of last first."""
        return [
            _with_times(row, {"started_us": "started_at", "heartbeat_us": "heartbeat_at"})
            for row in self.fetch(_DAEMONS)
        ]


# ---------------------------------------------------------------- the statements

_ALERTS = """
    SELECT alert.id, asset.name AS asset, asset.fleet, alert.state, severity, opened_us, closed_us, updated_us,
        peak_score, peak_us, n_anomalous, sensors, version, acknowledged_by, label
    FROM alert JOIN asset ON asset.id = alert.asset_id
"""
_TRANSITIONS = """
    SELECT state, severity, at_us, peak_score, n_anomalous FROM alert_transition WHERE alert_id = :id ORDER BY seq
"""
_ASSET = """
    SELECT asset.id, asset.name, asset.fleet, score.start_us AS last_start_us, score.end_us AS last_end_us
    FROM asset LEFT JOIN last_window ON last_window.asset_id = asset.id
    LEFT JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
"""
# Scores lie in order of time, all assets mixed: step from one distinct start to the next (an index seek each), and look
# whether the asset has a window there.
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
_DAY_US = 86_400_000_000
_EXTENT = "SELECT MIN(start_us) AS first_us, MAX(start_us) AS last_us FROM score"
_SCORED = """
    SELECT asset.name AS asset, end_us, score FROM score JOIN asset ON asset.id = asset_id
    {where} AND score IS NOT NULL AND score.start_us >= :low AND score.start_us < :high
    ORDER BY score.start_us, asset_id
"""
_FORWARD = _STEP.format(first="MIN", beyond=">")
_BACKWARD = _STEP.format(first="MAX", beyond="<")
_FIRST_US = -(2**62)
_RECORD_US = "CASE WHEN at_us > 0 THEN at_us ELSE saved_us END"
_QUARANTINE = f"SELECT topic, partition, record_offset, reason, sample, {_RECORD_US} AS moment_us FROM quarantine"  # noqa: S608 - a constant
_MODELS = """
    SELECT fleet, version, state, trained_us, metrics, path,
        (SELECT MAX(from_window_end_us) FROM model_activation WHERE version_id = model_version.id) AS from_us
    FROM model_version
"""
_CARD = "SELECT card FROM model_version WHERE version = :version"
_JOBS = """
    SELECT id, fleet, kind, state, progress, message, requested_by, version, requested_us, started_us, finished_us
    FROM job
"""
_FLEETS = """
    SELECT name, sensors, (SELECT COUNT(*) FROM asset WHERE asset.fleet = fleet.name) AS n_assets
    FROM fleet ORDER BY name
"""
_ASSETS = """
    SELECT name AS asset, fleet, topic, partition, start_us AS last_start_us
    FROM asset LEFT JOIN last_window ON asset_id = asset.id
"""
_PARTITIONS = """
    SELECT pipeline, topic, partition, epoch, owner, start_offset, next_offset, log_end, counters, saved_us
    FROM source_partition WHERE next_offset IS NOT NULL ORDER BY pipeline, topic, partition
"""
_DAEMONS = "SELECT owner, pipeline, started_us, heartbeat_us, status FROM daemon ORDER BY heartbeat_us DESC"


# ---------------------------------------------------------------- small helpers


class _Where:
    """Conditions that apply only when their value was given. Their text is ours; only values come from outside."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: dict[str, object] = {}

    def add(self, condition: str, **value: object) -> None:
        if None not in value.values():
            self._conditions.append(condition)
            self.values |= value

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


def _limit(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {int(limit)}"


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def iso(us: int | None) -> str | None:
    """Return ISO 8601 in UTC, fractions only where there are any."""
    if us is None:
        return None
    try:
        return from_us(us).isoformat().replace("+00:00", "Z")
    except OverflowError:  # "since for ever", as the first champion's boundary
        return None


def number(value: float | None) -> float | None:
    """Return a stored float32 with the digits it has; JSON knows no infinity and no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")


def _alert(row: Mapping[str, Any]) -> Row:
    return {
        "id": row["id"],
        "asset": row["asset"],
        "fleet": row["fleet"],
        "state": row["state"],
        "severity": row["severity"],
        "opened_at": iso(row["opened_us"]),
        "closed_at": iso(row["closed_us"]),
        "peak_score": number(row["peak_score"]),
        "sensors": json.loads(row["sensors"]),
        "version": row["version"],
        "acknowledged_by": row["acknowledged_by"],
        "label": row["label"],
        "peak_at": iso(row["peak_us"]),
        "updated_at": iso(row["updated_us"]),
        "n_anomalous": row["n_anomalous"],
    }


def _with_times(row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    return {names.get(name, name): iso(value) if name in names else value for name, value in row.items()}
