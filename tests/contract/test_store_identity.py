"""The database's identity names the default consumer group, and the time of the first start is stored once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from monitor.store import identity, schema
from monitor.store.engine import AsyncStore
from monitor.store.offsets import default_group, repeatable_read

if TYPE_CHECKING:
    from monitor.store.identity import Identity

NOW_US = 1_700_000_000_000_000
CLAIMED = """
    INSERT INTO source_partition (pipeline, topic, partition, epoch, owner, rewind_state, counters, next_offset)
    VALUES (:pipeline, 'plant', 0, 1, 'me', '{}', '{}', :next_offset)
"""


async def identity_of(url: str) -> Identity:
    async with AsyncStore(url) as store:
        return await store.read(identity.read)


async def test_every_daemon_of_a_database_finds_the_same_group(store: AsyncStore, other_store: AsyncStore) -> None:
    ours, theirs = await store.run(identity.start, NOW_US), await other_store.run(identity.start, NOW_US + 5)
    assert ours == theirs
    assert ours.default_group == ours.client_id == f"monitor-{ours.name}"
    assert await other_store.read(identity.read) == ours


async def test_the_first_start_is_stored_once(store: AsyncStore) -> None:
    assert (await store.read(identity.read)).first_started_us is None
    for later_us in (0, 60_000_000):
        assert (await store.run(identity.start, NOW_US + later_us)).first_started_us == NOW_US


async def test_two_databases_have_two_groups(empty_url: str) -> None:
    found = []
    for _ in range(2):
        await schema.upgrade(empty_url)
        found.append(await identity_of(empty_url))
        await schema.downgrade(empty_url, "base")
    assert found[0].default_group != found[1].default_group


@pytest.mark.parametrize(
    ("pipeline", "next_offset", "keeps_group", "first_us"),
    [("monitor", 7, True, 0), ("monitor", None, False, None), ("plant-a", 7, False, 0)],
)
def test_an_existing_database_goes_on_as_before(
    empty_url: str, pipeline: str, next_offset: int | None, keeps_group: bool, first_us: int | None
) -> None:
    async def upgraded() -> Identity:
        values = {"pipeline": pipeline, "next_offset": next_offset}
        await schema.upgrade(empty_url)
        async with AsyncStore(empty_url) as store:
            await store.run(lambda connection: connection.execute(text(CLAIMED), values) and None)
        await schema.downgrade(empty_url, "0002")
        await schema.upgrade(empty_url)
        return await identity_of(empty_url)

    found = asyncio.run(upgraded())
    assert (found.default_group == "monitor") is keeps_group
    assert found.first_started_us == first_us


async def test_a_replay_finds_the_group_of_the_daemons(url: str) -> None:
    assert await repeatable_read(url, default_group) == (await identity_of(url)).default_group
