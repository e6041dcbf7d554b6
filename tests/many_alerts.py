"""Many alerts in a database, and the time that `monitor alerts list` takes with each filter and sort.

    python -m tests.many_alerts --alerts 1000000                          SQLite, in a temporary folder
    python -m tests.many_alerts --alerts 1000000 --url postgresql://…     an empty PostgreSQL database

The time is that of the whole process. tests/contract/test_store_plans.py runs the queries on a small database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.store import schema
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

FIRST_US = 1_700_000_000_000_000
STEP_US = 60_000_000
ASSETS = 1000
FLEETS = ("turbines", "pumps", "presses")
SENSORS = '[{"name": "power", "share": 0.61, "expected": 1873.2, "actual": -3.1, "quantity": "value", "onset": null}]'
QUERIES = (
    "",
    "--class process",
    "--class data",
    "--asset turbines-0003",
    "--asset turbines-000*",
    "--asset none",
    "--fleet pumps",
    "--fleet none",
    "--state open",
    "--state firing",
    "--state recovering",
    "--state closed",
    "--sort peak",
    "--sort lasted",
    "--sort severity",
    "--sort asset",
    "--from 2024-01-01 --to 2024-01-02",
    "--from 2030-01-01",
    "--fleet pumps --state open --sort peak",
    "--json --limit 50",
)
_ASSET = text("INSERT INTO asset (fleet, name, topic, partition) VALUES (:fleet, :name, 't', 0)")
_ALERT = text("""
    INSERT INTO alert (class, asset_id, asset_name, fleet, kind, topic, partition, from_offset, opened_us, state,
        severity, updated_us, closed_us, peak_score, peak_us, n_anomalous, sensors, version, label, acknowledged_by,
        acknowledged_us, stored_us)
    VALUES (:class, :asset_id, NULL, :fleet, :kind, :topic, :partition, :from_offset, :opened_us, :state, :severity,
        :updated_us, :closed_us, :peak_score, :peak_us, 5, :sensors, 'v1', :label, :by, :by_us, :opened_us)
""")
_TRANSITION = text("""
    INSERT INTO alert_transition (alert_id, seq, state, severity, at_us, peak_score, n_anomalous)
    SELECT id, 1, 'firing', severity, opened_us, peak_score, 3 FROM alert
""")


async def fill(url: str, n: int) -> None:
    """Write `n` alerts of three fleets, one in fifty about the data; the last of each asset is open."""
    await schema.upgrade(url)
    async with AsyncStore(url, owner=True) as store:
        await store.run(_add_assets)
        for first in range(0, n, 20_000):
            await store.run(_add_alerts, first, min(n, first + 20_000), n)
        await store.run(lambda connection: connection.execute(_TRANSITION) and None)
        await store.run(lambda connection: connection.execute(text("ANALYZE")) and None)


def _add_assets(connection: Connection) -> None:
    connection.execute(text("INSERT INTO fleet (name) VALUES (:name)"), [{"name": name} for name in FLEETS])
    rows = [{"fleet": FLEETS[i % 3], "name": f"{FLEETS[i % 3]}-{i:04}"} for i in range(ASSETS)]
    connection.execute(_ASSET, rows)


def _add_alerts(connection: Connection, first: int, last: int, n: int) -> None:
    rows = []
    for i in range(first, last):
        opened_us = FIRST_US + i * STEP_US
        is_data, is_open = i % 50 == 0, i >= n - ASSETS // 2
        rows.append(
            {
                "class": "data" if is_data else "process",
                "asset_id": None if is_data else i % ASSETS + 1,
                "fleet": FLEETS[i % 3] if is_data else None,
                "kind": "asset_limit" if is_data else None,
                "topic": "t" if is_data else None,
                "partition": 0 if is_data else None,
                "from_offset": i if is_data else None,
                "opened_us": opened_us,
                "state": ("firing", "recovering")[i % 7 == 0] if is_open else "closed",
                "severity": "critical" if i % 9 == 0 else "warning",
                "updated_us": opened_us + i % 5000 * STEP_US,
                "closed_us": None if is_open else opened_us + i % 5000 * STEP_US,
                "peak_score": None if is_data else 1 + i * 7919 % 1000 / 50,
                "peak_us": None if is_data else opened_us,
                "sensors": "[]" if is_data else SENSORS,
                "label": ("fault", "normal", None, None)[i % 4],
                "by": "ann" if i % 3 == 0 else None,
                "by_us": opened_us if i % 3 == 0 else None,
            }
        )
    connection.execute(_ALERT, rows)


def main() -> None:
    """Fill a database, and time the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--folder", type=Path, help="keep the SQLite file here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        url = arguments.url or f"sqlite:///{folder / 'monitor.db'}"
        if arguments.url or not (folder / "monitor.db").exists():
            asyncio.run(fill(url, arguments.alerts))
        config = folder / "monitor.toml"
        config.write_text(f'[kafka]\nbootstrap = "b:9092"\ntopics = ["t"]\n[store]\nurl = "{url}"\n'
                          '[[fleet]]\nname = "turbines"\ninterval = "1m"\n')  # fmt: skip
        for query in QUERIES:
            command = [sys.executable, "-m", "monitor", "alerts", "list", "-c", str(config), *query.split()]
            took, cpu = [], []
            for _ in range(3):
                began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
                took.append(time.perf_counter() - began)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
            print(f"{min(took):6.2f} s, CPU {min(cpu):.2f} s  {len(done.stdout.splitlines()):5} lines  list {query}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
