"""How many assets a lane lets in, that nobody notices those whom it does not; then hostile records of all kinds.

The oracle says which names are let in; here the river must let in the same, however it is cut and whenever it dies.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.config import Config
from monitor.decode import AssetIndex, Decoder, FleetSchema
from monitor.decode.admission import MAX_ELSEWHERE, Admission
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.types import Partition, Scores
from tests.acceptance.test_daemon import live
from tests.fakes import FakeClock, LogSource, batch_of
from tests.hostile import EVERY, HEALTHY, MUTATIONS, WORDS, attack, flood
from tests.oracle.check import check_database
from tests.oracle.log import rules_from
from tests.oracle.windows import judge
from tests.unit.recorded_log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.types import Int64, Windows
    from tests.fakes import Record

P0, P1 = Partition("plant", 0), Partition("plant", 1)
S, MINUTE_US = 1_000_000, 60_000_000
BEGIN = 1_700_000_040  # a minute begins here


@pytest.fixture(autouse=True)
def _eager_rewind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rewind point moves with every save, not every two seconds."""
    monkeypatch.setattr("monitor.stream.recovery.LOOK_EVERY_S", -1.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr("monitor.stream.pipeline.log", log)
    return log


def config_of(folder: Path, **limits: Any) -> Config:
    fleet = {"sensors": ["flow"], "interval": "1s", "window": 4, "lateness": "3s", **limits}
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "max_quarantine_share": 0.5},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [
                {"name": "turbines", "assets": "T*", **fleet},
                {"name": "pumps", "assets": "P*", **fleet | {"max_assets": 1000, "max_new_assets_per_min": 1000}},
            ],
        }
    )


def reading(offset: int, asset: str, second: float, stamp_us: int | None = None) -> Record:
    value = json.dumps({"ts": second, "flow": offset % 97}).encode()
    return offset, int(second * S) if stamp_us is None else stamp_us, asset.encode(), value


def started(log: Sequence[Record], minutes_ago: float = 61) -> list[Record]:
    """The log after the fleet's start: its first asset came so long before. Offsets go up by one."""
    return [reading(0, "T_first", BEGIN - 60 * minutes_ago), *((offset + 1, *rest) for offset, *rest in log)]


class Unscored:
    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        return Scores(windows, np.full(len(windows), np.nan, np.float32), [None] * len(windows), {})


class Plant:
    """A pipeline over logs in memory, on a database that outlives it."""

    def __init__(
        self, config: Config, store: AsyncStore, logs: dict[Partition, Sequence[Record]], batch: int = 5
    ) -> None:
        source = LogSource(logs, batch)
        self.pipeline = Pipeline(config, source, store, Unscored(), owner="test", clock=FakeClock())

    async def run(self) -> Pipeline:
        await self.pipeline.run()
        return self.pipeline


def names_of(pipeline: Pipeline, partition: Partition = P0) -> list[str]:
    return pipeline.partitions[partition].lanes["turbines"].assets.names


def words_in(folder: Path) -> list[str]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return [row["reason"].split(":")[0] for row in reversed(reader.quarantine())]


# ---------------------------------------------------------------- who is let in: the oracle's word


def crowded_config(seed: int, folder: Path) -> Config:
    rng = Random(seed)
    limits = {"max_assets": rng.choice([12, 40]), "max_new_assets_per_min": rng.choice([1, 3])}
    return config_of(folder, **limits, interval="20s", lateness="1m", max_gap="40s")


