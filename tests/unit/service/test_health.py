"""/live, /ready and the gauges follow from the last snapshot, without a call or a wait."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor import metrics
from monitor.config import Config
from monitor.errors import CheckpointUnavailable, Fenced
from monitor.kafka import Gap
from monitor.kafka.consumer_group import MembershipStatus
from monitor.service.health import Health, OwnedPartition, StatusSnapshot, snapshot_of
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.timing import DEFAULT_TIMING
from monitor.types import Partition, Scores
from tests.fakes import FakeClock, LogSource, Record, records_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, Windows

P0, P1 = Partition("plant", 0), Partition("plant", 1)
FLOWING = StatusSnapshot(
    is_member=True,
    assigned=frozenset({P0, P1}),
    owned=(OwnedPartition(P0, is_rebuilt=True, lag=3), OwnedPartition(P1, is_rebuilt=True, lag=None)),
    n_assets={"pumps": 7},
    newest_us={"pumps": 1_700_000_000_000_000},
)


class HealthyDaemon:
    """A healthy daemon with a clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(monotonic=lambda: self.now)
        self.pipeline: Any = Future()
        self.snapshot = FLOWING
        self.health.running(self.pipeline, lambda: self.snapshot)
        self.turn(0)

    def turn(self, seconds: float = 0.5) -> None:
        """Record a turn of the event loop and an answer of the database."""
        self.now += seconds
        self.health.watch.record_turn(self.now)
        self.health.database_answered()

    def show(self, snapshot: StatusSnapshot) -> None:
        """Record a turn of the event loop that finds the pipeline in another state. No time passes."""
        self.snapshot = snapshot
        self.turn(0)

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
def daemon() -> HealthyDaemon:
    return HealthyDaemon()


def test_a_daemon_whose_records_flow_is_live_and_ready(daemon: HealthyDaemon) -> None:
    assert daemon.live() == 200
    assert daemon.missing() == {}
    assert daemon.health.summary() == "2 partitions, lag 3"
    assert (daemon.sample("live"), daemon.sample("ready")) == (1, 1)


def test_a_blocked_loop_is_not_ready_and_after_30_s_not_live(daemon: HealthyDaemon) -> None:
    daemon.now += 8
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"loop"}
    daemon.now += DEFAULT_TIMING.loop_dead_after_s - 8 + 1
    assert daemon.live() == 503
    assert "has not turned for 31 s" in daemon.missing()["process"]
    assert daemon.sample("live") == 0
    assert daemon.sample("loop_lag_seconds") == pytest.approx(30.5)
    daemon.turn()
    assert daemon.live() == 200
    assert daemon.missing() == {}


def test_a_snapshot_that_fails_is_not_taken_for_a_blocked_loop(daemon: HealthyDaemon) -> None:
    def fails() -> StatusSnapshot:
        raise ZeroDivisionError

    daemon.health.running(daemon.pipeline, fails)
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            daemon.turn()
        daemon.health.database_answered()
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"loop"}


def test_a_pipeline_that_failed_is_not_live_and_names_its_error(daemon: HealthyDaemon) -> None:
    daemon.pipeline.set_exception(ValueError("plant/0: secret"))
    assert daemon.live() == 503
    assert daemon.missing()["process"] == "the pipeline has ended: ValueError", "the error's text is for the log alone"


def test_a_pipeline_that_ended_in_a_drain_is_live(daemon: HealthyDaemon) -> None:
    daemon.pipeline.set_result(None)
    daemon.health.draining()
    assert daemon.live() == 200
    assert set(daemon.missing()) == {"draining"}


@pytest.mark.parametrize(
    ("snapshot", "what", "why"),
    [
        (replace(FLOWING, is_member=False), "group", "has not assigned partitions"),
        (replace(FLOWING, owned=FLOWING.owned[:1]), "claims", "not claimed yet: plant/1"),
        (
            replace(FLOWING, owned=(OwnedPartition(P0, is_rebuilt=False, lag=9), FLOWING.owned[1])),
            "rebuild",
            "windows need: plant/0",
        ),
        (replace(FLOWING, broker_unreachable_since_s=988.0), "broker", "has not answered for 12 s"),
        (replace(FLOWING, in_hand_since_s=939.0), "batch", "was taken 61 s ago"),
    ],
)
def test_ready_names_what_is_missing(daemon: HealthyDaemon, snapshot: StatusSnapshot, what: str, why: str) -> None:
    daemon.show(snapshot)
    missing = daemon.missing()
    assert set(missing) == {what}
    assert why in missing[what]
    assert daemon.live() == 200, "a restart would not help"
    assert daemon.sample("ready") == 0


