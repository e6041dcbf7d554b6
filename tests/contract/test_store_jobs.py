"""Jobs, daemons and versions: a job runs once, and each window has one deciding version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monitor.errors import Conflict, Fenced, NotFound
from monitor.store import daemons, jobs, leases, versions
from monitor.store.versions import Activation
from tests.contract.steps import FLEET, publish, rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore
    from monitor.types import JobView

NOW_US = 1_700_000_000_000_000


async def running(store: AsyncStore, owner: str = "me") -> JobView:
    await store.run(jobs.request, FLEET, "ann", NOW_US)
    job = await store.run(jobs.start_next, owner, NOW_US)
    assert job is not None
    return job


# ---------------------------------------------------------------- jobs


async def test_a_job_is_queued_started_and_done(store: AsyncStore) -> None:
    queued = await store.run(jobs.request, FLEET, "ann", NOW_US)
    assert (queued.state, queued.requested_by, queued.progress) == ("queued", "ann", 0.0)
    taken = await store.run(jobs.start_next, "me", NOW_US + 1)
    assert taken is not None
    assert (taken.id, taken.state) == (queued.id, "running")
    await store.run(jobs.set_progress, taken.id, 0.5, "epoch 3")
    halfway = await store.read(jobs.get, taken.id)
    assert (halfway.progress, halfway.message) == (0.5, "epoch 3")
    await store.run(jobs.finish, taken.id, "v2", NOW_US + 2)
    done = await store.read(jobs.get, taken.id)
    assert (done.state, done.progress, done.version) == ("done", 1.0, "v2")
    assert done.started_at is not None
    assert done.finished_at is not None
    assert (done.finished_at - done.started_at).microseconds == 1


async def test_a_second_request_names_the_active_job(store: AsyncStore) -> None:
    job = await running(store)
    await store.run(jobs.set_progress, job.id, 0.25, "")
    with pytest.raises(Conflict, match=f"job {job.id} for turbines is running, 25% done, asked for by ann"):
        await store.run(jobs.request, FLEET, "bob", NOW_US)
    await store.run(jobs.request, "pumps", "bob", NOW_US)  # another fleet has its own job
    await store.run(jobs.fail, job.id, "not enough data", NOW_US)
    again = await store.run(jobs.request, FLEET, "bob", NOW_US)
    assert again.id != job.id


async def test_concurrent_requests_queue_one_job(store: AsyncStore, other_store: AsyncStore) -> None:
    asked = [each.run(jobs.request, FLEET, f"user {n}", NOW_US) for n in range(5) for each in (store, other_store)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    assert len(await store.read(rows_of, "job")) == 1


async def test_a_job_that_two_daemons_start_ends_once(store: AsyncStore, other_store: AsyncStore) -> None:
    """Without a lease, two daemons each take the other's job for an orphan. One of them owns its run."""
    await store.run(jobs.request, FLEET, "ann", NOW_US)
    starts = store.run(jobs.start_next, "me", NOW_US), other_store.run(jobs.start_next, "you", NOW_US)
    taken = [job for job in await asyncio.gather(*starts) if job is not None]
    [number] = {job.id for job in taken}
    ends = (store.run(jobs.finish, number, f"v of {owner}", NOW_US, owner=owner) for owner in ("me", "you"))
    refused = [end for end in await asyncio.gather(*ends, return_exceptions=True) if isinstance(end, Fenced)]
    assert len(refused) == 1
    assert (await store.read(jobs.get, number)).state == "done"


async def test_jobs_are_started_in_order(store: AsyncStore) -> None:
    for fleet in ("b", "a", "c"):
        await store.run(jobs.request, fleet, "ann", NOW_US)
    taken = []
    for _ in range(3):
        taken.append(await store.run(jobs.start_next, "me", NOW_US))
        await store.run(jobs.finish, taken[-1].id, "v", NOW_US)
    assert [job.fleet for job in taken if job is not None] == ["b", "a", "c"]


async def test_a_job_of_a_dead_daemon_is_taken_up_again(store: AsyncStore) -> None:
    job = await running(store, "dead")
    await store.run(jobs.set_progress, job.id, 0.7, "epoch 3")
    assert await store.run(jobs.take_up_stale, NOW_US) == 1
    queued = await store.read(jobs.get, job.id)
    assert (queued.state, queued.progress, queued.started_at, queued.requested_by) == ("queued", 0.0, None, "ann")
    again = await store.run(jobs.start_next, "alive", NOW_US)
    assert again is not None
    assert (again.id, again.state, again.attempts) == (job.id, "running", 2)
    for late in (
        store.run(jobs.finish, job.id, "v2", NOW_US, owner="dead"),
        store.run(jobs.set_progress, job.id, 0.9, "", owner="dead"),
        store.run(jobs.fail, job.id, "no", NOW_US, owner="dead"),
        store.run(jobs.release, job.id, "no", owner="dead"),
    ):
        with pytest.raises(Fenced):
            await late
    assert (await store.read(jobs.get, job.id)).state == "running"


