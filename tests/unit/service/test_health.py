"""What `/live` and `/ready` say follows from what the loop told last; nothing is asked and nothing waited for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor import metrics
from monitor.config import Config
from monitor.errors import CheckpointUnavailable, Fenced
from monitor.kafka import Gap
from monitor.kafka.consumer_group import MembershipStatus
from monitor.service.health import DATABASE_S, DEAD_S, IN_HAND_S, Facts, Health, Held, facts_of
from monitor.service.watchdog import LoopWatch
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.types import Partition, Scores
from tests.fakes import FakeClock, LogSource, Record, records_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from monitor.store.partitions import Commit, Saved
    from monitor.types import Int64, Windows

P0, P1 = Partition("plant", 0), Partition("plant", 1)
FLOWING = Facts(
    is_member=True,
    assigned=frozenset({P0, P1}),
    held=(Held(P0, is_rebuilt=True, lag=3), Held(P1, is_rebuilt=True, lag=None)),
    n_assets={"pumps": 7},
    reached_us={"pumps": 1_700_000_000_000_000},
)


class Daemon:
    """A healthy daemon whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(lambda: self.now)
        self.health.loop = LoopWatch(self.health.look, monotonic=lambda: self.now)
        self.health.doing = None
        self.health.facts = FLOWING
        self.turn(0)

    def turn(self, seconds: float = 0.5) -> None:
        """The loop turns, and the database answers."""
        self.now += seconds
        assert self.health.loop is not None
        self.health.loop.turned(self.now)
        self.health.database_answered()

    def missing(self) -> dict[str, str]:
        status, answer = self.health.ready_page()
        assert status == (503 if answer["missing"] else 200)
        assert answer["ready"] is (status == 200)
        return {each["what"]: each["why"] for each in answer["missing"]}

    def live(self) -> int:
        status, answer = self.health.live_page()
        assert answer["live"] is (status == 200)
        assert ("why" in answer) is (status != 200)
        return status

    def sample(self, name: str, **labels: str) -> float | None:
        self.health.metrics_page()
        return metrics.registry.get_sample_value(f"monitor_{name}", labels)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def test_a_daemon_whose_records_flow_is_live_and_ready(daemon: Daemon) -> None:
    assert daemon.live() == 200
    assert daemon.missing() == {}
    assert daemon.health.summary() == "2 partitions, lag 3"
    assert (daemon.sample("live"), daemon.sample("ready")) == (1, 1)


def test_a_loop_that_stands_still_is_not_ready_at_once_and_not_live_in_the_end(daemon: Daemon) -> None:
    daemon.now += 8
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"loop"}
    daemon.now += DEAD_S - 8 + 1
    assert daemon.live() == 503
    assert "has not turned for 31 s" in daemon.missing()["process"]
    assert daemon.sample("live") == 0
    assert daemon.sample("loop_lag_seconds") == pytest.approx(30.5)
    daemon.turn()
    assert daemon.live() == 200
    assert daemon.missing() == {}


def test_facts_that_cannot_be_told_are_not_taken_for_a_loop_that_hangs(daemon: Daemon) -> None:
    class Broken:
        config = property(lambda self: 1 / 0)

    daemon.health.flows(Broken(), Member({}), None)  # type: ignore[arg-type]
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            daemon.turn()
        daemon.health.database_answered()
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"loop"}


def test_a_river_that_died_is_not_live_and_says_of_what(daemon: Daemon) -> None:
    async def dies() -> None:
        raise ValueError("plant/0: secret")

    async def run() -> None:
        daemon.health.river = asyncio.create_task(dies())
        await asyncio.wait({daemon.health.river})

    asyncio.run(run())
    assert daemon.live() == 503
    assert daemon.missing()["process"] == "the river has ended: ValueError", "the error's text is the log's business"


def test_a_river_that_ended_because_we_drain_is_no_death(daemon: Daemon) -> None:
    async def run() -> None:
        daemon.health.river = asyncio.create_task(asyncio.sleep(0))
        await daemon.health.river

    asyncio.run(run())
    daemon.health.drains()
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"draining"}


