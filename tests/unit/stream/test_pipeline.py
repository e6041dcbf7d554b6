"""What the pipeline does when something other than a record happens. The oracle judges what it does with records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from monitor.config import Config
from monitor.errors import Fenced, QuarantineLimit, StoreUnavailable
from monitor.kafka import Gap, Revoked
from monitor.store import partitions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.types import Partition, Scores
from tests.fakes import FakeClock, LogSource, Record, records_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, Windows

P0, P1 = Partition("plant", 0), Partition("plant", 1)


class Unscored:
    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        return Scores(windows, np.full(len(windows), np.nan, np.float32), [None] * len(windows), {})


def config_of(folder: Path, **kafka: Any) -> Config:
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], **kafka},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [{"name": "pumps", "interval": "1s", "window": 4, "assets": "P*"}],
        }
    )


def readings(n: int, asset: str = "P1", start: int = 0) -> list[Record]:
    return records_of(
        *((asset.encode(), json.dumps({"ts": start + i, "sensors": {"flow": i, "heat": 1}}).encode()) for i in range(n))
    )


class Plant:
    """A pipeline over logs in memory, whose database can be looked into."""

    def __init__(
        self, config: Config, store: AsyncStore, logs: dict[Partition, Sequence[Record]], batch: int = 5
    ) -> None:
        self.source = LogSource(logs, batch)
        self.clock = FakeClock()
        self.pipeline = Pipeline(config, self.source, store, Unscored(), owner="test", clock=self.clock)

    async def run(self) -> None:
        await self.pipeline.run()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


def n_scores(folder: Path) -> int:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return sum(1 for _ in reader.scores("P1"))


async def test_sensors_are_learnt_once_and_hold_after_a_restart(store: AsyncStore, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    plant = Plant(config, store, {P0: readings(10)})
    await plant.run()
    again = Plant(config, store, {P0: readings(20)})
    await again.run()
    assert again.pipeline.schemas[0].sensors == ("flow", "heat")
    assert n_scores(tmp_path) == 17


async def test_an_asset_is_read_from_one_partition_only(store: AsyncStore, tmp_path: Path) -> None:
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await Plant(config_of(tmp_path), store, {P1: readings(10, start=100)}).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        reasons = {row["reason"].split(":")[0] for row in reader.quarantine()}
    assert reasons == {"wrong_partition"}
    assert n_scores(tmp_path) == 7


async def test_too_many_bad_records_stop_it_and_nothing_of_that_batch_is_saved(
    store: AsyncStore, tmp_path: Path
) -> None:
    bad = records_of(*((b"P1", b"not json") for _ in range(2000)))
    with pytest.raises(QuarantineLimit, match=r"not_json.*\[kafka\] format"):
        await Plant(config_of(tmp_path), store, {P0: bad}, batch=2000).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert reader.quarantine() == []


async def test_assets_of_nobody_on_a_shared_topic_do_not_stop_it(store: AsyncStore, tmp_path: Path) -> None:
    strangers = readings(2000, asset="X1")
    await Plant(config_of(tmp_path), store, {P0: strangers}, batch=2000).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert len(reader.quarantine()) == 2000


async def test_a_gap_in_the_log_is_written_down_and_stepped_over(store: AsyncStore, tmp_path: Path) -> None:
    log = [record for record in readings(20) if not 10 <= record[0] < 15]
    plant = Plant(config_of(tmp_path), store, {P0: log[:10]})
    await plant.run()
    plant.source = LogSource({P0: log}, 5)
    plant.pipeline.source = plant.source
    await plant.source.poll()
    plant.source.seek(P0, 15)
    plant.source.give(Gap(P0, 10, 15))
    await plant.run()
    assert plant.pipeline.partitions[P0].next_offset == 20
    gaps = await store.read(lambda c: c.exec_driver_sql("SELECT from_offset, to_offset FROM gap").all())
    assert [tuple(gap) for gap in gaps] == [(10, 15)]


async def test_a_revoked_partition_is_forgotten(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    plant.source.give(Revoked((P0,)))
    await plant.run()
    assert plant.pipeline.partitions == {}


class Flaky(AsyncStore):
    """Away for three tries."""

    n_failures = 0

    async def save(self, commit: Commit) -> Saved:
        if self.n_failures < 3:
            self.n_failures += 1
            raise StoreUnavailable("gone")
        return await super().save(commit)


async def test_while_the_database_is_away_the_batch_is_held_and_the_source_still_polled(tmp_path: Path) -> None:
    async with Flaky(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        plant = Plant(config_of(tmp_path), store, {P0: readings(30)})
        await plant.run()
        assert store.n_failures == 3
    assert plant.clock.slept_s == [0.5] * 3
    assert n_scores(tmp_path) == 27


async def test_a_fenced_partition_is_claimed_again(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(30)}, batch=10)
    save = store.save

    async def stolen(commit: Commit) -> Saved:
        store.save = save  # type: ignore[method-assign]
        await store.run(partitions.claim, commit.pipeline, commit.partition, "a rival")
        return await save(commit)

    store.save = stolen  # type: ignore[method-assign]
    await plant.run()
    assert plant.pipeline.partitions[P0].epoch == 3
    assert n_scores(tmp_path) == 27


async def test_a_zombie_is_fenced(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    state = plant.pipeline.partitions[P0]
    await store.run(partitions.claim, "monitor", P0, "a rival")
    from monitor.stream.outcome import Step
    from tests.fakes import batch_of

    step = Step(batch_of(P0, readings(11)[10:]))
    with pytest.raises(Fenced):
        await store.save(step.commit("monitor", state, at_us=0, log_end=None))


async def test_a_rebuild_that_would_emit_again_says_so_once_and_stores_nothing_twice(
    store: AsyncStore, tmp_path: Path
) -> None:
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await store.run(lambda c: c.exec_driver_sql("DELETE FROM score"))
    await store.run(lambda c: c.exec_driver_sql("DELETE FROM last_window"))
    await store.run(lambda c: c.exec_driver_sql("UPDATE source_partition SET rewind_offset = 0, rewind_state = '{}'"))
    with capture_logs() as said:
        await Plant(config_of(tmp_path), store, {P0: readings(12)}).run()
    [differs] = [each for each in said if each["event"] == "rebuild_differs"]
    assert (differs["log_level"], differs["fleets"]) == ("error", ["pumps"])
    assert n_scores(tmp_path) == 2


async def test_stop_finishes_the_batch_in_hand_and_takes_no_other(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(100)}, batch=10)
    save = store.save

    async def stop_meanwhile(commit: Commit) -> Saved:
        plant.pipeline.stop()
        return await save(commit)

    store.save = stop_meanwhile  # type: ignore[method-assign]
    await plant.run()
    assert plant.pipeline.partitions[P0].next_offset == 10


async def test_kafka_hears_how_far_we_are(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    assert plant.source.marked == {P0: 5}  # then at most once a second, and the clock stands still


async def test_sensors_learnt_in_a_batch_that_was_fenced_are_saved_with_the_next(
    store: AsyncStore, tmp_path: Path
) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(30)}, batch=10)
    save = store.save

    async def fenced(commit: Commit) -> Saved:
        store.save = save  # type: ignore[method-assign]
        raise Fenced("by the test")

    store.save = fenced  # type: ignore[method-assign]
    await plant.run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert [fleet["sensors"] for fleet in reader.fleets()] == [["flow", "heat"]]


async def test_an_outage_that_ends_in_a_lost_partition_does_not_leave_the_source_held(
    store: AsyncStore, tmp_path: Path
) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(30)}, batch=10)
    save = store.save
    fates = [StoreUnavailable("gone"), Fenced("by the test")]

    async def fails(commit: Commit) -> Saved:
        if fates:
            raise fates.pop(0)
        return await save(commit)

    store.save = fails  # type: ignore[method-assign]
    await plant.run()
    assert n_scores(tmp_path) == 27


async def test_what_another_daemon_learnt_is_known_before_its_records_are_rebuilt(
    store: AsyncStore, tmp_path: Path
) -> None:
    late = Plant(config_of(tmp_path), store, {P0: readings(20)})
    await late.pipeline._recall_sensors()  # it starts when nobody knows them
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await late.run()
    assert late.pipeline.schemas[0].sensors == ("flow", "heat")
    assert n_scores(tmp_path) == 17
