"""A restart: what it reads again, how it knows that it came to the same state, and what a changed setting does."""

from __future__ import annotations

import itertools
import json
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
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream import recovery
from monitor.stream.pipeline import CRASHES, Pipeline
from monitor.types import Partition, Scores
from tests.fakes import FakeClock, LogSource, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, RecordBatch, Windows

P0 = Partition("plant", 0)
PUMPS: dict[str, Any] = {"name": "pumps", "interval": "1s", "window": 4, "assets": "P*", "sensors": ["flow"]}
FANS: dict[str, Any] = PUMPS | {"name": "fans", "assets": "F*"}


class Plain:
    """A score that follows from the window."""

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
    config: Config, store: AsyncStore, log: Sequence[Record], batch: int = 7, owner: str = "test"
) -> Pipeline:
    return Pipeline(config, LogSource({P0: log}, batch), store, Plain(), owner=owner, clock=FakeClock())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened


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
    """Pumps all along; fans fall silent, with windows half full."""
    return [one for ts in range(n) for one in [("P1", ts), *([("F1", ts), ("F2", ts)] if ts < fans_until else [])]]


@pytest.fixture(autouse=True)
def _look_at_every_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(recovery, "LOOK_SHARE", 1e9)


@pytest.fixture
def silent_after(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(recovery, "SILENT_AFTER", 20)
    return 20


class Died(BaseException):
    """As a process does: nothing is caught, nothing is cleaned up."""


async def test_a_record_that_kills_every_process_is_known_by_its_offset_and_nothing_before_it_is_lost(
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
    with capture_logs() as said:
        for n in range(1 + 2 * (CRASHES + 1) + 1):
            with pytest.raises(Died):
                await pipeline(config_of(), store, log, batch=25, owner=f"process {n}").run()
    told = [(each["from_offset"], each["claims"]) for each in said if each["event"] == "crash_loop"]
    assert told == [(50, CRASHES + 1), (60, CRASHES + 1), (60, CRASHES + 2)]
    monkeypatch.undo()
    with capture_logs() as said:
        for length in (100, 120):
            await pipeline(config_of(), store, log[:length], batch=25).run()
    assert [each["event"] for each in said].count("crash_loop") == 1, "once it is passed, all is as before"
    async with AsyncStore(f"sqlite:///{tmp_path}/in-peace.db", owner=True) as other:
        await pipeline(config_of(), other, log, batch=25).run()
        assert await other.read(scores_of) == await store.read(scores_of)


async def test_a_rebuild_that_comes_to_the_same_state_says_nothing_but_that_it_is_done(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    with capture_logs() as said:
        again = pipeline(config_of(), store, log)
        await again.run()
    events = [each["event"] for each in said]
    assert "rebuilt" in events
    assert "rebuild_differs" not in events
    assert again.partitions[P0].is_rebuilt


async def test_a_rebuild_that_comes_to_another_state_is_an_error_that_names_the_fleet(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    changed = [
        (offset, at, key, value.replace(b'"flow": 49', b'"flow": 7')) if offset == 49 else (offset, at, key, value)
        for offset, at, key, value in log
        if value is not None
    ]
    with capture_logs() as said:
        await pipeline(config_of(), store, changed).run()
    [differs] = [each for each in said if each["event"] == "rebuild_differs"]
    assert differs["fleets"] == ["pumps" if log[49][2] == b"P1" else "fans"]
    assert differs["log_level"] == "error"


async def test_a_fleet_that_falls_silent_does_not_make_a_restart_read_the_others_again(
    store: AsyncStore, tmp_path: Path, silent_after: int
) -> None:
    readings = [*mixed(300, fans_until=30), ("F1", 30), ("F2", 30), ("F1", 31), ("F2", 31)]
    log = log_of(*readings)
    config = config_of()
    await pipeline(config, store, log[:350]).run()
    with capture_logs() as said:
        again = pipeline(config, store, log)
        await again.run()
    [claimed] = [each for each in said if each["event"] == "partition_claimed"]
    assert claimed["next_offset"] - claimed["rebuild_from"] <= 2 * silent_after + 7
    assert not [each for each in said if each["event"] == "rebuild_differs"]
    # The fans' windows that were half full when they fell silent are finished as if nobody had died.
    expected = [("P1", start) for start in range(-3, 297)]
    found = windows(tmp_path)
    assert [one for one in found if one[0] == "P1" and one[1] >= 0] == [one for one in expected if one[1] >= 0]
    for fan in ("F1", "F2"):
        assert [start for name, start in found if name == fan and start >= 0] == list(range(29))


async def test_a_lane_that_stays_silent_moves_its_snapshot_without_writing_it_again(
    store: AsyncStore, silent_after: int
) -> None:
    states = []
    save = store.save

    async def watched(commit: Commit) -> Saved:
        states.extend(commit.snapshots)
        return await save(commit)

    store.save = watched  # type: ignore[method-assign]
    river = pipeline(config_of(), store, log_of(*mixed(300, fans_until=10)))
    await river.run()
    fans = [each for each in states if each.fleet == "fans"]
    assert fans[0].state
    assert len(fans) > 3
    assert {each.state for each in fans[1:]} == {None}
    assert [each.at_offset for each in fans] == sorted(each.at_offset for each in fans)


@pytest.mark.parametrize("turn", [1, -1], ids=["there", "back"])
@pytest.mark.parametrize(
    "change", [{"window": 6}, {"stride": 3}, {"lateness": "5s"}, {"interval": "2s"}, {"max_gap": "2s"}], ids=str
)
async def test_settings_that_change_windows_begin_new_ones_and_stop_nothing(
    store: AsyncStore, tmp_path: Path, change: dict[str, Any], turn: int
) -> None:
    log = log_of(*mixed(60, fans_until=60))
    old, new = [config_of(), config_of(PUMPS | change, FANS)][::turn]
    await pipeline(old, store, log[:80]).run()
    before = set(windows(tmp_path))
    with capture_logs() as said:
        await pipeline(new, store, log).run()
    assert [each["fleet"] for each in said if each["event"] == "reconfigured"] == ["pumps"]
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
async def test_settings_that_let_saved_records_in_begin_new_windows_and_stop_nothing(
    store: AsyncStore, tmp_path: Path, before: Config, after: Config
) -> None:
    def dressed(record: Record) -> Record:
        offset, _, key, value = record
        assert value is not None
        padded = value[:-1] + b', "note": "%s"}' % (b"x" * 1500) if offset % 9 == 0 else value
        return offset, 0 if offset % 7 else -1, key, padded  # Kafka's clock stands at 1970-01-01

    log = [dressed(record) for record in log_of(*mixed(60, fans_until=60))]
    await pipeline(after, store, log[:40]).run()
    await pipeline(before, store, log[:80]).run()
    with capture_logs() as said:
        await pipeline(after, store, log[:120]).run()
        await pipeline(after, store, log).run()
    assert not [each for each in said if each["event"] == "rebuild_differs"]
    found = windows(tmp_path)
    assert len(set(found)) == len(found)


async def test_after_a_gap_a_restart_goes_on_as_the_daemon_that_lived_would_have(
    store: AsyncStore, tmp_path: Path
) -> None:
    log = log_of(*mixed(60, fans_until=60))
    river = pipeline(config_of(), store, log[:50])
    await river.run()
    river.source.give(Gap(P0, 50, 55))
    await river.run()
    unfinished = river.partitions[P0].lanes["pumps"].windower.snapshot()
    with capture_logs() as said:
        again = pipeline(config_of(), store, log[55:])
        again.source.give(Revoked(()))
        await again.source.poll()
        await again._claim(P0)
        restored = again.partitions[P0].lanes["pumps"].windower.snapshot()
        await again.run()
    assert again.partitions[P0].rewind.offset >= 55
    assert restored.cell.tolist() == unfinished.cell.tolist()
    assert restored.values.tolist() == unfinished.values.tolist()
    assert not [each for each in said if each["event"] == "rebuild_differs"]
    assert len(windows(tmp_path)) == len(set(windows(tmp_path)))


async def test_however_often_it_is_killed_scores_and_alerts_are_those_of_one_long_life(tmp_path: Path) -> None:
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
            for number in ("id", "asset_id"):  # given in the order in which assets and alerts became known
                row.pop(number, None)
    assert tables[0] == tables[1]
    assert len(tables[0][1]) > 3, "alerts open and close"


async def test_a_rebuild_over_records_that_retention_took_is_told_and_not_compared(store: AsyncStore) -> None:
    log = log_of(*mixed(40, fans_until=40))
    await pipeline(config_of(), store, log[:50]).run()
    again = pipeline(config_of(), store, log[48:])
    with capture_logs() as said:
        await again.source.poll()
        await again._claim(P0)
        again.source.give(Gap(P0, again.partitions[P0].rewind.offset, 48))
        await again.run()
    events = [each["event"] for each in said]
    assert "rebuild_incomplete" in events
    assert "records_lost" not in events, "they had been read"
    assert "rebuild_differs" not in events
    assert again.partitions[P0].next_offset == len(log)


async def test_when_another_daemon_changed_the_models_the_batch_is_scored_again_by_the_new_ones(
    store: AsyncStore, tmp_path: Path
) -> None:
    log = log_of(*mixed(40, fans_until=40))
    river = pipeline(config_of(), store, log)
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
    river.reload_models = reload
    await river.run()
    assert reloads == 1
    found = windows(tmp_path)
    assert len(found) == len(set(found))
    assert [start for name, start in found if name == "P1" and start >= 0] == list(range(37))


async def test_a_batch_waits_for_a_checkpoint_that_cannot_be_read_now(tmp_path: Path) -> None:
    seen: list[str] = []

    class Late(Plain):
        n_asked = 0

        async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
            self.n_asked += 1
            seen.append(str(river.waits_for))
            if 5 <= self.n_asked < 8:
                raise CheckpointUnavailable("v1: no such file yet", "mount the folder")
            return await super().score(windows, end_us, sensors)

    log = log_of(*mixed(60, fans_until=60))
    for folder, scorer in ((tmp_path / "calm", Plain()), (tmp_path / "late", Late())):
        folder.mkdir()
        async with AsyncStore(f"sqlite:///{folder}/monitor.db", owner=True) as store:
            river = pipeline(config_of(), store, log)
            river.scorer = scorer
            with capture_logs() as said:
                await river.run()
    assert [each["event"] for each in said if each["event"].startswith("checkpoint")] == [
        "checkpoint_away",
        "checkpoint_back",
    ]
    said_of = str(CheckpointUnavailable("v1: no such file yet", "mount the folder"))
    assert seen[3:9] == ["None", "None", said_of, said_of, said_of, "None"], "while it waits, and no longer"
    assert windows(tmp_path / "late") == windows(tmp_path / "calm") != []
