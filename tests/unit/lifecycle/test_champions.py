"""The versions that score in a running daemon: loaded, damaged, missing, activated here or by another daemon."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.errors import CheckpointUnavailable
from monitor.lifecycle.champions import WindowChanged
from monitor.store import versions
from monitor.store.versions import FOREVER_AGO_US
from monitor.timing import DEFAULT_TIMING
from tests.unit.lifecycle.checkpoints import DECIDED_US, FLEET, KAFKA, PUMPS, activate, checkpoint, trained
from tests.unit.training.sine_windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import FleetConfig
    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

    NewDaemon = Callable[..., DaemonParts]

FORMAT_1 = Path(__file__).parents[1] / "format1" / "pca-e0ac6e46"


async def is_retraining(_fleet: FleetConfig) -> bool:
    return True


# ---------------------------------------------------------------- versions and their windows


async def test_a_readable_champion_scores(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    this = daemon()
    await this.champions.load()
    assert log.of("champion_unreadable") == []
    assert await this.version_that_scores() == path.name


async def test_exchanged_checkpoints_do_not_score(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    one, two = checkpoint(tmp_path), checkpoint(tmp_path, 1)
    one.rename(tmp_path / "aside")
    two.rename(one)
    (tmp_path / "aside").rename(two)
    await activate(store, one)
    this = daemon()
    await this.champions.load()
    assert not this.champions.has_champion(PUMPS)
    assert [line["error"] for line in log.of("champion_unreadable")] == [f"{one} holds {two.name}, not {one.name}"]
    assert await this.version_that_scores() is None


async def test_a_row_with_the_path_of_another_version_does_not_score(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    one, two = checkpoint(tmp_path), checkpoint(tmp_path, 1)
    facts = {"fleet": "pumps", "path": str(two), "trained_us": 1, "card": {}, "metrics": {}}
    await store.run(versions.publish, version=one.name, **facts)
    await store.run(versions.activate, "pumps", one.name, FOREVER_AGO_US)
    this = daemon()
    await this.champions.load()
    assert [line["error"] for line in log.of("champion_unreadable")] == [f"{two} holds {two.name}, not {one.name}"]
    assert await this.version_that_scores() is None


@pytest.mark.parametrize(("end_us", "version"), [(99, None), (100, None), (101, 0), (200, 0), (201, 1)])
async def test_a_version_scores_windows_that_end_after_its_boundary(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path, end_us: int, version: int | None
) -> None:
    paths = [checkpoint(tmp_path / str(seed), seed) for seed in (0, 1)]
    for path, after_us in zip(paths, (100, 200), strict=True):
        await activate(store, path, after_us)
    this = daemon()
    await this.champions.load()
    assert await this.version_that_scores(end_us) == (None if version is None else paths[version].name)


async def test_a_version_without_its_folder_is_not_published(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    this = daemon()
    await this.champions.load()
    with pytest.raises(CheckpointUnavailable, match="No such file"):
        await this.champions.activate(PUMPS, trained(tmp_path / "a"), None)
    assert await store.read(versions.list_all) == []


async def test_a_daemon_loads_the_versions_that_another_one_activates(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, FORMAT_1)
    this, other = daemon(), daemon()
    await this.champions.load()
    await other.champions.load()
    before = other.scorer.seq_of("pumps")
    await this.champions.activate(PUMPS, trained(path), None)
    assert await this.version_that_scores() == path.name
    assert await other.version_that_scores() is None
    await other.champions.refresh()
    assert await other.version_that_scores() == path.name
    assert other.scorer.seq_of("pumps") == this.scorer.seq_of("pumps") == (before or 0) + 1
    await this.champions.refresh()
    assert [line["version"] for line in log.of("champion_followed")] == [path.name], "this one changed it itself"


# ---------------------------------------------------------------- missing checkpoints


async def test_start_waits_for_a_missing_champion(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    """A shared folder that is mounted after the start: without the wait, windows would stay unscored."""
    path = checkpoint(tmp_path)
    await activate(store, path)
    unmounted = path.rename(tmp_path / "not mounted yet")
    this = daemon()
    for _ in range(2):
        with pytest.raises(CheckpointUnavailable, match="No such file") as caught:
            await this.champions.load(this.scheduler.is_retraining_requested)
    assert caught.value.waiting_for == (
        f"Waiting for {path.name} of pumps: mount or restore the checkpoints folder; if it is lost, "
        "`monitor retrain pumps` trains another"
    )
    assert caught.value.waiting_for in str(caught.value)
    unmounted.rename(path)
    await this.champions.load(this.scheduler.is_retraining_requested)
    assert await this.version_that_scores() == path.name
    assert log.of("champion_unreadable") == []


async def test_a_skipped_checkpoint_is_loaded_when_a_window_needs_it(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    lost = path.rename(tmp_path / "lost")
    this = daemon(timing=replace(DEFAULT_TIMING, checkpoint_retry_s=0.0))
    await this.champions.load(is_retraining)
    assert await this.version_that_scores() is None
    lost.rename(path)
    assert await this.version_that_scores() == path.name


async def test_a_skipped_champion_is_loaded_while_the_daemon_runs(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    lost = path.rename(tmp_path / "lost")
    this = daemon()
    await this.champions.load(is_retraining)
    assert not this.champions.has_champion(PUMPS)
    lost.rename(path)
    loop = asyncio.create_task(this.champions.loop())
    async with asyncio.timeout(20):
        while not this.champions.has_champion(PUMPS):  # noqa: ASYNC110 (the loop under test sets no event)
            await asyncio.sleep(0.01)
    loop.cancel()
    assert this.scorer.holds(path.name)


async def test_an_activated_version_is_waited_for_until_its_files_appear(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    """On a shared folder the row may be visible before the files. Skipping them, this daemon alone would not score."""
    old, new = checkpoint(tmp_path / "old"), checkpoint(tmp_path / "new", seed=1)
    await activate(store, old)
    this = daemon()
    await this.champions.load()
    seq = this.scorer.seq_of("pumps")
    await activate(store, new, DECIDED_US - 1)
    invisible = new.rename(tmp_path / "not visible yet")
    with pytest.raises(CheckpointUnavailable, match="No such file"):
        await this.champions.refresh()
    assert this.scorer.seq_of("pumps") == seq, "the database refuses commits under the former activation"
    assert await this.version_that_scores() == old.name
    invisible.rename(new)
    await this.champions.refresh()
    assert await this.version_that_scores() == new.name
    assert log.of("champion_unreadable") == []


async def test_a_former_champion_is_skipped_only_if_missing_at_the_start(
    store: AsyncStore, daemon: NewDaemon, log: RecordedLog, tmp_path: Path
) -> None:
    former, champion = checkpoint(tmp_path / "former"), checkpoint(tmp_path / "champion", seed=1)
    await activate(store, former)
    await activate(store, champion, DECIDED_US)
    running, restarted = daemon(), daemon()
    await running.champions.load()
    former.rename(tmp_path / "gone")
    await restarted.champions.load()
    with pytest.raises(CheckpointUnavailable) as caught:
        await running.version_that_scores()
    assert caught.value.waiting_for.startswith(f"Waiting for {former.name} of pumps: mount")
    assert caught.value.waiting_for.endswith("if it is lost, restart this daemon")
    assert await restarted.version_that_scores() is None
    [warning] = log.of("past_champion_missing")
    assert warning["version"] == former.name
    (tmp_path / "gone").rename(former)
    assert await running.version_that_scores() == former.name


# ---------------------------------------------------------------- window = "auto"

AUTO = parse({"kafka": KAFKA, "fleet": [FLEET | {"window": "auto"}]})


async def test_another_length_ends_the_pipeline(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    with pytest.raises(WindowChanged) as caught:
        await daemon(config=AUTO).champions.load()
    assert (caught.value.fleet, caught.value.length, caught.value.version) == ("pumps", LENGTH, path.name)
    this = daemon(config=AUTO.with_lengths({"pumps": LENGTH}))
    await this.champions.load()
    assert await this.version_that_scores() == path.name


async def test_another_length_scores_nothing(
    store: AsyncStore, daemon: NewDaemon, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    this, other = daemon(config=AUTO), daemon(config=AUTO)
    await this.champions.load()
    await other.champions.load()
    with pytest.raises(WindowChanged):
        await this.champions.activate(AUTO.fleets[0], trained(path), None)
    champion = await store.read(versions.champion, "pumps")
    assert champion is not None
    assert champion.version == path.name
    # Their scores are of the former activations, so that the database refuses them.
    for each in (this, other):
        assert each.scorer.seq_of("pumps") != (await store.read(versions.activation_seqs))["pumps"]
        assert await each.version_that_scores() is None
        with pytest.raises(WindowChanged):
            await each.champions.refresh()
