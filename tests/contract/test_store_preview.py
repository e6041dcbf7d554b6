"""The preview of budgets: alerts counted from stored scores as the decider opens them, on both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from monitor.errors import NotFound
from monitor.store import assets, versions
from monitor.store.queries.preview import count_alerts
from monitor.store.reader import open_reader
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import AlertState, Partition, Scores, Windows

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.engine import AsyncStore
    from monitor.types import Bool, Int64

STEP_US = 600_000_000
THRESHOLD = {"raw": 2.0, "alarms_per_week": 1.0, "confirm": 3, "among": 5, "recover": 6, "step_s": 600.0}
TABLE = {
    "per_week": [0.5, 1.0, 2.0],
    "recover": 6,
    "policies": [
        {"confirm": 1, "among": 1, "raw": [8.0, 4.0, 3.0]},
        {"confirm": 3, "among": 5, "raw": [3.0, 2.0, 1.0]},
    ],
}


def decided(owner: Int64, is_anomalous: Bool, policy: AlertPolicy) -> int:
    """Return the alerts that the real decider opens."""
    n = len(owner)
    zero = np.zeros(n, np.int64)
    values = np.zeros((n, 1, 1), np.float32)
    windows = Windows("f", owner.astype(np.int32), zero, values, np.ones(n, np.int32), zero, zero)
    scores = Scores(windows, np.where(is_anomalous, 2.0, 0.0).astype(np.float32), ["v"] * n, {})
    decider, found = Decider("f", policy), set()
    end_us = np.arange(n, dtype=np.int64)
    for row in range(n):
        one = Windows("f", owner[row : row + 1].astype(np.int32), zero[:1], values[:1], zero[:1], zero[:1], zero[:1])
        part = Scores(one, scores.score[row : row + 1], ["v"], {})
        changes = decider.decide(part, end_us[row : row + 1])
        found |= {(each.asset, each.opened_us) for each in changes if each.state is AlertState.FIRING}
    return len(found)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 4), st.integers(1, 8), st.floats(0.02, 0.7))
def test_alerts_are_counted_as_the_decider_opens_them(
    seed: int, confirm: int, more: int, recover: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, 3, 80)).astype(np.int64)
    place = np.concatenate([np.arange(np.sum(owner == each)) for each in range(3)])
    is_anomalous = rng.random(80) < share
    policy = AlertPolicy(confirm, confirm + more, recover)
    expected = decided(owner, is_anomalous, policy)
    assert count_alerts(owner, place, is_anomalous, confirm, confirm + more, recover) == expected
    kept = is_anomalous | (rng.random(80) < 0.3)  # a database leaves out windows below every threshold
    found = count_alerts(owner[kept], place[kept], is_anomalous[kept], confirm, confirm + more, recover)
    assert found == expected


def fill(connection: Connection, scores: dict[str, list[float]], table: dict[str, Any] | None = TABLE) -> None:
    """Write a champion, and scores of consecutive windows by asset."""
    card = {"threshold": THRESHOLD} | ({"thresholds": table} if table else {})
    facts: dict[str, Any] = {"fleet": "pumps", "path": "p", "trained_us": 1, "card": card, "metrics": {}}
    versions.publish(connection, version="pca-00000000", **facts)
    versions.activate(connection, "pumps", "pca-00000000", 0)
    ids = assets.register(connection, "pumps", sorted(scores), Partition("t", 0))
    [version] = versions.ids(connection, ["pca-00000000"])
    for name, values in scores.items():
        for number, value in enumerate(values):
            start_us = number * STEP_US
            row = {"asset": ids[name].id, "start": start_us, "end": start_us + STEP_US, "score": value, "v": version}
            connection.execute(_SCORE, row)
        connection.execute(_LAST, {"asset": ids[name].id, "start": start_us})


_SCORE = text("""
    INSERT INTO score (asset_id, start_us, end_us, score, verdict, version_id, n_present, first_offset, last_offset)
    VALUES (:asset, :start, :end, :score, 0, :v, 64, 0, 0)
""")
_LAST = text("INSERT INTO last_window (asset_id, start_us) VALUES (:asset, :start)")


def preview(url: str, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    with open_reader(url) as reader:
        return reader.budget_preview("pumps", *args, **kwargs)


QUIET, EVENT = [0.1] * 20, [0.1] * 10 + [1.2] * 4 + [0.1] * 10 + [1.6] * 4 + [0.1] * 10


async def test_a_preview_counts_the_alerts_of_each_budget(store: AsyncStore, url: str) -> None:
    await store.run(fill, {"a": EVENT, "b": QUIET})
    rows = await asyncio.to_thread(preview, url, ["1/14d", "1/week", "2/week"], ["3 of 5", "1 of 1"])
    found = [(row["budget"], row["confirm"], row["threshold"], row["alerts"], row["is_present"]) for row in rows]
    assert found == [
        ("1/14d", "3 of 5", 1.5, 1, False),
        ("1/week", "3 of 5", 1.0, 2, True),
        ("2/week", "3 of 5", 0.5, 2, False),
        ("1/14d", "1 of 1", 4.0, 0, False),
        ("1/week", "1 of 1", 2.0, 0, False),
        ("2/week", "1 of 1", 1.5, 1, False),
    ]
    weeks = 58 * 600 / (7 * 24 * 3600)
    assert [row["weeks"] for row in rows] == [pytest.approx(weeks, rel=1e-6)] * 6
    assert rows[1]["alerts_per_asset_week"] == pytest.approx(2 / weeks, rel=1e-6)


async def test_a_threshold_between_two_budgets_is_interpolated(store: AsyncStore, url: str) -> None:
    await store.run(fill, {"a": EVENT})
    [row] = await asyncio.to_thread(preview, url, ["1.4142135/week"], ["3 of 5"])
    assert row["threshold"] == pytest.approx(2**-0.5, rel=1e-4)
    [other] = await asyncio.to_thread(preview, url, ["1/year"], ["4 of 6"])
    assert (other["threshold"], other["is_estimate"]) == (1.5, True), "the end of the table, fewer confirmations"


async def test_only_the_last_days_count(store: AsyncStore, url: str) -> None:
    await store.run(fill, {"a": EVENT})
    [row] = await asyncio.to_thread(preview, url, ["1/week"], ["3 of 5"], days=20 / 144)
    assert row["alerts"] == 1


async def test_a_version_without_a_table_says_what_to_do(store: AsyncStore, url: str) -> None:
    await store.run(fill, {"a": EVENT}, None)
    [row] = await asyncio.to_thread(preview, url, ["1/day"], ["3 of 5"])
    assert (row["threshold"], row["alerts"]) == (None, None)
    assert "monitor retrain pumps" in row["reason"]


@pytest.mark.usefixtures("store")
async def test_a_fleet_needs_a_champion(url: str) -> None:
    with pytest.raises(NotFound, match="a champion of pumps"):
        await asyncio.to_thread(preview, url)
