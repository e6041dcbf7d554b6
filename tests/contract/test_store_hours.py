"""Hourly roll-ups of scores: exact in every order of commits, and the queries that read them, on both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import NotFound
from monitor.service.maintenance import prune_scores
from monitor.store import assets, schema, score_hours
from monitor.store.engine import AsyncStore
from monitor.store.queries import hours as queries
from monitor.store.reader import Reader, open_reader
from monitor.types import AlertState, Contribution, Partition, Verdict
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, NAN, change, own, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

CELLS_PER_HOUR = 6
HOUR_US = score_hours.HOUR_US


def at(cell: float) -> datetime:
    """Return the end of the windows that start `LENGTH` cells before."""
    return from_us(round(cell * INTERVAL_US))


def recomputed(connection: Connection) -> dict[tuple[int, int], tuple[float | None, int, int, int]]:
    """Return the roll-ups as Python computes them from all stored scores."""
    found: dict[tuple[int, int], list[tuple[float | None, int]]] = {}
    for row in connection.execute(text("SELECT end_us, asset_id, score, verdict FROM score")):
        found.setdefault((row.end_us // HOUR_US * HOUR_US, row.asset_id), []).append((row.score, row.verdict))
    return {
        key: (
            max((score for score, _ in windows if score is not None), default=None),
            len(windows),
            sum(verdict == Verdict.ANOMALOUS for _, verdict in windows),
            sum(verdict == Verdict.UNSCORED for _, verdict in windows),
        )
        for key, windows in found.items()
    }


def stored(connection: Connection) -> dict[tuple[int, int], tuple[float | None, int, int, int]]:
    rows = connection.execute(text("SELECT * FROM score_hour"))
    return {
        (row.hour_us, row.asset_id): (row.max_score, row.n_windows, row.n_anomalous, row.n_unscored) for row in rows
    }


# ---------------------------------------------------------------- the roll-ups


async def test_hours_are_exact_for_any_order_of_commits(store: AsyncStore) -> None:
    """Two partitions, one of them days behind. Windows before 1970 and of the year 2100."""
    random = np.random.default_rng(3)
    owners = [await own(store, Partition("plant.readings", n)) for n in (0, 1)]
    cells = [-40, 10, 3_000_000, 6_838_560]
    for _ in range(12):
        for n, owner in enumerate(owners):
            for place, cell in enumerate(cells):
                score = {f"a{n}{place}": random.choice([NAN, 0.25, 1.5, float(random.random())]) for _ in range(3)}
                await owner.score(cell + n, **score)
        cells = [cell + int(random.integers(1, 5)) for cell in cells]
    found = await store.read(stored)
    assert found == await store.read(recomputed)
    assert min(hour for hour, _ in found) < 0
    assert any(highest is None for highest, *_ in found.values())


async def test_one_commit_of_many_windows_equals_many_commits(store: AsyncStore) -> None:
    owner = await own(store)
    scores = [0.5, NAN, 2.0, 0.25, NAN, 0.75, 1.25, 0.5, NAN, NAN, NAN, NAN]
    for cell, score in enumerate(scores):
        await owner.score(cell, one=score)
    starts = np.arange(len(scores)) * INTERVAL_US
    verdict = [2 if np.isnan(score) else int(score >= 1) for score in scores]
    rows = await owner.rows({"two": 0.5}, 0)
    many: dict[str, Any] = {
        "asset": np.zeros(len(scores), np.int32),
        "start_us": starts,
        "end_us": starts + LENGTH * INTERVAL_US,
        "score": np.array(scores, np.float32),
        "verdict": np.array(verdict, np.int8),
        "version": [None] * len(scores),
    }
    many |= {name: np.full(len(scores), 4) for name in ("n_present", "first_offset", "last_offset")}
    await owner.save(owner.step(await owner.rows({"two": 0.5}, 0, asset_ids=rows.asset_ids, **many)))
    found = await store.read(stored)
    one, two = owner.ids["one"], owner.ids["two"]
    assert {hour: row for (hour, asset), row in found.items() if asset == one} == {
        hour: row for (hour, asset), row in found.items() if asset == two
    }
    assert found == await store.read(recomputed)


async def test_a_step_that_is_saved_twice_counts_once(store: AsyncStore) -> None:
    owner = await own(store)
    step = owner.step(await owner.rows({"a": 2.0}, 8))
    await owner.save(step)
    assert (await store.save(step)).was_done
    assert list((await store.read(stored)).values()) == [(2.0, 1, 1, 0)]


async def test_an_upgrade_rolls_up_stored_scores(url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        for cell in (-40, -1, 0, 1, 2, 9, 10):
            await owner.score(cell, a=0.5 + cell / 100, b=NAN)
        before = await store.read(stored)
    await schema.downgrade(url, "0004")
    await schema.upgrade(url)
    async with AsyncStore(url, owner=True) as store:
        assert await store.read(stored) == before == await store.read(recomputed)


async def test_hours_outlive_scores_and_are_pruned_by_fleet(store: AsyncStore) -> None:
    owner = await own(store)
    for cell in range(0, 30, 3):
        await owner.save(owner.step(await owner.rows({"slow": 0.5}, cell, fleet="slow")))
        await owner.save(owner.step(await owner.rows({"fast": 0.5}, cell, fleet="fast")))
    hours = await store.read(stored)
    await prune_scores(store, {"slow": 99 * INTERVAL_US, "fast": 99 * INTERVAL_US})
    assert await store.read(rows_of, "score") == []
    assert await store.read(stored) == hours
    deleted = await prune_scores(store, {"slow": 0, "fast": 3 * HOUR_US}, score_hours.prune)
    fast = owner.ids["fast"]
    gone = {key for key in hours if key[1] == fast and key[0] < 3 * HOUR_US}
    assert await store.read(stored) == {key: row for key, row in hours.items() if key not in gone}
    assert dict(deleted) == {"fast": len(gone)}


# ---------------------------------------------------------------- hours of an asset


@pytest.fixture
def read(url: str) -> Callable[..., Any]:
    """A call of a query, on a database with windows of two assets that end at the cells 4 to 33."""

    async def fill() -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            for cell in range(30):
                peak = {10: 7.0, 20: 3.0}.get(cell, 0.5)
                alerts = [change(cell + LENGTH, cell + LENGTH, AlertState.FIRING)] if cell == 10 else []
                rows = await owner.rows({"R1": peak, "R2": NAN if cell < 9 else 0.25}, cell, alerts=alerts)
                await owner.save(owner.step(rows))
            second = [
                change(24, moment, state, asset=1, contributions=(Contribution("pitch", 1.0, 0.0, 9.0),))
                for moment, state in ((24, AlertState.FIRING), (26, AlertState.CLOSED))
            ]
            await owner.save(owner.step(await owner.rows({"R1": 0.5, "R2": 0.25}, 30, alerts=second)))
            await store.run(assets.register, "pumps", ["R1"], Partition("pumps", 0))

    asyncio.run(fill())

    def call(name: str, *arguments: Any, **options: Any) -> Any:
        with open_reader(url) as reader:
            found = getattr(Reader, name)(reader, *arguments, **options)
            return found if isinstance(found, dict | list) else list(found)

    return call


def test_hours_of_an_asset_are_in_order_of_time(read: Callable[..., Any]) -> None:
    rows = read("score_hours", "R1", FLEET)
    assert rows[2] == {
        "asset": "R1",
        "fleet": FLEET,
        "start": "1970-01-01T02:00:00Z",
        "end": "1970-01-01T03:00:00Z",
        "score": 7.0,
        "n_windows": 6,
        "n_anomalous": 1,
        "n_unscored": 0,
    }
    assert [row["start"][11:13] for row in rows] == ["00", "01", "02", "03", "04", "05"]
    assert sum(row["n_windows"] for row in rows) == 31
    unscored = read("score_hours", "R2")
    assert (unscored[0]["score"], unscored[0]["n_unscored"]) == (None, 2)


@pytest.mark.parametrize(
    ("only", "hours"),
    [
        ({"since": at(18)}, [3, 4, 5]),
        ({"since": at(20)}, [3, 4, 5]),
        ({"until": at(12)}, [0, 1]),
        ({"until": at(12.5)}, [0, 1, 2]),
        ({"since": at(99)}, []),
    ],
    ids=str,
)
def test_hours_are_filtered_by_overlap(read: Callable[..., Any], only: dict[str, Any], hours: list[int]) -> None:
    assert [int(row["start"][11:13]) for row in read("score_hours", "R1", FLEET, **only)] == hours


def test_hours_of_an_ambiguous_asset_need_its_fleet(read: Callable[..., Any]) -> None:
    with pytest.raises(NotFound, match="fleets pumps, turbines"):
        read("score_hours", "R1")
    assert read("score_hours", "R1", "pumps") == read("score_hours", "nobody") == []


# ---------------------------------------------------------------- lanes


@pytest.mark.parametrize("columns", [1, 2, 5, 17, 30, 60])
def test_a_lane_has_the_highest_score_of_each_part(read: Callable[..., Any], columns: int) -> None:
    since, until = at(4), at(34)
    lanes = read("lanes", FLEET, since, until, columns)
    assert list(lanes) == ["R1", "R2"]
    assert {len(lane) for lane in lanes.values()} == {columns}
    width = 30 / columns
    is_exact = width < CELLS_PER_HOUR  # wider columns are made of whole hours
    for name, scores in {
        "R1": [7.0 if end == 14 else 3.0 if end == 24 else 0.5 for end in range(4, 34)],
        "R2": [None if end < 13 else 0.25 for end in range(4, 34)],
    }.items():
        expected: list[float | None] = [None] * columns
        for end, score in enumerate(scores):
            place = int(end / width + 1e-9)
            if score is not None:
                expected[place] = max(score, expected[place] or 0.0)
            if score is not None and width < 1 and place > 0:
                expected[place - 1] = score  # it fills the columns since the window before
        if is_exact:
            assert lanes[name] == expected
        assert max(score or 0 for score in lanes[name]) == max(score or 0 for score in expected)


def test_a_window_fills_the_columns_since_the_one_before() -> None:
    hourly = {2: 0.5, 5: 7.0, 8: None, 11: 3.0}
    assert queries._filled(hourly, 0, 13, 3) == [0.5, 0.5, 0.5, 7.0, 7.0, 7.0, None, None, None, 3.0, 3.0, 3.0, None]
    missed = {0: 0.5, 1: 0.5, 2: 0.5, 6: 7.0}
    assert queries._filled(missed, 0, 8, 3) == [0.5, 0.5, 0.5, None, None, None, 7.0, None], "a gap stays one"
    assert queries._filled({1: 0.5, 9: 7.0}, 1, 11, 3) == [0.5, *[None] * 5, 7.0, 7.0, 7.0, None], "an hour at most"


def test_lanes_of_many_windows_show_hours(read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_WINDOWS", 3)
    lane = read("lanes", FLEET, at(6), at(36), 30)["R1"]
    assert lane[6:12] == [7.0] * 6, "the hour from cell 12 to 18"
    assert lane[12:18] == [0.5] * 6


async def test_lanes_of_deleted_scores_show_hours(read: Callable[..., Any], url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        await prune_scores(store, {FLEET: 20 * INTERVAL_US})
    lane = (await asyncio.to_thread(read, "lanes", FLEET, at(6), at(36), 30))["R1"]
    assert lane[6:12] == [7.0] * 6
    assert lane[18:24] == [3.0, *[0.5] * 5]


def test_lanes_of_a_fleet_without_scores_are_empty(read: Callable[..., Any]) -> None:
    assert read("lanes", "pumps", at(0), at(6), 3) == {"R1": [None] * 3}
    assert read("lanes", "unknown", at(0), at(6), 3) == {}
    with pytest.raises(ValueError, match="lanes from"):
        read("lanes", FLEET, at(6), at(6), 3)


# ---------------------------------------------------------------- rankings


def test_assets_are_ranked_by_anomalous_windows(read: Callable[..., Any]) -> None:
    first, second = read("top_assets", FLEET, at(0), at(40))
    assert (first["asset"], first["score"], first["n_anomalous"], first["n_windows"]) == ("R1", 7.0, 2, 31)
    assert (second["asset"], second["n_unscored"]) == ("R2", 9)
    assert [row["asset"] for row in read("top_assets", FLEET, at(0), at(40), limit=1)] == ["R1"]
    assert read("top_assets", FLEET, at(0) - timedelta(days=2), at(0)) == []


def test_sensors_are_ranked_by_their_contributions(read: Callable[..., Any]) -> None:
    both = read("top_sensors", fleet=FLEET)
    assert [(row["name"], row["alerts"]) for row in both] == [("pitch", 2), ("power", 1)]
    assert sum(row["share"] for row in both) == pytest.approx(1)
    [only] = read("top_sensors", "R2", FLEET)
    assert only == {"name": "pitch", "share": 1.0, "alerts": 1}
    assert [row["name"] for row in read("top_sensors", since=at(27))] == ["power", "pitch"], "of the open alert"
    assert read("top_sensors", until=at(14)) == []