async def test_a_job_that_ends_three_daemons_is_given_up(store: AsyncStore) -> None:
    job = await running(store)
    for _ in range(2):
        await store.run(jobs.start_next, "me", NOW_US)
    await store.run(jobs.set_progress, job.id, 0.7, "epoch 3")
    assert await store.run(jobs.start_next, "me", NOW_US) is None
    failed = await store.read(jobs.get, job.id)
    assert failed.state == "failed"
    assert failed.message == "given up after 3 attempts: the daemon died during each, the last at: epoch 3"


async def test_a_stop_of_the_daemon_is_no_attempt(store: AsyncStore) -> None:
    job = await running(store)
    for _ in range(5):
        await store.run(jobs.release, job.id, "its daemon stopped", owner="me")
        again = await store.run(jobs.start_next, "me", NOW_US)
        assert again is not None
        assert (again.id, again.attempts) == (job.id, 1)


async def test_a_job_keeps_its_reason_note_and_detail(store: AsyncStore) -> None:
    facts = {"reason": "drift", "note": "ä pump", "detail": {"p": 0.001, "assets": ["R1"]}}
    await store.run(jobs.request, FLEET, "me", NOW_US, **facts)
    job = await store.run(jobs.start_next, "me", NOW_US)
    assert job is not None
    assert (job.kind, job.reason, job.note, job.detail) == ("retrain", *facts.values())
    assert (await store.read(jobs.ended, FLEET)) == []
    await store.run(jobs.finish, job.id, "v2", NOW_US, "promoted")
    [ended] = await store.read(jobs.ended, FLEET)
    assert (ended.id, ended.message, ended.detail) == (job.id, "promoted", facts["detail"])


async def test_a_drill_does_not_block_a_retraining(store: AsyncStore) -> None:
    drill = await store.run(jobs.request, FLEET, "me", NOW_US, "drill")
    retraining = await store.run(jobs.request, FLEET, "ann", NOW_US)
    with pytest.raises(Conflict):
        await store.run(jobs.request, FLEET, "bob", NOW_US, "drill")
    started = await store.run(jobs.start_next, "me", NOW_US)
    assert started is not None
    assert started.id == retraining.id, "trainings come first"
    assert (await store.read(jobs.active, FLEET, "drill")) == drill


async def test_a_fleet_starts_its_queued_job_or_a_new_one(store: AsyncStore) -> None:
    await store.run(jobs.request, "pumps", "ann", NOW_US)
    asked = await store.run(jobs.request, FLEET, "bob", NOW_US)
    taken = await store.run(jobs.start_for_fleet, FLEET, "the daemon", "me", NOW_US)
    assert taken is not None
    assert (taken.id, taken.state, taken.requested_by) == (asked.id, "running", "bob")
    await store.run(jobs.finish, asked.id, "v2", NOW_US)
    again = await store.run(jobs.start_for_fleet, FLEET, "the daemon", "me", NOW_US, reason="drift")
    assert again is not None
    assert (again.state, again.requested_by, again.reason) == ("running", "the daemon", "drift")


async def test_a_job_with_a_lost_answer_is_started_again(store: AsyncStore) -> None:
    """A job of the same daemon, started in a transaction of which it received no answer."""
    job = await running(store, "me")
    again = await store.run(jobs.start_next, "me", NOW_US)
    assert again is not None
    assert (again.id, again.attempts) == (job.id, 2)


async def test_without_its_lease_a_daemon_starts_and_fails_no_job(
    store: AsyncStore, other_store: AsyncStore
) -> None:
    zombie = await store.run(leases.acquire, "training", "the zombie", 600.0)
    assert zombie is not None
    await store.run(jobs.request, "pumps", "ann", NOW_US)
    await store.run(lambda connection: connection.exec_driver_sql("UPDATE lease SET until_us = 0"))
    for holder in ("none yet", "another"):
        if holder == "another":
            epoch = await other_store.run(leases.acquire, "training", holder, 600.0)
            assert epoch is not None
            await other_store.run(jobs.start_for_fleet, FLEET, "bob", holder, NOW_US, lease=("training", epoch))
        before = await store.read(rows_of, "job")
        for late in (
            store.run(jobs.start_next, "the zombie", NOW_US, lease=("training", zombie)),
            store.run(jobs.start_for_fleet, "fans", "the zombie", "the zombie", NOW_US, lease=("training", zombie)),
            store.run(jobs.take_up_stale, NOW_US, lease=("training", zombie)),
        ):
            with pytest.raises(Fenced, match="lease training: epoch 1 is over"):
                await late
        assert await store.read(rows_of, "job") == before
    assert [row["state"] for row in before] == ["queued", "running"]


