"""The commit protocol: claim, start and commit, fencing, and a COMMIT with a lost answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from types import SimpleNamespace as Namespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from monitor.errors import Fenced, InvariantBroken, ModelsChanged
from monitor.store import assets, daemons, partitions, scores, versions
from monitor.store.commit import Commit, Digest, MissingRange, Snapshot
from monitor.store.engine import AsyncStore
from monitor.store.partitions import Claim
from monitor.types import AlertState, Counters, Partition, Quarantined
from tests.contract.steps import FLEET, HOME, INTERVAL_US, NAN, VERSION, Owner, change, count, own, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from tests.servers import PostgresServer

WRITTEN = ("score", "asset", "alert", "quarantine", "gap")


async def test_a_new_partition_has_no_state(store: AsyncStore) -> None:
    claim = await store.run(partitions.claim, "monitor", HOME, "me")
    assert claim == Claim(1, None, None, {}, Counters())


async def test_the_start_is_stored_before_the_first_record(store: AsyncStore) -> None:
    await store.run(partitions.claim, "monitor", HOME, "me")
    await store.run(partitions.set_start, "monitor", HOME, 1, 42)
    claim = await store.run(partitions.claim, "monitor", HOME, "me")
    assert (claim.next_offset, claim.rewind_offset) == (42, 42)
    [row] = await store.read(rows_of, "source_partition", "start_offset")
    assert row == {"start_offset": 42}


async def test_a_partition_starts_once(store: AsyncStore) -> None:
    owner = await own(store)
    with pytest.raises(Fenced):
        await store.run(partitions.set_start, "monitor", HOME, owner.epoch, 0)


async def test_a_claim_returns_the_last_commit(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.save(owner.step(rewind_offset=95, rewind_state={"max_cell": {FLEET: 7}}, log_end=500))
    claim = await store.run(partitions.claim, "monitor", HOME, "another")
    assert claim == Claim(2, 110, 95, {"max_cell": {FLEET: 7}}, Counters(records=110))


async def test_claims_since_the_last_commit_are_counted(store: AsyncStore) -> None:
    for n in (1, 2, 3):
        claim = await store.run(partitions.claim, "monitor", HOME, f"daemon {n}")
        assert claim.n_claims == n
    again = await store.run(partitions.claim, "monitor", HOME, "daemon 3")
    assert again.n_claims == 3, "an owner that claims again has not died"
    await store.run(partitions.set_start, "monitor", HOME, again.epoch, 100)
    owner = await own(store)
    await owner.save(owner.step())
    assert (await store.run(partitions.claim, "monitor", HOME, "another")).n_claims == 1
    assert (await store.run(partitions.claim, "monitor", HOME, "leaves")).n_claims == 2
    await store.run(daemons.deregister, "leaves", is_meant=False)
    assert (await store.run(partitions.claim, "monitor", HOME, "next")).n_claims == 3
    await store.run(daemons.deregister, "next")
    assert (await store.run(partitions.claim, "monitor", HOME, "leaves")).n_claims == 1
    await store.run(daemons.deregister, "leaves")
    assert (await store.run(partitions.claim, "monitor", HOME, "another")).n_claims == 1


async def test_a_claim_returns_latest_digest_and_snapshots(store: AsyncStore) -> None:
    owner = await own(store)
    first = [Snapshot(FLEET, 110, b"a"), Snapshot("pumps", 110, b"b")]
    await owner.save(owner.step(digest=Digest(110, "one"), snapshots=first))
    await owner.save(owner.step(digest=Digest(120, "two"), snapshots=[Snapshot("pumps", 120, b"d")]))
    await owner.save(owner.step(digest=Digest(120, "two"), snapshots=[Snapshot(FLEET, 130, b"c")]))
    claim = await store.run(partitions.claim, "monitor", HOME, "another")
    assert claim.digest == Digest(120, "two")
    assert sorted(claim.snapshots) == [Snapshot("pumps", 120, b"d"), Snapshot(FLEET, 130, b"c")]
    other = await store.run(partitions.claim, "replay", HOME, "another")
    assert (other.digest, other.snapshots) == (None, ())


async def test_a_commit_scored_by_a_former_champion_is_refused(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.score(8, a=0.5)
    seq = (await store.read(versions.activation_seqs))[FLEET]
    await owner.save(owner.step(await owner.rows({"a": 0.5}, 9, activation_seq=seq)))
    activated = await store.run(versions.activate, FLEET, VERSION, 0)
    assert activated.from_window_end_us == (await store.read(scores.newest_us))[FLEET], "after all decided windows"
    before = await store.read(count, WRITTEN)
    stale = owner.step(await owner.rows({"a": 0.5}, 10, activation_seq=seq))
    with pytest.raises(ModelsChanged, match="scored by activation"):
        await owner.save(stale)
    assert await store.read(count, WRITTEN) == before
    assert owner.next_offset == stale.old_next
    await owner.save(owner.step(await owner.rows({"a": 0.5}, 10, activation_seq=seq + 1)))


async def test_an_activation_waits_for_running_commits(
    store: AsyncStore, other_store: AsyncStore
) -> None:
    """In either order, no window that ends after the boundary was scored by the former champion."""
    owner = await own(store)
    await owner.score(8, a=0.5)
    seq = (await store.read(versions.activation_seqs))[FLEET]
    step = owner.step(await owner.rows({"a": 0.5}, 20, activation_seq=seq))
    inside = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        partitions.commit(connection, step)
        loop.call_soon_threadsafe(inside.set)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(0.5)"))
        else:
            time.sleep(0.5)

    saving = asyncio.create_task(store.run(slow))
    await inside.wait()
    activated = await other_store.run(versions.activate, FLEET, VERSION, 0)
    await saving
    assert activated.from_window_end_us == (await store.read(scores.newest_us))[FLEET] > 20 * INTERVAL_US


async def test_busy_commits_do_not_starve_an_activation(postgres: PostgresServer, server_url: str) -> None:
    """Each commit holds its lock for a while and the next follows at once: one always holds it."""
    async with AsyncStore(server_url, owner=True) as store:
        await own(store)
        seq = (await store.read(versions.activation_seqs))[FLEET]
        is_over = asyncio.Event()

        def save(connection: Connection) -> None:
            with contextlib.suppress(ModelsChanged):
                versions.check_activation_seq(connection, FLEET, seq)
            connection.execute(text("SELECT pg_sleep(0.2)"))

        async def saves(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            while not is_over.is_set():
                await store.run(save)

        busy = [asyncio.create_task(saves(number * 0.04)) for number in range(5)]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await store.run(versions.activate, FLEET, VERSION, 0)
        took_s = time.monotonic() - began
        is_over.set()
        await asyncio.gather(*busy)
        assert took_s < 2, f"{took_s:.1f} s"


async def test_commit_and_activation_lock_in_one_order(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lock the fleet's row and its activations. In two orders, PostgreSQL would end one as a deadlock."""
    async with AsyncStore(server_url, owner=True) as store, AsyncStore(server_url) as other:
        owner = await own(store)
        await owner.score(8, a=0.5)
        seq = (await store.read(versions.activation_seqs))[FLEET]
        activating: list[asyncio.Task[object]] = []
        loop = asyncio.get_running_loop()

        def activate() -> None:
            activating.append(asyncio.create_task(other.run(versions.activate, FLEET, VERSION, 0)))

        def register_sensors(connection: Connection, fleet: str, sensors: Sequence[str]) -> tuple[str, ...]:
            held = assets.register_sensors(connection, fleet, sensors)
            loop.call_soon_threadsafe(activate)
            connection.execute(text("SELECT pg_sleep(0.5)"))
            return held

        monkeypatch.setattr(partitions, "assets", Namespace(**vars(assets) | {"register_sensors": register_sensors}))
        step = owner.step(await owner.rows({"a": 0.5}, 20, activation_seq=seq, sensors=("power", "pitch")))
        await store.run(partitions.commit, step)  # `store.save` would repeat it
        [activation] = activating
        await activation
        assert (await store.read(scores.newest_us))[FLEET] > 20 * INTERVAL_US


