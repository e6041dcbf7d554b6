"""What the daemon finds at its start: a champion that can be read, one that cannot, or none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.config import parse
from monitor.errors import CheckpointUnavailable, Fenced, NotEnoughData
from monitor.lifecycle import champions as champions_module
from monitor.lifecycle import scheduler as trainer_module
from monitor.lifecycle.champions import Champions
from monitor.lifecycle.scheduler import Trainer
from monitor.lifecycle.training_process import Order, Trained
from monitor.models.spec import ModelSpec
from monitor.store import assets, jobs, leases, versions
from monitor.store.engine import AsyncStore
from monitor.store.lease import Lease
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import DetectorScorer
from monitor.training.fit import fit
from monitor.types import Partition, Windows
from tests.fakes import FakeClock
from tests.unit.recorded_log import Log
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, SENSORS, readings, windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from monitor.config import FleetConfig

FORMAT_1 = Path(__file__).parents[1] / "format1" / "pca-e0ac6e46"
FLEET = {"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": list(SENSORS)}
KAFKA = {"bootstrap": "b:9092", "topics": ["t"]}
CONFIG = parse({"kafka": KAFKA, "fleet": [FLEET]})
UNSCHEDULED = parse({"kafka": KAFKA, "fleet": [FLEET | {"retrain": {"every": "never"}}]})
DECIDED_US = 10**12


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(champions_module, "log", log)
    monkeypatch.setattr(trainer_module, "log", log)
    return log


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        yield store


async def everybody(_fleet: FleetConfig) -> bool:
    """Asks for a new model."""
    return True


async def activated(store: AsyncStore, path: Path, after_us: int = FOREVER_AGO_US) -> None:
    """A version decides, whether its files are there or not."""
    card = {"version": path.name, "fleet": "pumps", "path": str(path), "trained_us": 1, "card": {}, "metrics": {}}
    await store.run(versions.publish, **card)
    await store.run(versions.activate, "pumps", path.name, after_us)


async def found(
    store: AsyncStore, path: Path, after_us: int = FOREVER_AGO_US
) -> tuple[Trainer, DetectorScorer]:
    """A daemon that starts where this version decided until now."""
    await activated(store, path, after_us)
    scorer = DetectorScorer("cpu")
    champions = Champions(CONFIG, store, scorer, FakeClock())
    await champions.load()
    trainer = Trainer(CONFIG, store, champions, FakeClock(), "me")
    await trainer.begin()
    return trainer, scorer


def checkpoint(folder: Path, seed: int = 0) -> Path:
    train, spec = windows(readings(400, seed)), ModelSpec("pca")
    detector = fit(train, spec, FLEET_SPEC)
    return folder / detector.save(folder)


async def version_that_scores(scorer: DetectorScorer, end_us: int = DECIDED_US) -> str | None:
    values = np.ascontiguousarray(windows(readings(LENGTH)).values)
    nothing = np.zeros(1, np.int64)
    one = Windows("pumps", np.zeros(1, np.int32), nothing, values, np.full(1, LENGTH, np.int32), nothing, nothing)
    return (await scorer.score(one, np.array([end_us]), SENSORS)).version[0]


async def test_a_champion_that_can_no_longer_be_read_is_told_once_and_trained_anew_before_the_first_record(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = checkpoint(tmp_path)

    async def retrain(order: Order, _on_progress: object) -> Trained:
        assert order.fleet == "pumps"
        assert order.known == {"t/0": ["R1"]}
        return Trained(new.name, str(new), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    trainer, scorer = await found(store, FORMAT_1)
    await store.run(assets.resolve, "pumps", ["R1"], Partition("t", 0))
    [told] = log.of("champion_unreadable")
    assert told["version"] == FORMAT_1.name
    assert "format" in told["error"]
    assert await version_that_scores(scorer) is None
    await trainer.train_first()
    assert await version_that_scores(scorer) == new.name
    await trainer.train_first()
    assert len(log.of("champion_changed")) == 1
    scorer.close()


async def test_where_there_is_too_little_to_train_anew_windows_stay_unscored_and_it_is_tried_again(
    store: AsyncStore, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def retrain(_order: Order, _on_progress: object) -> Trained:
        raise NotEnoughData("12 usable windows")

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    trainer, scorer = await found(store, FORMAT_1)
    await trainer.train_first()
    [told] = log.of("not_trained")
    assert told["until_then"] == "windows stay unscored"
    assert await version_that_scores(scorer) is None
    scorer.close()


async def test_a_champion_that_can_be_read_decides_and_nothing_is_trained(
    store: AsyncStore, log: Log, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    trainer, scorer = await found(store, path)
    await trainer.train_first()
    assert log.of("champion_unreadable") == []
    assert await version_that_scores(scorer) == path.name
    scorer.close()


@pytest.mark.parametrize(("end_us", "version"), [(99, None), (100, None), (101, 0), (200, 0), (201, 1)])
async def test_a_version_scores_windows_that_end_after_its_boundary(
    store: AsyncStore, tmp_path: Path, end_us: int, version: int | None
) -> None:
    paths = [checkpoint(tmp_path / str(seed), seed) for seed in (0, 1)]
    await activated(store, paths[0], after_us=100)
    _, scorer = await found(store, paths[1], after_us=200)
    assert await version_that_scores(scorer, end_us) == (None if version is None else paths[version].name)
    scorer.close()


async def test_a_version_without_its_folder_is_not_published(store: AsyncStore, tmp_path: Path) -> None:
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), FakeClock())
    await champions.load()
    with pytest.raises(CheckpointUnavailable, match="No such file"):
        await champions.activate(CONFIG.fleets[0], Trained("a", str(tmp_path / "a"), SENSORS, {"metrics": {}}), None)
    assert await store.read(versions.every) == []


async def test_a_daemon_follows_what_another_one_activates(store: AsyncStore, tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    trainer, scorer = await found(store, FORMAT_1)
    other_scorer = DetectorScorer("cpu")
    other = Champions(CONFIG, store, other_scorer, FakeClock())
    await other.load()
    before = other_scorer.seq_of("pumps")
    await trainer._champions.activate(CONFIG.fleets[0], Trained(path.name, str(path), SENSORS, {"metrics": {}}), None)
    assert await version_that_scores(scorer) == path.name
    assert await version_that_scores(other_scorer) is None
    await other.refresh()
    assert await version_that_scores(other_scorer) == path.name
    assert other_scorer.seq_of("pumps") == scorer.seq_of("pumps") == (before or 0) + 1
    scorer.close()
    other_scorer.close()


async def test_a_version_trained_under_a_lease_that_was_lost_is_not_activated(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    await champions.load()
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    trainer = Trainer(CONFIG, store, champions, clock, "me", lease)
    await trainer.begin()

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
        assert await store.run(leases.take, trainer_module.LEASE, "another", 15.0) is not None
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    await trainer.train_first()
    assert not champions.has_champion(CONFIG.fleets[0])
    [told] = log.of("not_trained")
    assert "another holds it" in told["why"]
    assert await store.read(versions.every, "pumps") == []


async def test_a_training_that_died_with_another_daemon_is_buried_when_the_lease_comes_over(
    store: AsyncStore, log: Log
) -> None:
    clock = FakeClock()
    await store.run(leases.take, trainer_module.LEASE, "the dead", 15.0)
    await store.run(jobs.request, "pumps", "somebody", clock.now_us())
    await store.run(jobs.take, "the dead", clock.now_us())
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    trainer = Trainer(CONFIG, store, champions, clock, "me", lease)
    loop = asyncio.create_task(trainer.loop())
    await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
    assert await lease.look()
    while await store.read(jobs.active, "pumps") is not None:  # noqa: ASYNC110 (the database has no event)
        await asyncio.sleep(0.01)
    loop.cancel()


async def test_who_loses_the_lease_forgets_what_it_wanted_to_try_again(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trained = checkpoint(tmp_path), []
    clock = FakeClock()
    champions = Champions(UNSCHEDULED, store, DetectorScorer("cpu"), clock)
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    trainer = Trainer(UNSCHEDULED, store, champions, clock, "me", lease)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        trained.append(clock.now_us())
        if len(trained) == 1:  # in the middle of it another takes the lease, trains, and dies
            await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
            assert await store.run(leases.take, trainer_module.LEASE, "another", 15.0) is not None
            await activated(store, path)
            await champions.refresh()
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    loop = asyncio.create_task(trainer.loop())
    assert await lease.look()
    await until(lambda: log.of("not_trained") and lease.epoch is None)
    await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
    assert await lease.look()
    much_later_us = clock.now_us() + round(2e6 * trainer_module.FIRST_RETRY.total_seconds())
    await until(lambda: clock.now_us() > much_later_us)
    assert loop.cancel()
    assert len(trained) == 1, "the fleet has its model, and no schedule"


@pytest.mark.parametrize("is_at_start", [True, False])
async def test_a_trainer_that_slept_while_another_took_its_lease_trains_nothing_and_touches_no_job(
    store: AsyncStore, log: Log, monkeypatch: pytest.MonkeyPatch, is_at_start: bool
) -> None:
    async def retrain(_order: Order, _on_progress: object) -> Trained:
        raise AssertionError("it trains")

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()

    class Sleepy(Lease):
        async def look(self) -> bool:
            """Once it is ours; then we are stopped for longer than it lasts."""
            is_ours = await super().look()
            if is_ours:
                await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
                another = await store.run(leases.take, trainer_module.LEASE, "another", 15.0)
                assert another is not None
                await store.run(jobs.take, "another", clock.now_us(), lease=(trainer_module.LEASE, another))
            return is_ours

    for fleet in ("pumps", "fans"):
        await store.run(jobs.request, fleet, "somebody", clock.now_us())
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    await champions.load()
    lease = Sleepy(store, trainer_module.LEASE, "me", clock)
    trainer = Trainer(CONFIG, store, champions, clock, "me", lease)
    if is_at_start:
        waits = asyncio.create_task(trainer.train_first())
        async with asyncio.timeout(10):
            while not log.of("waiting_for_training"):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        waits.cancel()
    else:
        assert await lease.look()
        loop = asyncio.create_task(trainer.loop())
        async with asyncio.timeout(10):
            while lease.epoch is not None and not loop.done():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        assert loop.cancel(), "it goes on"
    states = [(await store.read(jobs.get, number)).state for number in (1, 2)]
    assert states == ["running", "queued"], "as another left them"


async def test_a_training_that_falls_due_in_the_moment_the_lease_goes_is_left_to_who_has_it(
    store: AsyncStore, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def retrain(_order: Order, _on_progress: object) -> Trained:
        raise AssertionError("it trains")

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    assert await lease.look()
    under = lease.under
    await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
    assert await store.run(leases.take, trainer_module.LEASE, "another", 15.0) is not None
    with pytest.raises(Fenced):
        await Trainer(CONFIG, store, champions, clock, "me", lease)._train(CONFIG.fleets[0], under)
    assert await store.read(jobs.active, "pumps") is None, "nothing is left behind for the other"


async def test_the_fleet_that_is_trained_is_the_one_that_was_meant(store: AsyncStore) -> None:
    await store.run(jobs.request, "fans", "somebody", 1)
    await store.run(jobs.request, "pumps", "somebody", 2)
    job = await store.run(jobs.take_for, "pumps", "me", "me", 3)
    assert job is not None
    assert job.fleet == "pumps"


async def test_a_champion_whose_files_are_not_there_is_waited_for_at_the_start(
    store: AsyncStore, log: Log, tmp_path: Path
) -> None:
    """A shared folder that is mounted later than we start: without it our windows would stay unscored."""
    path = checkpoint(tmp_path)
    await activated(store, path)
    away = path.rename(tmp_path / "not mounted yet")
    scorer = DetectorScorer("cpu")
    champions = Champions(CONFIG, store, scorer, FakeClock())
    trainer = Trainer(CONFIG, store, champions, FakeClock(), "me")
    for _ in range(2):
        with pytest.raises(CheckpointUnavailable, match="No such file") as waits:
            await champions.load(trainer.is_asked)
    assert waits.value.waiting_for == (
        f"Waiting for {path.name} of pumps: mount or restore the checkpoints folder; if it is lost, "
        "`monitor retrain pumps` trains another"
    )
    assert waits.value.waiting_for in str(waits.value)
    away.rename(path)
    await champions.load(trainer.is_asked)
    assert await version_that_scores(scorer) == path.name
    assert log.of("champion_unreadable") == []
    scorer.close()


async def test_a_champion_whose_files_are_lost_is_done_without_once_a_retraining_is_asked_for(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = checkpoint(tmp_path)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        return Trained(new.name, str(new), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    await activated(store, tmp_path / "lost")
    scorer, clock = DetectorScorer("cpu"), FakeClock()
    champions = Champions(CONFIG, store, scorer, clock)
    trainer = Trainer(CONFIG, store, champions, clock, "me", Lease(store, trainer_module.LEASE, "me", clock))
    asked = await store.run(jobs.request, "pumps", "ann", clock.now_us())
    await champions.load(trainer.is_asked)
    [told] = log.of("champion_unreadable")
    assert told["version"] == "lost"
    assert await version_that_scores(scorer) is None, "and does not wait"
    await trainer.train_first()
    assert await version_that_scores(scorer) == new.name
    assert (await store.read(jobs.get, asked.id)).version == new.name
    scorer.close()


@pytest.mark.parametrize("why", ["another daemon trains", "it died with its daemon"])
async def test_a_retraining_that_is_not_ours_to_do_is_no_reason_to_do_without_a_champion(
    store: AsyncStore, log: Log, tmp_path: Path, why: str
) -> None:
    await activated(store, tmp_path / "not mounted yet")
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    await store.run(jobs.request, "pumps", "ann", clock.now_us())
    if why == "another daemon trains":
        await store.run(leases.take, trainer_module.LEASE, "another", 15.0)
    else:
        await store.run(jobs.take, "the dead", clock.now_us())
    for _ in range(2):
        with pytest.raises(CheckpointUnavailable):
            await champions.load(Trainer(CONFIG, store, champions, clock, "me", lease).is_asked)
    state = (await store.read(jobs.get, 1)).state
    assert state == ("queued" if why == "another daemon trains" else "failed"), "and nobody is in the way of a new one"


async def test_who_waits_for_a_champion_does_not_keep_others_from_training(store: AsyncStore, tmp_path: Path) -> None:
    await activated(store, tmp_path / "not mounted yet")
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), FakeClock())
    lease = Lease(store, trainer_module.LEASE, "me", FakeClock())
    with pytest.raises(CheckpointUnavailable):
        await champions.load(Trainer(CONFIG, store, champions, FakeClock(), "me", lease).is_asked)
    assert await store.run(leases.take, trainer_module.LEASE, "another", 15.0) is not None


async def test_a_checkpoint_that_was_done_without_is_read_when_it_is_there(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.stream.score.READ_AGAIN_S", 0.0)
    path = checkpoint(tmp_path)
    await activated(store, path)
    away = path.rename(tmp_path / "lost, as it seems")
    scorer = DetectorScorer("cpu")
    await Champions(CONFIG, store, scorer, FakeClock()).load(everybody)
    assert await version_that_scores(scorer) is None
    away.rename(path)
    assert await version_that_scores(scorer) == path.name
    scorer.close()


async def test_a_version_that_another_activated_is_waited_for_until_its_files_show(
    store: AsyncStore, log: Log, tmp_path: Path
) -> None:
    """On a shared folder the database's row may be seen before the files: unscored windows would be one daemon's."""
    old, new = checkpoint(tmp_path / "old"), checkpoint(tmp_path / "new", seed=1)
    _, scorer = await found(store, old)
    champions = Champions(CONFIG, store, scorer, FakeClock())
    seq = scorer.seq_of("pumps")
    await activated(store, new, DECIDED_US - 1)
    away = new.rename(tmp_path / "not shown yet")
    with pytest.raises(CheckpointUnavailable, match="No such file"):
        await champions.refresh()
    assert (scorer.seq_of("pumps"), await version_that_scores(scorer)) == (seq, old.name), "and no save is made by it"
    away.rename(new)
    await champions.refresh()
    assert await version_that_scores(scorer) == new.name
    assert log.of("champion_unreadable") == []
    scorer.close()


async def test_windows_of_a_past_champion_wait_for_its_files_but_not_if_they_were_missing_at_the_start(
    store: AsyncStore, log: Log, tmp_path: Path
) -> None:
    past, newest = checkpoint(tmp_path / "past"), checkpoint(tmp_path / "newest", seed=1)
    await activated(store, past)
    scorers = []
    for is_there in (True, False):
        if not is_there:
            past.rename(tmp_path / "gone")
        _, scorer = await found(store, newest, after_us=DECIDED_US)
        scorers.append(scorer)
    here, restarted = scorers
    with pytest.raises(CheckpointUnavailable) as waits:
        await version_that_scores(here)
    assert waits.value.waiting_for.startswith(f"Waiting for {past.name} of pumps: mount")
    assert waits.value.waiting_for.endswith("if it is lost, restart this daemon")
    assert await version_that_scores(restarted) is None
    [told] = log.of("past_champion_missing")
    assert told["version"] == past.name
    (tmp_path / "gone").rename(past)
    assert await version_that_scores(here) == past.name
    for scorer in scorers:
        scorer.close()


async def test_a_fleet_whose_first_training_died_with_its_daemon_is_trained_before_the_first_record(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    await champions.load()
    trainer = Trainer(CONFIG, store, champions, clock, "me", Lease(store, trainer_module.LEASE, "me", clock))
    await store.run(jobs.request, "pumps", "somebody", clock.now_us())
    await store.run(jobs.take, "the dead", clock.now_us())
    await trainer.train_first()
    assert champions.has_champion(CONFIG.fleets[0])


async def test_a_training_outlives_its_lease_as_long_as_nobody_else_takes_it(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    await champions.load()
    trainer = Trainer(CONFIG, store, champions, clock, "me", Lease(store, trainer_module.LEASE, "me", clock))
    await trainer.train_first()
    assert log.of("not_trained") == []
    assert champions.has_champion(CONFIG.fleets[0])


async def test_a_version_is_not_activated_after_another_had_the_lease_and_lost_it(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have trained and activated a newer one, and died: that the lease is ours again proves nothing."""
    path = checkpoint(tmp_path)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
        assert await store.run(leases.take, trainer_module.LEASE, "another", 15.0) is not None
        await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    await champions.load()
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    await Trainer(CONFIG, store, champions, clock, "me", lease).train_first()
    assert lease.epoch is not None, "it is ours again"
    assert await store.read(versions.every, "pumps") == []