async def heartbeat(store: AsyncStore, owner: str, now_us: int) -> None:
    await store.run(daemons.heartbeat, owner=owner, pipeline="monitor", started_us=1, now_us=now_us, status="lag 0")


async def test_an_unknown_job_is_not_found(store: AsyncStore) -> None:
    with pytest.raises(NotFound):
        await store.read(jobs.get, 99)


async def test_daemons_with_a_fresh_heartbeat_are_counted(store: AsyncStore) -> None:
    assert await store.read(daemons.count_alive, NOW_US) == 0
    await heartbeat(store, "one", NOW_US - 1_000_000)
    await heartbeat(store, "two", NOW_US)
    await heartbeat(store, "one", NOW_US)
    assert await store.read(daemons.count_alive, NOW_US) == 2
    assert await store.read(daemons.count_alive, NOW_US + daemons.STALE_US + 1) == 0
    await store.run(daemons.deregister, "one")
    assert await store.read(daemons.count_alive, NOW_US) == 1
    assert await store.run(daemons.delete_stale, NOW_US + 1) == 1


# ---------------------------------------------------------------- versions


async def test_a_version_is_published_once(store: AsyncStore) -> None:
    await publish(store)
    await publish(store)
    [version] = await store.read(versions.list_all, FLEET)
    assert (version.state, version.path, version.metrics) == ("candidate", "/checkpoints/v1", {"loss": 0.5})
    assert version.from_window_end_us is None
    with pytest.raises(Conflict, match="belongs to turbines"):
        await publish(store, fleet="pumps")


async def test_a_new_champion_retires_the_former(store: AsyncStore) -> None:
    assert await store.read(versions.champion, FLEET) is None
    for version, boundary in (("v1", 0), ("v2", 500)):
        await publish(store, version)
        assert await store.run(versions.activate, FLEET, version, boundary) == Activation(boundary, version)
    champion = await store.read(versions.champion, FLEET)
    assert champion is not None
    assert (champion.version, champion.from_window_end_us) == ("v2", 500)
    assert {each.version: each.state for each in await store.read(versions.list_all)}["v1"] == "retired"
    assert await store.read(versions.activations, FLEET) == [Activation(0, "v1"), Activation(500, "v2")]


async def test_decided_windows_keep_their_version(store: AsyncStore) -> None:
    """A boundary in the past moves to the last one, and replaces a version that has decided nothing."""
    for version in ("v1", "v2", "v3"):
        await publish(store, version)
    await store.run(versions.activate, FLEET, "v1", 100)
    await store.run(versions.activate, FLEET, "v2", 500)
    assert await store.run(versions.activate, FLEET, "v3", 300) == Activation(500, "v3")
    assert await store.read(versions.activations, FLEET) == [Activation(100, "v1"), Activation(500, "v3")]


async def test_another_fleets_version_is_refused(store: AsyncStore) -> None:
    await publish(store, "v1")
    await publish(store, "p1", "pumps")
    await store.run(versions.activate, FLEET, "v1", 0)
    for refused in ("p1", "v9"):
        with pytest.raises(NotFound):
            await store.run(versions.activate, FLEET, refused, 10)
    champion = await store.read(versions.champion, FLEET)
    assert champion is not None
    assert champion.version == "v1"


async def test_concurrent_activations_leave_one_champion(store: AsyncStore, other_store: AsyncStore) -> None:
    for version in ("v1", "v2", "v3"):
        await publish(store, version)
    await store.run(versions.activate, FLEET, "v1", 0)
    await asyncio.gather(
        store.run(versions.activate, FLEET, "v2", 10), other_store.run(versions.activate, FLEET, "v3", 10)
    )
    assert [version.state for version in await store.read(versions.list_all, FLEET)].count("champion") == 1


async def test_versions_are_listed_newest_first(store: AsyncStore) -> None:
    for version, trained_us in (("old", 1), ("new", 9), ("middle", 5)):
        await publish(store, version, trained_us=trained_us)
    assert [each.version for each in await store.read(versions.list_all)] == ["new", "middle", "old"]
