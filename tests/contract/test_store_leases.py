"""Leases: one holder at a time by the database's clock, and no write by a former holder."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, text

from monitor.errors import Fenced
from monitor.store import assets, leases
from tests.contract.steps import FLEET, rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

LEASE = "outbox"
LONG_S = 600.0


async def acquire(store: AsyncStore, holder: str, ttl_s: float = LONG_S) -> int | None:
    return await store.run(leases.acquire, LEASE, holder, ttl_s)


async def expire(store: AsyncStore, by_us: int = 1) -> None:
    """Set the end of the lease this far into the past, by the database's clock."""
    now_us = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"
    if not store.address.is_sqlite:
        now_us = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    await store.run(lambda connection: connection.execute(text(f"UPDATE lease SET until_us = {now_us} - {by_us}")))


def write_with_epoch(connection: Connection, epoch: int, fleet: str) -> None:
    leases.check(connection, LEASE, epoch)
    assets.ensure_fleet(connection, fleet)


async def test_a_lease_has_one_holder(store: AsyncStore, other_store: AsyncStore) -> None:
    assert await acquire(store, "me") == 1
    assert await acquire(other_store, "you") is None
    [row] = await store.read(rows_of, "lease")
    assert (row["holder"], row["epoch"]) == ("me", 1)


async def test_leases_of_different_names_are_independent(store: AsyncStore) -> None:
    assert await acquire(store, "me") == 1
    assert await store.run(leases.acquire, "retrain", "you", LONG_S) == 1
    with pytest.raises(Fenced, match="lease upkeep: epoch 1 is over, it is gone"):
        await store.run(leases.check, "upkeep", 1)


async def test_renewing_keeps_the_epoch_and_moves_the_end(store: AsyncStore) -> None:
    assert await acquire(store, "me", 100) == 1
    [before] = await store.read(rows_of, "lease")
    assert await acquire(store, "me", 200) == 1
    [after] = await store.read(rows_of, "lease")
    assert 99_000_000 < after["until_us"] - before["until_us"] < 130_000_000


async def test_time_to_live_counts_from_the_call(store: AsyncStore) -> None:
    before_us = time.time_ns() // 1000
    await acquire(store, "me", 15.5)
    [row] = await store.read(rows_of, "lease")
    assert before_us - 1000 <= row["until_us"] - 15_500_000 <= time.time_ns() // 1000 + 1000


async def test_an_expired_lease_changes_hands_with_a_new_epoch(
    store: AsyncStore, other_store: AsyncStore
) -> None:
    assert await acquire(store, "me") == 1
    await expire(store)
    assert await acquire(other_store, "you") == 2
    assert await acquire(store, "me") is None


async def test_a_lease_expires_with_time(store: AsyncStore, other_store: AsyncStore) -> None:
    """Only time passes here."""
    assert await acquire(store, "me", 0.3) == 1
    assert await acquire(other_store, "you") is None
    await asyncio.sleep(0.35)
    assert await acquire(other_store, "you") == 2


async def test_a_former_holder_is_fenced(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await acquire(store, "me")
    assert mine is not None
    await store.run(write_with_epoch, mine, FLEET)
    await expire(store)
    yours = await acquire(other_store, "you")
    assert yours is not None
    with pytest.raises(Fenced, match="lease outbox: epoch 1 is over, you holds it under epoch 2"):
        await store.run(write_with_epoch, mine, "too late")
    await other_store.run(write_with_epoch, yours, "pumps")
    assert set(await store.read(assets.fleets)) == {FLEET, "pumps"}


async def test_an_expired_holder_is_fenced_without_a_successor(store: AsyncStore) -> None:
    epoch = await acquire(store, "me")
    assert epoch is not None
    await expire(store)
    with pytest.raises(Fenced, match="epoch 1 is over, me held it"):
        await store.run(write_with_epoch, epoch, "too late")
    assert await acquire(store, "me") == epoch, "no other holder in between: the work may go on"
    await store.run(write_with_epoch, epoch, FLEET)


async def test_a_released_lease_is_free_at_once(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await acquire(store, "me")
    assert mine is not None
    await store.run(leases.release, LEASE, "me", mine)
    with pytest.raises(Fenced):
        await store.run(leases.check, LEASE, mine)
    assert await acquire(other_store, "you") == 2


async def test_a_former_holder_cannot_release_it(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await acquire(store, "me")
    assert mine is not None
    await expire(store)
    yours = await acquire(other_store, "you")
    assert yours is not None
    await store.run(leases.release, LEASE, "me", mine)
    await store.run(leases.release, LEASE, "you", mine)  # under a former epoch
    await other_store.run(leases.check, LEASE, yours)


@pytest.mark.parametrize("is_new", [True, False])
async def test_concurrent_callers_leave_one_holder(store: AsyncStore, other_store: AsyncStore, is_new: bool) -> None:
    if not is_new:
        await acquire(store, "before")
        await expire(store)
    calls = [acquire(each, f"{name} {n}") for n in range(5) for name, each in (("me", store), ("you", other_store))]
    epochs = [epoch for epoch in await asyncio.gather(*calls) if epoch is not None]
    assert epochs == [1 if is_new else 2]


async def test_a_transaction_under_it_delays_the_next_holder(store: AsyncStore, other_store: AsyncStore) -> None:
    """The lease expires in the middle of the transaction. The next holder waits for its end."""
    epoch = await acquire(store, "me", 0.3)
    assert epoch is not None
    loop = asyncio.get_running_loop()
    inside = asyncio.Event()

    def slow(connection: Connection) -> None:
        write_with_epoch(connection, epoch, FLEET)
        loop.call_soon_threadsafe(inside.set)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(0.8)"))
        else:
            time.sleep(0.8)

    async def acquire_next() -> bool:
        await asyncio.sleep(0.4)
        assert await acquire(other_store, "you") == 2
        return work.done()

    work = asyncio.create_task(store.run(slow))
    await inside.wait()
    was_done = await acquire_next()
    await work
    if not store.address.is_sqlite:  # there the commit and its task are two threads apart
        assert was_done
    assert set(await store.read(assets.fleets)) == {FLEET}
