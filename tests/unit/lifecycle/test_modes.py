"""Modes of promotion in the scheduler: the state of a challenger is in the database, and an operator's word counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import parse
from monitor.store import challengers, jobs, registry, versions
from monitor.store.acts import Actor
from monitor.types import ModelCheckKind
from tests.unit.lifecycle.checkpoints import FLEET, KAFKA, FakeTraining, activate, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

    NewDaemon = Callable[..., DaemonParts]

GOOD: dict[str, Any] = {"passed": True, "why": "it keeps the budget", "n_windows": 500, "alerts": {"same": 1}}
BAD = GOOD | {"passed": False, "why": "it breaks the budget"}
ANN = Actor("ann", "cli")


def mode(promote: str, **retrain: Any) -> Config:
    return parse({"kafka": KAFKA, "fleet": [FLEET | {"retrain": {"promote": promote, "every": "never"} | retrain}]})


async def states(store: AsyncStore) -> dict[str, str]:
    return {each.version: each.state for each in await store.read(versions.list_all, "pumps")}


async def trained_by(store: AsyncStore, this: DaemonParts) -> None:
    """Run a requested training."""
    await store.run(jobs.request, "pumps", "ann", this.clock.now_us())
    await this.scheduler._run_next(None)


@pytest.fixture
async def old(store: AsyncStore, tmp_path: Path) -> str:
    """A champion."""
    path = checkpoint(tmp_path)
    await activate(store, path)
    return path.name


async def test_a_refused_version_is_rejected_and_not_tried_again(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(new := checkpoint(tmp_path, 1))
    training.verdict = BAD
    this = daemon(training, config=mode("auto", every="1d"))
    await this.champions.load()
    for _ in range(3):
        await this.scheduler._run_next(None)
        this.clock.advance(3600)
    assert len(training.orders) == 1
    assert await states(store) == {old: "champion", new.name: "rejected"}
    assert await this.version_that_scores() == old
    job = await store.read(jobs.get, 1)
    assert (job.state, job.version, job.message) == ("done", new.name, "rejected: it breaks the budget")
    [line] = log.of("challenger_rejected")
    assert line["why"] == "it breaks the budget"
    this.clock.advance(24 * 3600)
    await this.scheduler._run_next(None)
    assert len(training.orders) == 2


async def test_a_suggestion_waits_for_an_operator(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(new := checkpoint(tmp_path, 1))
    training.verdict = GOOD
    this = daemon(training, config=mode("suggest"))
    await this.champions.load()
    await trained_by(store, this)
    assert await states(store) == {old: "champion", new.name: "candidate"}
    [line] = log.of("challenger_proposed")
    assert (line["see"], line["alerts"]) == (f"monitor models diff {new.name}", {"same": 1})
    assert line["accept"] == f"monitor models promote {new.name}"
    await store.run(registry.promote, "pumps", new.name, actor=ANN, at_us=this.clock.now_us())
    await this.champions.refresh()
    assert await this.version_that_scores() == new.name


async def test_a_newer_challenger_supersedes_an_older_one(
    store: AsyncStore, daemon: NewDaemon, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(second := checkpoint(tmp_path, 1))
    training.verdict = GOOD
    this = daemon(training, config=mode("manual"))
    await this.champions.load()
    await trained_by(store, this)
    training.outcome = third = checkpoint(tmp_path, 2)
    await trained_by(store, this)
    assert await states(store) == {old: "champion", second.name: "rejected", third.name: "candidate"}
    [event, *_] = await store.read(registry.events, "pumps", version=second.name)
    assert event.note == f"superseded by {third.name}"


@pytest.mark.parametrize("promote", ["manual", "shadow:24h"])
async def test_a_training_that_finds_the_champion_again_says_so(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, old: str, tmp_path: Path, promote: str
) -> None:
    """The same data give the same version. It supersedes no challenger that waits."""
    training = FakeTraining(waits := checkpoint(tmp_path, 1))
    training.verdict = GOOD
    this = daemon(training, config=mode(promote))
    await this.champions.load()
    await trained_by(store, this)
    before = await states(store)
    training.outcome = tmp_path / old
    await trained_by(store, this)
    assert await states(store) == before
    assert before[waits.name] in ("candidate", "shadow")
    [line] = log.of("challenger_refused")
    assert "is the champion already" in line["why"]
    job = await store.read(jobs.get, 2)
    assert (job.state, job.version, job.message) == ("done", old, line["why"])


async def test_a_shadow_survives_restarts_and_is_promoted(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(new := checkpoint(tmp_path, 1))
    training.verdict = GOOD
    config = mode("shadow:24h")
    this = daemon(training, config=config)
    await this.champions.load()
    await trained_by(store, this)
    assert await states(store) == {old: "champion", new.name: "shadow"}
    n_hours = 0
    while (await states(store))[new.name] == "shadow":
        n_hours += 1
        assert n_hours < 30
        again = daemon(training, config=config)
        again.clock.advance(this.clock.monotonic_s() - again.clock.monotonic_s() + n_hours * 3600)
        await again.champions.load()
        await again.scheduler._run_next(None)
    assert n_hours == 24
    await again.champions.refresh()
    assert await again.version_that_scores() == new.name
    assert [order.kind for order in training.orders] == ["retrain", *["judge"] * 4]
    assert (training.orders[1].champion, training.orders[1].challenger) == (str(tmp_path / old), str(new))
    check = await store.read(registry.latest_check, ModelCheckKind.SHADOW, "pumps")
    assert check is not None
    assert (check.version, check.problem) == (new.name, None)
    assert len(log.of("shadow_ended")) == 1


async def test_an_operators_word_in_shadow_wins(
    store: AsyncStore, daemon: NewDaemon, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(new := checkpoint(tmp_path, 1))
    training.verdict = GOOD
    this = daemon(training, config=mode("shadow:1h"))
    await this.champions.load()
    await trained_by(store, this)

    async def reject() -> None:
        await store.run(registry.reject, new.name, actor=ANN, at_us=this.clock.now_us())

    training.meanwhile = reject
    this.clock.advance(3600)
    await this.scheduler._run_next(None)
    assert await states(store) == {old: "champion", new.name: "rejected"}
    [job] = await store.read(jobs.ended, "pumps", "judge")
    assert job.message == "an operator decided on it meanwhile"
    assert await store.read(challengers.waiting, "pumps") is None


async def test_a_version_that_was_rolled_back_does_not_return(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, old: str, tmp_path: Path
) -> None:
    training = FakeTraining(new := checkpoint(tmp_path, 1))
    this = daemon(training, config=mode("auto"))
    await this.champions.load()
    await trained_by(store, this)
    assert (await states(store))[new.name] == "champion"
    await store.run(registry.roll_back, "pumps", actor=ANN, at_us=this.clock.now_us())
    this.clock.advance(60)
    await trained_by(store, this)
    assert (await states(store))[old] == "champion"
    [line] = log.of("challenger_refused")
    assert "was rolled back by hand" in line["why"]
    assert (await store.read(jobs.get, 2)).state == "done"
