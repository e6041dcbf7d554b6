"""A replay gives the live results, for difficult generated streams and for recordings through the command line."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from monitor.budget import Budget
from monitor.cli import main
from monitor.clock import SystemClock
from monitor.config import load
from monitor.decode import reading_json
from monitor.errors import QuarantineLimit
from monitor.kafka import Gap
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.recordings import as_records, read_recording
from monitor.replay.diff import Side
from monitor.replay.digest import digest, digest_of
from monitor.replay.flow import ReplayInput, ReplayObserver, flow, scored_from_us, scratch
from monitor.replay.from_kafka import replay_log
from monitor.replay.offsets import summarize_run
from monitor.replay.run import ReplayOptions
from monitor.replay.side_by_side import SideBySide
from monitor.replay.versions import unreadable_versions
from monitor.store import identity, partitions, results, versions
from monitor.store.engine import AsyncStore
from monitor.store.offsets import HomePartition, home_partitions
from monitor.store.reader import open_reader
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import ActiveVersion, DetectorScorer
from monitor.training.fit import fit
from monitor.types import Partition, Scores
from tests.acceptance.crashes import CASES, VERSION, HashScorer, config_of
from tests.acceptance.streams import make
from tests.fakes import LogSource, batch_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from monitor.config import Config
    from monitor.kafka.embedded_broker import EmbeddedBroker
    from monitor.models.detector import TrainedModel
    from monitor.types import Int64, RecordBatch, Windows
    from tests.fakes import Record

Logs = dict[Partition, "Sequence[Record]"]


def _cut(logs: Logs, rng: Random) -> Iterator[RecordBatch]:
    """Yield the logs in batches of random size, with the partitions in random turns, each in its own order."""
    at = dict.fromkeys(logs, 0)
    while left := [partition for partition in logs if at[partition] < len(logs[partition])]:
        partition = rng.choice(left)
        n = rng.choice([1, 3, 50, 1000])
        yield batch_of(partition, logs[partition][at[partition] : at[partition] + n])
        at[partition] += n


async def _publish_fake(store: AsyncStore, config: Config) -> None:
    fleet = config.fleets[0].name
    await store.run(versions.publish, version=VERSION, fleet=fleet, path="/", trained_us=0, card={}, metrics={})


async def _run_live(config: Config, logs: Logs, rng: Random) -> str:
    url = config.store.url
    async with AsyncStore(url, owner=True) as store:
        await _publish_fake(store, config)
        source = LogSource(dict(logs), batch=rng.choice([1, 7, 100]))
        await Pipeline(config, source, store, HashScorer(), owner="live", clock=SystemClock()).run()
    return url


async def _replay(config: Config, logs: Logs, rng: Random, folder: Path, from_us: int, to_us: int) -> str:
    url = f"sqlite:///{folder / f'replay-{rng.random()}.db'}"
    async with scratch(url) as (store, _):
        await _publish_fake(store, config)
        replay_input = ReplayInput(config, _cut(logs, rng), tuple(logs), from_us, to_us)
        await flow(replay_input, store, HashScorer(), ReplayObserver(), SystemClock())
    return url


def _is_quiet(url: str, config: Config, from_us: int) -> bool:
    """Return whether no alert was open at `from_us` or in the run-up before it."""
    with open_reader(url) as reader:
        lives = list(results.alert_transitions(reader))
    begins_us = min(scored_from_us(fleet, from_us) for fleet in config.fleets)
    closed = {(life.asset, life.opened_us): life.at_us for life in lives if life.state == "closed"}
    return not any(
        life.opened_us <= from_us and closed.get((life.asset, life.opened_us), results.LAST_US) >= begins_us
        for life in lives
    )


@pytest.mark.parametrize(("kind", "seed"), CASES)
async def test_a_replay_gives_the_live_digest(
    kind: str, seed: int, tmp_path: Path
) -> None:
    rng = Random(f"{kind}{seed}")
    stream = make(kind, seed)
    config, logs = config_of(stream.rules, tmp_path), {Partition(stream.topic, 0): stream.log}
    live = await _run_live(config, logs, rng)
    whole = await _replay(config, logs, rng, tmp_path, results.FIRST_US, results.LAST_US)
    with open_reader(live) as there, open_reader(whole) as here:
        ends = sorted({fact.end_us for fact in results.windows(there)})
        assert digest_of(here) == digest_of(there)
    for _ in range(2):
        if len(ends) < 2:
            break
        from_us, to_us = sorted(rng.sample(ends, 2))
        some = await _replay(config, logs, rng, tmp_path, from_us, to_us)
        with open_reader(live) as there, open_reader(some) as here:
            windows = [digest(results.windows(reader, from_us, to_us), ()) for reader in (there, here)]
            assert windows[0] == windows[1]
            if _is_quiet(live, config, from_us):
                assert digest_of(here, from_us=from_us, to_us=to_us) == digest_of(there, from_us=from_us, to_us=to_us)


# ---------------------------------------------------------------- with a real model and a registry


SENSORS = ("power", "wind", "pitch")
N_HEAD, N_ROWS = 300, 700
FAULT = (500, 560)


def _values(n: int = N_ROWS) -> np.ndarray:
    """Return three sensors that oscillate together. During the fault the first one stands still."""
    step = np.arange(n)
    noise = np.random.default_rng(1).normal(0, 0.05, (n, 3))
    values = np.stack([np.sin(step / 7), np.cos(step / 7), np.sin(step / 11)], axis=1) + noise
    values[slice(*FAULT), 0] = 4.0
    return values.astype(np.float32)


def _csv(path: Path, *, label: Sequence[int] | None = None) -> Path:
    if label is None:
        label = [int(FAULT[0] <= row < FAULT[1]) for row in range(N_ROWS)]
    lines = [
        f"{60 * row}," + ",".join(f"{value:.6g}" for value in values) + f",{label[row]}"
        for row, values in enumerate(_values().tolist())
    ]
    path.write_text("\n".join(["timestamp,power,wind,pitch,label", *lines]) + "\n")
    return path


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A configuration with a PCA, which trains in milliseconds."""
    path = tmp_path / "monitor.toml"
    path.write_text(
        """
        [kafka]
        bootstrap = "127.0.0.1:1"
        topics = ["plant"]
        [[fleet]]
        name = "turbines"
        interval = "1m"
        window = 16
        sensors = ["power", "wind", "pitch"]
        model = { architecture = "pca" }
        """
    )
    return path


