"""Versions derived from a champion when the configuration changes: budget, alert policy, sensor settings."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from monitor.config import parse
from monitor.lifecycle import recalibration
from monitor.lifecycle.scheduler import LEASE
from monitor.models.detector import TrainedModel
from monitor.store import leases, versions
from monitor.store.lease_renewal import Lease
from tests.unit.lifecycle.checkpoints import (
    DECIDED_US,
    FLEET,
    KAFKA,
    activate,
    checkpoint,
    expire_lease,
    take_over_lease,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

    NewDaemon = Callable[..., DaemonParts]


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch, log: RecordedLog) -> None:
    monkeypatch.setattr(recalibration, "log", log)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Return a function that makes a configuration. The checkpoints of the tests are calibrated to 20 a week."""

    def make(sensor: dict[str, Any] | None = None, **alerts: Any) -> Config:
        fleet = FLEET | {"alerts": {"budget": "20/week"} | alerts, "sensor": sensor or {}}
        return parse({"kafka": KAFKA, "store": {"checkpoints": str(tmp_path)}, "fleet": [fleet]})

    return make


def saved(folder: Path) -> list[Path]:
    return list(folder.glob("pca-*"))


async def started(daemon: NewDaemon, config: Config, **options: Any) -> DaemonParts:
    this = daemon(config=config, **options)
    await this.champions.load()
    await this.scheduler.derive_thresholds()
    return this


async def test_a_changed_budget_makes_a_derived_version(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path, 7)
    this = await started(daemon, config(budget="2/week", confirm="1 of 1"))
    champion = await store.read(versions.champion, "pumps")
    assert champion is not None
    assert champion.version != path.name
    assert await this.version_that_scores() == champion.version
    base, derived = (TrainedModel.load(tmp_path / name) for name in (path.name, champion.version))
    assert derived.card.threshold.raw > base.card.threshold.raw
    terms = derived.terms
    assert (round(terms.alarms_per_week), terms.confirm, terms.among) == (2, 1, 1)
    assert champion.trained_at.isoformat() == base.card.trained_at, "a retraining stays due as before"
    [line] = log.of("threshold_derived")
    assert line["why"] == ["budget 20 → 2 per asset and week", "confirm 3 of 5 → 1 of 1"]


