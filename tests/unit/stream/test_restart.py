"""Restarts: the records read again, the check of the rebuilt state, and the effect of changed settings."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from monitor.config import Config
from monitor.decode import Decoder
from monitor.errors import CheckpointUnavailable, ModelsChanged, StoreUnavailable
from monitor.kafka import Gap, Revoked
from monitor.store import assets, versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream import recovery
from monitor.stream.pipeline import CRASHES, Pipeline
from monitor.timing import DEFAULT_TIMING
from monitor.types import Scores
from tests.fakes import FakeClock, LogSource, Record
from tests.unit.stream.plant import P0

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, RecordBatch, Windows

PUMPS: dict[str, Any] = {"name": "pumps", "interval": "1s", "window": 4, "assets": "P*", "sensors": ["flow"]}
FANS: dict[str, Any] = PUMPS | {"name": "fans", "assets": "F*"}
EVERY_COMMIT = replace(DEFAULT_TIMING, rewind_look_every_s=0.0)


class Plain:
    """A scorer whose scores are a function of the window."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        # High for a while, then low for a while: alerts open and close.
        score = np.where(windows.start // 20 % 2, 0.2, 1.2) + np.nan_to_num(windows.values).sum(axis=(1, 2)) % 7 / 10
        return Scores(windows, score.astype(np.float32), [None] * len(windows), {})


def config_of(*fleets: dict[str, Any], **kafka: Any) -> Config:
    return Config.model_validate(
        {"kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], **kafka}, "fleet": list(fleets or (PUMPS, FANS))}
    )


def log_of(*readings: tuple[str, float]) -> list[Record]:
    return [
        (offset, -1, asset.encode(), json.dumps({"ts": ts, "sensors": {"flow": offset}}).encode())
        for offset, (asset, ts) in enumerate(readings)
    ]


def pipeline(
    config: Config, store: AsyncStore, log: Sequence[Record], batch: int = 7, owner: str = "test", **options: Any
) -> Pipeline:
    source, scorer = LogSource({P0: log}, batch), options.pop("scorer", Plain())
    return Pipeline(config, source, store, scorer, owner=owner, clock=FakeClock(), timing=EVERY_COMMIT, **options)


def windows(folder: Path) -> list[tuple[str, int]]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return [
            (name, datetime.fromisoformat(row["start"]).timestamp())
            for name in ("P1", "F1", "F2")
            for row in reader.scores(name)
        ]


def scores_of(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text("SELECT * FROM score ORDER BY start_us, asset_id"))]


def mixed(n: int, *, fans_until: int) -> list[tuple[str, float]]:
    """Make readings of pumps to the end, and of fans that fall silent with half-filled windows."""
    return [one for ts in range(n) for one in [("P1", ts), *([("F1", ts), ("F2", ts)] if ts < fans_until else [])]]


@pytest.fixture(autouse=True)
def _every_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recovery point moves with every commit."""
    monkeypatch.setattr(recovery, "UPDATE_SHARE", 1e9)


@pytest.fixture
def silent_after(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(recovery, "SILENT_AFTER", 20)
    return 20


class Died(BaseException):
    """The end of a process: no code catches it or cleans up."""


async def test_a_record_that_kills_every_process_is_named_by_its_offset(
    store: AsyncStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(*mixed(40, fans_until=40))
    poison = log[60][3]
    decode = Decoder.decode

    def dies(self: Decoder, batch: RecordBatch) -> Any:
        if poison in batch.values:
            raise Died
        return decode(self, batch)

    monkeypatch.setattr(Decoder, "decode", dies)
    with capture_logs() as lines:
        for n in range(1 + 2 * (CRASHES + 1) + 1):
            with pytest.raises(Died):
                await pipeline(config_of(), store, log, batch=25, owner=f"process {n}").run()
    found = [(each["from_offset"], each["claims"]) for each in lines if each["event"] == "crash_loop"]
    assert found == [(50, CRASHES + 1), (60, CRASHES + 1), (60, CRASHES + 2)]
    monkeypatch.undo()
    with capture_logs() as lines:
        for length in (100, 120):
            await pipeline(config_of(), store, log[:length], batch=25).run()
    assert [each["event"] for each in lines].count("crash_loop") == 1, "behind that record, batches are whole again"
    async with AsyncStore(f"sqlite:///{tmp_path}/uninterrupted.db", owner=True) as other:
        await pipeline(config_of(), other, log, batch=25).run()
        assert await other.read(scores_of) == await store.read(scores_of)


async def test_a_rebuild_to_the_same_state_logs_only_its_end(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    with capture_logs() as lines:
        again = pipeline(config_of(), store, log)
        await again.run()
    events = [each["event"] for each in lines]
    assert "rebuilt" in events
    assert "rebuild_differs" not in events
    assert again.partitions[P0].rebuild.is_done


async def test_a_rebuild_to_another_state_is_an_error_of_the_fleet(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    changed = [
        (offset, at, key, value.replace(b'"flow": 49', b'"flow": 7')) if offset == 49 else (offset, at, key, value)
        for offset, at, key, value in log
        if value is not None
    ]
    with capture_logs() as lines:
        await pipeline(config_of(), store, changed).run()
    [differs] = [each for each in lines if each["event"] == "rebuild_differs"]
    assert differs["fleets"] == ["pumps" if log[49][2] == b"P1" else "fans"]
    assert differs["log_level"] == "error"


async def test_a_silent_fleet_makes_no_restart_read_the_others_again(
    store: AsyncStore, tmp_path: Path, silent_after: int
) -> None:
    readings = [*mixed(300, fans_until=30), ("F1", 30), ("F2", 30), ("F1", 31), ("F2", 31)]
    log = log_of(*readings)
    config = config_of()
    await pipeline(config, store, log[:350]).run()
    with capture_logs() as lines:
        again = pipeline(config, store, log)
        await again.run()
    [claimed] = [each for each in lines if each["event"] == "partition_claimed"]
    assert claimed["next_offset"] - claimed["rebuild_from"] <= 2 * silent_after + 7
    assert not [each for each in lines if each["event"] == "rebuild_differs"]
    # The half-filled windows of the silent fans are finished as without a restart.
    expected = [("P1", start) for start in range(-3, 297)]
    found = windows(tmp_path)
    assert [one for one in found if one[0] == "P1" and one[1] >= 0] == [one for one in expected if one[1] >= 0]
    for fan in ("F1", "F2"):
        assert [start for name, start in found if name == fan and start >= 0] == list(range(29))


async def test_a_silent_asset_of_a_busy_fleet_pins_no_restart(
    store: AsyncStore, tmp_path: Path, silent_after: int
) -> None:
    """F1 falls silent in the middle of its windows, F2 sends seldom, and both come back."""
    readings = [
        one
        for ts in range(400)
        for one in [("P1", ts), *([("F1", ts)] if ts < 30 or ts > 395 else []), *([("F2", ts)] if ts % 40 < 2 else [])]
    ]
    log = log_of(*readings)
    expected_store = AsyncStore(f"sqlite:///{tmp_path}/uninterrupted.db", owner=True)
    fleet = [PUMPS | {"assets": ["P*", "F*"], "max_gap": "3s", "lateness": "2s"}]
    async with expected_store as other:
        await pipeline(config_of(*fleet), other, log).run()
        expected = await other.read(scores_of)
    with capture_logs() as lines:
        for end in (100, 200, 300, 301, 380, 420, len(log)):
            await pipeline(config_of(*fleet), store, log[:end]).run()
    reread = [e["next_offset"] - e["rebuild_from"] for e in lines if e["event"] == "partition_claimed"]
    assert max(reread) <= 3 * silent_after + 7, reread
    assert not [each for each in lines if each["event"] == "rebuild_differs"]
    assert [row[1:7] for row in await store.read(scores_of)] == [row[1:7] for row in expected]


async def test_the_snapshot_of_a_former_configuration_is_not_restored(
    store: AsyncStore, silent_after: int
) -> None:
    log = log_of(*mixed(300, fans_until=10))
    wide = config_of(PUMPS, FANS | {"window": 6})
    await pipeline(config_of(), store, log[:150]).run()  # takes a snapshot of the fans
    await pipeline(wide, store, log[:151]).run()
    with capture_logs() as lines:
        await pipeline(config_of(), store, log[:152]).run()
        await pipeline(config_of(), store, log).run()
    assert not [each for each in lines if each["event"] == "rebuild_differs"]


@pytest.mark.parametrize("turn", [1, -1], ids=["there", "back"])
@pytest.mark.parametrize(
    "change", [{"window": 6}, {"stride": 3}, {"lateness": "5s"}, {"interval": "2s"}, {"max_gap": "2s"}], ids=str
)
async def test_settings_that_change_windows_begin_new_ones(
    store: AsyncStore, tmp_path: Path, change: dict[str, Any], turn: int
) -> None:
    log = log_of(*mixed(60, fans_until=60))
    old, new = [config_of(), config_of(PUMPS | change, FANS)][::turn]
    await pipeline(old, store, log[:80]).run()
    before = set(windows(tmp_path))
    with capture_logs() as lines:
        await pipeline(new, store, log).run()
    assert [each["fleet"] for each in lines if each["event"] == "reconfigured"] == ["pumps"]
    after = windows(tmp_path)
    assert len(set(after)) == len(after)
    assert before < set(after)
    assert max(start for name, start in after if name == "P1") >= 50
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert reader.quarantine() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (config_of(max_record_bytes=1024), config_of(max_record_bytes=4096)),
        (config_of(max_skew="1h"), config_of(max_skew="10h")),
        (config_of(PUMPS | {"assets": "P9*"}, FANS), config_of()),
        (config_of(FANS), config_of()),
    ],
    ids=["size", "skew", "glob", "fleet"],
)
async def test_settings_that_admit_committed_records_begin_new_windows(
    store: AsyncStore, tmp_path: Path, before: Config, after: Config
) -> None:
    def dressed(record: Record) -> Record:
        offset, _, key, value = record
        assert value is not None
        padded = value[:-1] + b', "note": "%s"}' % (b"x" * 1500) if offset % 9 == 0 else value
        return offset, 0 if offset % 7 else -1, key, padded  # Kafka's timestamps are of 1970-01-01

    log = [dressed(record) for record in log_of(*mixed(60, fans_until=60))]
    await pipeline(after, store, log[:40]).run()
    await pipeline(before, store, log[:80]).run()
    with capture_logs() as lines:
        await pipeline(after, store, log[:120]).run()
        await pipeline(after, store, log).run()
    assert not [each for each in lines if each["event"] == "rebuild_differs"]
    found = windows(tmp_path)
    assert len(set(found)) == len(found)


async def test_new_rules_for_readings_begin_new_windows(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(*mixed(60, fans_until=60))
    # Under the first rules a record with a key that stands twice was refused. Now it is a reading.
    refused = [(offset, at, key, b"{" if offset % 9 == 0 else value) for offset, at, key, value in log[:80]]
    with monkeypatch.context() as earlier:
        earlier.setattr("monitor.stream.shard.READING_RULES", 1)
        await pipeline(config_of(), store, refused).run()
    with capture_logs() as lines:
        await pipeline(config_of(), store, log).run()
    assert {each["event"] for each in lines} >= {"reconfigured"}
    assert not [each for each in lines if each["event"] == "rebuild_differs"]


async def test_a_restart_after_a_gap_has_the_same_unfinished_windows(
    store: AsyncStore, tmp_path: Path
) -> None:
    log = log_of(*mixed(60, fans_until=60))
    run = pipeline(config_of(), store, log[:50])
    await run.run()
    run.source.give(Gap(P0, 50, 55))
    await run.run()
    unfinished = run.partitions[P0].shards["pumps"].windower.snapshot(np.array([0]))
    with capture_logs() as lines:
        again = pipeline(config_of(), store, log[55:])
        again.source.give(Revoked(()))
        await again.source.poll()
        await again._claim(P0)
        restored = again.partitions[P0].shards["pumps"].windower.snapshot(np.array([0]))
        await again.run()
    assert again.partitions[P0].recovery.oldest.offset >= 55
    assert restored.cell.tolist() == unfinished.cell.tolist()
    assert restored.values.tolist() == unfinished.values.tolist()
    assert not [each for each in lines if each["event"] == "rebuild_differs"]
    assert len(windows(tmp_path)) == len(set(windows(tmp_path)))


async def test_scores_and_alerts_do_not_depend_on_restarts(tmp_path: Path) -> None:
    log = log_of(*mixed(200, fans_until=120))
    rng = Random(5)
    tables = []
    for name, cuts in (("one", [len(log)]), ("many", [*sorted(rng.sample(range(1, len(log)), 25)), len(log)])):
        async with AsyncStore(f"sqlite:///{tmp_path}/{name}.db", owner=True) as store:
            for end in cuts:
                await pipeline(config_of(), store, log[:end], batch=rng.choice([1, 5, 40])).run()
            tables.append(
                [
                    await store.read(lambda c, sql=sql: [row._asdict() for row in c.exec_driver_sql(sql)])
                    for sql in (
                        "SELECT name, score.* FROM score JOIN asset ON asset.id = asset_id ORDER BY 1, 2, 3",
                        "SELECT name, alert.* FROM alert JOIN asset ON asset.id = asset_id ORDER BY 1, opened_us",
                    )
                ]
            )
    for table in itertools.chain.from_iterable(tables):
        for row in table:
            for number in ("id", "asset_id", "incident_id"):  # numbered in the order in which assets and alerts came
                row.pop(number, None)
    assert tables[0] == tables[1]
    assert len(tables[0][1]) > 3, "alerts open and close"


async def test_a_rebuild_over_a_gap_is_logged_and_not_compared(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    again = pipeline(config_of(), store, log[48:])
    with capture_logs() as lines:
        await again.source.poll()
        await again._claim(P0)
        again.source.give(Gap(P0, again.partitions[P0].recovery.oldest.offset, 48))
        await again.run()
    events = [each["event"] for each in lines]
    assert "rebuild_incomplete" in events
    assert "records_lost" not in events, "they had been read"
    assert "rebuild_differs" not in events
    assert again.partitions[P0].next_offset == len(log)


async def test_a_batch_is_scored_again_after_the_models_changed(
    store: AsyncStore, tmp_path: Path
) -> None:
    log = log_of(*mixed(40, fans_until=40))
    reloads = 0
    save = store.save

    async def changed(commit: Commit) -> Saved:
        if reloads == 0 and commit.new_next > 40:
            raise ModelsChanged("by the test")
        return await save(commit)

    n_tries = 0

    async def reload() -> None:
        nonlocal reloads, n_tries
        n_tries += 1
        if n_tries == 1:
            raise StoreUnavailable("just now")
        reloads += 1

    store.save = changed  # type: ignore[method-assign]
    await pipeline(config_of(), store, log, reload_models=reload).run()
    assert reloads == 1
    found = windows(tmp_path)
    assert len(found) == len(set(found))
    assert [start for name, start in found if name == "P1" and start >= 0] == list(range(37))


async def test_a_batch_waits_for_an_unreadable_checkpoint(tmp_path: Path) -> None:
    seen: list[str] = []

    class Late(Plain):
        n_asked = 0

        async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
            self.n_asked += 1
            seen.append(str(run.reader.waits_for))
            if 5 <= self.n_asked < 8:
                raise CheckpointUnavailable("v1: no such file yet", "mount the folder")
            return await super().score(windows, end_us, sensors)

    log = log_of(*mixed(60, fans_until=60))
    for folder, scorer in ((tmp_path / "normal", Plain()), (tmp_path / "late", Late())):
        folder.mkdir()
        async with AsyncStore(f"sqlite:///{folder}/monitor.db", owner=True) as store:
            run = pipeline(config_of(), store, log, scorer=scorer)
            with capture_logs() as lines:
                await run.run()
    assert [each["event"] for each in lines if each["event"].startswith("checkpoint")] == [
        "checkpoint_away",
        "checkpoint_back",
    ]
    outage = str(CheckpointUnavailable("v1: no such file yet", "mount the folder"))
    assert seen[3:9] == ["None", "None", outage, outage, outage, "None"], "during the wait, and no longer"
    assert windows(tmp_path / "late") == windows(tmp_path / "normal") != []


# ---------------------------------------------------------------- further sensors


class OfFlow:
    """A scorer that knows one sensor, and ignores the others."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        flow = windows.values[..., list(sensors).index("flow")]
        return Scores(windows, np.nansum(flow, axis=1).astype(np.float32) % 7 / 10, [None] * len(windows), {})


class OfAll:
    """A scorer of all sensors."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        return Scores(windows, np.nansum(windows.values, axis=(1, 2)) % 7 / 10, [None] * len(windows), {})


def two_sensors(n: int) -> list[Record]:
    return [
        (ts * 2 + number, -1, asset.encode(), json.dumps({"ts": ts, "sensors": {"flow": ts, "heat": 3 * ts}}).encode())
        for ts in range(n)
        for number, asset in enumerate(("P1", "P2"))
    ]


@pytest.mark.parametrize("is_silent", [False, True], ids=["rebuilt", "from a snapshot"])
async def test_further_sensors_cost_no_window(
    store: AsyncStore, tmp_path: Path, silent_after: int, is_silent: bool
) -> None:
    log, wide = two_sensors(60), config_of(PUMPS | {"sensors": ["flow", "heat"]})
    if is_silent:
        log = [record for record in log if record[2] == b"P1" or not 10 < record[0] < 80]
    n = next(row for row, record in enumerate(log) if record[0] >= 61)
    await pipeline(config_of(PUMPS), store, log[:n], scorer=OfFlow()).run()
    with capture_logs() as lines:
        await pipeline(wide, store, log, scorer=OfFlow()).run()
    assert [line["event"] for line in lines if line["event"] in ("rebuild_differs", "reconfigured")] == []
    async with AsyncStore(f"sqlite:///{tmp_path}/whole.db", owner=True) as other:
        await pipeline(wide, other, log, scorer=OfFlow()).run()
        assert await store.read(scores_of) == await other.read(scores_of)


async def test_windows_after_the_change_have_the_further_sensors(store: AsyncStore, tmp_path: Path) -> None:
    log, wide = two_sensors(60), config_of(PUMPS | {"sensors": ["flow", "heat"]})
    await pipeline(config_of(PUMPS), store, log[:61], scorer=OfAll()).run()
    await pipeline(wide, store, log, scorer=OfAll()).run()
    async with AsyncStore(f"sqlite:///{tmp_path}/whole.db", owner=True) as other:
        await pipeline(wide, other, log, scorer=OfAll()).run()
        mixed_, whole = await store.read(scores_of), await other.read(scores_of)
    assert [row for row in mixed_ if row[-1] >= 61] == [row for row in whole if row[-1] >= 61]
    assert mixed_ != whole


@pytest.mark.parametrize("batch", [1, 7, 50])
async def test_a_new_model_widens_the_windows_of_a_running_daemon(
    store: AsyncStore, tmp_path: Path, batch: int
) -> None:
    """Windows that the new model decides have all sensors of all records, as in a replay with the final list."""
    log, config = two_sensors(60), config_of({key: value for key, value in PUMPS.items() if key != "sensors"})
    switched_at_us: list[int] = []

    class Switching(OfFlow):
        async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
            if not switched_at_us and len(end_us) and end_us.max() >= 30_000_000:
                await store.run(assets.extend_sensors, "pumps", ["flow", "heat"])
                switched_at_us.append(int(end_us.max()))
                live.gate.may_have_new_sensors = True
            before, after = await super().score(windows, end_us, sensors), await OfAll().score(windows, end_us, sensors)
            is_new = end_us > (switched_at_us or [10**18])[0]
            return replace(before, score=np.where(is_new, after.score, before.score))

    for each in (store, other := AsyncStore(f"sqlite:///{tmp_path}/whole.db", owner=True)):
        if each is other:
            await other.__aenter__()
        known = ["flow"] if each is store else ["flow", "heat"]
        await each.run(assets.register_sensors, "pumps", known)
        facts = {"fleet": "pumps", "path": "/", "trained_us": 0, "card": {}, "metrics": {}}
        await each.run(versions.publish, version="v", **facts)
        await each.run(versions.activate, "pumps", "v", 0)
        live = pipeline(config, each, log, batch, scorer=Switching())
        await live.run()
    assert await store.read(scores_of) == await other.read(scores_of)
    assert len(await store.read(scores_of)) == 2 * 57
    await other.__aexit__(None, None, None)


async def test_fewer_or_other_sensors_begin_new_windows(store: AsyncStore) -> None:
    log = two_sensors(60)
    await pipeline(config_of(PUMPS | {"sensors": ["flow", "heat"]}), store, log[:61], scorer=OfAll()).run()
    with capture_logs() as lines:
        await pipeline(config_of(PUMPS | {"sensors": ["heat"]}), store, log, scorer=OfAll()).run()
    assert [line["event"] for line in lines if line["event"] in ("rebuild_differs", "reconfigured")] == ["reconfigured"]