def test_a_silent_database_is_missing_until_it_answers(daemon: HealthyDaemon) -> None:
    for _ in range(30):
        daemon.now += 0.5
        daemon.health.watch.record_turn(daemon.now)
    assert daemon.missing() == {"database": "has not answered for 15 s"}
    daemon.health.database_answered()
    assert daemon.missing() == {}
    daemon.now += DEFAULT_TIMING.database_silent_after_s - 1
    assert "database" not in daemon.missing(), "some seconds are no outage"


def test_a_daemon_that_starts_names_the_step_under_way() -> None:
    health = Health(monotonic=lambda: 0.0)
    health.starting("training the first model of turbines")
    status, answer = health.ready_page()
    assert status == 503
    assert {"what": "start", "why": "training the first model of turbines"} in answer["missing"]
    assert {"what": "database", "why": "has not answered yet"} in answer["missing"]
    assert health.live_page()[0] == 200


@pytest.mark.parametrize("when", ["at the start", "while it runs"])
def test_a_missing_checkpoint_is_named_with_its_fix_without_its_path(daemon: HealthyDaemon, when: str) -> None:
    waits_for = CheckpointUnavailable("/secret/path: No such file", "Waiting for pca-1 of pumps: mount the folder")
    if when == "at the start":
        daemon.health.waiting_for(waits_for)
    else:
        daemon.show(replace(FLOWING, waits_for=waits_for))
    assert daemon.missing() == {"checkpoint": "Waiting for pca-1 of pumps: mount the folder"}
    daemon.health.draining()
    assert set(daemon.missing()) == {"draining"}


def test_a_member_without_partitions_is_ready_with_a_note(daemon: HealthyDaemon) -> None:
    daemon.show(StatusSnapshot(is_member=True))
    assert daemon.missing() == {}
    assert "no partition" in daemon.health.ready_page()[1]["notes"][0]


def test_a_fleet_without_a_model_is_a_note(daemon: HealthyDaemon) -> None:
    daemon.show(replace(FLOWING, unscored=("pumps",)))
    assert daemon.missing() == {}
    assert daemon.health.ready_page()[1]["notes"] == ["fleet pumps: no model scores its windows yet"]


def test_a_note_names_the_data_that_a_training_lacks(daemon: HealthyDaemon) -> None:
    daemon.show(replace(FLOWING, unscored=("pumps",), untrained={"fans": 'readings are 5m apart; set interval = "5m"'}))
    assert daemon.missing() == {}
    assert daemon.health.ready_page()[1]["notes"] == [
        'fleet fans: no model scores its windows yet; readings are 5m apart; set interval = "5m"',
        "fleet pumps: no model scores its windows yet",
    ]


def test_a_long_list_of_partitions_is_cut(daemon: HealthyDaemon) -> None:
    daemon.show(replace(FLOWING, assigned=frozenset(Partition("plant", n) for n in range(200))))
    why = daemon.missing()["claims"]
    assert why.endswith("and 178 more")
    assert len(why) < 1_000


def test_gauges_show_owned_partitions_and_forget_revoked_ones(daemon: HealthyDaemon) -> None:
    assert daemon.sample("partitions") == 2
    assert daemon.sample("lag_records", topic="plant", partition="0") == 3
    assert daemon.sample("lag_records", topic="plant", partition="1") is None, "its end is not known"
    assert daemon.sample("assets", fleet="pumps") == 7
    assert daemon.sample("watermark_timestamp_seconds", fleet="pumps") == 1_700_000_000
    daemon.show(replace(FLOWING, owned=FLOWING.owned[1:], in_hand_since_s=daemon.now - 2))
    assert daemon.sample("lag_records", topic="plant", partition="0") is None
    assert daemon.sample("partitions") == 1
    assert daemon.sample("batch_in_hand_seconds") == 2


# ---------------------------------------------------------------- with a real pipeline


