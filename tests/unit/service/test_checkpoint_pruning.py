"""Checkpoints are marked, and removed a round later; kills in between leave nothing behind."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.errors import NotFound
from monitor.lifecycle.champions import Champions
from monitor.models import checkpoint_files
from monitor.replay.versions import ReplayVersion, load_for_side, unreadable_versions
from monitor.service import checkpoint_pruning
from monitor.service.checkpoint_pruning import CheckpointPruning
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.stream.score import DetectorScorer
from tests.fakes import FakeClock, RecordedLog
from tests.unit.lifecycle.checkpoints import DECIDED_US, FLEET, KAFKA, activate, checkpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from monitor.config import Config

OLD_S = 2 * checkpoint_files.DRAFT_KEPT_S
STORED = {"pumps": DECIDED_US}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    log = RecordedLog()
    monkeypatch.setattr(checkpoint_pruning, "log", log)
    return log


@pytest.fixture
def config(tmp_path: Path) -> Config:
    store = {"url": f"sqlite:///{tmp_path}/monitor.db", "checkpoints": str(tmp_path)}
    fleet = FLEET | {"retrain": {"keep_versions": 1}}
    return parse({"kafka": KAFKA, "store": store, "fleet": [fleet]})


@pytest.fixture
async def store(config: Config) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(config.store.url, owner=True) as store:
        yield store


async def five_versions(store: AsyncStore, folder: Path) -> list[Path]:
    """Make versions that decided before DECIDED_US, with old folders."""
    first = checkpoint(folder)
    paths = [first]
    for seed in range(1, 5):
        paths.append(checkpoint(folder, seed))
    for number, path in enumerate(paths):
        await activate(store, path, DECIDED_US - 100 + number)
        make_old(path)
    return paths


def drafts_of(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}-*"))


def make_old(path: Path) -> None:
    then = time.time() - OLD_S
    os.utime(path, (then, then))


async def round_of(pruning: CheckpointPruning, clock: FakeClock) -> None:
    clock.advance(600)
    await pruning.run_once(STORED)


async def mark_scored(store: AsyncStore) -> None:
    """Let the fleet have windows: their time decides what is needed."""
    statements = (
        "INSERT INTO asset (id, fleet, name, topic, partition) VALUES (1, 'pumps', 'a', 't', 0)",
        f"INSERT INTO last_window (asset_id, start_us, end_us) VALUES (1, {DECIDED_US}, {DECIDED_US + 60})",
    )
    for sql in statements:
        await store.run(lambda c, sql=sql: c.exec_driver_sql(sql))


async def test_a_folder_is_removed_a_round_after_its_mark(
    store: AsyncStore, config: Config, tmp_path: Path, log: RecordedLog
) -> None:
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    clock = FakeClock()
    pruning = CheckpointPruning(config, store, clock)
    await round_of(pruning, clock)
    assert all(path.exists() for path in paths)
    pruned = {each.version for each in await store.read(versions.list_all) if each.pruned_at is not None}
    assert pruned == {path.name for path in paths[:2]}, "kept: champion, previous, and one other"
    assert {line["version"] for line in log.of("checkpoint_pruned")} == pruned
    await round_of(pruning, clock)
    assert [path.exists() for path in paths] == [False, False, True, True, True]


async def test_a_running_daemon_leaves_pruned_versions_out(
    store: AsyncStore, config: Config, tmp_path: Path
) -> None:
    """It neither waits for their files nor scores with a copy in its memory, which other daemons do not have."""
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    clock, scorer = FakeClock(), DetectorScorer("cpu")
    champions = Champions(config, store, scorer, clock)
    try:
        scorer.keep(await scorer.load(paths[0], paths[0].name))
        await champions.load()
        await round_of(CheckpointPruning(config, store, clock), clock)
        await champions.refresh()
        assert not scorer.holds(paths[0].name)
        assert scorer.holds(paths[-1].name)
    finally:
        scorer.close()


async def test_a_folder_found_again_by_a_training_stays(
    store: AsyncStore, config: Config, tmp_path: Path
) -> None:
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    clock = FakeClock()
    pruning = CheckpointPruning(config, store, clock)
    await round_of(pruning, clock)
    assert checkpoint(tmp_path) == paths[0], "a training finds the same version, and has not published it yet"
    await round_of(pruning, clock)
    assert [path.exists() for path in paths] == [True, False, True, True, True]


async def test_a_kill_while_a_folder_is_removed_leaves_no_half(
    store: AsyncStore, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: RecordedLog
) -> None:
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    clock = FakeClock()
    pruning = CheckpointPruning(config, store, clock)
    await round_of(pruning, clock)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint_files.remove(paths[0])
    assert not paths[0].exists()
    [draft] = drafts_of(paths[0])
    make_old(draft)
    fresh = tmp_path / f".{paths[1].name}-00112233"
    fresh.mkdir()
    await round_of(pruning, clock)
    assert (draft.exists(), fresh.exists()) == (False, True)
    assert [line["name"] for line in log.of("checkpoint_draft_removed")] == [draft.name]


async def test_no_other_folder_is_removed(store: AsyncStore, config: Config, tmp_path: Path, log: RecordedLog) -> None:
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    precious = tmp_path / "precious"
    precious.mkdir()
    make_old(precious)
    sql = f"UPDATE model_version SET path = '{precious}' WHERE version = '{paths[0].name}'"
    await store.run(lambda c: c.exec_driver_sql(sql))
    clock = FakeClock()
    pruning = CheckpointPruning(config, store, clock)
    for _ in range(2):
        await round_of(pruning, clock)
    assert precious.exists()
    [line] = log.of("checkpoint_not_removed")
    assert "is not the folder of a checkpoint" in line["error"]


async def test_a_replay_says_that_a_version_was_pruned(store: AsyncStore, config: Config, tmp_path: Path) -> None:
    paths = await five_versions(store, tmp_path)
    await mark_scored(store)
    clock = FakeClock()
    await round_of(CheckpointPruning(config, store, clock), clock)
    unreadable = await unreadable_versions(config)
    assert {each.version for each in unreadable} == {path.name for path in paths[:2]}
    assert "it was pruned at" in unreadable[0].reason
    pruned = await store.read(versions.find, paths[0].name)
    scorer = DetectorScorer("cpu")
    try:
        with pytest.raises(NotFound, match=r"was pruned at .* Replay a later time, or name the version"):
            await load_for_side(scorer, ReplayVersion(pruned.version, paths[0], 0, pruned_at=pruned.pruned_at), "pumps")
    finally:
        scorer.close()