async def test_pipelines_do_not_share_partitions(store: AsyncStore) -> None:
    await own(store)
    claim = await store.run(partitions.claim, "replay", HOME, "me")
    assert (claim.epoch, claim.next_offset) == (1, None)


async def test_a_commit_writes_all_its_rows(store: AsyncStore) -> None:
    owner = await own(store)
    rows = await owner.rows({"a": 0.5, "b": 2.0, "c": NAN}, cell=8, alerts=[change(12, 12, AlertState.FIRING, asset=1)])
    bad = Quarantined(HOME, 103, "not_json: oops", b"\xff{", 77)
    saved = await owner.save(owner.step(rows, quarantined=[bad], gaps=[MissingRange(104, 106)]))
    assert not saved.was_done
    stored = await store.read(rows_of, "score JOIN asset ON id = asset_id", "name, start_us, end_us, score, verdict")
    assert [tuple(row.values()) for row in stored] == [
        ("a", 8 * INTERVAL_US, 12 * INTERVAL_US, 0.5, 0),
        ("b", 8 * INTERVAL_US, 12 * INTERVAL_US, 2.0, 1),
        ("c", 8 * INTERVAL_US, 12 * INTERVAL_US, None, 2),
    ]
    [alert] = await store.read(rows_of, "alert JOIN asset ON asset.id = asset_id", "name, opened_us")
    assert alert == {"name": "b", "opened_us": 12 * INTERVAL_US}
    [record] = await store.read(rows_of, "quarantine")
    assert (record["record_offset"], record["reason"], bytes(record["sample"])) == (103, "not_json: oops", b"\xff{")
    [gap] = await store.read(rows_of, "gap")
    assert (gap["from_offset"], gap["to_offset"]) == (104, 106)


