"""Plans of the lists of alerts: none reads the whole table. tests/many_alerts.py times them with a million alerts."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from monitor.store.reader import SqliteReader, open_reader
from tests import many_alerts

if TYPE_CHECKING:
    from pathlib import Path

N = 3_000
LISTS: dict[str, dict[str, Any]] = {
    "newest": {},
    "process": {"alert_class": "process"},
    "data": {"alert_class": "data"},
    "asset": {"asset": "turbines-0003"},
    "assets": {"asset": "turbines-*"},
    "fleet": {"fleet": "pumps"},
    "open": {"state": "open"},
    "firing": {"state": "firing"},
    "closed": {"state": "closed"},
    "labelled": {"label": "fault"},
    "not labelled": {"label": "none"},
    "acknowledged": {"acknowledged": True},
    "with suppressed": {"show_suppressed": True},
    "range": {"since": datetime(2023, 11, 14, tzinfo=UTC), "until": datetime(2023, 11, 15, 12, tzinfo=UTC)},
    "peak": {"sort": "peak"},
    "lasted": {"sort": "lasted", "fleet": "pumps"},
    "severity": {"sort": "severity", "state": "open"},
    "by asset": {"sort": "asset"},
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("many") / "monitor.db"
    asyncio.run(many_alerts.fill(f"sqlite:///{path}", N))
    return path


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_found_in_its_index(many: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    fetch = SqliteReader.fetch

    def spy(self: SqliteReader, sql: str, values: Any = None) -> Any:
        asked.append((sql, values))
        return fetch(self, sql, values)

    monkeypatch.setattr(SqliteReader, "fetch", spy)
    with open_reader(f"sqlite:///{many}") as reader:
        assert reader.alerts(**LISTS[name], limit=50)
    [(sql, values)] = asked
    with closing(sqlite3.connect(many)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values or {})]
    wanted = "COVERING INDEX ix_alert_listed", "INDEX uq_alert_open"  # open alerts are few
    assert any(f"alert USING {index}" in step for step in plan for index in wanted), plan
    assert not [step for step in plan if step == "SCAN alert"], plan


@pytest.mark.parametrize("name", LISTS)
def test_a_limit_chooses_the_first_of_all(many: Path, name: str) -> None:
    with open_reader(f"sqlite:///{many}") as reader:
        every, some = reader.alerts(**LISTS[name]), reader.alerts(**LISTS[name], limit=50)
    assert len(some) == min(50, len(every)) > 0
    assert [row["id"] for row in some] == [row["id"] for row in every[:50]]
