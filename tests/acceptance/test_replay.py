"""Replay gives what live gave: hard streams through both, real recordings through the command line."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from monitor.cli import main
from monitor.clock import SystemClock
from monitor.config import load
from monitor.evaluation.digest import digest, digest_of
from monitor.evaluation.flow import Audience, Course, flow, scored_from_us, scratch
from monitor.evaluation.replay import Manner, replay_course
from monitor.models.calibrate import Budget
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.registry import Registry
from monitor.store import results, versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.files import as_records, read_recording
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import FOREVER_AGO_US, Activation, DetectorScorer
from monitor.testing import LogSource, batch_of
from monitor.training.fit import fit
from monitor.types import Partition
from tests.acceptance.streams import make
from tests.acceptance.test_river import CASES, VERSION, HashScorer, config_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from monitor.broker import EmbeddedBroker
    from monitor.config import Config
    from monitor.models.detector import Detector
    from monitor.testing import Record
    from monitor.types import RecordBatch

Logs = dict[Partition, "Sequence[Record]"]


def _cut(logs: Logs, rng: Random) -> Iterator[RecordBatch]:
    """The logs in batches of any size, partitions in any turn, each in its own order."""
    at = dict.fromkeys(logs, 0)
    while left := [partition for partition in logs if at[partition] < len(logs[partition])]:
        partition = rng.choice(left)
        n = rng.choice([1, 3, 50, 1000])
        yield batch_of(partition, logs[partition][at[partition] : at[partition] + n])
        at[partition] += n


async def _publish_fake(store: AsyncStore, config: Config) -> None:
    fleet = config.fleets[0].name
    await store.run(versions.publish, version=VERSION, fleet=fleet, path="/", trained_us=0, card={}, metrics={})


async def _live(config: Config, logs: Logs, rng: Random) -> str:
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
        course = Course(config, _cut(logs, rng), tuple(logs), from_us, to_us)
        await flow(course, store, HashScorer(), Audience(), SystemClock())
    return url


def _is_quiet(url: str, config: Config, from_us: int) -> bool:
    """Whether no alert was open at `from_us`, nor in the run-up before it."""
    with open_reader(url) as reader:
        lives = list(results.alert_lives(reader))
    begins_us = min(scored_from_us(fleet, from_us) for fleet in config.fleets)
    closed = {(life.asset, life.opened_us): life.at_us for life in lives if life.state == "closed"}
    return not any(
        life.opened_us <= from_us and closed.get((life.asset, life.opened_us), results.LAST_US) >= begins_us
        for life in lives
    )


@pytest.mark.parametrize(("kind", "seed"), CASES)
async def test_a_replay_gives_the_live_digest_of_the_whole_log_and_of_any_stretch(
    kind: str, seed: int, tmp_path: Path
) -> None:
    rng = Random(f"{kind}{seed}")
    stream = make(kind, seed)
    config, logs = config_of(stream.rules, tmp_path), {Partition(stream.topic, 0): stream.log}
    live = await _live(config, logs, rng)
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
    """Three sensors that swing together; in the fault the first stands still."""
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
    """A configuration whose model is solved in a blink."""
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


def test_a_file_gives_the_same_digest_twice_and_finds_its_fault(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    args = ("-c", toml, file, "--train-rows", str(N_HEAD))
    first, second = _replayed(*args), _replayed(*args)
    assert first["digest"] == second["digest"]
    assert first["windows"] == first["scored"] == N_ROWS - N_HEAD  # the first one ends with the first row of the rest
    assert (first["labels"]["events"], first["labels"]["found"]) == (1, 1)
    assert first["alerts"] == len(first["alert_list"]) >= 1
    assert first["quarantined"] == 0


def test_labels_reach_neither_the_model_nor_the_scores(toml: Path, tmp_path: Path) -> None:
    args = ("-c", toml, "--train-rows", str(N_HEAD))
    (tmp_path / "other").mkdir()
    right = _replayed(_csv(tmp_path / "R1.csv"), *args)
    wrong = _replayed(_csv(tmp_path / "other" / "R1.csv", label=[row % 2 for row in range(N_ROWS)]), *args)
    assert right["digest"] == wrong["digest"]
    assert right["files"][0]["version"] == wrong["files"][0]["version"]
    assert right["labels"] != wrong["labels"]


def test_how_much_to_learn_from_comes_from_the_meta_file(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    failed = CliRunner().invoke(main, ["replay", "-c", str(toml), str(file)])
    assert failed.exit_code == 2
    assert "--train-rows" in failed.stderr
    (tmp_path / "meta.json").write_text(json.dumps({"series": {"R1": {"train_rows": N_HEAD}}}))
    assert _replayed("-c", toml, file)["digest"] == _replayed("-c", toml, file, "--train-rows", str(N_HEAD))["digest"]


def test_another_head_another_digest(toml: Path, tmp_path: Path) -> None:
    file = _csv(tmp_path / "R1.csv")
    less = _replayed("-c", toml, file, "--train-until", "1970-01-01T04:10Z")
    assert less["files"][0]["train_rows"] == 250
    assert less["digest"] != _replayed("-c", toml, file, "--train-rows", str(N_HEAD))["digest"]


def test_what_is_kept_can_be_looked_at_and_is_never_overwritten(
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


def _taught(fleet: str, folder: Path) -> Detector:
    values = _values()[:N_HEAD]
    windows = np.lib.stride_tricks.sliding_window_view(values, 16, axis=0).transpose(0, 2, 1)
    n = len(windows)
    train = TrainingSet(windows, np.zeros(n, np.int32), (np.arange(n) + 16) * 60_000_000)
    budget = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=60.0)
    detector = fit(train, ModelSpec(architecture="pca"), fleet=fleet, sensors=SENSORS, interval_s=60.0, budget=budget)
    detector.save(folder)
    return detector


async def test_a_configured_database_decides_a_replay_and_is_not_touched(toml: Path, tmp_path: Path) -> None:
    config = load(toml)
    recording = read_recording(_csv(tmp_path / "R1.csv"))
    home = Partition("plant", 0)
    batches = list(as_records(recording, partition=home, block=1))
    log = [record for batch in batches for record in zip(
        batch.offsets.tolist(), batch.timestamps_us.tolist(), batch.keys, batch.values, strict=True)]  # fmt: skip
    boundary_us = 200 * 60_000_000
    folder = tmp_path / "checkpoints"
    detector = _taught("turbines", folder)
    async with AsyncStore(config.store.url, owner=True) as store:
        registry, scorer = Registry(store), DetectorScorer("cpu")
        path = folder / detector.version
        await registry.publish(version=detector.version, fleet="turbines", path=path, trained_us=0, card={}, metrics={})
        await registry.activate("turbines", detector.version, boundary_us)
        scorer.activate("turbines", Activation(boundary_us, detector.version, path), detector)
        source = LogSource({home: log}, batch=50)
        await Pipeline(config, source, store, scorer, owner="live", clock=SystemClock()).run()
        scorer.close()
    before = (tmp_path / "monitor.db").read_bytes()

    course = Course(config, batches, [home])
    found = await replay_course(course, manner=Manner(), audience=Audience(), clock=SystemClock())
    by_file = await asyncio.to_thread(_replayed, "-c", toml, tmp_path / "R1.csv")
    named = await replay_course(course, manner=Manner(detector.version), audience=Audience(), clock=SystemClock())

    with open_reader(config.store.url) as reader:
        assert found.digest == by_file["digest"] == digest_of(reader)
        stored = list(results.windows(reader))
    assert found.windows == len(stored) > found.scored == sum(fact.end_us > boundary_us for fact in stored)
    assert len(found.alerts) >= 1
    assert named.scored == named.windows
    assert named.digest != found.digest
    assert (tmp_path / "monitor.db").read_bytes() == before


def test_what_contradicts_itself_is_refused(toml: Path, tmp_path: Path) -> None:
    file = str(_csv(tmp_path / "R1.csv"))
    for args in (
        [file, "--train-rows", "5", "--train-until", "now"],
        [file, "--from", "now-1d"],
        ["--publish"],
        [file, "--speed", "fast"],
    ):
        assert CliRunner().invoke(main, ["replay", "-c", str(toml), *args]).exit_code == 2, args


async def _register(config: Config, detector: Detector) -> None:
    async with AsyncStore(config.store.url, owner=True) as store:
        path = config.store.checkpoints / detector.version
        registry = Registry(store)
        await registry.publish(version=detector.version, fleet="turbines", path=path, trained_us=0, card={}, metrics={})
        await registry.activate("turbines", detector.version, FOREVER_AGO_US)


def test_a_published_file_replayed_from_the_broker_gives_the_files_digest(
    embedded_broker: EmbeddedBroker, toml: Path, tmp_path: Path
) -> None:
    topic = f"plant-{tmp_path.name}"
    toml.write_text(toml.read_text().replace("127.0.0.1:1", embedded_broker.bootstrap).replace('"plant"', f'"{topic}"'))
    file = _csv(tmp_path / "R1.csv")
    assert _replayed("-c", toml, file, "--publish") == {"topic": topic, "records": N_ROWS, "readings": N_ROWS}
    config = load(toml)
    asyncio.run(_register(config, _taught("turbines", config.store.checkpoints)))

    of_file, of_topic = _replayed("-c", toml, file), _replayed("-c", toml)
    part = _replayed("-c", toml, "--from", "1970-01-01T05:00Z", "--to", "1970-01-01T08:00Z")

    assert of_topic["digest"] == of_file["digest"]
    # Two windows begin before the first reading: the gap at their head is allowed.
    assert of_topic["windows"] == of_file["windows"] == N_ROWS - 15 + config.fleets[0].max_gap_cells
    assert part["windows"] == part["scored"] == 180
    assert part["readings"] < of_topic["readings"]
