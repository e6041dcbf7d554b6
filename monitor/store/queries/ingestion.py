"""Queries of the state of ingestion: fleets, assets, partitions, quarantined records and daemons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from monitor.store.queries.backend import Backend, Row, Where, limited, us, with_times

if TYPE_CHECKING:
    from datetime import datetime


class IngestionQueries(Backend):
    """Queries of fleets, assets, partitions, quarantined records and daemons."""

    def fleets(self) -> list[Row]:
        """Return the fleets: name, sensors (None = not registered yet), number of assets."""
        return [
            dict(row) | {"sensors": None if row["sensors"] is None else json.loads(row["sensors"])}
            for row in self.fetch(_FLEETS)
        ]

    def assets(self, *, fleet: str | None = None) -> list[Row]:
        """Return the assets by fleet and name, with their partition and the start of their last window."""
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        return [
            with_times(row, {"last_start_us": "last_start"})
            for row in self.fetch(f"{_ASSETS} {where} ORDER BY fleet, name", where.values)
        ]

    def partitions(self) -> list[Row]:
        """Return the partitions with offsets, lag (None = unknown yet) and counters."""
        rows = []
        for row in self.fetch(_PARTITIONS):
            lag = None if row["log_end"] is None else max(0, row["log_end"] - row["next_offset"])
            counters = {"counters": json.loads(row["counters"]), "lag": lag}
            rows.append(with_times(row, {"saved_us": "saved_at"}) | counters)
        return rows

    def daemons(self) -> list[Row]:
        """Return the daemons, the latest heartbeat first."""
        return [
            with_times(row, {"started_us": "started_at", "heartbeat_us": "heartbeat_at"})
            for row in self.fetch(_DAEMONS)
        ]

    def quarantine(
        self,
        *,
        topic: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return quarantined records, newest first. `reason`: a prefix. The times are those of Kafka's records."""
        where = _quarantined(topic, reason, since, until)
        sql = f"{_QUARANTINE} {where} ORDER BY id DESC{limited(limit)}"
        return [
            with_times(row, {"record_us": "at"})
            | {"sample": bytes(row["sample"]).decode("utf-8", "backslashreplace")}
            for row in self.fetch(sql, where.values)
        ]


    def quarantine_counts(
        self,
        *,
        topic: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Row]:
        """Return the number of stored records by the first word of their reason, the most frequent first."""
        where = _quarantined(topic, reason, since, until)
        sql = _COUNTS.format(word=self.first_word("reason"), where=where)
        times = {"oldest_us": "oldest_at", "newest_us": "newest_at"}
        return [with_times(row, times) for row in self.fetch(sql, where.values)]


def _quarantined(topic: str | None, reason: str | None, since: datetime | None, until: datetime | None) -> Where:
    where = Where()
    where.add("topic = :topic", topic=topic)
    where.add("substr(reason, 1, length(:reason)) = :reason", reason=reason)
    where.add(f"{_RECORD_US} >= :since", since=us(since))
    where.add(f"{_RECORD_US} < :until", until=us(until))
    return where


_FLEETS = """
    SELECT name AS fleet, sensors, (SELECT COUNT(*) FROM asset WHERE asset.fleet = fleet.name) AS assets
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
_RECORD_US = "CASE WHEN at_us > 0 THEN at_us ELSE saved_us END"
_QUARANTINE = f"""
    SELECT topic, partition, record_offset AS "offset", reason, sample, {_RECORD_US} AS record_us FROM quarantine
"""  # noqa: S608 - a constant
_COUNTS = f"""
    SELECT {{word}} AS reason, COUNT(*) AS records, MIN({_RECORD_US}) AS oldest_us, MAX({_RECORD_US}) AS newest_us
    FROM quarantine {{where}} GROUP BY 1 ORDER BY 2 DESC, 1
"""  # noqa: S608 - a constant
