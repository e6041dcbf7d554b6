"""`window = "auto"`: a training that finds a cycle starts the pipeline anew, within the process, and loses nothing."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING

from monitor.kafka.embedded_broker import create_topic
from tests.daemon_process import BEGIN_MS, Deployment, publish, waves

if TYPE_CHECKING:

    from monitor.kafka.embedded_broker import EmbeddedBroker

CYCLE, FIRST, SECOND, REST = 90, 400, 2_000, 300
"""Cells of a cycle, and readings before the first training, before the second one, and behind it. The first training
sees too few cycles to find it."""
MAX_GAP = 10
"""Cells that may be missing in a window, also before the first reading."""
ALERTS = {"budget": "1/week"}

readings = partial(waves, period=CYCLE, noise=0.1)


def lengths(deployment: Deployment) -> list[int]:
    """Return the lengths of the versions' windows, in order of training."""
    return [json.loads(card)["length"] for (card,) in deployment.fetch("SELECT card FROM model_version ORDER BY id")]


def scored(deployment: Deployment) -> list[tuple[int, str | None]]:
    """Return the windows: the cell that each ends with, and its version's length."""
    rows = deployment.fetch("SELECT end_us, card FROM score LEFT JOIN model_version ON model_version.id = version_id")
    cells = [(end_us // 1000 - BEGIN_MS) // 60_000 for end_us, _ in rows]
    return sorted((cell, card and json.loads(card)["length"]) for cell, (_, card) in zip(cells, rows, strict=True))


def test_the_first_training_decides(
    embedded_broker: EmbeddedBroker, deployment: Deployment
) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, "auto-first", 1))
    publish(embedded_broker.bootstrap, "auto-first", readings(0, SECOND))
    deployment.configure(embedded_broker.bootstrap, "auto-first", window="auto", max_gap=f"{MAX_GAP}m", alerts=ALERTS)
    deployment.start()
    deployment.wait_records(SECOND)
    pid = deployment.pid
    deployment.terminate()
    assert lengths(deployment) == [CYCLE]
    windows = scored(deployment)
    assert [cell for cell, _ in windows] == list(range(CYCLE - MAX_GAP, windows[-1][0] + 1))
    assert {length for _, length in windows} == {CYCLE}
    # A later start knows the length, and goes on.
    publish(embedded_broker.bootstrap, "auto-first", readings(SECOND, REST))
    deployment.start()
    deployment.wait_records(SECOND + REST)
    assert deployment.pid != pid
    deployment.terminate()
    assert [length for _, length in scored(deployment)] == [CYCLE] * (len(windows) + REST)
    assert deployment.log_path.read_text().count("window_changed") == 1
    [version] = deployment.json("models", "list")
    shown = deployment.json("models", "show", version["version"])
    assert shown["card"]["window_reason"].startswith(f"one cycle of the sensors ({CYCLE} cells")


def test_a_later_training_starts_it_anew(embedded_broker: EmbeddedBroker, deployment: Deployment) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, "auto-later", 1))
    publish(embedded_broker.bootstrap, "auto-later", readings(0, FIRST))
    deployment.configure(embedded_broker.bootstrap, "auto-later", window="auto", max_gap=f"{MAX_GAP}m", alerts=ALERTS)
    deployment.start()
    deployment.wait_records(FIRST)
    pid = deployment.pid
    assert lengths(deployment) == [64]
    publish(embedded_broker.bootstrap, "auto-later", readings(FIRST, SECOND))
    deployment.wait_records(FIRST + SECOND)
    deployment.command("retrain", "--wait")
    deployment.wait("new windows", lambda: "window_changed" in deployment.log_path.read_text())
    publish(embedded_broker.bootstrap, "auto-later", readings(FIRST + SECOND, REST))
    deployment.wait_records(FIRST + SECOND + REST)
    assert deployment.pid == pid
    deployment.terminate()
    assert lengths(deployment) == [64, CYCLE]
    windows = scored(deployment)
    cells = [cell for cell, _ in windows]
    assert len(cells) == len(set(cells))
    assert cells[-1] >= FIRST + SECOND + REST - 5
    # None is scored by a version of another length, and all are scored once the first new window has filled.
    change = next(cell for cell, length in windows if length == CYCLE)
    assert all(length == 64 for cell, length in windows if cell < change)
    assert all(length == CYCLE for cell, length in windows if cell >= change + CYCLE)
    states = [job["state"] for job in deployment.json("models", "list")]
    assert sorted(states) == ["champion", "retired"]
