"""The stored rows of a finished run, by the keys that `verify.py` looks them up with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.types import AlertState, DataAlertChange, Partition, Severity

if TYPE_CHECKING:
    from tests.simulation.store import Database


class PartitionRow(NamedTuple):
    start_offset: int | None
    next_offset: int | None
    counters: dict[str, Any]


class AssetRow(NamedTuple):
    id: int
    partition: Partition
    since_offset: int


class ScoreRow(NamedTuple):
    end_us: int
    n_present: int
    first_offset: int
    last_offset: int
    score: float | None
    version: str | None


class DataAlertRow(NamedTuple):
    change: DataAlertChange
    """The latest."""
    transitions: tuple[tuple[str, int], ...]


class SensorAlertRow(NamedTuple):
    asset: str
    sensor: str
    transitions: tuple[tuple[str, int], ...]
    n_windows: int


class Tables:
    """All rows of one database, read once."""

    def __init__(self, database: Database) -> None:
        rows = database.rows
        self.partition = {
            Partition(topic, number): PartitionRow(start, end, json.loads(counters))
            for topic, number, start, end, counters in rows(
                "SELECT topic, partition, start_offset, next_offset, counters FROM source_partition"
            )
        }
        self.asset = {
            (fleet, name): AssetRow(number, Partition(topic, partition), since)
            for fleet, name, number, topic, partition, since in rows(
                "SELECT fleet, name, id, topic, partition, since_offset FROM asset"
            )
        }
        self.score = {
            (asset_id, start_us): ScoreRow(*facts)
            for asset_id, start_us, *facts in rows(
                "SELECT asset_id, start_us, end_us, n_present, first_offset, last_offset, score, version"
                " FROM score LEFT JOIN model_version ON model_version.id = version_id ORDER BY asset_id, start_us"
            )
        }
        self.quarantine = {
            (Partition(topic, number), offset): reason
            for topic, number, offset, reason in rows("SELECT topic, partition, record_offset, reason FROM quarantine")
        }
        self.gap = {
            (Partition(topic, number), start): end
            for topic, number, start, end in rows("SELECT topic, partition, from_offset, to_offset FROM gap")
        }
        self.activation = {
            (fleet, from_us): version
            for fleet, from_us, version in rows(
                "SELECT model_activation.fleet, from_window_end_us, version FROM model_activation"
                " JOIN model_version ON model_version.id = version_id ORDER BY 1, 2"
            )
        }
        self.notifications = {key for (key,) in rows("SELECT dedup_key FROM outbox")}
        self.data_alert = dict(_data_alerts(database))
        self.sensor_alert = dict(_sensor_alerts(database))


def _sensor_alerts(database: Database) -> list[tuple[tuple[str, Partition, int, str], SensorAlertRow]]:
    steps: dict[int, list[tuple[str, int]]] = {}
    for alert_id, state, at_us in database.rows(
        "SELECT alert_id, state, at_us FROM alert_transition ORDER BY alert_id, seq"
    ):
        steps.setdefault(alert_id, []).append((state, at_us))
    return [
        (
            (row.kind, Partition(row.topic, row.partition), row.opened_us, row.subject),
            SensorAlertRow(row.asset_name, row.sensor, tuple(steps[row.id]), row.n_anomalous),
        )
        for row in database.rows("SELECT * FROM alert WHERE class = 'sensor'")
    ]


def _data_alerts(database: Database) -> list[tuple[tuple[str, Partition, int, str], DataAlertRow]]:
    steps: dict[int, list[tuple[str, int]]] = {}
    for alert_id, state, at_us in database.rows(
        "SELECT alert_id, state, at_us FROM alert_transition ORDER BY alert_id, seq"
    ):
        steps.setdefault(alert_id, []).append((state, at_us))
    found = []
    for row in database.rows("SELECT * FROM alert WHERE class = 'data'"):
        where = Partition(row.topic, row.partition)
        change = DataAlertChange(
            kind=row.kind,
            partition=where,
            fleet=row.fleet,
            from_offset=row.from_offset,
            opened_us=row.opened_us,
            at_us=row.updated_us,
            state=AlertState(row.state),
            severity=Severity(row.severity),
            n_records=row.n_anomalous,
            message=row.message,
            is_transition=False,
            subject=row.subject,
        )
        found.append(((row.kind, where, row.from_offset, row.subject), DataAlertRow(change, tuple(steps[row.id]))))
    return found
