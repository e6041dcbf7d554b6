"""Sensors that appear later, at random: two partitions, restarts, two daemons, a champion, a promotion.

Which windows there are depends on the cells that have any value, not on the list of sensors: a longer list only delays
a window until its end is behind the watermark. So the stored windows lie between those of the oracle with the whole
list, and those of the oracle with one sensor in each record.

Restarts change nothing else. A record that was refused because its only sensor came after the model was trained stays
refused, also where a promotion takes that sensor in while its cell is needed. Each partition tells a new sensor once,
so a fleet in two partitions has two data alerts about it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from monitor.config import Config
from monitor.store import assets, versions
from monitor.store.engine import AsyncStore
from monitor.stream.pipeline import Pipeline
from tests.fakes import FakeClock, LogSource
from tests.oracle.log import rules_from
from tests.oracle.windows import expect
from tests.unit.stream.plant import BEGIN, P0, P1, S, Unscored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.kafka import Event
    from monitor.store.commit import Commit, Saved
    from monitor.timing import Timing
    from monitor.types import Partition
    from tests.fakes import Record

POOL = ("temp", "press", "flow", "level", "speed")
"""The first one is in every reading."""
SECONDS = 40
N_SEEDS = 8


class Killed(BaseException):
    """The end of a process: no code catches it or cleans up."""


class CutAtRandom(LogSource):
    """Batches of random lengths."""

    def __init__(self, logs: dict[Partition, Sequence[Record]], random: Random) -> None:
        super().__init__(logs)
        self._random = random

    async def poll(self) -> Sequence[Event]:
        self._batch = self._random.choice((1, 2, 4, 8, 16))
        return await super().poll()


@dataclass
class Story:
    """One fleet from its first record to the last, in a database."""

    random: Random
    store: AsyncStore
    timing: Timing
    is_long: bool
    appears: dict[Partition, dict[str, int]]
    """By partition and sensor, the second from which on it is sent. Missing = never."""
    logs: dict[Partition, list[Record]] = field(default_factory=dict)
    lists: list[tuple[str, ...]] = field(default_factory=list)
    """The fleet's list after each stage."""
    living: list[Pipeline] = field(default_factory=list)
    n_left: int = -1
    """Commits until the stage ends."""
    ending: str = ""
    running: Pipeline | None = None

    def __post_init__(self) -> None:
        self.logs = {partition: self._log(partition) for partition in self.appears}
        self._save, self.store.save = self.store.save, self.save  # type: ignore[method-assign]

    def _log(self, partition: Partition) -> list[Record]:
        random, found = self.random, []
        for asset in (f"a{partition.number}", f"b{partition.number}"):
            for second in range(SECONDS):
                if random.random() < 0.12:
                    continue  # a hole
                names = [name for name, since in self.appears[partition].items() if second >= since]
                values = {name: second + POOL.index(name) / 8 + 0.0625 for name in names}
                random.shuffle(names)
                delay = random.choice((0, 0, 0, 1.4)) + (6 if not self.is_long and random.random() < 0.05 else 0)
                moment = BEGIN + second
                rows = (
                    [{"ts": moment, "metric": name, "value": values[name]} for name in names]
                    if self.is_long
                    else [{"ts": moment, **{name: values[name] for name in names}}]
                )
                for row in rows:
                    found += [(second + delay, moment, asset, row)] * (2 if random.random() < 0.05 else 1)
        found.sort(key=lambda each: each[0])
        return [
            (offset, moment * S, asset.encode(), json.dumps(row).encode())
            for offset, (_, moment, asset, row) in enumerate(found)
        ]

    async def save(self, commit: Commit) -> Saved:
        self.n_left -= 1
        if self.n_left == 0 and self.ending == "before":
            raise Killed
        saved = await self._save(commit)
        if self.n_left == 0:
            if self.ending == "after":
                raise Killed
            if self.running is not None:
                self.running.stop()
        return saved

    def config(self, sensors: Sequence[str] | None = None) -> Config:
        grid = {"interval": "1s", "window": 4, "lateness": "2s", "max_gap": "1s"}
        listed = {} if sensors is None else {"sensors": list(sensors)}
        return Config.model_validate(
            {
                "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "start": "earliest"},
                "fleet": [{"name": "line", **grid, **listed}],
            }
        )

    def daemon(self, partitions: Sequence[Partition]) -> Pipeline:
        """A daemon to which these partitions are assigned."""
        source = CutAtRandom({each: self.logs[each] for each in partitions}, self.random)
        owner = f"daemon {len(self.lists)}"
        return Pipeline(
            self.config(), source, self.store, Unscored(), owner=owner, clock=FakeClock(), timing=self.timing
        )

    async def stage(self, n_commits: int, ending: str) -> None:
        """Let a daemon, new or one that lives on, make some commits."""
        if self.living and self.random.random() < 0.6:
            running = self.random.choice(self.living)
            running._stopping.clear()
        else:
            running = self.daemon(self.random.choice([(P0, P1), (P0, P1), (P0,), (P1,)]))
            self.living.append(running)
        self.n_left, self.ending, self.running = n_commits, ending, running
        try:
            await running.run()
        except Killed:
            self.living.remove(running)
        await self.note_list()

    async def finish(self) -> Pipeline:
        self.n_left, self.running = -1, None
        last = self.daemon((P0, P1))
        await last.run()
        await self.note_list()
        return last

    async def note_list(self) -> None:
        self.lists.append((await self.store.read(assets.fleets)).get("line") or ())

    async def activate(self, version: str, sensors: Sequence[str]) -> None:
        """Do what a training does. Some of the daemons that live hear of it."""
        facts = {"version": version, "fleet": "line", "path": "", "trained_us": 0, "card": {}, "metrics": {}}

        def publish(connection: Connection) -> None:
            assets.extend_sensors(connection, "line", sensors)
            versions.publish(connection, **facts)
            versions.activate(connection, "line", version, 0)

        await self.store.run(publish)
        for each in self.living:
            each.gate.may_have_new_sensors = self.random.random() < 0.5
        await self.note_list()

    # ------------------------------------------------------------------ what is expected

    def flat(self, partition: Partition, sensor: str | None = None) -> list[Record]:
        """The log in the layout of the oracle. `sensor`: all numbers under this name."""
        found = []
        for offset, stamp, key, value in self.logs[partition]:
            row = json.loads(value or b"")
            row = {"ts": row["ts"], row["metric"]: row["value"]} if "metric" in row else row
            if sensor is not None:
                row = {"ts": row["ts"], sensor: row["ts"]}
            found.append((offset, stamp, key, json.dumps(row).encode()))
        return found

    def check(self, last: Pipeline, rows: Sequence[Any], lines: Sequence[Any]) -> None:
        for before, after in zip(self.lists, self.lists[1:], strict=False):
            assert after[: len(before)] == before
        assert len(set(self.lists[-1])) == len(self.lists[-1])
        events = [each["event"] for each in lines]
        assert "rebuild_differs" not in events
        assert "reconfigured" not in events
        keys = [(row.name, row.start_us) for row in rows]
        assert len(set(keys)) == len(keys)
        for partition, log in self.logs.items():
            state = last.partitions[partition]
            counters = state.counters
            fates = (counters.accepted, counters.quarantined, counters.late, counters.duplicate, counters.tombstones)
            assert sum(fates) == counters.records == len(log) == state.next_offset
            found = {key for key in keys if key[0].endswith(str(partition.number))}
            assert counters.windows == len(found)
            whole = expect(self.flat(partition), rules_from(self.config(POOL)), "plant")
            single = expect(self.flat(partition, "any"), rules_from(self.config(("any",))), "plant")
            assert whole.windows.keys() - found == set(), partition
            assert found - single.windows.keys() == set(), partition