class AlternateScorer:
    """Scores every second window, all of them anomalous."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        score = np.where(windows.start % 2, np.float32(2), np.float32(np.nan)).astype(np.float32)
        return Scores(windows, score, [None] * len(windows), {}, "there is no model")


class JoinedSource(LogSource):
    """A log in memory that is a member of a group."""

    @property
    def membership(self) -> MembershipStatus:
        return MembershipStatus(is_member=True, assigned=frozenset(self._logs), unreachable_since_s=None)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


class ObservedPipeline:
    """A pipeline over one log in memory, with SQLite in a folder."""

    def __init__(self, folder: Path, store: AsyncStore, records: Sequence[Record], batch: int = 5) -> None:
        config = Config.model_validate(
            {
                "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"]},
                "store": {"url": f"sqlite:///{folder}/monitor.db"},
                "fleet": [{"name": "pumps", "interval": "1s", "window": 4, "assets": "P*"}],
            }
        )
        self.folder = folder
        self.source = JoinedSource({P0: records}, batch)
        self.pipeline = Pipeline(config, self.source, store, AlternateScorer(), owner="test", clock=FakeClock())

    def snapshot(self) -> StatusSnapshot:
        return snapshot_of(self.pipeline, self.source)  # type: ignore[arg-type]  # as much of a KafkaSource as it needs

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
    """The present value of every counter of monitor."""
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count")) and sample.name.startswith("monitor_")
    }


async def test_metrics_count_like_the_database(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    observed = ObservedPipeline(tmp_path, store, mixed())
    await observed.pipeline.run()
    grown = {name: value - before.get(name, 0) for name, value in counted().items() if value != before.get(name, 0)}
    kept = observed.counters()
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


async def test_a_batch_that_is_not_committed_is_not_counted(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    observed = ObservedPipeline(tmp_path, store, records_of(*readings(10)), batch=10)
    save = store.save

    async def fenced(commit: Commit) -> Saved:
        store.save = save  # type: ignore[method-assign]
        raise Fenced("by the test")

    store.save = fenced  # type: ignore[method-assign]
    await observed.pipeline.run()
    grown = {name: value - before.get(name, 0) for name, value in counted().items()}
    assert grown["monitor_fenced_total[]"] == 1
    assert grown["monitor_claims_total[]"] == 2
    assert grown["monitor_records_total['accepted']"] == 10 == observed.counters()["accepted"]


async def test_gaps_and_lost_records_are_counted(store: AsyncStore, tmp_path: Path) -> None:
    before = counted()
    observed = ObservedPipeline(tmp_path, store, [])
    observed.source.give(Gap(P0, 0, 7))
    await observed.pipeline.run()
    grown = {name: value - before[name] for name, value in counted().items() if value != before[name]}
    assert grown == {
        "monitor_claims_total[]": 1,
        "monitor_gaps_total[]": 1,
        "monitor_gap_records_total[]": 7,
        "monitor_alerts_total['data', 'firing']": 1,
    }


async def test_a_snapshot_shows_the_state_of_the_pipeline(store: AsyncStore, tmp_path: Path) -> None:
    observed = ObservedPipeline(tmp_path, store, mixed())
    waits_for = observed.pipeline.reader.waits_for = CheckpointUnavailable("v1")
    assert observed.snapshot() == StatusSnapshot(
        is_member=True, assigned=frozenset({P0}), n_assets={"pumps": 0}, waits_for=waits_for
    )
    observed.pipeline.reader.waits_for = None
    await observed.pipeline.run()
    assert observed.snapshot() == StatusSnapshot(
        is_member=True,
        assigned=frozenset({P0}),
        owned=(OwnedPartition(P0, is_rebuilt=True, lag=0),),
        unscored=("pumps",),
        n_assets={"pumps": 1},
        newest_us={"pumps": 1_600_000_029_000_000},
        quiet={P0: 0.0},
    )


async def test_a_snapshot_shows_the_batch_in_hand_until_it_is_saved(store: AsyncStore, tmp_path: Path) -> None:
    observed = ObservedPipeline(tmp_path, store, records_of(*readings(5)))
    seen = []
    save = store.save

    async def record_snapshot(commit: Commit) -> Saved:
        seen.append(observed.snapshot())
        return await save(commit)

    store.save = record_snapshot  # type: ignore[method-assign]
    await observed.pipeline.run()
    assert [each.in_hand_since_s for each in seen] == [observed.pipeline.clock.monotonic_s()]
    assert observed.snapshot().in_hand_since_s is None


async def test_a_restart_is_rebuilt_without_new_records(store: AsyncStore, tmp_path: Path) -> None:
    records = records_of(*readings(10))
    await ObservedPipeline(tmp_path, store, records, batch=10).pipeline.run()  # one save: its digest is of the very end
    again = ObservedPipeline(tmp_path, store, records, batch=2)
    before = metrics.registry.get_sample_value("monitor_rebuilt_records_total") or 0.0
    states = []
    poll = again.source.poll

    async def watch() -> Sequence[Any]:
        states.append([owned.is_rebuilt for owned in again.snapshot().owned])
        return await poll()

    again.source.poll = watch  # type: ignore[method-assign]
    await again.pipeline.run()
    assert [False] in states
    assert again.snapshot().owned == (OwnedPartition(P0, is_rebuilt=True, lag=0),)
    rebuilt = (metrics.registry.get_sample_value("monitor_rebuilt_records_total") or 0.0) - before
    assert 0 < rebuilt <= 10


async def test_a_rebuild_whose_records_are_gone_ends_with_the_gap(store: AsyncStore, tmp_path: Path) -> None:
    await ObservedPipeline(tmp_path, store, records_of(*readings(10))).pipeline.run()
    again = ObservedPipeline(tmp_path, store, [])
    again.source._logs[P0] = []
    again.source.give(Gap(P0, 7, 20))
    await again.pipeline.run()
    assert [owned.is_rebuilt for owned in again.snapshot().owned] == [True]
