"""Names of assets in any script, from the tables to globs, keys and payloads of notifications."""

from __future__ import annotations

import asyncio
import json
import unicodedata

import pytest

from monitor.store import assets
from monitor.store.engine import AsyncStore
from monitor.store.outbox import Channel
from monitor.store.reader import open_reader
from monitor.types import AlertState, Contribution
from tests.contract.steps import CONTRIBUTIONS, FLEET, change, own, rows_of

NAMES = ["Kühler 3", "温度計", "насос-2", "a'b\"c\\d", "100%_[x]*?", "-1", "x" * 128, "🌡", "Ä/ö:1;--", "K{0}"]
HOSTILE = "\x1b]0;pwned\x07\u202eq"


@pytest.fixture
def filled(url: str) -> str:
    async def fill() -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            await store.run(assets.register_sensors, FLEET, ["power", "pitch"])
            told = (Contribution(HOSTILE, 0.9, 1 / 3, 2 / 3), *CONTRIBUTIONS[1:])
            for at, name in enumerate(NAMES):
                alert = change(10 + at, 10 + at, AlertState.FIRING, contributions=told, peak=10 / 3)
                rows = await owner.rows({name: 2.0}, 10 + at, alerts=[alert])
                await owner.save(owner.step(rows, channels=(Channel("duty"),)))

    asyncio.run(fill())
    return url


def test_each_name_comes_back_and_is_found_by_itself(filled: str) -> None:
    with open_reader(filled) as reader:
        assert {row["asset"] for row in reader.assets()} == set(NAMES)
        for name in NAMES:
            for spelling in (name, unicodedata.normalize("NFD", name)):
                assert [row["asset"] for row in reader.scores(spelling)] == [name]
                if not set("*?") & set(name):
                    assert [alert["asset"] for alert in reader.alerts(asset=spelling)] == [name]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("K*hler*", ["Kühler 3"]),
        ("K?hler 3", ["Kühler 3"]),
        ("K\u0075\u0308hler*", ["Kühler 3"]),
        ("?", ["🌡"]),
        ("温*", ["温度計"]),
        ("100%_[x]??", ["100%_[x]*?"]),
        ("%", []),
        ("_", []),
        ("-*", ["-1"]),
        ("k*", []),
        ("*\\*", ["a'b\"c\\d"]),
    ],
)
def test_globs_match_whole_characters(glob: str, found: list[str], filled: str) -> None:
    with open_reader(filled) as reader:
        assert [alert["asset"] for alert in reader.alerts(asset=glob)] == found


def test_notifications_carry_any_name_and_no_command(filled: str) -> None:
    async def read() -> list[dict[str, str]]:
        async with AsyncStore(filled) as store:
            return await store.read(rows_of, "outbox", "dedup_key, body")

    rows = asyncio.run(read())
    bodies = [json.loads(row["body"]) for row in rows]
    assert {body["asset"] for body in bodies} == set(NAMES)
    assert len({row["dedup_key"] for row in rows}) == len(NAMES)
    for row, body in zip(rows, bodies, strict=True):
        assert row["dedup_key"].isascii()
        assert row["body"].isprintable()
        assert body["text"].isprintable()
        told = {"name": HOSTILE, "share": 0.9, "expected": 0.3333333, "actual": 0.6666667}
        assert body["sensors"][0].items() >= told.items()
        assert body["peak_score"] == 3.333333

