"""Leases: one holder at a time, by the database's clock; a former holder writes nothing any more."""

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


async def take(store: AsyncStore, holder: str, ttl_s: float = LONG_S) -> int | None:
    return await store.run(leases.acquire, LEASE, holder, ttl_s)


async def run_out(store: AsyncStore, by_us: int = 1) -> None:
    """Let the lease end this long ago, by the database's clock."""
    now_us = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"
    if not store.address.is_sqlite:
        now_us = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    await store.run(lambda connection: connection.execute(text(f"UPDATE lease SET until_us = {now_us} - {by_us}")))


def writes_under(connection: Connection, epoch: int, fleet: str) -> None:
    leases.check(connection, LEASE, epoch)
    assets.ensure_fleet(connection, fleet)


async def test_a_lease_has_one_holder(store: AsyncStore, other_store: AsyncStore) -> None:
    assert await take(store, "me") == 1
    assert await take(other_store, "you") is None
    [row] = await store.read(rows_of, "lease")
    assert (row["holder"], row["epoch"]) == ("me", 1)


async def test_leases_of_different_names_know_nothing_of_each_other(store: AsyncStore) -> None:
    assert await take(store, "me") == 1
    assert await store.run(leases.acquire, "retrain", "you", LONG_S) == 1
    with pytest.raises(Fenced, match="lease upkeep: epoch 1 is over, it is gone"):
        await store.run(leases.check, "upkeep", 1)


async def test_renewing_keeps_the_epoch_and_moves_the_end(store: AsyncStore) -> None:
    assert await take(store, "me", 100) == 1
    [before] = await store.read(rows_of, "lease")
    assert await take(store, "me", 200) == 1
    [after] = await store.read(rows_of, "lease")
    assert 99_000_000 < after["until_us"] - before["until_us"] < 130_000_000


async def test_the_end_is_counted_from_now(store: AsyncStore) -> None:
    before_us = time.time_ns() // 1000
    await take(store, "me", 15.5)
    [row] = await store.read(rows_of, "lease")
    assert before_us - 1000 <= row["until_us"] - 15_500_000 <= time.time_ns() // 1000 + 1000


async def test_a_lease_that_ran_out_is_handed_over_with_a_greater_epoch(
    store: AsyncStore, other_store: AsyncStore
) -> None:
    assert await take(store, "me") == 1
    await run_out(store)
    assert await take(other_store, "you") == 2
    assert await take(store, "me") is None


async def test_a_lease_really_runs_out(store: AsyncStore, other_store: AsyncStore) -> None:
    """Without anybody's help: only time passes."""
    assert await take(store, "me", 0.3) == 1
    assert await take(other_store, "you") is None
    await asyncio.sleep(0.35)
    assert await take(other_store, "you") == 2


async def test_a_former_holder_is_fenced(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await take(store, "me")
    assert mine is not None
    await store.run(writes_under, mine, FLEET)
    await run_out(store)
    yours = await take(other_store, "you")
    assert yours is not None
    with pytest.raises(Fenced, match="lease outbox: epoch 1 is over, you holds it under epoch 2"):
        await store.run(writes_under, mine, "too late")
    await other_store.run(writes_under, yours, "pumps")
    assert set(await store.read(assets.fleets)) == {FLEET, "pumps"}


async def test_a_holder_whose_time_is_over_is_fenced_although_nobody_came(store: AsyncStore) -> None:
    epoch = await take(store, "me")
    assert epoch is not None
    await run_out(store)
    with pytest.raises(Fenced, match="epoch 1 is over, me held it"):
        await store.run(writes_under, epoch, "too late")
    assert await take(store, "me") == epoch, "nobody held it in between: what was begun may go on"
    await store.run(writes_under, epoch, FLEET)


async def test_a_lease_given_up_is_free_at_once(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await take(store, "me")
    assert mine is not None
    await store.run(leases.release, LEASE, "me", mine)
    with pytest.raises(Fenced):
        await store.run(leases.check, LEASE, mine)
    assert await take(other_store, "you") == 2


async def test_who_holds_it_no_more_cannot_give_it_up(store: AsyncStore, other_store: AsyncStore) -> None:
    mine = await take(store, "me")
    assert mine is not None
    await run_out(store)
    yours = await take(other_store, "you")
    assert yours is not None
    await store.run(leases.release, LEASE, "me", mine)
    await store.run(leases.release, LEASE, "you", mine)  # a former self
    await other_store.run(leases.check, LEASE, yours)


@pytest.mark.parametrize("is_new", [True, False])
async def test_of_two_takers_at_once_one_wins(store: AsyncStore, other_store: AsyncStore, is_new: bool) -> None:
    if not is_new:
        await take(store, "before")
        await run_out(store)
    takers = [take(each, f"{name} {n}") for n in range(5) for name, each in (("me", store), ("you", other_store))]
    epochs = [epoch for epoch in await asyncio.gather(*takers) if epoch is not None]
    assert epochs == [1 if is_new else 2]


async def test_nobody_takes_it_while_a_transaction_works_under_it(store: AsyncStore, other_store: AsyncStore) -> None:
    """The lease runs out in the middle of the transaction: the next holder waits for its end."""
    epoch = await take(store, "me", 0.3)
    assert epoch is not None
    loop = asyncio.get_running_loop()
    inside = asyncio.Event()

    def slow(connection: Connection) -> None:
        writes_under(connection, epoch, FLEET)
        loop.call_soon_threadsafe(inside.set)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(0.8)"))
        else:
            time.sleep(0.8)

    async def takes_over() -> bool:
        await asyncio.sleep(0.4)
        assert await take(other_store, "you") == 2
        return work.done()

    work = asyncio.create_task(store.run(slow))
    await inside.wait()
    was_done = await takes_over()
    await work
    if not store.address.is_sqlite:  # there the commit and its task are two threads apart
        assert was_done
    assert set(await store.read(assets.fleets)) == {FLEET}
