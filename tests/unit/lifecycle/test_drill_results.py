"""The daemon's side of drills: the time of the next one, its storage, alert, metrics and log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from monitor import metrics
from monitor.config import parse
from monitor.config.drill import DrillConfig
from monitor.drill_report import KINDS
from monitor.errors import ConfigError
from monitor.lifecycle.drill_results import keep_drill, next_drill
from monitor.store import registry
from monitor.types import JobView, ModelCheckKind
from tests.fakes import FakeClock
from tests.unit.lifecycle.checkpoints import CONFIG, KAFKA, PUMPS

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

NIGHTLY = DrillConfig()


def at(day: int, hour: int) -> datetime:
    return datetime(2026, 5, day, hour, tzinfo=UTC)


def ended(finished: datetime) -> JobView:
    return JobView(1, "pumps", "failed", 0.0, "", at(1, 0), finished_at=finished, kind="drill")


def test_a_drill_is_due_at_the_first_time_after_the_last_one() -> None:
    assert next_drill(NIGHTLY, None, at(4, 12)) == at(5, 2)
    assert next_drill(NIGHTLY, ended(at(7, 3)), at(20, 0)) == at(8, 2)  # a failed one is not repeated at once
    berlin = DrillConfig(cron="0 2 * * *", timezone="Europe/Berlin")
    assert next_drill(berlin, None, at(4, 12)) == at(5, 0)
    assert next_drill(DrillConfig(cron="never"), None, at(4, 12)) is None


def test_a_schedule_that_is_none_is_refused_with_the_way_out() -> None:
    fleet = {"name": "pumps", "interval": "1m", "drill": {"cron": "nightly"}}
    with pytest.raises(ConfigError, match=r'drill.cron.*"nightly" is no cron expression.*"never"'):
        parse({"kafka": KAFKA, "fleet": [fleet]})


def document(version: str, n_found: int) -> dict[str, Any]:
    cell = {
        "n": 30, "found": n_found, "is_found": n_found >= 27, "by": {"process": n_found, "sensor": 0}, "largest": 16.0,
        "size": 2.0, "delay_s": 60.0, "reference": {"size": 4.0, "found": n_found},
    }  # fmt: skip
    summary = {"sensors": 1, "size": 2.0 if n_found >= 27 else None, "unit": "spreads", "delay_s": 60.0,
               "recall": n_found / 30, "reference": 4.0}  # fmt: skip
    return {
        "fleet": PUMPS.name, "version": version, "interval_s": 60.0, "took_s": 1.0,
        "healthy": {"copies": 30, "alarmed": 0, "allowed": 0.1},
        "sensors": [{"name": "load", "kinds": dict.fromkeys(KINDS, cell)}], "kinds": dict.fromkeys(KINDS, summary),
    }  # fmt: skip


async def publish(store: AsyncStore) -> None:
    from monitor.store import versions

    await store.run(
        versions.publish, version="conv-1", fleet=PUMPS.name, path="/c", trained_us=1, card={}, metrics={}
    )


def metric(name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"monitor_{name}", {"fleet": PUMPS.name, **labels})


async def test_a_blind_version_opens_the_alert_and_a_good_one_closes_it(store: AsyncStore) -> None:
    await publish(store)
    clock = FakeClock()

    async def keep(n_found: int) -> str:
        clock.advance(60)
        return await keep_drill(CONFIG, store, clock, PUMPS, document("conv-1", n_found), requested_by="me", lease=None)

    def alerts(connection: Any) -> list[tuple[str, str, str, str]]:
        from sqlalchemy import text

        sql = "SELECT class, kind, state, severity FROM alert"
        return [tuple(row) for row in connection.execute(text(sql))]

    assert await keep(30) == "no problem"
    assert metric("drill_minimum_detectable_size", kind="bias") == 2.0
    assert await store.read(alerts) == []
    assert "conv-1 detects 0 of 180" in await keep(0)
    assert await store.read(alerts) == [("data", "drill_failed", "firing", "critical")]
    assert metric("drill_failed") == 1.0
    assert metric("drill_minimum_detectable_size", kind="bias") == float("inf")
    assert metric("drill_recall_ratio", kind="bias") == 0.0
    assert await keep(29) == "no problem"
    assert await store.read(alerts) == [("data", "drill_failed", "closed", "critical")]
    assert len(await store.read(registry.checks, ModelCheckKind.DRILL, PUMPS.name)) == 3