def _replayed(*args: str | Path) -> dict[str, Any]:
    run = CliRunner().invoke(main, ["replay", "--json", *map(str, args)])
    assert run.exit_code == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_a_file_has_one_digest_and_its_fault_found(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    args = ("-c", toml, file, "--train-rows", str(N_HEAD))
    first, second = _replayed(*args), _replayed(*args)
    assert first["digest"] == second["digest"]
    assert first["windows"] == first["scored"] == N_ROWS - N_HEAD  # the first row of the rest ends a window
    assert (first["labels"]["events"], first["labels"]["found"]) == (1, 1)
    assert first["alerts"] == len(first["alert_list"]) >= 1
    assert first["quarantined"] == 0


def test_labels_change_no_model_and_no_score(toml: Path, tmp_path: Path) -> None:
    args = ("-c", toml, "--train-rows", str(N_HEAD))
    (tmp_path / "other").mkdir()
    right = _replayed(_csv(tmp_path / "R1.csv"), *args)
    wrong = _replayed(_csv(tmp_path / "other" / "R1.csv", label=[row % 2 for row in range(N_ROWS)]), *args)
    assert right["digest"] == wrong["digest"]
    assert right["files"][0]["version"] == wrong["files"][0]["version"]
    assert right["labels"] != wrong["labels"]


def test_train_rows_come_from_the_meta_file(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    failed = CliRunner().invoke(main, ["replay", "-c", str(toml), str(file)])
    assert failed.exit_code == 2
    assert "--train-rows" in failed.stderr
    (tmp_path / "meta.json").write_text(json.dumps({"series": {"R1": {"train_rows": N_HEAD}}}))
    assert _replayed("-c", toml, file)["digest"] == _replayed("-c", toml, file, "--train-rows", str(N_HEAD))["digest"]


def test_another_head_gives_another_digest(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    less = _replayed("-c", toml, file, "--train-until", "1970-01-01T04:10Z")
    assert less["files"][0]["train_rows"] == 250
    assert less["digest"] != _replayed("-c", toml, file, "--train-rows", str(N_HEAD))["digest"]


def test_kept_results_are_never_overwritten(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    args = ["replay", "-c", str(toml), str(_csv(tmp_path / "R1.csv")), "--train-rows", str(N_HEAD), "--into", url]
    first = CliRunner().invoke(main, args)
    assert first.exit_code == 0, first.stderr
    assert "1 of 1 labelled events found" in first.stdout
    again = CliRunner().invoke(main, args)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    monkeypatch.setenv("MONITOR_STORE__URL", url)
    listed = json.loads(CliRunner().invoke(main, ["alerts", "list", "-c", str(toml), "--json"]).stdout)
    assert len(listed) >= 1


def _train(fleet: str, folder: Path) -> TrainedModel:
    return _fit(fleet, SENSORS, _values()[:N_HEAD], 60.0, folder)


def _fit(fleet: str, sensors: tuple[str, ...], values: np.ndarray, step_s: float, folder: Path) -> TrainedModel:
    windows = np.lib.stride_tricks.sliding_window_view(values, 16, axis=0).transpose(0, 2, 1)
    n = len(windows)
    train = TrainingSet(windows, np.zeros(n, np.int32), (np.arange(n) + 16) * round(step_s * 1e6))
    budget = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=step_s)
    detector = fit(train, ModelSpec(architecture="pca"), FleetSpec(fleet, sensors, step_s, budget))
    detector.save(folder)
    return detector


def _log_of(batches: list[RecordBatch]) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Offset, time, key and value of each record."""
    return [record for batch in batches for record in zip(
        batch.offsets.tolist(), batch.timestamps_us.tolist(), batch.keys, batch.values, strict=True)]  # fmt: skip


async def test_a_replay_changes_no_live_table(toml: Path, tmp_path: Path) -> None:
    config = load(toml)
    recording = read_recording(_csv(tmp_path / "R1.csv"))
    home = Partition("plant", 0)
    batches = list(as_records(recording, partition=home, block=1))
    log = _log_of(batches)
    boundary_us = 200 * 60_000_000
    folder = tmp_path / "checkpoints"
    detector = _train("turbines", folder)
    async with AsyncStore(config.store.url, owner=True) as store:
        scorer = DetectorScorer("cpu")
        path = folder / detector.version
        facts = {"fleet": "turbines", "path": str(path), "trained_us": 0, "card": {}, "metrics": {}}
        await store.run(versions.publish, version=detector.version, **facts)
        await store.run(versions.activate, "turbines", detector.version, boundary_us)
        scorer.activate("turbines", ActiveVersion(boundary_us, detector.version, path), detector)
        source = LogSource({home: log}, batch=50)
        await Pipeline(config, source, store, scorer, owner="live", clock=SystemClock()).run()
        scorer.close()
    before = (tmp_path / "monitor.db").read_bytes()

    replay_input = ReplayInput(config, batches, [home])
    observer, clock = ReplayObserver(), SystemClock()
    found = await replay_log(replay_input, options=ReplayOptions(), observer=observer, clock=clock)
    by_file = await asyncio.to_thread(_replayed, "-c", toml, tmp_path / "R1.csv")
    by_name = ReplayOptions(detector.version)
    named = await replay_log(replay_input, options=by_name, observer=observer, clock=clock)

    with open_reader(config.store.url) as reader:
        assert found.digest == by_file["digest"] == digest_of(reader)
        stored = list(results.windows(reader))
    assert found.windows == len(stored) > found.scored == sum(fact.end_us > boundary_us for fact in stored)
    assert len(found.alerts) >= 1
    assert named.scored == named.windows
    assert named.digest != found.digest
    assert (tmp_path / "monitor.db").read_bytes() == before


async def test_windows_of_a_version_that_cannot_be_loaded_are_not_compared(toml: Path, tmp_path: Path) -> None:
    config = load(toml)
    recording = read_recording(_csv(tmp_path / "R1.csv"))
    home = Partition("plant", 0)
    batches = list(as_records(recording, partition=home, block=1))
    log = _log_of(batches)
    folder, boundary_us = tmp_path / "checkpoints", int(recording.ts_us[N_HEAD + 100])
    models = [_train("turbines", folder), _fit("turbines", SENSORS, _values()[20:N_HEAD], 60.0, folder)]
    async with AsyncStore(config.store.url, owner=True) as store:
        scorer = DetectorScorer("cpu")
        for model, after_us in zip(models, (FOREVER_AGO_US, boundary_us), strict=True):
            path = folder / model.version
            facts = {"fleet": "turbines", "path": str(path), "trained_us": 0, "card": {}, "metrics": {}}
            await store.run(versions.publish, version=model.version, **facts)
            await store.run(versions.activate, "turbines", model.version, after_us)
            scorer.activate("turbines", ActiveVersion(after_us, model.version, path), model)
        await Pipeline(config, LogSource({home: log}, batch=50), store, scorer, owner="live", clock=SystemClock()).run()
        scorer.close()
    (folder / models[0].version / "card.json").write_text('{"format": 1}')

    unreadable = await unreadable_versions(config)
    assert [(each.version, each.to_us) for each in unreadable] == [(models[0].version, boundary_us)]
    with open_reader(config.store.url) as reader:
        homes = home_partitions(reader)
        live = summarize_run(reader, config, results.FIRST_US, results.LAST_US, set(homes), unreadable=unreadable)
        n_old = sum(window.end_us <= boundary_us for window in results.windows(reader))
    assert live.n_skipped == n_old > 0
    replay_input = ReplayInput(config, batches, [home], homes=homes)
    options, observer, clock = ReplayOptions(), ReplayObserver(), SystemClock()
    found = await replay_log(
        replay_input, options=options, observer=observer, clock=clock, live=live, unreadable=unreadable
    )
    assert found.equals_live is True
    assert (found.scored, found.windows) == (live.windows - n_old, live.windows)
    assert [each["version"] for each in found.unreadable] == [models[0].version]
    with sqlite3.connect(tmp_path / "monitor.db") as database:
        database.execute("UPDATE score SET verdict = 1 - verdict WHERE end_us = (SELECT MAX(end_us) FROM score)")
    with open_reader(config.store.url) as reader:
        live = summarize_run(reader, config, results.FIRST_US, results.LAST_US, set(homes), unreadable=unreadable)
    found = await replay_log(
        replay_input, options=options, observer=observer, clock=clock, live=live, unreadable=unreadable
    )
    assert found.equals_live is False


def test_contradicting_options_are_refused(toml: Path, tmp_path: Path) -> None:
    file = str(_csv(tmp_path / "R1.csv"))
    for args in (
        [file, "--train-rows", "5", "--train-until", "now"],
        [file, "--from", "now-1d"],
        ["--publish"],
        [file, "--speed", "fast"],
    ):
        assert CliRunner().invoke(main, ["replay", "-c", str(toml), *args]).exit_code == 2, args


async def _register(config: Config, detector: TrainedModel, *, fleet: str = "turbines", is_active: bool = True) -> None:
    async with AsyncStore(config.store.url, owner=True) as store:
        path = config.store.checkpoints / detector.version
        facts = {"fleet": fleet, "path": str(path), "trained_us": 0, "card": {}, "metrics": {}}
        await store.run(versions.publish, version=detector.version, **facts)
        if is_active:
            await store.run(versions.activate, fleet, detector.version, FOREVER_AGO_US)


def test_a_published_file_keeps_its_digest(
    embedded_broker: EmbeddedBroker, toml: Path, tmp_path: Path
) -> None:
    topic = f"plant-{tmp_path.name}"
    toml.write_text(toml.read_text().replace("127.0.0.1:1", embedded_broker.bootstrap).replace('"plant"', f'"{topic}"'))
    file = _csv(tmp_path / "R1.csv")
    assert _replayed("-c", toml, file, "--publish") == {"topic": topic, "records": N_ROWS, "readings": N_ROWS}
    config = load(toml)
    asyncio.run(_register(config, _train("turbines", config.store.checkpoints)))

    of_file, of_topic = _replayed("-c", toml, file), _replayed("-c", toml)
    part = _replayed("-c", toml, "--from", "1970-01-01T05:00Z", "--to", "1970-01-01T08:00Z")

    assert of_topic["digest"] == of_file["digest"]
    # Two windows begin before the first reading. The gap at their beginning is allowed.
    assert of_topic["windows"] == of_file["windows"] == N_ROWS - 15 + config.fleets[0].max_gap_cells
    assert part["windows"] == part["scored"] == 180
    assert part["readings"] < of_topic["readings"]


# ---------------------------------------------------------------- the offsets of a live run


async def _run_live_part(
    config: Config, records: Sequence[Record], home: Partition, detector: TrainedModel, first: int, gap: tuple[int, int]
) -> None:
    """Run the pipeline from offset `first` to the end of `records`, with a gap. Kafka may hold more records."""
    path = config.store.checkpoints / detector.version
    async with AsyncStore(config.store.url, owner=True) as store:
        config = config.with_default_group((await store.read(identity.read)).default_group)
        with closing(DetectorScorer("cpu")) as scorer:
            scorer.activate("turbines", ActiveVersion(FOREVER_AGO_US, detector.version, path), detector)
            group = config.kafka.group
            claim = await store.run(partitions.claim, group, home, "before")
            await store.run(partitions.set_start, group, home, claim.epoch, first)
            before = LogSource({home: [record for record in records if record[0] < gap[0]]}, batch=17)
            await Pipeline(config, before, store, scorer, owner="live", clock=SystemClock()).run()
            after = LogSource({home: [record for record in records if not gap[0] <= record[0] < gap[1]]}, batch=23)
            pipeline = Pipeline(config, after, store, scorer, owner="live", clock=SystemClock())
            after.give(Gap(home, *gap))
            await pipeline.run()


def _records(path: Path, home: Partition) -> list[Record]:
    batches = as_records(read_recording(path), partition=home, block=1)
    return [record for batch in batches for record in zip(
        batch.offsets.tolist(), batch.timestamps_us.tolist(), batch.keys, batch.values, strict=True)]  # fmt: skip


def test_consumed_offsets_give_the_live_digest(
    embedded_broker: EmbeddedBroker, toml: Path, tmp_path: Path
) -> None:
    topic = f"part-{tmp_path.name}"
    toml.write_text(toml.read_text().replace("127.0.0.1:1", embedded_broker.bootstrap).replace('"plant"', f'"{topic}"'))
    file, home = _csv(tmp_path / "R1.csv"), Partition(topic, 0)
    _replayed("-c", toml, file, "--publish")
    config = load(toml)
    detector = _train("turbines", config.store.checkpoints)
    asyncio.run(_register(config, detector))
    records = _records(file, home)[:600]  # the live run has not reached the end of the log
    asyncio.run(_run_live_part(config, records, home, detector, 150, (300, 320)))
    with open_reader(config.store.url) as reader:
        live, n_windows = digest_of(reader), sum(1 for _ in results.windows(reader))

    whole = _replayed("-c", toml, "--offsets", "all")
    assert whole["live"] is None
    assert whole["digest"] != live
    asked, unasked = _replayed("-c", toml, "--offsets", "live"), _replayed("-c", toml)
    part = _replayed("-c", toml, "--offsets", "live", "--from", "1970-01-01T04:00Z", "--to", "1970-01-01T09:00Z")
    for found in (asked, unasked):
        assert found["digest"] == live
        assert found["readings"] == 600 - 150 - 20
        assert (found["offsets"], found["missing_offsets"]) == ("live", 0)
        assert (found["live"]["windows"], found["live"]["is_equal"]) == (n_windows, True)
        assert found["live"]["not_comparable"] == 0
        assert found["alerts"] >= 1
    assert part["live"]["is_equal"]
    assert 0 < part["windows"] < n_windows
    shown = CliRunner().invoke(main, ["replay", "-c", str(toml)])
    assert f"as live: all of its {n_windows} windows and their alerts are the same" in shown.stdout

    for change, why in (("DELETE FROM alert_transition", "changed since"), ("DELETE FROM score", "changed since")):
        with closing(sqlite3.connect(tmp_path / "monitor.db")) as database, database:
            database.execute(change)
        other = CliRunner().invoke(main, ["replay", "-c", str(toml)])
        assert "Live gave something else" in other.stdout, change
        assert why in other.stdout


def test_pruned_windows_are_not_compared(
    embedded_broker: EmbeddedBroker, toml: Path, tmp_path: Path
) -> None:
    topic = f"pruned-{tmp_path.name}"
    toml.write_text(toml.read_text().replace("127.0.0.1:1", embedded_broker.bootstrap).replace('"plant"', f'"{topic}"'))
    file, home = _csv(tmp_path / "R1.csv"), Partition(topic, 0)
    _replayed("-c", toml, file, "--publish")
    config = load(toml)
    detector = _train("turbines", config.store.checkpoints)
    asyncio.run(_register(config, detector))
    asyncio.run(_run_live_part(config, _records(file, home)[:600], home, detector, 0, (100, 101)))
    with closing(sqlite3.connect(tmp_path / "monitor.db")) as database, database:
        database.execute("DELETE FROM score WHERE start_us < ?", (250 * 60_000_000,))
    found = _replayed("-c", toml)
    assert found["live"]["is_equal"]
    assert found["live"]["windows"] < found["windows"]


def test_missing_offsets_are_counted(
    embedded_broker: EmbeddedBroker, toml: Path, tmp_path: Path
) -> None:
    topic = f"gone-{tmp_path.name}"
    toml.write_text(toml.read_text().replace("127.0.0.1:1", embedded_broker.bootstrap).replace('"plant"', f'"{topic}"'))
    file, home = _csv(tmp_path / "R1.csv"), Partition(topic, 0)
    config = load(toml)
    detector = _train("turbines", config.store.checkpoints)
    asyncio.run(_register(config, detector))
    nothing = CliRunner().invoke(main, ["replay", "-c", str(toml), "--offsets", "live"])
    assert nothing.exit_code == 1
    assert f"in {topic}: no daemon has begun there; --offsets all" in nothing.stderr
    _replayed("-c", toml, file, "--publish")
    records = [(offset + 50, *rest) for offset, *rest in _records(file, home)]  # as if 50 records were deleted
    asyncio.run(_run_live_part(config, records, home, detector, 100, (110, 120)))
    found = _replayed("-c", toml)
    assert found["missing_offsets"] == 50  # the live run reached 750, and the log ends at 700
    assert found["live"]["is_equal"] is False
    shown = CliRunner().invoke(main, ["replay", "-c", str(toml)])
    assert "50 offsets that live consumed are no longer in Kafka" in shown.stdout


@pytest.mark.parametrize("seed", range(4))
async def test_assets_rejected_live_are_left_out(
    seed: int, toml: Path, tmp_path: Path
) -> None:
    """A replay of all records gives the live results when it knows which assets were rejected, and since when."""
    rng, config = Random(seed), load(toml)
    minutes = [(asset, minute) for minute in range(120) for asset in ("ever", "late", "never")]
    minutes.sort(key=lambda pair: pair[1] + rng.random() * 3)
    here, there = Partition("plant", 0), Partition("plant", 1)
    log = [
        (offset, -1, asset.encode(), reading_json(asset, minute * 60_000_000, [float(minute % 7)] * 3, SENSORS))
        for offset, (asset, minute) in enumerate(minutes)
    ]
    since = next(offset for offset, _, key, _ in log[150:] if key == b"late")
    taken = [record for record in log if record[2] == b"ever" or (record[2] == b"late" and record[0] >= since)]
    live = await _run_live(config, {here: taken}, rng)
    known = {
        ("turbines", "ever"): HomePartition(here, 0),
        ("turbines", "late"): HomePartition(here, since),
        ("turbines", "elsewhere"): HomePartition(there, 5),
    }

    async def replayed(name: str, homes: dict[tuple[str, str], HomePartition] | None) -> str:
        url = f"sqlite:///{tmp_path / name}.db"
        async with scratch(url) as (store, _):
            await _publish_fake(store, config)
            replay_input = ReplayInput(config, _cut({here: log}, rng), [here], homes=homes)
            await flow(replay_input, store, HashScorer(), ReplayObserver(), SystemClock())
        with open_reader(url) as reader:
            return digest_of(reader)

    with open_reader(live) as reader:
        n_windows = len(list(results.windows(reader)))
        assert n_windows > 120, "both have windows"
        assert await replayed("with-homes", known) == digest_of(reader) != await replayed("without-homes", None)


async def test_records_read_live_are_not_limited_again(toml: Path) -> None:
    config, home = load(toml), Partition("plant", 0)
    log = [(offset, -1, b"R1", b"nonsense") for offset in range(2_000)]
    for homes, is_limited in (({}, False), (None, True)):
        async with scratch(None) as (store, _):
            replay_input = ReplayInput(config, _cut({home: log}, Random(0)), [home], homes=homes)
            running = flow(replay_input, store, HashScorer(), ReplayObserver(), SystemClock())
            if is_limited:
                with pytest.raises(QuarantineLimit):
                    await running
            else:
                assert (await running).quarantined == 2_000


# ---------------------------------------------------------------- two sides


RECORDING = "machine_temperature_system_failure"


@dataclass
class Machine:
    """A recording, its configuration, and a database with a champion and a candidate."""

    toml: Path
    file: Path
    champion: str
    candidate: str

    def replayed(self, *args: str, policy: str = "") -> dict[str, Any]:
        text = self.toml.read_text()
        toml = self.toml.with_name("other.toml")
        toml.write_text(text + (f"alerts = {{ {policy} }}\n" if policy else ""))
        return _replayed("-c", toml, self.file, *args)


@pytest.fixture(scope="module")
def machine(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    file = data_dir / "nab" / f"{RECORDING}.csv.gz"
    path = folder / "monitor.toml"
    path.write_text(
        """
        [kafka]
        bootstrap = "127.0.0.1:1"
        topics = ["plant"]
        [[fleet]]
        name = "machines"
        interval = "5m"
        window = 16
        sensors = ["value"]
        model = { architecture = "pca" }
        """
    )
    config, values = load(path), read_recording(file).values
    versions = [_fit("machines", ("value",), values[first:1500], 300.0, config.store.checkpoints) for first in (0, 500)]
    asyncio.run(_register(config, versions[0], fleet="machines"))
    asyncio.run(_register(config, versions[1], fleet="machines", is_active=False))
    return Machine(path, file, versions[0].version, versions[1].version)


POLICY = "confirm=8 of 8, recover=12"
AS_SETTINGS = 'confirm = "8 of 8", recover = 12'


@pytest.fixture(scope="module")
def live_result(machine: Machine) -> dict[str, Any]:
    return machine.replayed()


@pytest.mark.parametrize(("is_of_version", "policy"), [(False, POLICY), (True, ""), (True, POLICY)])
def test_a_difference_equals_two_replays(
    machine: Machine, live_result: dict[str, Any], is_of_version: bool, policy: str
) -> None:
    side = ", ".join(filter(None, [machine.candidate if is_of_version else "", policy]))
    both = machine.replayed("--diff", side)
    before = live_result
    version = ("--version", machine.candidate) if is_of_version else ()
    after = machine.replayed(*version, policy=AS_SETTINGS if policy else "")

    diff = both["diff"]
    for side_name, alone in (("before", before), ("after", after)):
        alerts = [alert for episode in diff["alerts"] for alert in episode[side_name]]
        assert sorted(map(_visible, alerts)) == sorted(map(_visible, alone["alert_list"])), side_name
        [fleet] = diff["fleets"]
        assert fleet[side_name]["alerts"] == alone["alerts"] > 3
        assert fleet[side_name]["windows"] == alone["scored"]
    assert both["digest"] == before["digest"] != after["digest"]
    what = {episode["what"] for episode in diff["alerts"]}
    assert what & {"gained", "lost"}
    assert "moved" in what


class _AnomalousAt:
    """Scores windows anomalous if they end at one of these minutes."""

    def __init__(self, *minutes: int) -> None:
        self._ends_us = [minute * 60_000_000 for minute in minutes]

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        score = np.where(np.isin(end_us, self._ends_us), 2.0, 0.5).astype(np.float32)
        return Scores(windows, score, [VERSION] * len(windows), {})


async def test_a_longer_memory_extends_the_run_up(
    toml: Path, tmp_path: Path
) -> None:
    """With recover=40 one alert lasts from 195 to 271. A run-up of 24 windows would see it open at 230 only."""
    config, home = load(toml), Partition("plant", 0)
    log = _records(_csv(tmp_path / "R1.csv"), home)
    side = Side.parse("confirm=2 of 3, recover=40")
    found = []
    for from_us in (results.FIRST_US, 225 * 60_000_000):
        side_by_side = SideBySide(Side.parse("confirm=2 of 3"), side, from_us)
        memory = side_by_side.memory(config)
        replay_input = ReplayInput(config, _cut({home: log}, Random(3)), [home], from_us, memory=memory)
        async with scratch(None) as (store, _):
            await _publish_fake(store, config)
            scorer = _AnomalousAt(195, 196, 230, 231, 300, 301)
            await flow(replay_input, store, scorer, ReplayObserver(), SystemClock(), side_by_side=side_by_side)
        found.append([(o.what, o.before, o.after) for o in side_by_side.difference().episodes])
    whole, stretch = found
    assert [what for what, *_ in whole] == ["moved", "moved"]
    assert (len(whole[0][1]), len(whole[0][2])) == (2, 1)
    assert stretch == whole


def test_swapped_sides_mirror_the_difference(machine: Machine) -> None:
    there = machine.replayed("--diff", machine.candidate)["diff"]
    back = machine.replayed("--diff", machine.candidate, "--diff", "live")["diff"]
    swapped = {"gained": "lost", "lost": "gained"}
    assert (there["before"], there["after"]) == (back["after"], back["before"]) == ("live", machine.candidate)
    assert [(swapped.get(o["what"], o["what"]), o["after"], o["before"]) for o in there["alerts"]] == [
        (o["what"], o["before"], o["after"]) for o in back["alerts"]
    ]


def test_the_only_champion_changes_nothing(machine: Machine) -> None:
    found = machine.replayed("--diff", "champion")
    assert {episode["what"] for episode in found["diff"]["alerts"]} == {"same"}
    shown = CliRunner().invoke(main, ["replay", "-c", str(machine.toml), str(machine.file), "--diff", machine.champion])
    assert shown.exit_code == 0, shown.stderr
    assert f"{machine.champion} changes nothing: both would have fired" in shown.stdout


def test_own_models_are_compared_by_parameters(machine: Machine) -> None:
    args = ["replay", "-c", str(machine.toml), str(machine.file), "--train-rows", "1500", "--diff"]
    by_policy = CliRunner().invoke(main, [*args, "confirm=8 of 10"])
    assert by_policy.exit_code == 0, by_policy.stderr
    assert "confirm=8 of 10 would have fired" in by_policy.stdout
    found = re.search(r"found: (\d) of 4, before (\d); alerts outside them: (\d+), before (\d+)", by_policy.stdout)
    assert found is not None, by_policy.stdout
    assert int(found[3]) < int(found[4]), "a stricter rule gives fewer false alarms"
    by_version = CliRunner().invoke(main, [*args, machine.candidate])
    assert by_version.exit_code == 1
    assert f"version {machine.candidate}: each of these files is decided by what is learnt" in by_version.stderr
    unknown = CliRunner().invoke(main, ["replay", "-c", str(machine.toml), str(machine.file), "--diff", "nobody-1"])
    assert unknown.exit_code == 1
    assert "version nobody-1; `monitor models list`" in unknown.stderr


def test_two_sides_leave_the_database_unchanged(machine: Machine) -> None:
    database = machine.toml.with_name("monitor.db")
    before = database.read_bytes()
    machine.replayed("--diff", f"{machine.candidate}, {POLICY}")
    assert database.read_bytes() == before


def _visible(alert: dict[str, Any]) -> tuple[Any, ...]:
    contributions = tuple((sensor["name"], round(sensor["share"], 4)) for sensor in alert["sensors"])
    peak = round(alert["peak_score"], 4)
    return (
        alert["opened_at"],
        alert["closed_at"] or "",
        alert["severity"],
        peak,
        alert["n_anomalous"],
        contributions,
        alert["version"],
    )