def crowded(seed: int, n: int = 600) -> list[Record]:
    """A log in which new names come in bursts, send again, and are stamped by brokers that disagree a little.

    The fleet's start ends in the middle of it, or before.
    """
    rng = Random(seed)
    log: list[Record] = []
    pool = [f"T{i}" for i in range(60)] + [f"P{i}" for i in range(5)]
    for offset in range(n):
        second = BEGIN + offset * 1.5
        asset = rng.choice(pool[: 3 + offset // 12] if rng.random() < 0.7 else pool)
        stamp = int(second * S) + rng.choice([0, 0, 0, -20 * S, -400 * S, 90 * S])
        stamp = -1 if rng.random() < 0.02 else stamp
        log.append(reading(offset + offset // 50, asset, second - rng.choice([0, 0, 1, 2, 90]), stamp))
    return started(log, minutes_ago=rng.choice([55, 58, 61]))


@pytest.mark.parametrize("seed", range(8))
async def test_whom_a_lane_lets_in_is_a_function_of_its_log_whenever_it_dies(seed: int, tmp_path: Path) -> None:
    config, log = crowded_config(seed, tmp_path), crowded(seed)
    deaths = await live(config, {P0: log}, Random(seed))
    report = check_database(tmp_path / "monitor.db", {tuple(P0): log}, rules_from(config))
    assert not report.problems, dict(report.problems)
    assert deaths > 3
    assert {"too_many_assets", "too_many_new_assets"} & set(words_in(tmp_path))
    assert report.compared["windows"] > 20


def test_the_logs_reach_both_limits_and_let_in_later_whom_they_refused(tmp_path: Path) -> None:
    """Anti-vacuity, by the oracle: so there is something to get wrong."""
    words: set[str] = set()
    n_later = 0
    for seed in range(8):
        rules, log = rules_from(crowded_config(seed, tmp_path)), crowded(seed)
        verdict = judge(log, rules, "plant")
        words |= set(verdict.quarantine.values())
        refused = {key.decode() for at, _, key, _ in log if key and verdict.quarantine.get(at) == "too_many_new_assets"}
        n_later += len(refused & verdict.fleet_of.keys())
    assert words >= {"too_many_assets", "too_many_new_assets", "late"}
    assert n_later > 20


# ---------------------------------------------------------------- what refusal means


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


async def test_a_refusal_names_the_limit_and_the_setting_and_is_said_once(
    store: AsyncStore, tmp_path: Path, said: Log
) -> None:
    log = started([reading(i, f"T{i:03d}", BEGIN + i) for i in range(120)])
    pipeline = await Plant(config_of(tmp_path, max_assets=6, max_new_assets_per_min=3), store, {P0: log}).run()
    assert names_of(pipeline)[1:] == ["T000", "T001", "T002", "T060", "T061"]  # T060 begins the second minute
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        reasons = {row["offset"]: row["reason"] for row in reader.quarantine()}
    assert reasons[4] == (
        'too_many_new_assets: "T003" is one new asset too many: fleet turbines takes 3 a minute; it is taken when it '
        "sends again later. If so many are usual, raise the fleet's max_new_assets_per_min"
    )
    assert reasons[120] == (
        'too_many_assets: fleet turbines has its 6 assets in this partition, and "T119" is another one; if it is real, '
        "raise the fleet's max_assets"
    )
    assert len(reasons) == 115
    [told] = said.of("asset_limit")
    assert (told["fleet"], told["partition"]) == ("turbines", "plant/0")
    assert 'too_many_new_assets: "T003"' in told["meaning"]


async def test_a_restart_goes_on_counting_where_it_stood(store: AsyncStore, tmp_path: Path, said: Log) -> None:
    config = config_of(tmp_path, max_new_assets_per_min=3)
    log = started([reading(i, f"T{i:03d}", BEGIN + i) for i in range(70)])
    for end in (1, 3, 51, 63, 71):
        pipeline = await Plant(config, store, {P0: log[:end]}).run()
    assert names_of(pipeline)[1:] == ["T000", "T001", "T002", "T060", "T061", "T062"]
    assert len(said.of("asset_limit")) == 1  # a restart is no news


async def test_what_an_asset_sent_before_it_was_let_in_stays_refused_after_a_restart(
    store: AsyncStore, tmp_path: Path
) -> None:
    config = config_of(tmp_path, max_new_assets_per_min=1, lateness="90s", max_gap="3s")
    log = [reading(0, "T1", BEGIN + 58), reading(1, "T2", BEGIN + 59)]
    log += [reading(2 + i, "T2", BEGIN + 60 + i) for i in range(4)]
    log = started(log)
    await Plant(config, store, {P0: log[:-1]}).run()
    pipeline = await Plant(config, store, {P0: log}).run()
    held = pipeline.partitions[P0].lanes["turbines"].windower.snapshot()
    assert held.first[held.cell_asset == names_of(pipeline).index("T2")].tolist() == [3, 4, 5, 6]


async def test_assets_of_another_partition_neither_count_nor_gather(store: AsyncStore, tmp_path: Path) -> None:
    config = config_of(tmp_path, max_assets=40, max_new_assets_per_min=40)
    theirs = [reading(i, f"T{i:03d}", BEGIN + i) for i in range(40)]
    await Plant(config, store, {P1: theirs}).run()
    ours = [reading(1000 + i, f"T9{i:02d}", BEGIN + 41 + i) for i in range(40)]
    log = [record for pair in zip(theirs * 2, theirs + ours, strict=True) for record in pair]
    log = [(offset, *record[1:]) for offset, record in enumerate(log)]
    pipeline = await Plant(config, store, {P0: log}).run()
    assert sorted(names_of(pipeline)) == [f"T9{i:02d}" for i in range(40)]
    assert (pipeline.partitions[P0].lanes["turbines"].ids >= 0).all()
    assert set(words_in(tmp_path)) == {"wrong_partition"}


async def test_a_flood_of_names_does_not_stop_the_daemon(store: AsyncStore, tmp_path: Path) -> None:
    log = [reading(i, "P1" if i % 10 == 0 else f"T{i}", BEGIN + i / 100) for i in range(20_000)]
    config = config_of(tmp_path, max_assets=50)
    pipeline = await Plant(config, store, {P0: log}, batch=2000).run()
    assert pipeline.partitions[P0].next_offset == 20_000
    assert len(names_of(pipeline)) == 50


# ---------------------------------------------------------------- a fleet's start


async def test_a_plant_whose_assets_all_send_within_its_first_minute_loses_nothing(
    store: AsyncStore, tmp_path: Path
) -> None:
    assets = [f"T{i:04d}" for i in range(3_000)]
    log = [reading(i, name, BEGIN + i // len(assets)) for i, name in enumerate(assets * 2)]
    pipeline = await Plant(config_of(tmp_path), store, {P0: log}, batch=1000).run()
    assert names_of(pipeline) == assets
    assert words_in(tmp_path) == []


def test_names_that_are_invented_once_a_fleet_has_started_come_in_by_the_minute() -> None:
    index, admission = door(max_new_assets_per_min=2)
    minute = BEGIN * S // MINUTE_US
    for after, let_in in ((-5, 4), (0, 4), (59, 4), (60, 2), (61, 2), (59, 4), (-6, 2)):
        asked = [(f"A{after}_{len(index)}_{i}", (minute + after) * MINUTE_US) for i in range(4)]
        if not len(index):  # the first asset says when the start was
            ask(index, admission, ("A_first", minute * MINUTE_US))
        before = index.n_settled
        ask(index, admission, *asked)
        assert index.n_settled - before == let_in, after


def test_a_start_takes_two_intervals_where_assets_send_once_a_day() -> None:
    index, admission = door(max_new_assets_per_min=1, interval_us=86_400 * S)
    now = BEGIN * S
    two_days = 2 * 86_400 * S
    assert ask(index, admission, ("A", now), *((f"B{i}", now + two_days - 60 * S) for i in range(3)))[1] == {}
    assert ask(index, admission, *((f"C{i}", now + two_days) for i in range(2)))[1] == {1: "too_many_new_assets"}


def test_what_an_older_release_saved_of_admission_is_taken_up() -> None:
    minute = BEGIN * S // MINUTE_US
    _, admission = door(["A"], state=[minute, 1], max_new_assets_per_min=1)
    assert admission.state == [minute, 1, -1]


# ---------------------------------------------------------------- what is remembered


async def test_a_million_names_would_leave_no_trace_in_memory(store: AsyncStore, tmp_path: Path) -> None:
    """Neither while they come nor while a restart reads them again."""
    log = [reading(i, f"T{i:06d}" if i % 4 else "T_real", BEGIN + i / 1000) for i in range(60_000)]
    config = config_of(tmp_path, max_assets=100, lateness="10m")
    for batch in (3000, 1000):  # lateness keeps the windows open: the second run reads all of it again
        pipeline = await Plant(config, store, {P0: log}, batch=batch).run()
        decoder = pipeline.partitions[P0].decoder
        [router] = decoder._routers.values()
        index = decoder.assets[0]
        assert len(index) <= 100 + batch
        assert index.n_tokens <= 2 * (100 + batch)
        assert len(router.known) <= 16_384 + 2 * (100 + batch)
        assert len(pipeline.partitions[P0].lanes["turbines"].windower.newest) <= 200
    names = await store.read(lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM asset").scalar_one())
    assert names == 100


LONG_AGO = (0, 0, 0)
"""State of a fleet that started in 1970."""


def door(
    names: Sequence[str] = (), *, state: Sequence[int] = (), interval_us: int = S, **limits: int
) -> tuple[AssetIndex, Admission]:
    index = AssetIndex(names)
    return index, Admission(index, FleetSchema("turbines", interval_us, **limits), state=state)


def ask(index: AssetIndex, admission: Admission, *records: tuple[str, int]) -> tuple[list[str], dict[int, str]]:
    """Let a batch of (asset, Kafka's timestamp) come; return who is in now, and the words for the others."""
    schema = FleetSchema("turbines", S, sensors=("flow",))
    decoder = Decoder([schema], assets={"turbines": index})
    batch = batch_of(P0, [reading(i, name, BEGIN, stamp) for i, (name, stamp) in enumerate(records)])
    _, _, out = admission.let_in(decoder.decode(batch).readings[0], batch)
    return index.names, {offset: reason.split(":")[0] for offset, reason in out.items()}


def test_a_record_from_the_year_9999_does_not_stop_the_count_for_good() -> None:
    index, admission = door(state=LONG_AGO, max_new_assets_per_min=2)
    now, far = BEGIN * S, 253_402_300_000 * S
    assert ask(index, admission, ("A", far), ("B", far), ("C", far))[1] == {2: "too_many_new_assets"}
    assert ask(index, admission, ("D", now), ("E", now), ("F", now), ("F", now + MINUTE_US)) == (
        ["A", "B", "D", "E", "F"],
        {2: "too_many_new_assets"},
    )


def test_producers_that_disagree_a_little_share_one_minute() -> None:
    index, admission = door(state=LONG_AGO, max_new_assets_per_min=2)
    now = BEGIN * S
    asked = [("A", now), ("B", now - 1), ("C", now - 5 * MINUTE_US), ("D", now - 1), ("A", now)]
    assert ask(index, admission, *asked) == (["A", "B"], {2: "too_many_new_assets", 3: "too_many_new_assets"})


def test_without_kafkas_timestamp_there_is_no_minute() -> None:
    index, admission = door(max_new_assets_per_min=1, max_assets=3)
    assert ask(index, admission, *((f"A{i}", -1) for i in range(5))) == (
        ["A0", "A1", "A2"],
        {3: "too_many_assets", 4: "too_many_assets"},
    )


def test_names_of_other_partitions_are_remembered_up_to_a_limit() -> None:
    index, admission = door()
    for first in range(0, 3 * MAX_ELSEWHERE, 3000):
        index.forget_strangers()
        names = [f"X{first + i}" for i in range(3000)]
        for name in names:
            index.add(name)
        assert len(admission.live_elsewhere(names)) == 3000
        assert admission.strangers() == []
        assert len(admission._elsewhere) <= MAX_ELSEWHERE + 3000


# ---------------------------------------------------------------- hostile records


def test_hostile_records_raise_nothing_and_healthy_assets_do_not_notice(tmp_path: Path) -> None:
    run, alone, hostile, wrong = attack(20_000, seed=4, folder=tmp_path)
    assert wrong == []
    assert len(alone.windows) > 400 * len(HEALTHY) * 0.8
    assert sum(hostile.made.values()) > 20_000 * (EVERY - 1) / EVERY
    assert {kind.__name__.strip("_") for kind in MUTATIONS} == hostile.made.keys()
    assert run.counters.reasons.keys() >= WORDS - {
        "no_fleet", "wrong_partition", "too_many_assets", "too_many_new_assets", "too_many_readings",
    }  # fmt: skip
    assert run.counters.accepted > alone.counters.accepted * 1.5  # some mutations change nothing that matters


def test_invented_names_cost_no_memory(tmp_path: Path) -> None:
    few = flood(5_000, 1, _made(tmp_path / "few"), 60.0, max_assets=200)
    many = flood(40_000, 1, _made(tmp_path / "many"), 60.0, max_assets=200)
    assert few.n_assets == many.n_assets == 200
    assert many.counters.reasons == {"too_many_assets": 39_800}
    assert many.alerts == [("asset_limit", "pumps", 39_800)], "one producer is one alert"
    assert many.rss_mib < few.rss_mib + 24


def test_names_that_fill_a_fleet_and_are_heard_once_take_no_rings(tmp_path: Path) -> None:
    usual = {"window": 64, "lateness": "1s", "sensors": [f"sensor_{i}" for i in range(8)]}
    run = flood(20_000, 1, tmp_path, 1.0, **usual)
    assert run.n_assets == 10_000
    assert run.rss_mib < 48  # rings alone would take 46


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