async def test_the_fleet_without_a_model_is_trained_although_another_fleets_job_waits_longer(
    store: AsyncStore, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = {"interval": "1m", "window": LENGTH, "sensors": list(SENSORS)}
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["pumps", "fans"]},
            "fleet": [{"name": name, "topics": [name], **fleet} for name in ("pumps", "fans")],
        }
    )
    trained: list[str] = []

    async def retrain(order: Order, _on_progress: object) -> Trained:
        trained.append(order.fleet)
        raise NotEnoughData("none")

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    await store.run(jobs.request, "fans", "somebody", 1)
    champions = Champions(config, store, DetectorScorer("cpu"), FakeClock())
    await Trainer(config, store, champions, FakeClock(), "me").train_first()
    assert trained == ["pumps", "fans"]


async def test_a_champion_that_was_done_without_is_taken_up_while_the_daemon_runs(
    store: AsyncStore, log: Log, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activated(store, path)
    away = path.rename(tmp_path / "lost, as it seems")
    scorer = DetectorScorer("cpu")
    champions = Champions(CONFIG, store, scorer, FakeClock())
    await champions.load(everybody)
    assert not champions.has_champion(CONFIG.fleets[0])
    away.rename(path)
    loop = asyncio.create_task(champions.loop())
    async with asyncio.timeout(20):
        while not champions.has_champion(CONFIG.fleets[0]):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
    loop.cancel()
    assert scorer.holds(path.name)
    scorer.close()


async def test_a_fleet_whose_first_training_failed_elsewhere_is_trained_by_who_takes_the_lease_over(
    store: AsyncStore, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path)

    async def retrain(_order: Order, _on_progress: object) -> Trained:
        return Trained(path.name, str(path), SENSORS, {"metrics": {}})

    monkeypatch.setattr(trainer_module, "retrain", retrain)
    clock = FakeClock()
    champions = Champions(CONFIG, store, DetectorScorer("cpu"), clock)
    lease = Lease(store, trainer_module.LEASE, "me", clock)
    trainer = Trainer(CONFIG, store, champions, clock, "me", lease)
    await store.run(leases.take, trainer_module.LEASE, "another", 15.0)
    await trainer.train_first()  # the other trains nothing for so long that we go on
    loop = asyncio.create_task(trainer.loop())
    await store.run(lambda c: c.exec_driver_sql("UPDATE lease SET until_us = 0"))
    assert await lease.look()
    async with asyncio.timeout(10):
        while not champions.has_champion(CONFIG.fleets[0]):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
    assert loop.cancel()
