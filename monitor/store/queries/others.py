"""Quarantine, models and jobs, as operators see them; what there is, and how far it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound
from monitor.store.queries.backend import Door, Row, Where, iso, limited, us

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Others(Door):
    """Questions about everything else."""

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
        where = Where()
        where.add("topic = :topic", topic=topic)
        where.add("substr(reason, 1, length(:reason)) = :reason", reason=reason)
        where.add(f"{_RECORD_US} >= :since", since=us(since))
        where.add(f"{_RECORD_US} < :until", until=us(until))
        sql = f"{_QUARANTINE} {where} ORDER BY id DESC{limited(limit)}"
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
        where = Where()
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
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        times = {"requested_us": "requested_at", "started_us": "started_at", "finished_us": "finished_at"}
        return [
            _with_times(row, times)
            for row in self.fetch(f"{_JOBS} {where} ORDER BY id DESC{limited(limit)}", where.values)
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
        where = Where()
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


def _with_times(row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    return {names.get(name, name): iso(value) if name in names else value for name, value in row.items()}