@pytest.mark.parametrize(
    ("facts", "what", "why"),
    [
        (replace(FLOWING, is_member=False), "group", "has not said yet"),
        (replace(FLOWING, held=FLOWING.held[:1]), "claims", "not claimed yet: plant/1"),
        (
            replace(FLOWING, held=(Held(P0, is_rebuilt=False, lag=9), FLOWING.held[1])),
            "rebuild",
            "windows need: plant/0",
        ),
        (replace(FLOWING, broker_away_since_s=988.0), "broker", "has not answered for 12 s"),
        (replace(FLOWING, in_hand_since_s=1000.0 - IN_HAND_S - 1), "batch", "was taken 61 s ago"),
    ],
)
def test_what_is_missing_is_named(daemon: Daemon, facts: Facts, what: str, why: str) -> None:
    daemon.health.facts = facts
    missing = daemon.missing()
    assert set(missing) == {what}
    assert why in missing[what]
    assert daemon.live() == 200, "a restart would not help"
    assert daemon.sample("ready") == 0


def test_a_silent_database_is_missing_until_it_answers(daemon: Daemon) -> None:
    for _ in range(30):
        daemon.now += 0.5
        assert daemon.health.loop is not None
        daemon.health.loop.turned(daemon.now)
    assert daemon.missing() == {"database": "has not answered for 15 s"}
    daemon.health.database_answered()
    assert daemon.missing() == {}
    daemon.now += DATABASE_S - 1
    assert "database" not in daemon.missing(), "some seconds are no outage"


def test_a_daemon_that_starts_says_what_it_is_doing() -> None:
    health = Health(lambda: 0.0)
    health.doing = "training the first model of turbines"
    status, answer = health.ready_page()
    assert status == 503
    assert {"what": "start", "why": "training the first model of turbines"} in answer["missing"]
    assert {"what": "database", "why": "has not answered yet"} in answer["missing"]
    assert health.live_page()[0] == 200


@pytest.mark.parametrize("when", ["at the start", "while it runs"])
def test_a_checkpoint_that_is_waited_for_is_named_with_what_to_do_and_without_its_path(
    daemon: Daemon, when: str
) -> None:
    waits_for = CheckpointUnavailable("/secret/path: No such file", "Waiting for pca-1 of pumps: mount the folder")
    if when == "at the start":
        daemon.health.waits_for = waits_for
    else:
        daemon.health.facts = replace(FLOWING, waits_for=waits_for)
    assert daemon.missing() == {"checkpoint": "Waiting for pca-1 of pumps: mount the folder"}
    daemon.health.drains()
    assert set(daemon.missing()) == {"draining"}


def test_a_member_without_partitions_is_ready_and_says_so(daemon: Daemon) -> None:
    daemon.health.facts = Facts(is_member=True)
    assert daemon.missing() == {}
    assert "no partition" in daemon.health.ready_page()[1]["notes"][0]


def test_a_fleet_without_a_model_is_a_note(daemon: Daemon) -> None:
    daemon.health.facts = replace(FLOWING, unscored=("pumps",))
    assert daemon.missing() == {}
    assert daemon.health.ready_page()[1]["notes"] == ["fleet pumps: no model scores its windows yet"]


def test_a_long_list_of_partitions_is_cut(daemon: Daemon) -> None:
    daemon.health.facts = replace(FLOWING, assigned=frozenset(Partition("plant", n) for n in range(200)))
    why = daemon.missing()["claims"]
    assert why.endswith("and 178 more")
    assert len(why) < 1_000


