"""Retrainings: requested, due, or needed for a first model; by one daemon, or by one of several under a lease."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.errors import CheckpointUnavailable, Fenced, NotEnoughData
from monitor.lifecycle.champions import WindowChanged
from monitor.lifecycle.scheduler import LEASE
from monitor.store import assets, jobs, leases, versions
from monitor.store.lease_renewal import Lease
from monitor.timing import DEFAULT_TIMING
from monitor.types import Partition
from tests.unit.lifecycle.checkpoints import (
    FLEET,
    KAFKA,
    NO_TRAINING,
    PUMPS,
    FakeTraining,
    activate,
    checkpoint,
    expire_lease,
    take_over_lease,
)
from tests.unit.training.sine_windows import SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

    NewDaemon = Callable[..., DaemonParts]

FORMAT_1 = Path(__file__).parents[1] / "format1" / "pca-e0ac6e46"
NEVER = {"every": "never"}
UNSCHEDULED = parse({"kafka": KAFKA, "fleet": [FLEET | {"retrain": NEVER}]})
TWO_FLEETS = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["pumps", "fans"]},
        "fleet": [FLEET | {"name": name, "topics": [name]} for name in ("pumps", "fans")],
    }
)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the loop under test sets no event)
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- the start of one daemon


async def test_an_unreadable_champion_is_replaced_before_the_first_record(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    new = checkpoint(tmp_path)
    training = FakeTraining(new)
    await activate(store, FORMAT_1)
    this = daemon(training)
    await this.champions.load()
    await this.scheduler.take_up_stale_jobs()
    await store.run(assets.register, "pumps", ["R1"], Partition("t", 0))
    [warning] = log.of("champion_unreadable")
    assert warning["version"] == FORMAT_1.name
    assert "format" in warning["error"]
    assert await this.version_that_scores() is None
    await this.scheduler.train_first_models()
    assert await this.version_that_scores() == new.name
    await this.scheduler.train_first_models()
    assert len(log.of("champion_changed")) == 1
    [order] = training.orders
    assert (order.fleet, order.known) == ("pumps", {"t/0": ["R1"]})


async def test_a_training_without_enough_data_leaves_windows_unscored(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog
) -> None:
    await activate(store, FORMAT_1)
    this = daemon(FakeTraining(NotEnoughData("12 usable windows")))
    await this.champions.load()
    await this.scheduler.train_first_models()
    [line] = log.of("not_trained")
    assert line["until_then"] == "windows stay unscored"
    assert this.scheduler.missing == {"pumps": "12 usable windows"}
    assert await this.version_that_scores() is None


async def test_a_fleet_with_a_readable_champion_is_not_trained(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    this = daemon(NO_TRAINING)
    await this.champions.load()
    await this.scheduler.train_first_models()


async def test_changed_sensors_are_learnt_once_and_scored_until_then(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    path, new = checkpoint(tmp_path), checkpoint(tmp_path, 1)
    await activate(store, path)
    config = parse({"kafka": KAFKA, "fleet": [FLEET | {"sensors": [*SENSORS, "humidity"], "retrain": NEVER}]})
    training = FakeTraining(new)
    this = daemon(training, config=config)
    await this.champions.load()
    assert await this.version_that_scores() == path.name
    for _ in range(3):
        await this.scheduler._run_next(None)
    assert [order.sensors for order in training.orders] == [(*SENSORS, "humidity")]
    assert await this.version_that_scores() == new.name
    assert [line["reason"] for line in log.of("training")] == ["sensors"]


async def test_a_failed_training_for_changed_sensors_is_repeated_later(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    config = parse({"kafka": KAFKA, "fleet": [FLEET | {"sensors": [SENSORS[1], "humidity"], "retrain": NEVER}]})
    training = FakeTraining(NotEnoughData("12 usable windows"))
    this = daemon(training, config=config)
    await this.champions.load()
    for _ in range(3):
        await this.scheduler._run_next(None)
    assert len(training.orders) == 1
    assert await this.version_that_scores() is not None


async def test_unchanged_sensors_in_another_order_are_not_learnt_again(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    config = parse({"kafka": KAFKA, "fleet": [FLEET | {"sensors": list(SENSORS[::-1]), "retrain": NEVER}]})
    this = daemon(config=config)
    await this.champions.load()
    await this.scheduler._run_next(None)
    assert await store.read(jobs.active, "pumps") is None


async def test_a_lost_champion_is_skipped_once_a_retraining_is_requested(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    new = checkpoint(tmp_path)
    await activate(store, tmp_path / "lost")
    this = daemon(FakeTraining(new), lease=Lease)
    requested = await store.run(jobs.request, "pumps", "ann", this.clock.now_us())
    await this.champions.load(this.scheduler.is_retraining_requested)
    [warning] = log.of("champion_unreadable")
    assert warning["version"] == "lost"
    assert await this.version_that_scores() is None, "and does not wait"
    await this.scheduler.train_first_models()
    assert await this.version_that_scores() == new.name
    assert (await store.read(jobs.get, requested.id)).version == new.name


async def test_a_request_outlives_the_daemon_that_ran_it(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    new = checkpoint(tmp_path)
    await activate(store, tmp_path / "lost")
    this = daemon(FakeTraining(new), lease=Lease)
    requested = await store.run(jobs.request, "pumps", "ann", this.clock.now_us())
    await store.run(jobs.start_next, "the dead", this.clock.now_us())
    await this.champions.load(this.scheduler.is_retraining_requested)
    await this.scheduler.train_first_models()
    job = await store.read(jobs.get, requested.id)
    assert (job.state, job.version, job.attempts) == ("done", new.name, 2)


async def test_a_job_starts_for_the_fleet_that_is_asked_for(store: AsyncStore) -> None:
    await store.run(jobs.request, "fans", "ann", 1)
    await store.run(jobs.request, "pumps", "ann", 2)
    job = await store.run(jobs.start_for_fleet, "pumps", "me", "me", 3)
    assert job is not None
    assert job.fleet == "pumps"


async def test_a_first_model_comes_before_an_older_job_of_another_fleet(store: AsyncStore, daemon: NewDaemon) -> None:
    training = FakeTraining(NotEnoughData("none"))
    await store.run(jobs.request, "fans", "ann", 1)
    await daemon(training, config=TWO_FLEETS).scheduler.train_first_models()
    assert [order.fleet for order in training.orders] == ["pumps", "fans"]


# ---------------------------------------------------------------- the start of one of several daemons


@pytest.mark.parametrize("why", ["another daemon trains", "the schedule's, of a dead daemon"])
async def test_a_champion_is_not_skipped_for_the_job_of_another_daemon(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path, why: str
) -> None:
    await activate(store, tmp_path / "not mounted yet")
    this = daemon(lease=Lease)
    is_led_by_another = why == "another daemon trains"
    reason = "operator" if is_led_by_another else "schedule"
    await store.run(jobs.request, "pumps", "ann", this.clock.now_us(), reason=reason)
    if is_led_by_another:
        await store.run(leases.acquire, LEASE, "another", 15.0)
    else:
        await store.run(jobs.start_next, "the dead", this.clock.now_us())
    for _ in range(2):
        with pytest.raises(CheckpointUnavailable):
            await this.champions.load(daemon(lease=Lease).scheduler.is_retraining_requested)


async def test_a_daemon_that_waits_for_a_champion_takes_no_lease(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    await activate(store, tmp_path / "not mounted yet")
    this = daemon(lease=Lease)
    with pytest.raises(CheckpointUnavailable):
        await this.champions.load(this.scheduler.is_retraining_requested)
    assert await store.run(leases.acquire, LEASE, "another", 15.0) is not None


async def test_a_stale_job_is_taken_up_at_the_start(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    this = daemon(FakeTraining(checkpoint(tmp_path)), lease=Lease)
    await this.champions.load()
    await store.run(jobs.request, "pumps", "ann", this.clock.now_us())
    await store.run(jobs.start_next, "the dead", this.clock.now_us())
    await this.scheduler.train_first_models()
    assert this.champions.has_champion(PUMPS)


async def test_the_next_leader_trains_a_fleet_that_has_no_model_yet(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    this = daemon(FakeTraining(checkpoint(tmp_path)), lease=Lease)
    await store.run(leases.acquire, LEASE, "another", 15.0)
    await this.scheduler.train_first_models()  # ends without a model: the other daemon announces no training
    loop = asyncio.create_task(this.scheduler.loop())
    await expire_lease(store)
    assert await this.lease.acquire()
    await until(lambda: this.champions.has_champion(PUMPS))
    assert loop.cancel()


# ---------------------------------------------------------------- leases that change hands


async def test_no_version_is_activated_after_the_lease_was_lost(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    async def lose_lease() -> None:
        await take_over_lease(store)

    this = daemon(FakeTraining(checkpoint(tmp_path), lose_lease), lease=Lease)
    await this.champions.load()
    await this.scheduler.take_up_stale_jobs()
    start = asyncio.create_task(this.scheduler.train_first_models())
    await until(lambda: log.of("waiting_for_training"))
    start.cancel()
    assert not this.champions.has_champion(PUMPS)
    assert "another holds it" in log.of("not_trained")[0]["why"]
    assert await store.read(versions.list_all, "pumps") == []
    job = await store.read(jobs.active, "pumps")
    assert job is not None, "the other daemon takes it up"
    assert (job.state, job.attempts) == ("queued", 0)


async def test_no_version_is_activated_if_the_lease_was_lost_and_regained(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    """The holder in between may have activated a newer version. Holding the lease again proves nothing."""

    async def lose_lease_for_a_while() -> None:
        if len(training.orders) == 1:
            await take_over_lease(store)
            await expire_lease(store)
        else:
            assert await store.read(versions.list_all, "pumps") == []

    training = FakeTraining(checkpoint(tmp_path), lose_lease_for_a_while)
    this = daemon(training, lease=Lease)
    await this.champions.load()
    await this.scheduler.train_first_models()
    assert this.lease.epoch is not None, "it has the lease again"
    assert len(training.orders) == 2
    assert this.champions.has_champion(PUMPS)


async def test_a_training_may_outlast_a_lease_that_no_other_daemon_takes(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    async def expire() -> None:
        await expire_lease(store)

    this = daemon(FakeTraining(checkpoint(tmp_path), expire), lease=Lease)
    await this.champions.load()
    await this.scheduler.train_first_models()
    assert log.of("not_trained") == []
    assert this.champions.has_champion(PUMPS)


async def test_the_next_leader_takes_up_the_jobs_of_a_dead_one(store: AsyncStore, daemon: NewDaemon) -> None:
    this = daemon(FakeTraining(NotEnoughData("none")), lease=Lease)
    await store.run(leases.acquire, LEASE, "the dead", 15.0)
    await store.run(jobs.request, "pumps", "ann", this.clock.now_us())
    await store.run(jobs.start_next, "the dead", this.clock.now_us())
    loop = asyncio.create_task(this.scheduler.loop())
    await expire_lease(store)
    assert await this.lease.acquire()
    while (await store.read(jobs.get, 1)).state == "running":  # noqa: ASYNC110 (the database has no event)
        await asyncio.sleep(0.01)
    loop.cancel()


async def test_a_former_leader_forgets_the_retries_it_had_planned(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    training = FakeTraining(path)

    async def lose_lease_at_first() -> None:
        """Let another daemon take the lease, train, and die."""
        if len(training.orders) == 1:
            await take_over_lease(store)
            await activate(store, path)
            await this.champions.refresh()

    training.meanwhile = lose_lease_at_first
    this = daemon(training, config=UNSCHEDULED, lease=Lease)
    loop = asyncio.create_task(this.scheduler.loop())
    assert await this.lease.acquire()
    await until(lambda: log.of("not_trained") and this.lease.epoch is None)
    await expire_lease(store)
    assert await this.lease.acquire()
    much_later_us = this.clock.now_us() + round(2e6 * DEFAULT_TIMING.training_retry_first_s)
    await until(lambda: this.clock.now_us() > much_later_us)
    assert loop.cancel()
    assert len(training.orders) == 1, "the fleet has its model, and no schedule"


@pytest.mark.parametrize("is_at_start", [True, False])
async def test_a_suspended_leader_trains_nothing_and_changes_no_job(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, is_at_start: bool
) -> None:
    class Suspended(Lease):
        async def acquire(self) -> bool:
            """Acquire the lease once, and be suspended right after it for longer than it lasts."""
            is_ours = await super().acquire()
            if is_ours:
                epoch = await take_over_lease(store)
                await store.run(jobs.start_next, "another", self._clock.now_us(), lease=(LEASE, epoch))
            return is_ours

    this = daemon(lease=Suspended)
    for fleet in ("pumps", "fans"):
        await store.run(jobs.request, fleet, "ann", this.clock.now_us())
    await this.champions.load()
    if is_at_start:
        start = asyncio.create_task(this.scheduler.train_first_models())
        await until(lambda: log.of("waiting_for_training"))
        start.cancel()
    else:
        assert await this.lease.acquire()
        loop = asyncio.create_task(this.scheduler.loop())
        await until(lambda: this.lease.epoch is None or loop.done())
        assert loop.cancel(), "the loop goes on"
    states = [(await store.read(jobs.get, number)).state for number in (1, 2)]
    assert states == ["running", "queued"], "as the other daemon left them"


async def test_a_former_leader_leaves_no_job_for_a_due_training(store: AsyncStore, daemon: NewDaemon) -> None:
    this = daemon(lease=Lease)
    assert await this.lease.acquire()
    token = this.lease.fencing_token
    await take_over_lease(store)
    with pytest.raises(Fenced):
        await this.scheduler._train_first(PUMPS, token)
    assert await store.read(jobs.active, "pumps") is None


async def test_a_changed_window_ends_its_job_well(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    training = FakeTraining(path)
    auto = parse({"kafka": KAFKA, "fleet": [FLEET | {"window": "auto"}]})
    this = daemon(training, config=auto)
    await this.champions.load()
    await this.scheduler.take_up_stale_jobs()
    with pytest.raises(WindowChanged) as caught:
        await this.scheduler.train_first_models()
    job = await store.read(jobs.get, 1)
    assert (job.state, job.version, caught.value.version) == ("done", path.name, path.name)
    anew = daemon(training, config=auto.with_lengths({"pumps": caught.value.length}))
    await anew.champions.load()
    await anew.scheduler.train_first_models()
    assert await anew.version_that_scores() == path.name
    assert [order.length for order in training.orders] == [None]
