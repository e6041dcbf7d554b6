"""Consumed offsets of a live run as of one moment, despite later commits."""

from __future__ import annotations

import asyncio
from threading import Thread
from typing import TYPE_CHECKING

from monitor.store import assets, partitions
from monitor.store.commit import MissingRange
from monitor.store.engine import AsyncStore
from monitor.store.offsets import Consumed, HomePartition, consumed, home_partitions, repeatable_read
from monitor.types import Partition
from tests.contract.steps import FLEET, HOME, own

if TYPE_CHECKING:
    from monitor.store.queries import Reader

OTHER = Partition("plant.readings", 1)


async def test_consumed_offsets_are_a_range_with_its_gaps(store: AsyncStore) -> None:
    owner = await own(store)
    first = owner.next_offset
    gap = MissingRange(first + 4, first + 7)
    await owner.save(owner.step(gaps=[gap]))
    await store.run(partitions.claim, "monitor", OTHER, "claimed, not started")
    assert await repeatable_read(store.address.url, lambda reader: consumed(reader, "monitor")) == {
        HOME: Consumed(first, first + 10, (tuple(gap),))
    }
    assert await repeatable_read(store.address.url, lambda reader: consumed(reader, "another group")) == {}


async def test_home_partitions_have_the_first_accepted_offset(store: AsyncStore) -> None:
    await store.run(assets.register, FLEET, ["R1"], HOME)
    entered = await store.run(assets.register, FLEET, ["R2", "R3"], OTHER, {"R2", "R3"})
    await store.run(assets.admit, {entered["R2"].id: 77})
    assert await repeatable_read(store.address.url, home_partitions) == {
        (FLEET, "R1"): HomePartition(HOME, 0),
        (FLEET, "R2"): HomePartition(OTHER, 77),
        (FLEET, "R3"): HomePartition(OTHER, assets.NOT_ADMITTED),  # no commit admitted it
    }


async def test_later_commits_are_not_visible(store: AsyncStore, url: str) -> None:
    await store.run(assets.register, FLEET, ["R1"], HOME)

    async def write() -> None:
        async with AsyncStore(url) as another:
            await another.run(assets.register, FLEET, ["R2"], HOME)

    def count_twice(reader: Reader) -> tuple[int, int]:
        before = len(home_partitions(reader))
        thread = Thread(target=asyncio.run, args=(write(),))
        thread.start()
        thread.join()
        return before, len(home_partitions(reader))

    assert await repeatable_read(url, count_twice) == (1, 1)
    assert len(await repeatable_read(url, home_partitions)) == 2