async def test_an_old_epoch_is_fenced_and_writes_nothing(store: AsyncStore) -> None:
    zombie = await own(store)
    step = zombie.step(await zombie.rows({"a": 2.0}, 8))
    await own(store, owner="another")
    with pytest.raises(Fenced, match="stands at epoch 2, offset 100, owner another"):
        await zombie.save(step)
    assert await store.read(count, WRITTEN) == dict.fromkeys(WRITTEN, 0) | {"asset": 1}


async def test_two_claims_leave_one_owner(store: AsyncStore, other_store: AsyncStore) -> None:
    await own(store)
    claims = await asyncio.gather(
        store.run(partitions.claim, "monitor", HOME, "one"), other_store.run(partitions.claim, "monitor", HOME, "two")
    )
    assert {claim.epoch for claim in claims} == {2, 3}
    winner, loser = Owner(store, HOME, 3, 100, {}), Owner(other_store, HOME, 2, 100, {})
    with pytest.raises(Fenced):
        await loser.score(8, a=0.5)
    await winner.score(8, a=0.5)
    with pytest.raises(Fenced):
        await loser.score(8, a=0.5)


async def test_a_commit_from_another_offset_is_fenced(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.score(8, a=0.5)
    with pytest.raises(Fenced):
        await store.save(owner.step(old_next=115, new_next=130))


async def test_a_repeated_window_rolls_the_commit_back(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.score(8, a=0.5)
    repeated = await owner.rows({"a": 0.7}, cell=8)
    with pytest.raises(InvariantBroken):
        await store.save(owner.step(await owner.rows({"b": 0.5}, cell=8, sensors=["power"]), repeated))
    claim = await store.run(partitions.claim, "monitor", HOME, "me")
    assert claim.next_offset == 110
    assert await store.read(count, ["score"]) == {"score": 1}
    assert await store.read(assets.fleets) == {FLEET: None}


async def test_a_score_by_an_unpublished_version_is_refused(store: AsyncStore) -> None:
    owner = await own(store)
    with pytest.raises(InvariantBroken, match="v7"):
        await store.save(owner.step(await owner.rows({"a": 0.5}, 8, version=["v7"])))


async def test_other_sensors_than_the_stored_ones_are_fenced(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.save(owner.step(await owner.rows({"a": 0.5}, 8, sensors=["power", "pitch"])))
    with pytest.raises(Fenced, match="other sensors"):
        await store.save(owner.step(await owner.rows({"a": 0.5}, 9, sensors=["power"])))


def test_a_commit_must_move_the_offset() -> None:
    with pytest.raises(ValueError, match="must move"):
        Commit("monitor", HOME, 1, 5, 5, 5, {}, Counters(), 0)


# ---------------------------------------------------------------- a lost answer to COMMIT


@pytest.fixture
def commits(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make the next COMMIT of `store` fail, before it reaches the server or after it is done."""

    def arrange(*, after: bool) -> list[str]:
        dialect = store._pool.engine.dialect
        commit, log = dialect.do_commit, []

        def failing(connection: Any) -> None:
            if not log:
                log.append("lost")
                if after:
                    commit(connection)
                cut(connection, store)
            log.append("commit")
            commit(connection)

        monkeypatch.setattr(dialect, "do_commit", failing)
        return log

    return arrange


def cut(connection: Any, store: AsyncStore) -> None:
    """Lose the connection: PostgreSQL ends its backend, SQLite gets an I/O error."""
    if store.address.is_sqlite:
        import sqlite3

        raise sqlite3.OperationalError("disk I/O error")
    import asyncpg

    async def terminate(raw: Any) -> None:
        killer = await asyncpg.connect(store.address.url.replace("+asyncpg", ""))
        await killer.execute("SELECT pg_terminate_backend($1)", raw.get_server_pid())
        await killer.close()

    connection.run_async(terminate)
    connection.cursor().execute("SELECT 1")


@pytest.mark.parametrize("after", [False, True], ids=["before COMMIT", "after COMMIT"])
async def test_a_lost_answer_to_commit_changes_nothing(
    store: AsyncStore, commits: Callable[..., list[str]], after: bool
) -> None:
    owner = await own(store)
    await owner.score(8, a=0.5)
    commit = owner.step(await owner.rows({"a": 1.5, "b": 0.2}, 9, alerts=[change(13, 13, AlertState.FIRING)]))
    log = commits(after=after)
    saved = await owner.save(commit)
    assert log[0] == "lost"
    assert saved.was_done == after
    tables = ["score", "asset", "alert", "alert_transition"]
    assert await store.read(count, tables) == {"score": 3, "asset": 2, "alert": 1, "alert_transition": 1}
    [alert] = await store.read(rows_of, "alert JOIN asset ON asset.id = asset_id", "name, opened_us")
    assert alert == {"name": "a", "opened_us": 13 * INTERVAL_US}
    await owner.score(10, a=0.5, b=0.5)  # the next commit succeeds


async def test_a_repeated_commit_is_recognised(store: AsyncStore) -> None:
    owner = await own(store)
    commit = owner.step(await owner.rows({"a": 0.5}, 8))
    assert not (await store.save(commit)).was_done
    before = await store.read(rows_of, "asset")
    assert (await store.save(commit)).was_done
    assert await store.read(rows_of, "asset") == before
    assert await store.read(count, ["score"]) == {"score": 1}


async def test_a_lost_commit_after_another_claim_is_fenced(
    store: AsyncStore, other_store: AsyncStore, commits: Callable[..., list[str]]
) -> None:
    owner = await own(store)
    commit = owner.step(await owner.rows({"a": 0.5}, 8))
    await own(other_store, owner="another")
    commits(after=False)
    with pytest.raises(Fenced):
        await store.save(commit)


async def test_a_commit_by_concurrent_tasks_is_written_once(store: AsyncStore) -> None:
    owner = await own(store)
    commit = owner.step(await owner.rows({"a": 0.5}, 8))
    saved = await asyncio.gather(*(store.save(commit) for _ in range(4)))
    assert sorted(each.was_done for each in saved) == [False, True, True, True]
    assert await store.read(count, ["score"]) == {"score": 1}


async def test_a_cancelled_caller_does_not_abort_the_transaction(store: AsyncStore) -> None:
    owner = await own(store)
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow_save(connection: Connection, commit: Commit) -> None:
        partitions.commit(connection, commit)
        loop.call_soon_threadsafe(started.set)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_sleep(0.3)"))
        else:
            time.sleep(0.3)

    task = asyncio.create_task(store.run(slow_save, owner.step(await owner.rows({"a": 0.5}, 8))))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.n_checked_out == 0
    assert await store.read(count, ["score"]) == {"score": 1}


# ---------------------------------------------------------------- values

numbers = itertools.count(1)
int64 = st.integers(-(2**61), 2**61)  # the length of a window, a difference of two, must fit too


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    starts = draw(st.lists(int64, min_size=1, max_size=8, unique=True))

    def column(values: st.SearchStrategy[Any], dtype: Any) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=len(starts), max_size=len(starts))), dtype)

    return {
        "asset": np.zeros(len(starts), np.int32),
        "start_us": np.array(starts),
        "end_us": column(int64, np.int64),
        "score": column(st.floats(width=32), np.float32),
        "verdict": column(st.integers(0, 2), np.int8),
        "version": [draw(st.sampled_from([VERSION, None])) for _ in starts],
        "n_present": column(st.integers(0, 2**31 - 1), np.int32),
        "first_offset": column(int64, np.int64),
        "last_offset": column(int64, np.int64),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=columns())
async def test_columns_are_stored_without_a_change(store: AsyncStore, values: dict[str, Any]) -> None:
    number = next(numbers)
    owner = await own(store, Partition("plant.readings", number))
    name = f"asset {number}"
    await owner.save(owner.step(await owner.rows({name: NAN}, 0, **values)))
    kept = ("start_us", "end_us", "score", "verdict", "version", "n_present", "first_offset", "last_offset")
    stored = await store.read(
        rows_of,
        f"score LEFT JOIN model_version ON id = version_id WHERE asset_id = {owner.ids[name]}",
        ", ".join(kept),
    )
    largest = float(np.finfo(np.float32).max)
    expected = [
        dict(zip(kept, row, strict=True))
        for row in zip(*(np.asarray(values[name]).tolist() for name in kept), strict=True)
    ]
    for row in expected:
        score = row["score"]
        row["score"] = None if np.isnan(score) else max(-largest, min(largest, score))
    by_start = {row["start_us"]: row for row in stored}
    assert by_start == {row["start_us"]: row for row in expected}