async def test_an_unchanged_configuration_derives_nothing(
    store: AsyncStore, daemon: NewDaemon, config: Callable[..., Config], tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    await started(daemon, config())
    assert len(await store.read(versions.list_all)) == 1


async def test_a_restart_derives_nothing_again(
    store: AsyncStore, daemon: NewDaemon, config: Callable[..., Config], tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    await started(daemon, config(budget="2/week"))
    before = await store.read(versions.activation_seqs)
    await started(daemon, config(budget="2/week"))
    assert await store.read(versions.activation_seqs) == before
    assert len(await store.read(versions.list_all)) == 2


async def test_the_former_budget_brings_the_trained_version_back(
    store: AsyncStore, daemon: NewDaemon, config: Callable[..., Config], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path, DECIDED_US)
    await started(daemon, config(budget="2/week"))
    for _ in range(2):
        this = await started(daemon, config())
        assert await this.version_that_scores(DECIDED_US + 1) == path.name
    assert len(saved(tmp_path)) == len(await store.read(versions.list_all)) == 2


async def test_knobs_make_a_version_that_scores_by_them(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    this = await started(daemon, config(sensor={"power": {"direction": "up"}}))
    [fleet] = this.champions._config.fleets
    champion = this.champions.detector_of(fleet)
    assert champion is not None
    assert champion.card.knobs == {
        "power": {"direction": "up", "least": 0.0, "least_share": 0.0, "weight": 1.0}
    }
    assert len(log.of("champion_changed")) == 1


async def test_settings_of_an_unknown_sensor_are_reported(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    made = config()
    fleet = made.fleets[0].model_copy(update={"sensors": None, "sensor": config(
        sensor={"power": {"direction": "up"}}).fleets[0].sensor | {"powr": config(
            sensor={"power": {"weight": 2}}).fleets[0].sensor["power"]}})  # fmt: skip
    await started(daemon, made.model_copy(update={"fleet": (fleet,)}))
    [line] = log.of("sensor_settings_unknown")
    assert (line["sensors"], line["known"]) == (["powr"], ["speed", "power"])


async def test_without_held_out_scores_the_log_names_the_way(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    model = TrainedModel.load(checkpoint(tmp_path))
    old = TrainedModel(replace(model.card, held_out=None), model.members, model.scaler, torch.device("cpu"))
    await activate(store, tmp_path / old.save(tmp_path))
    this = await started(daemon, config(budget="2/week"))
    [line] = log.of("threshold_not_derived")
    assert line["fix"] == "monitor retrain pumps"
    assert await this.version_that_scores() == old.version


async def test_a_derived_version_decides_after_every_decided_window(
    store: AsyncStore, daemon: NewDaemon, config: Callable[..., Config], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path, DECIDED_US)
    this = await started(daemon, config(budget="2/week"))
    [_, *_] = history = await store.read(versions.activations, "pumps")
    assert history[-1].from_window_end_us >= DECIDED_US
    assert await this.version_that_scores(DECIDED_US + 1) == history[-1].version


async def test_of_several_daemons_one_derives_and_the_others_follow(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    await activate(store, checkpoint(tmp_path))
    wanted = config(budget="2/week")
    first = daemon(config=wanted, lease=Lease)
    second = daemon(config=wanted, lease=Lease)
    for each in (first, second):
        await each.champions.load()
    for each in (first, second):
        await each.scheduler.derive_thresholds()
    await second.champions.refresh()
    assert len(log.of("threshold_derived")) == 1
    assert await first.version_that_scores() == await second.version_that_scores()
    await expire_lease(store)
    await second.scheduler.derive_thresholds()
    assert len(log.of("threshold_derived")) == 1, "the second one finds it done"


async def test_a_daemon_without_the_lease_derives_once_it_has_it(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    """As in a rolling restart: the holder still has the former configuration."""
    await activate(store, checkpoint(tmp_path))
    epoch = await take_over_lease(store)
    this = await started(daemon, config(budget="2/week"), lease=Lease)
    assert log.of("threshold_derived") == []
    await store.run(leases.release, LEASE, "another", epoch)
    await this.lease.acquire()
    loop = asyncio.create_task(this.scheduler.loop())
    async with asyncio.timeout(20):
        while not log.of("threshold_derived"):  # noqa: ASYNC110 (the loop under test sets no event)
            await asyncio.sleep(0.01)
    loop.cancel()
    assert len(await store.read(versions.list_all)) == 2


async def test_a_daemon_killed_before_the_activation_does_it_again(
    store: AsyncStore,
    daemon: NewDaemon,
    config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    wanted = config(budget="2/week")
    this = daemon(config=wanted)
    await this.champions.load()

    async def die(*_: object, **_event: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(this.champions, "activate", die)
        with pytest.raises(KeyboardInterrupt):
            await this.scheduler.derive_thresholds()
    assert len(saved(tmp_path)) == 2, "the checkpoint is written"
    await started(daemon, wanted)
    assert len(saved(tmp_path)) == 2, "the same one is written again"
    champion = await store.read(versions.champion, "pumps")
    assert champion is not None
    assert champion.version != path.name


async def test_a_reverted_champion_is_derived_from_at_the_next_start(
    store: AsyncStore, daemon: NewDaemon, config: Callable[..., Config], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    await started(daemon, config(budget="2/week"))
    derived = await store.read(versions.champion, "pumps")
    await activate(store, path, 0)
    this = await started(daemon, config(budget="2/week"))
    assert derived is not None
    assert await this.version_that_scores() == derived.version


async def test_a_champion_of_other_sensors_is_left_to_the_training(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config], tmp_path: Path
) -> None:
    """A version derived from it would fit as little: the start would fail for ever."""
    await activate(store, checkpoint(tmp_path))
    made = config(budget="2/week")
    fleet = made.fleets[0].model_copy(update={"sensors": ("torque", "heat")})
    await started(daemon, made.model_copy(update={"fleet": (fleet,)}))
    assert log.of("threshold_derived") == []
    assert len(await store.read(versions.list_all)) == 1


async def test_a_fleet_without_a_champion_is_left_to_the_training(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, config: Callable[..., Config]
) -> None:
    await started(daemon, config(budget="2/week"))
    assert log.of("threshold_derived") == log.of("threshold_not_derived") == []
    assert await store.read(versions.list_all) == []
