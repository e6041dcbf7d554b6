"""The console's tokens, its watch for changes and its readers: alike on both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monitor import control
from monitor.clock import SystemClock
from monitor.console.reading import ReaderPool
from monitor.control import Actor
from monitor.errors import ConfigError, Conflict, NotFound
from monitor.store import jobs, quarantine, tokens
from monitor.types import AlertState, Partition, Quarantined
from tests.contract.steps import FLEET, change, own

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.store.engine import AsyncStore


@pytest.fixture
async def pool(url: str) -> AsyncIterator[ReaderPool]:
    found = ReaderPool(url, n_readers=2)
    yield found
    await found.close()


async def test_a_token_is_kept_as_a_hash(store: AsyncStore, pool: ReaderPool) -> None:
    made = await store.run(tokens.add, "ann", "act", 1_000_000, 2_000_000)
    [row] = await pool.read(lambda reader: reader.console_hashes())
    assert row["hash"] == tokens.hash_token(made.token)
    assert made.token not in str(row)
    [shown] = await pool.read(lambda reader: reader.console_tokens())
    assert (shown["name"], shown["scope"], shown["expires_at"]) == ("ann", "act", "1970-01-01T00:00:02Z")
    assert "hash" not in shown


async def test_a_token_ends_once(store: AsyncStore) -> None:
    await store.run(tokens.add, "ann", "act", 0, None)
    with pytest.raises(Conflict, match="choose another"):
        await store.run(tokens.add, "ann", "read", 0, None)
    with pytest.raises(ConfigError, match="cannot name a token"):
        await store.run(tokens.add, "ann\n", "read", 0, None)
    await store.run(tokens.revoke, "ann", 5)
    with pytest.raises(Conflict, match="was revoked before"):
        await store.run(tokens.revoke, "ann", 6)
    with pytest.raises(NotFound, match="token bob"):
        await store.run(tokens.revoke, "bob", 6)


async def test_each_change_is_seen_in_its_topic(store: AsyncStore, pool: ReaderPool) -> None:
    seen = await pool.read(lambda reader: reader.changes())

    async def topics() -> set[str]:
        before = dict(seen)
        seen.update(await pool.read(lambda reader: reader.changes()))
        return {topic for topic in seen if seen[topic] != before[topic]}

    owner = await own(store)
    assert "scores" in await topics()
    opened = change(13, 13, AlertState.FIRING, asset=0)
    await owner.save(owner.step(await owner.rows({"R1": 2.5}, 8, alerts=[opened])))
    assert {"alerts", "scores"} <= await topics()
    assert await topics() == set()
    await control.acknowledge(store, SystemClock(), 1, actor=Actor("ann", "cli"))
    assert await topics() == {"alerts"}
    await store.run(jobs.request, FLEET, "ann", 5)
    assert await topics() == {"models"}
    await store.run(quarantine.insert, [Quarantined(Partition("plant", 0), 1, "late: x", b"x", 0)], 9)
    assert await topics() == {"ingestion"}


async def test_many_calls_share_few_readers(store: AsyncStore, pool: ReaderPool) -> None:
    assert store
    found = await asyncio.gather(*(pool.read(lambda reader: len(reader.console_tokens())) for _ in range(30)))
    assert found == [0] * 30
