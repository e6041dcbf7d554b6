"""Queries for files: all rows of a range, page by page, on both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from monitor.clock import from_us
from monitor.errors import NotFound
from monitor.store import assets
from monitor.store.engine import AsyncStore
from monitor.store.queries import export
from monitor.store.reader import Reader, open_reader
from monitor.types import AlertState, Partition
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, NAN, change, own

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

CELLS = [0, 1, 2, 3, 9, 400, 401, 9000]


def at(cell: int) -> datetime:
    return from_us(cell * INTERVAL_US)


@pytest.fixture
def reader(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A database with windows in clusters, days apart, of three assets of two fleets, read in small pages."""
    monkeypatch.setattr(export, "PAGE", 3)
    monkeypatch.setattr(export, "ALERT_PAGE", 2)

    async def fill() -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            for cell in CELLS:
                await owner.score(cell, R1=0.5 + cell / 10_000, R2=NAN if cell == 2 else 1.5)
                await owner.save(owner.step(await owner.rows({"P1": 0.25}, cell, fleet="pumps")))
            moments = {0: [20, 30, 40], 1: [20, 30], 2: [20], 3: [20], 4: [20], 5: [20, 50]}
            names = {f"R{asset + 1}": 0.5 for asset in moments}
            changes = [
                change(opened, moment, state, asset=asset)
                for asset, times in moments.items()
                for opened in times
                for moment, state in ((opened, AlertState.FIRING), (opened + 5, AlertState.CLOSED))
            ]
            await owner.save(owner.step(await owner.rows(names, 9010, alerts=changes)))
            await store.run(assets.register, "pumps", ["R1"], Partition("pumps", 0))

    asyncio.run(fill())
    with open_reader(url) as opened:
        yield opened


@pytest.mark.parametrize(
    "only",
    [
        {},
        {"since": at(5)},
        {"since": at(5), "until": at(405)},
        {"until": at(4)},
        {"since": at(20_000)},
        {"verdict": "anomalous"},
        {"verdict": "unscored", "since": at(6), "until": at(7)},
    ],
    ids=str,
)
def test_pages_hold_what_one_query_would(reader: Reader, only: dict[str, Any]) -> None:
    for asset in ("R1", "R2"):
        assert list(reader.export_scores(asset, FLEET, **only)) == list(reader.scores(asset, FLEET, **only))
    every = [row for n in range(1, 7) for row in reader.scores(f"R{n}", FLEET, **only)]
    pages = list(reader.export_scores(fleet=FLEET, **only))
    assert sorted(pages, key=lambda row: (row["asset"], row["start"])) == every
    assert [row["start"] for row in pages] == sorted(row["start"] for row in pages)


def test_an_ambiguous_asset_is_not_exported(reader: Reader) -> None:
    with pytest.raises(NotFound, match="fleets pumps, turbines"):
        list(reader.export_scores("R1"))
    assert list(reader.export_scores("nobody")) == list(reader.export_scores(fleet="nobody")) == []
    assert len(list(reader.export_scores("P1"))) == len(CELLS)


def test_alerts_of_one_moment_span_pages_once(reader: Reader) -> None:
    pages = list(reader.export_alerts())
    assert len(pages) == 10
    assert sorted(row["id"] for row in pages) == sorted(row["id"] for row in reader.alerts())
    assert [row["opened_at"] for row in pages] == [row["opened_at"] for row in reader.alerts()]
    some = list(reader.export_alerts(asset="R1", since=at(25), until=at(40)))
    assert [row["opened_at"] for row in some] == [at(30).isoformat().replace("+00:00", "Z")]


def test_the_newest_windows_need_no_walk(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scores` with a limit took 22 s on a hundred million rows: it sorted every instant of the history."""
    asked: list[int] = []
    fetch = type(reader).fetch

    def spy(self: Reader, sql: str, values: Any = None) -> Any:
        asked.append((values or {}).get("lowest", 0))
        return fetch(self, sql, values)

    monkeypatch.setattr(type(reader), "fetch", spy)
    [newest] = reader.scores("R1", FLEET, limit=1)
    assert newest["end"] == at(9010 + LENGTH).isoformat().replace("+00:00", "Z")
    assert asked[-1] > 8000 * INTERVAL_US
    assert len(list(reader.scores("R1", FLEET, limit=99))) == len(CELLS) + 1
