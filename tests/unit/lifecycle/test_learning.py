"""Thresholds that learn from labels: when a version is derived, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from monitor.budget import Status
from monitor.config import parse
from monitor.errors import StoreUnavailable
from monitor.lifecycle import recalibration
from monitor.lifecycle.recalibration import LEARN_EVERY_S, LEARN_SOON_S, MANY_LABELS
from monitor.models.detector import TrainedModel
from monitor.store import assets, label_levels, labels, versions
from monitor.store.acts import Actor
from monitor.types import Label, Partition
from tests.unit.lifecycle.checkpoints import FLEET, KAFKA, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.config import Config
    from monitor.models.calibrate import Threshold
    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

    NewDaemon = Callable[..., DaemonParts]

ANN = Actor("ann", "cli")
_ALERT = text("""
    INSERT INTO alert (asset_id, opened_us, state, severity, updated_us, closed_us, peak_score, peak_us, n_anomalous,
        sensors, version)
    VALUES (1, :n, 'closed', 'warning', :n, :n, 2.0, :n, 3, '[]', :version)
""")


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch, log: RecordedLog) -> None:
    monkeypatch.setattr(recalibration, "log", log)


def config(folder: Path, *, learns: bool = True, **alerts: Any) -> Config:
    fleet = FLEET | {"alerts": {"budget": "20/week", "learn_from_labels": learns} | alerts}
    return parse({"kafka": KAFKA, "store": {"checkpoints": str(folder)}, "fleet": [fleet]})


async def publish(store: AsyncStore, path: Path) -> None:
    """Publish and activate a trained version, with the card that a training publishes."""
    card = TrainedModel.load(path).registry_card()
    facts: dict[str, Any] = {"fleet": "pumps", "path": str(path), "trained_us": 1, "card": card, "metrics": {}}
    await store.run(versions.publish, version=path.name, **facts)
    await store.run(versions.activate, "pumps", path.name, versions.FOREVER_AGO_US)


async def judge(store: AsyncStore, *said: Label | None, version: str = "", first: int = 1) -> None:
    """Label the alerts from number `first` on. Opens those that do not exist yet."""
    def put(connection: Connection) -> None:
        for n, label in enumerate(said, start=first):
            if not connection.execute(text("SELECT 1 FROM alert WHERE id = :n"), {"n": n}).first():
                connection.execute(_ALERT, {"n": n, "version": version})
            labels.label_alert(connection, n, label, "", ANN, 0)

    await store.run(assets.register, "pumps", ["P1"], Partition("t", 0))
    await store.run(put)


async def started(store: AsyncStore, daemon: NewDaemon, made: Config) -> DaemonParts:
    this = daemon(config=made)
    await this.champions.load()
    await this.scheduler.derive_thresholds()
    return this


async def later(this: DaemonParts, seconds: float) -> None:
    await this.clock.sleep(seconds)
    await this.scheduler.derive_thresholds()


async def champion(store: AsyncStore, folder: Path) -> TrainedModel:
    found = await store.read(versions.champion, "pumps")
    assert found is not None
    return TrainedModel.load(folder / found.version)


def raw(model: TrainedModel) -> float:
    threshold: Threshold = model.card.threshold
    return threshold.raw


async def test_labels_of_a_day_make_one_version(store: AsyncStore, daemon: NewDaemon, tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    await publish(store, path)
    this = await started(store, daemon, config(tmp_path))
    await judge(store, Label.NORMAL, Label.IGNORE)
    await later(this, LEARN_SOON_S)
    assert await this.version_that_scores() == path.name, "one label waits for others of the day"
    await later(this, LEARN_EVERY_S)
    derived, trained = await champion(store, tmp_path), TrainedModel.load(path)
    assert raw(derived) / raw(trained) == pytest.approx(1.073, abs=0.001)
    assert derived.card.labels is not None
    assert derived.card.labels["calibrated"]["raw"] == raw(trained)
    assert derived.card.derived == {"from": path.name, "why": "labels: threshold × 1 → × 1.07"}
    assert await this.version_that_scores() == derived.version
    await later(this, LEARN_EVERY_S)
    assert len(await store.read(versions.list_all)) == 2, "no new label, no new version"


async def test_many_labels_count_within_the_hour(store: AsyncStore, daemon: NewDaemon, tmp_path: Path) -> None:
    await publish(store, checkpoint(tmp_path))
    this = await started(store, daemon, config(tmp_path))
    await judge(store, *[Label.NORMAL] * MANY_LABELS)
    await later(this, LEARN_SOON_S)
    assert (await champion(store, tmp_path)).terms.label_factor == pytest.approx(1.073, abs=0.001)
    # All alerts just opened: after the first step none of them opens any more.


async def test_an_interrupted_comparison_is_repeated(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(store, checkpoint(tmp_path))
    await judge(store, Label.NORMAL)
    this = await started(store, daemon, config(tmp_path))
    newer = checkpoint(tmp_path, seed=1)
    await publish(store, newer)
    await this.champions.refresh()
    with monkeypatch.context() as broken:
        broken.setattr(label_levels, "judged_alerts", _unavailable)
        with pytest.raises(StoreUnavailable):
            await later(this, 1.0)
    await later(this, 1.0)
    assert (await champion(store, tmp_path)).terms.label_factor > 1


def _unavailable(*_: object) -> None:
    raise StoreUnavailable("connection lost")


async def test_removing_the_label_undoes_it(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await publish(store, path)
    await judge(store, Label.NORMAL)
    this = await started(store, daemon, config(tmp_path))
    assert (await champion(store, tmp_path)).card.labels is not None
    await judge(store, None)
    await later(this, LEARN_EVERY_S)
    assert await this.version_that_scores() == path.name


@pytest.mark.parametrize("learns", [True, False])
async def test_the_setting_decides_at_the_start(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path, learns: bool
) -> None:
    path = checkpoint(tmp_path)
    await publish(store, path)
    await judge(store, Label.NORMAL)
    await started(store, daemon, config(tmp_path, learns=learns))
    assert ((await champion(store, tmp_path)).version == path.name) is not learns
    await started(store, daemon, config(tmp_path, learns=False))
    assert (await champion(store, tmp_path)).version == path.name


async def test_a_lowered_threshold_is_provisional(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await publish(store, path)
    await judge(store, Label.FAULT)
    await started(store, daemon, config(tmp_path))
    derived, trained = await champion(store, tmp_path), TrainedModel.load(path)
    assert raw(derived) / raw(trained) == pytest.approx(0.971, abs=0.001)
    assert derived.card.threshold.state is Status.PROVISIONAL
    assert "labels moved the threshold to 0.971 of the calibrated one" in derived.card.threshold.reason
    assert "only time watched with it can certify it" in derived.card.threshold.reason
    assert derived.card.threshold.n_episodes >= trained.card.threshold.n_episodes


async def test_a_trained_version_takes_the_labels_over(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    await publish(store, checkpoint(tmp_path))
    await judge(store, Label.NORMAL)
    this = await started(store, daemon, config(tmp_path))
    newer = checkpoint(tmp_path, seed=1)
    await publish(store, newer)
    await this.champions.refresh()
    await later(this, 1.0)
    derived = await champion(store, tmp_path)
    assert derived.card.derived is not None
    assert derived.card.derived["from"] == newer.name
    assert derived.terms.label_factor > 1


async def test_levels_count_the_factor_of_their_version(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    """A label on an alert that a raised threshold opened raises it further."""
    await publish(store, checkpoint(tmp_path))
    await judge(store, Label.NORMAL)
    this = await started(store, daemon, config(tmp_path))
    raised = await champion(store, tmp_path)
    await judge(store, Label.NORMAL, version=raised.version, first=2)
    await later(this, LEARN_EVERY_S)
    again = await champion(store, tmp_path)
    assert again.terms.label_factor == pytest.approx(1.073**2, abs=0.003)
    await judge(store, Label.FAULT, version=raised.version, first=3)
    await later(this, LEARN_EVERY_S)
    assert (await champion(store, tmp_path)).terms.label_factor <= raised.terms.label_factor


async def test_a_changed_budget_keeps_the_factor(store: AsyncStore, daemon: NewDaemon, tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    await publish(store, path)
    await judge(store, Label.NORMAL)
    await started(store, daemon, config(tmp_path))
    await started(store, daemon, config(tmp_path, budget="2/week"))
    both = await champion(store, tmp_path)
    other = TrainedModel.load(path)
    other = other.derive(replace(other.terms, alarms_per_week=2.0))
    assert raw(both) / raw(other) == pytest.approx(1.073, abs=0.001)
    await judge(store, None)
    await started(store, daemon, config(tmp_path))
    assert (await champion(store, tmp_path)).version == path.name


async def test_the_preview_table_is_in_the_same_unit(store: AsyncStore, daemon: NewDaemon, tmp_path: Path) -> None:
    await publish(store, checkpoint(tmp_path))
    await judge(store, Label.NORMAL)
    await started(store, daemon, config(tmp_path))
    found = await store.read(
        lambda connection: connection.execute(text("SELECT card FROM model_version WHERE state = 'champion'")).scalar()
    )
    card = json.loads(found)
    [row] = [row for row in card["thresholds"]["policies"] if (row["confirm"], row["among"]) == (3, 5)]
    place = [round(rate) for rate in card["thresholds"]["per_week"]].index(20)
    assert row["raw"][place] == pytest.approx(card["threshold"]["raw"], rel=1e-6)
    assert card["labels"]["factor"] == pytest.approx(1.073, abs=0.001)
