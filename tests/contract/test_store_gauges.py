"""Gauges that are read from the database, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from sqlalchemy import text

from monitor import metrics
from monitor.config import parse
from monitor.service.gauges import Gauges
from monitor.store import gauges, versions
from monitor.types import AlertState
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, VERSION, change, own
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.store.engine import AsyncStore


def answer(connection: Connection) -> None:
    connection.execute(text("UPDATE alert SET acknowledged_us = 1 WHERE asset_id = 2"))
    connection.execute(text("UPDATE alert SET suppressed_by = 'shelf' WHERE asset_id = 3"))
    connection.execute(text("UPDATE alert SET closed_by_hand_us = 1 WHERE asset_id = 4"))
    add = text("INSERT INTO act (at_us, actor, via, act) VALUES (1, 'ann', 'cli', :act)")
    connection.execute(add, [{"act": "label"}, {"act": "label"}, {"act": "shelve"}])


async def test_gauges_show_the_database(store: AsyncStore, tmp_path: Path) -> None:
    owner = await own(store)
    await store.run(versions.activate, FLEET, VERSION, versions.FOREVER_AGO_US)
    names = {f"R{n}": 0.5 for n in range(1, 6)}
    alerts = [change(12, 12, AlertState.FIRING, asset=asset) for asset in range(5)]
    alerts.append(change(12, 14, AlertState.CLOSED, asset=4))
    await owner.save(owner.step(await owner.rows(names, 10, alerts=alerts)))
    await store.run(answer)
    found = await store.read(gauges.fetch)
    assert found.open_alerts == {
        ("process", "warning", "unanswered"): 1,
        ("process", "warning", "acknowledged"): 1,
        ("process", "warning", "suppressed"): 1,
    }
    assert found.acts.items() >= {"label": 2, "shelve": 1}.items()
    assert (found.champions, found.newest_window_us) == ({FLEET}, {FLEET: (10 + LENGTH) * INTERVAL_US})

    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "store": {"checkpoints": str(tmp_path)},
            "fleet": [{"name": name, "interval": "10m", "assets": f"{name}*"} for name in (FLEET, "idle")],
        }
    )
    Gauges(config, store, FakeClock()).set(found)
    page = generate_latest(metrics.registry).decode()
    for line in (
        'monitor_alerts_open{answer="acknowledged",class="process",severity="warning"} 1.0',
        'monitor_alerts_open{answer="unanswered",class="sensor",severity="critical"} 0.0',
        'monitor_acts{act="label"} 2.0',
        'monitor_acts{act="close"} 0.0',
        f'monitor_champion_present{{fleet="{FLEET}"}} 1.0',
        'monitor_champion_present{fleet="idle"} 0.0',
        f'monitor_window_timestamp_seconds{{fleet="{FLEET}"}} {(10 + LENGTH) * 600.0}',
    ):
        assert line in page.splitlines(), line
    assert 'monitor_window_timestamp_seconds{fleet="idle"}' not in page
    assert 'monitor_disk_free_bytes{place="checkpoints"}' in page