def names_of(log: Sequence[Record]) -> list[tuple[int, set[str]]]:
    """The sensors in each record, by offset."""
    found = [(offset, json.loads(value or b"")) for offset, _, _, value in log]
    return [(offset, {row["metric"]} if "metric" in row else row.keys() - {"ts"}) for offset, row in found]


ROWS = """
    SELECT asset.name, score.start_us, score.n_present, score.first_offset, score.last_offset
    FROM score JOIN asset ON asset.id = score.asset_id ORDER BY 1, 2
"""
NEXT = "SELECT partition, next_offset FROM source_partition"
NEW = "SELECT partition, subject, from_offset, n_anomalous FROM alert WHERE kind = 'new_sensor'"


async def tell(folder: Path, seed: int, timing: Timing, *, kind: str) -> None:
    random = Random(f"{kind} {seed}")
    later = random.sample(POOL[1:], random.randrange(1, 4))
    appears = {
        partition: {"temp": 0}
        | {name: 0 if kind == "same" else random.randrange(SECONDS) for name in later if random.random() < 0.7}
        for partition in (P0, P1)
    }
    if kind == "same":
        appears[P1] = appears[P0]
    async with AsyncStore(f"sqlite:///{folder}/{seed}.db", owner=True) as store:
        story = Story(random, store, timing, random.random() < 0.5, appears)
        n_stages, activated = random.randrange(1, 13), None
        steps = ["stage"] * n_stages
        if kind == "champion":
            at = random.randrange(1, (n_stages + 3) // 2)
            steps.insert(at, "activate")
            if random.random() < 0.5:
                steps.insert(random.randrange(at + 1, len(steps) + 1), "promote")
        reached: dict[Partition, int] = dict.fromkeys(appears, 0)
        with capture_logs() as lines:
            for step in steps:
                if step == "stage":
                    await story.stage(random.randrange(1, 9), random.choice(("stop", "stop", "before", "after")))
                elif step == "activate":
                    await story.activate("v1", [*story.lists[-1], "temp"])
                    activated = story.lists[-1]
                    found = await store.read(lambda c: c.exec_driver_sql(NEXT).all())
                    reached |= {each: row[1] for each in appears for row in found if row[0] == each.number}
                else:
                    await story.activate("v2", POOL)
            last = await story.finish()
        rows = await store.read(lambda connection: connection.exec_driver_sql(ROWS).all())
        story.check(last, rows, lines)
        if kind == "same":
            for partition in appears:
                sensors = story.lists[-1]
                expected = expect(story.flat(partition), rules_from(story.config(sensors)), "plant").windows
                mine = {
                    (row.name, row.start_us): tuple(row)[2:] for row in rows if row.name[1:] == str(partition.number)
                }
                assert mine.keys() >= expected.keys()
                if not story.is_long:  # all sensors are known from the first record on
                    assert mine == expected
        told = await store.read(lambda connection: connection.exec_driver_sql(NEW).all())
        subjects = [(row.partition, row.subject) for row in told]
        assert len(set(subjects)) == len(subjects)
        if activated and "promote" not in steps:
            assert story.lists[-1] == activated
            assert {
                (partition.number, name)
                for partition, log in story.logs.items()
                for offset, names in names_of(log)
                if offset >= reached[partition]
                for name in names - set(activated)
            } == set(subjects)
            for row in told:  # a restart neither tells it again nor forgets to count it
                records = names_of(story.logs[P0 if row.partition == P0.number else P1])
                assert row.n_anomalous == sum(o >= row.from_offset and row.subject in names for o, names in records)
        elif not activated:
            assert told == []


@pytest.mark.parametrize("kind", ["same", "growing", "champion"])
async def test_a_growing_fleet_keeps_its_rows_and_its_list(tmp_path: Path, eager: Timing, kind: str) -> None:
    for seed in range(N_SEEDS):
        await tell(tmp_path, seed, eager, kind=kind)
