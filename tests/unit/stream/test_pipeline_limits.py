"""The limit on the assets of a shard, and its effect on the admitted ones; then hostile records of all kinds.

The oracle says which names are admitted. Here the pipeline must admit the same, with any batches and crashes.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.decode import AssetIndex, Decoder, FleetSchema
from monitor.decode.admission import MAX_ELSEWHERE, Admission
from monitor.store.reader import open_reader
from tests.acceptance.crashes import live
from tests.fakes import RecordedLog, batch_of
from tests.hostile import EVERY, HEALTHY, MUTATIONS, WORDS, attack, flood
from tests.oracle.check import check_database
from tests.oracle.log import rules_from
from tests.oracle.windows import expect
from tests.unit.stream.plant import BEGIN, P0, P1, Plant, S, limited_config, reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from monitor.stream.pipeline import Pipeline
    from monitor.timing import Timing
    from monitor.types import Partition
    from tests.fakes import Record


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    log = RecordedLog()
    monkeypatch.setattr("monitor.stream.data_alerts.log", log)
    return log


def names_of(pipeline: Pipeline, partition: Partition = P0) -> list[str]:
    return pipeline.partitions[partition].shards["turbines"].assets.names


def words_in(folder: Path) -> list[str]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return [row["reason"].split(":")[0] for row in reversed(reader.quarantine())]


# ---------------------------------------------------------------- which assets are admitted, by the oracle


def crowded_config(seed: int, folder: Path) -> Config:
    limits = {"max_assets": Random(seed).choice([12, 40])}
    return limited_config(folder, **limits, interval="20s", lateness="1m", max_gap="40s")


def crowded(seed: int, n: int = 600) -> list[Record]:
    """Make a log in which new names come in bursts and send again, with Kafka timestamps that disagree a little."""
    rng = Random(seed)
    log: list[Record] = []
    pool = [f"T{i}" for i in range(60)] + [f"P{i}" for i in range(5)]
    for offset in range(n):
        second = BEGIN + offset * 1.5
        asset = rng.choice(pool[: 3 + offset // 12] if rng.random() < 0.7 else pool)
        stamp = int(second * S) + rng.choice([0, 0, 0, -20 * S, -400 * S, 90 * S])
        stamp = -1 if rng.random() < 0.02 else stamp
        log.append(reading(offset + offset // 50, asset, second - rng.choice([0, 0, 1, 2, 90]), stamp))
    return log


@pytest.mark.parametrize("seed", range(8))
async def test_admission_is_a_function_of_the_log_with_any_crashes(seed: int, tmp_path: Path) -> None:
    config, log = crowded_config(seed, tmp_path), crowded(seed)
    crashes = await live(config, {P0: log}, Random(seed))
    report = check_database(tmp_path / "monitor.db", {tuple(P0): log}, rules_from(config))
    assert not report.problems, dict(report.problems)
    assert crashes > 3
    assert "too_many_assets" in words_in(tmp_path)
    assert report.compared["windows"] > 20


def test_the_logs_reach_the_limit_and_have_late_records(tmp_path: Path) -> None:
    """Against vacuous runs, by the oracle: there is something to get wrong."""
    words: set[str] = set()
    for seed in range(8):
        rules = rules_from(crowded_config(seed, tmp_path))
        words |= set(expect(crowded(seed), rules, "plant").quarantine.values())
    assert words >= {"too_many_assets", "late"}


# ---------------------------------------------------------------- rejected assets


async def test_a_rejection_names_limit_and_setting_and_is_logged_once(
    store: AsyncStore, tmp_path: Path, log_lines: RecordedLog
) -> None:
    log = [reading(i, f"T{i:03d}", BEGIN + i) for i in range(120)]
    pipeline = await Plant(limited_config(tmp_path, max_assets=6), store, {P0: log}).run()
    assert names_of(pipeline) == ["T000", "T001", "T002", "T003", "T004", "T005"]
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        reasons = {row["offset"]: row["reason"] for row in reader.quarantine()}
    assert reasons[119] == (
        'too_many_assets: fleet turbines has its 6 assets in this partition, and "T119" is another one; if it is real, '
        "raise the fleet's max_assets"
    )
    assert len(reasons) == 114
    [line] = log_lines.of("asset_limit")
    assert (line["fleet"], line["partition"]) == ("turbines", "plant/0")
    assert 'and "T006" is another one' in line["meaning"]


async def test_a_restart_counts_the_assets_of_before(store: AsyncStore, tmp_path: Path, log_lines: RecordedLog) -> None:
    config = limited_config(tmp_path, max_assets=7)
    log = [reading(i, f"T{i:03d}", BEGIN + i) for i in range(70)]
    for end in (1, 3, 51, 63, 70):
        pipeline = await Plant(config, store, {P0: log[:end]}).run()
    assert names_of(pipeline) == [f"T{i:03d}" for i in range(7)]
    assert len(log_lines.of("asset_limit")) == 1  # a restart is no new alert


async def test_records_before_the_admission_stay_refused_after_a_restart(
    store: AsyncStore, tmp_path: Path, eager: Timing
) -> None:
    slow = {"lateness": "90s", "max_gap": "3s"}
    log = [reading(0, "T1", BEGIN + 58), reading(1, "T2", BEGIN + 59)]
    log += [reading(2 + i, "T2", BEGIN + 60 + i) for i in range(4)]
    await Plant(limited_config(tmp_path, max_assets=1, **slow), store, {P0: log[:2]}, timing=eager).run()
    await Plant(limited_config(tmp_path, max_assets=2, **slow), store, {P0: log[:-1]}, timing=eager).run()
    pipeline = await Plant(limited_config(tmp_path, max_assets=2, **slow), store, {P0: log}, timing=eager).run()
    windower = pipeline.partitions[P0].shards["turbines"].windower
    held = windower.snapshot(np.array([names_of(pipeline).index("T2")]))
    assert held.first.tolist() == [2, 3, 4, 5]


async def test_assets_of_another_partition_do_not_count(store: AsyncStore, tmp_path: Path) -> None:
    config = limited_config(tmp_path, max_assets=40)
    theirs = [reading(i, f"T{i:03d}", BEGIN + i) for i in range(40)]
    await Plant(config, store, {P1: theirs}).run()
    ours = [reading(1000 + i, f"T9{i:02d}", BEGIN + 41 + i) for i in range(40)]
    log = [record for pair in zip(theirs * 2, theirs + ours, strict=True) for record in pair]
    log = [(offset, *record[1:]) for offset, record in enumerate(log)]
    pipeline = await Plant(config, store, {P0: log}).run()
    assert sorted(names_of(pipeline)) == [f"T9{i:02d}" for i in range(40)]
    assert (pipeline.partitions[P0].shards["turbines"].ids >= 0).all()
    assert set(words_in(tmp_path)) == {"wrong_partition"}


async def test_a_flood_of_names_does_not_stop_the_daemon(store: AsyncStore, tmp_path: Path) -> None:
    log = [reading(i, "P1" if i % 10 == 0 else f"T{i}", BEGIN + i / 100) for i in range(20_000)]
    config = limited_config(tmp_path, max_assets=50)
    pipeline = await Plant(config, store, {P0: log}, batch=2000).run()
    assert pipeline.partitions[P0].next_offset == 20_000
    assert len(names_of(pipeline)) == 50


async def test_many_assets_that_send_in_one_minute_are_all_admitted(store: AsyncStore, tmp_path: Path) -> None:
    assets = [f"T{i:04d}" for i in range(3_000)]
    log = [reading(i, name, BEGIN + i // len(assets)) for i, name in enumerate(assets * 2)]
    pipeline = await Plant(limited_config(tmp_path), store, {P0: log}, batch=1000).run()
    assert names_of(pipeline) == assets
    assert words_in(tmp_path) == []


async def test_admission_state_of_an_older_release_is_ignored(store: AsyncStore, tmp_path: Path) -> None:
    """Releases with a limit by the minute stored `admission` beside the rest of `rewind_state`."""
    config, log = limited_config(tmp_path, max_assets=2), [reading(i, f"T{i % 4}", BEGIN + i) for i in range(20)]
    await Plant(config, store, {P0: log[:10]}).run()
    old = 'json_set(rewind_state, \'$.admission\', json(\'{"turbines": [28333334, 2, 28333334], "pumps": [-1, 0]}\'))'
    await store.run(lambda c: c.exec_driver_sql(f"UPDATE source_partition SET rewind_state = {old}"))
    pipeline = await Plant(config, store, {P0: log}).run()
    assert names_of(pipeline) == ["T0", "T1"]
    assert pipeline.partitions[P0].next_offset == 20
    [state] = await store.read(lambda c: c.exec_driver_sql("SELECT rewind_state FROM source_partition").scalars().all())
    assert "admission" not in state


# ---------------------------------------------------------------- memory


async def test_a_million_names_leave_no_trace_in_memory(store: AsyncStore, tmp_path: Path) -> None:
    """Neither while they come nor while a restart reads them again."""
    log = [reading(i, f"T{i:06d}" if i % 4 else "T_real", BEGIN + i / 1000) for i in range(60_000)]
    config = limited_config(tmp_path, max_assets=100, lateness="10m")
    for batch in (3000, 1000):  # lateness keeps the windows open: the second run reads all of it again
        pipeline = await Plant(config, store, {P0: log}, batch=batch).run()
        decoder = pipeline.partitions[P0].decoder
        [[route]] = decoder._routes.values()
        router = route.router
        index = decoder.assets[0]
        assert len(index) <= 100 + batch
        assert index.n_tokens <= 2 * (100 + batch)
        assert len(router.known) <= 16_384 + 2 * (100 + batch)
        assert len(pipeline.partitions[P0].shards["turbines"].windower.newest) <= 200
    names = await store.read(lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM asset").scalar_one())
    assert names == 100


def admission_of(names: Sequence[str] = (), **limits: Any) -> tuple[AssetIndex, Admission]:
    index = AssetIndex(names)
    return index, Admission(index, FleetSchema("turbines", S, **limits))


def admit(index: AssetIndex, admission: Admission, *names: str) -> tuple[list[str], dict[int, str]]:
    """Pass a batch with a record of each asset. Return the admitted names, and offset → word of the rejected ones."""
    schema = FleetSchema("turbines", S, sensors=("flow",))
    decoder = Decoder([schema], assets={"turbines": index})
    batch = batch_of(P0, [reading(i, name, BEGIN, -1) for i, name in enumerate(names)])
    _, _, rejected = admission.admit(decoder.decode(batch).readings[0])
    return index.names, {offset: reason.split(":")[0] for offset, reason in rejected.items()}


def test_assets_are_admitted_in_the_order_of_the_log_up_to_the_limit() -> None:
    index, admission = admission_of(max_assets=3)
    assert admit(index, admission, *(f"A{i}" for i in range(5))) == (
        ["A0", "A1", "A2"],
        {3: "too_many_assets", 4: "too_many_assets"},
    )


def test_names_of_other_partitions_are_remembered_up_to_a_limit() -> None:
    index, admission = admission_of()
    for first in range(0, 3 * MAX_ELSEWHERE, 3000):
        index.forget_unregistered()
        names = [f"X{first + i}" for i in range(3000)]
        for name in names:
            index.add(name)
        assert len(admission.exclude(names)) == 3000
        assert admission.unknown_names() == []
        assert len(admission._elsewhere) <= MAX_ELSEWHERE + 3000


# ---------------------------------------------------------------- hostile records


def test_hostile_records_raise_nothing_and_change_no_other_asset(tmp_path: Path) -> None:
    run, alone, hostile, wrong = attack(20_000, seed=4, folder=tmp_path)
    assert wrong == []
    assert len(alone.windows) > 400 * len(HEALTHY) * 0.8
    assert sum(hostile.made.values()) > 20_000 * (EVERY - 1) / EVERY
    assert {kind.__name__.strip("_") for kind in MUTATIONS} == hostile.made.keys()
    assert run.counters.reasons.keys() >= WORDS - {
        "no_fleet", "wrong_partition", "too_many_assets", "too_many_readings",
    }  # fmt: skip
    assert run.counters.accepted > alone.counters.accepted * 1.5  # some mutations leave the record valid


def test_invented_names_cost_no_memory(tmp_path: Path) -> None:
    few = flood(5_000, 1, _made(tmp_path / "few"), 60.0, max_assets=200)
    many = flood(40_000, 1, _made(tmp_path / "many"), 60.0, max_assets=200)
    assert few.n_assets == many.n_assets == 200
    assert many.counters.reasons == {"too_many_assets": 39_800}
    assert many.alerts == [("asset_limit", "pumps", 39_800)], "one producer is one alert"
    assert many.rss_mib < few.rss_mib + 24


def test_assets_with_one_reading_take_no_rings(tmp_path: Path) -> None:
    usual = {"window": 64, "lateness": "1s", "sensors": [f"sensor_{i}" for i in range(8)]}
    run = flood(20_000, 1, tmp_path, 1.0, **usual)
    assert run.n_assets == 10_000
    assert run.rss_mib < 48  # rings alone would take 46


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