def test_gauges_show_the_partitions_that_are_ours_and_forget_those_that_were(daemon: Daemon) -> None:
    assert daemon.sample("partitions") == 2
    assert daemon.sample("lag_records", topic="plant", partition="0") == 3
    assert daemon.sample("lag_records", topic="plant", partition="1") is None, "its end is not known"
    assert daemon.sample("assets", fleet="pumps") == 7
    assert daemon.sample("watermark_timestamp_seconds", fleet="pumps") == 1_700_000_000
    daemon.health.facts = replace(FLOWING, held=FLOWING.held[1:], in_hand_since_s=daemon.now - 2)
    assert daemon.sample("lag_records", topic="plant", partition="0") is None
    assert daemon.sample("partitions") == 1
    assert daemon.sample("batch_in_hand_seconds") == 2


# ---------------------------------------------------------------- of a real pipeline


class Half:
    """Scores every second window, all of them anomalous."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        score = np.where(windows.start % 2, np.float32(2), np.float32(np.nan)).astype(np.float32)
        return Scores(windows, score, [None] * len(windows), {}, "there is no model")


class Member(LogSource):
    """A log in memory that is a member of a group."""

    @property
    def membership(self) -> MembershipStatus:
        return MembershipStatus(is_member=True, assigned=frozenset(self._logs), unreachable_since_s=None)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


class Plant:
    """A pipeline over one log in memory; SQLite in a folder."""

    def __init__(self, folder: Path, store: AsyncStore, records: Sequence[Record], batch: int = 5) -> None:
        config = Config.model_validate(
            {
                "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"]},
                "store": {"url": f"sqlite:///{folder}/monitor.db"},
                "fleet": [{"name": "pumps", "interval": "1s", "window": 4, "assets": "P*"}],
            }
        )
        self.folder = folder
        self.source = Member({P0: records}, batch)
        self.pipeline = Pipeline(config, self.source, store, Half(), owner="test", clock=FakeClock())

    def facts(self) -> Facts:
        return facts_of(self.pipeline, self.source)  # type: ignore[arg-type]  # as much of a KafkaSource as it needs

    def counters(self) -> dict[str, Any]:
        with open_reader(f"sqlite:///{self.folder}/monitor.db") as reader:
            (row,) = reader.partitions()
            counters: dict[str, Any] = row["counters"]
        return counters


def readings(n: int, asset: str = "P1", start: int = 1_600_000_000) -> list[tuple[bytes, bytes]]:
    return [
        (asset.encode(), json.dumps({"ts": start + i, "sensors": {"flow": i, "heat": 1}}).encode()) for i in range(n)
    ]


def mixed() -> list[Record]:
    """Good records, and every other kind."""
    good = readings(30)
    return records_of(
        *good[:20],
        (b"P1", b"no json"),
        (b"P1", None),  # a tombstone
        good[3],  # late
        good[19],  # a duplicate
        (b"Q1", good[0][1]),  # no fleet
        *good[20:],
    )


def counted() -> dict[str, float]:
    """Every counter of ours, as it stands."""
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count")) and sample.name.startswith("monitor_")
    }


async def test_what_is_counted_is_what_the_database_counts(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    plant = Plant(tmp_path, store, mixed())
    await plant.pipeline.run()
    grown = {name: value - before.get(name, 0) for name, value in counted().items() if value != before.get(name, 0)}
    kept = plant.counters()
    assert kept["reasons"] == {"not_json": 1, "no_fleet": 1, "late": 1}
    for fate, name in (
        ("accepted", "accepted"),
        ("quarantined", "quarantined"),
        ("late", "late"),
        ("duplicate", "duplicate"),
        ("tombstone", "tombstones"),
    ):
        assert kept[name] > 0, "the stream was too easy"
        assert grown.pop(f"monitor_records_total['{fate}']") == kept[name]
    for word, n in kept["reasons"].items():
        assert grown.pop(f"monitor_quarantined_total['{word}']") == n
    assert 0 < kept["scored"] < kept["windows"]
    assert grown.pop("monitor_readings_total[]") == kept["readings"]
    assert grown.pop("monitor_windows_total['scored']") == kept["scored"]
    assert grown.pop("monitor_windows_total['unscored']") == kept["windows"] - kept["scored"]
    assert grown.pop("monitor_alerts_total['firing', 'process']") == 1
    assert grown.pop("monitor_save_seconds_count[]") == 7
    assert grown == {"monitor_claims_total[]": 1}, "and nothing else"


async def test_what_was_not_committed_is_not_counted(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    plant = Plant(tmp_path, store, records_of(*readings(10)), batch=10)
    save = store.save

    async def fenced(commit: Commit) -> Saved:
        store.save = save  # type: ignore[method-assign]
        raise Fenced("by the test")

    store.save = fenced  # type: ignore[method-assign]
    await plant.pipeline.run()
    grown = {name: value - before.get(name, 0) for name, value in counted().items()}
    assert grown["monitor_fenced_total[]"] == 1
    assert grown["monitor_claims_total[]"] == 2
    assert grown["monitor_records_total['accepted']"] == 10 == plant.counters()["accepted"]


async def test_a_gap_is_counted_with_what_was_lost_in_it(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    plant = Plant(tmp_path, store, [])
    plant.source.give(Gap(P0, 0, 7))
    await plant.pipeline.run()
    grown = {name: value - before[name] for name, value in counted().items() if value != before[name]}
    assert grown == {
        "monitor_claims_total[]": 1,
        "monitor_gaps_total[]": 1,
        "monitor_gap_records_total[]": 7,
        "monitor_alerts_total['data', 'firing']": 1,
    }


async def test_the_facts_are_those_of_the_pipeline(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(tmp_path, store, mixed())
    waits_for = plant.pipeline.waits_for = CheckpointUnavailable("v1")
    assert plant.facts() == Facts(
        is_member=True, assigned=frozenset({P0}), n_assets={"pumps": 0}, waits_for=waits_for
    )
    plant.pipeline.waits_for = None
    await plant.pipeline.run()
    assert plant.facts() == Facts(
        is_member=True,
        assigned=frozenset({P0}),
        held=(Held(P0, is_rebuilt=True, lag=0),),
        unscored=("pumps",),
        n_assets={"pumps": 1},
        reached_us={"pumps": 1_600_000_029_000_000},
    )


async def test_a_batch_in_hand_is_seen_while_it_is_not_saved(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(tmp_path, store, records_of(*readings(5)))
    seen = []
    save = store.save

    async def look(commit: Commit) -> Saved:
        seen.append(plant.facts())
        return await save(commit)

    store.save = look  # type: ignore[method-assign]
    await plant.pipeline.run()
    assert [facts.in_hand_since_s for facts in seen] == [plant.pipeline.clock.monotonic_s()]
    assert plant.facts().in_hand_since_s is None


async def test_a_restart_is_ready_when_its_windows_are_full_again_although_nothing_new_comes(
    store: AsyncStore, tmp_path: Path
) -> None:
    records = records_of(*readings(10))
    await Plant(tmp_path, store, records, batch=10).pipeline.run()  # one save: its digest is of the very end
    again = Plant(tmp_path, store, records, batch=2)
    before = metrics.registry.get_sample_value("monitor_rebuilt_records_total") or 0.0
    states = []
    poll = again.source.poll

    async def watch() -> Sequence[Any]:
        states.append([held.is_rebuilt for held in again.facts().held])
        return await poll()

    again.source.poll = watch  # type: ignore[method-assign]
    await again.pipeline.run()
    assert [False] in states
    assert again.facts().held == (Held(P0, is_rebuilt=True, lag=0),)
    rebuilt = (metrics.registry.get_sample_value("monitor_rebuilt_records_total") or 0.0) - before
    assert 0 < rebuilt <= 10


async def test_a_rebuild_whose_records_are_gone_ends_with_the_gap(store: AsyncStore, tmp_path: Path) -> None:
    await Plant(tmp_path, store, records_of(*readings(10))).pipeline.run()
    again = Plant(tmp_path, store, [])
    again.source._logs[P0] = []
    again.source.give(Gap(P0, 7, 20))
    await again.pipeline.run()
    assert [held.is_rebuilt for held in again.facts().held] == [True]
