"""The pipeline between records: outages, fences, gaps, stops. Its results are compared with the oracle elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import Config
from monitor.errors import Fenced, QuarantineLimit, StoreUnavailable
from monitor.kafka import Gap, Revoked
from monitor.store import assets, partitions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.outcome import BatchOutcome
from tests.fakes import LogSource, Record, batch_of, records_of
from tests.unit.stream.plant import P0, P1, Plant

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.store.commit import Commit, Saved

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


def n_scores(folder: Path) -> int:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return sum(1 for _ in reader.scores("P1"))


async def test_learnt_sensors_hold_after_a_restart(store: AsyncStore, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    plant = Plant(config, store, {P0: readings(10)})
    await plant.run()
    again = Plant(config, store, {P0: readings(20)})
    await again.run()
    assert again.pipeline.registrar.schemas[0].sensors == ("flow", "heat")
    assert n_scores(tmp_path) == 17


async def test_an_asset_is_read_from_one_partition_only(store: AsyncStore, tmp_path: Path) -> None:
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await Plant(config_of(tmp_path), store, {P1: readings(10, start=100)}).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        reasons = {row["reason"].split(":")[0] for row in reader.quarantine()}
    assert reasons == {"wrong_partition"}
    assert n_scores(tmp_path) == 7


async def test_too_many_bad_records_stop_the_pipeline_before_the_commit(
    store: AsyncStore, tmp_path: Path
) -> None:
    bad = records_of(*((b"P1", b"not json") for _ in range(2000)))
    with pytest.raises(QuarantineLimit, match=r"not_json.*\[kafka\] format"):
        await Plant(config_of(tmp_path), store, {P0: bad}, batch=2000).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert reader.quarantine() == []


async def test_assets_of_no_fleet_on_a_shared_topic_do_not_stop_it(store: AsyncStore, tmp_path: Path) -> None:
    foreign = readings(2000, asset="X1")
    await Plant(config_of(tmp_path), store, {P0: foreign}, batch=2000).run()
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert len(reader.quarantine()) == 2000


async def test_a_gap_in_the_log_is_stored_and_skipped(store: AsyncStore, tmp_path: Path) -> None:
    log = [record for record in readings(20) if not 10 <= record[0] < 15]
    plant = Plant(config_of(tmp_path), store, {P0: log[:10]})
    await plant.run()
    plant.source = LogSource({P0: log}, 5)
    plant.pipeline.source = plant.pipeline.reader.source = plant.source
    await plant.source.poll()
    plant.source.seek(P0, 15)
    plant.source.give(Gap(P0, 10, 15))
    await plant.run()
    assert plant.pipeline.partitions[P0].next_offset == 20
    gaps = await store.read(lambda c: c.exec_driver_sql("SELECT from_offset, to_offset FROM gap").all())
    assert [tuple(gap) for gap in gaps] == [(10, 15)]


async def test_the_state_of_a_revoked_partition_is_dropped(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    plant.source.give(Revoked((P0,)))
    await plant.run()
    assert plant.pipeline.partitions == {}


class Flaky(AsyncStore):
    """Unavailable for the first three saves."""

    n_failures = 0

    async def save(self, commit: Commit) -> Saved:
        if self.n_failures < 3:
            self.n_failures += 1
            raise StoreUnavailable("gone")
        return await super().save(commit)


async def test_an_outage_of_the_database_holds_the_batch(tmp_path: Path) -> None:
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


async def test_a_former_owner_is_fenced(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    state = plant.pipeline.partitions[P0]
    await store.run(partitions.claim, "monitor", P0, "a rival")
    outcome = BatchOutcome(batch_of(P0, readings(11)[10:]), [], 0, {})
    with pytest.raises(Fenced):
        await store.save(outcome.commit("monitor", state, plant.clock, log_end=None))


async def test_a_rebuild_that_emits_again_stores_nothing(
    store: AsyncStore, tmp_path: Path
) -> None:
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await store.run(lambda c: c.exec_driver_sql("DELETE FROM score"))
    await store.run(lambda c: c.exec_driver_sql("DELETE FROM last_window"))
    await store.run(lambda c: c.exec_driver_sql("UPDATE source_partition SET rewind_offset = 0, rewind_state = '{}'"))
    await Plant(config_of(tmp_path), store, {P0: readings(12)}).run()
    assert n_scores(tmp_path) == 2


async def test_stop_finishes_the_batch_in_hand_and_begins_no_other(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(100)}, batch=10)
    save = store.save

    async def stop_meanwhile(commit: Commit) -> Saved:
        plant.pipeline.stop()
        return await save(commit)

    store.save = stop_meanwhile  # type: ignore[method-assign]
    await plant.run()
    assert plant.pipeline.partitions[P0].next_offset == 10


async def test_the_lag_is_committed_to_kafka_once_a_second(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P0: readings(10)})
    await plant.run()
    assert plant.source.lag_committed == {P0: 5}  # then at most once a second, and the clock stands still


async def test_sensors_learnt_in_a_fenced_batch_are_stored_with_the_next(
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


async def test_an_outage_that_ends_as_fenced_resumes_the_source(
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


async def test_sensors_of_another_daemon_are_known_before_the_rebuild(
    store: AsyncStore, tmp_path: Path
) -> None:
    late = Plant(config_of(tmp_path), store, {P0: readings(20)})
    await late.pipeline.registrar.load_sensors()  # it starts before any sensors are stored
    await Plant(config_of(tmp_path), store, {P0: readings(10)}).run()
    await late.run()
    assert late.pipeline.registrar.schemas[0].sensors == ("flow", "heat")
    assert n_scores(tmp_path) == 17


async def test_sensors_of_another_daemon_reach_every_held_partition(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(config_of(tmp_path), store, {P1: readings(10, "P2"), P0: readings(10)})
    learnt = replace(plant.pipeline.registrar.schemas[0], sensors=("flow", "noise"))
    plant.pipeline.registrar.schemas = [learnt]  # by a batch whose commit was fenced
    run, n_fenced = store.run, 0

    async def rival(fn: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal n_fenced
        if fn is partitions.set_start and args[1] == P0 and n_fenced < 2:
            n_fenced += 1
            await run(assets.register_sensors, "pumps", ("flow", "heat"))
            raise Fenced("by the test")
        return await run(fn, *args, **kwargs)

    store.run = rival  # type: ignore[method-assign]
    await plant.run()
    assert n_fenced == 2
    sensors = {partition: state.shards["pumps"].sensors for partition, state in plant.pipeline.partitions.items()}
    assert sensors == {P0: ("flow", "heat"), P1: ("flow", "heat")}
