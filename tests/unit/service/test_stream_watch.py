"""Whole streams in trouble: one alert a topic that closes when it is over, and none from an outage or a long pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.config import Config
from monitor.errors import SourceUnavailable
from monitor.service.stream_health import MINUTE_US, Progress, StreamHealth
from monitor.service.stream_watch import StreamWatch
from monitor.store import leases
from monitor.store.engine import AsyncStore
from monitor.store.lease_renewal import Lease
from monitor.store.reader import open_reader
from monitor.types import Counters, Partition
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

A, B = Partition("plant", 0), Partition("plant", 1)
LOOK_US = MINUTE_US // 2


class Streams:
    """Partitions with a producer each, read to the end unless a test says otherwise."""

    def __init__(self, *partitions: Partition) -> None:
        self.health = StreamHealth()
        self.now_us = 1_000 * MINUTE_US
        self.ends = dict.fromkeys(partitions, 0)
        self.read: dict[Partition, int] = {}
        """Read up to here. Others are read to their end."""
        self.refused = 0
        self.open: set[tuple[str, str]] = set()
        self.opened: list[str] = []
        """Kinds, in order."""
        self.message = ""

    def run(self, minutes: float, **rates: int) -> None:
        """Let time pass. `rates`: records that p0, p1 get between two looks."""
        for _ in range(round(minutes * MINUTE_US / LOOK_US)):
            self.now_us += LOOK_US
            for name, rate in rates.items():
                self.ends[Partition("plant", int(name[1:]))] += rate
            self.look()

    def look(self) -> None:
        progress = {
            each: Progress(
                self.read.get(each, end),
                self.now_us,
                Counters(records=end, reasons={"not_json": self.refused, "late": end}),
            )
            for each, end in self.ends.items()
        }  # fmt: skip
        found = self.health.update(self.now_us, self.ends, progress, self.open)
        now = {(each.kind, each.partition.topic) for each in found}
        assert len(now) == len(found)
        self.opened += sorted(kind for kind, _ in now - self.open)
        self.open = now
        self.message = next((each.message for each in found if each.message), self.message)


def test_a_stream_that_sent_regularly_is_silent_after_a_quarter_hour() -> None:
    streams = Streams(A, B)
    streams.run(20, p0=5, p1=5)
    streams.run(14.5)
    assert streams.opened == []
    streams.run(1)
    assert streams.opened == ["stream_silent"]
    assert streams.message.startswith("plant: no record for 15 minutes")
    streams.run(60)
    assert streams.opened == ["stream_silent"]
    streams.run(0.5, p0=1, p1=1)
    assert streams.open == set()


def test_a_silent_partition_is_named() -> None:
    streams = Streams(A, B)
    streams.run(20, p0=5, p1=5)
    streams.run(16, p0=5)
    assert streams.opened == ["stream_silent"]
    assert streams.message.startswith("plant/1 of 2 partitions: no record")


def test_a_partition_that_never_sent_is_never_silent() -> None:
    streams = Streams(A, B)
    streams.run(60 * 24, p0=5)
    assert streams.opened == []


def test_a_stream_that_pauses_often_is_given_four_times_its_pause() -> None:
    streams = Streams(A)
    for _ in range(25):
        streams.run(0.5, p0=1)
        streams.run(9.5)
    streams.run(29)
    assert streams.opened == []
    streams.run(12)
    assert streams.opened == ["stream_silent"]


def test_after_a_restart_a_silent_stream_is_found_within_six_hours() -> None:
    streams = Streams(A)
    streams.ends[A] = 5_000
    streams.run(5 * 60 + 59)
    assert streams.opened == []
    streams.run(2)
    assert streams.opened == ["stream_silent"]


def test_a_time_without_a_look_is_no_silence() -> None:
    streams = Streams(A)
    streams.run(20, p0=5)
    streams.now_us += 600 * MINUTE_US
    streams.look()
    assert streams.opened == []
    streams.run(16)
    assert streams.opened == ["stream_silent"]


def test_a_growing_lag_of_ten_minutes_is_told_until_it_is_small() -> None:
    streams = Streams(A)
    streams.run(5, p0=50)
    streams.read[A] = streams.ends[A]
    streams.run(9, p0=50)
    assert streams.opened == []
    streams.run(2, p0=50)
    assert streams.opened == ["lag_high"]
    assert "wait to be read, the oldest for 10 minutes or longer" in streams.message
    del streams.read[A]
    streams.run(0.5, p0=50)
    assert streams.open == set()


def test_a_lag_that_shrinks_or_is_a_few_markers_is_not_told() -> None:
    streams = Streams(A)
    streams.ends[A], streams.read[A] = 1_000_000, 0
    for _ in range(120):
        streams.read[A] += 500
        streams.run(0.5, p0=50)
    assert streams.opened == []
    markers = Streams(A)
    markers.run(5, p0=50)
    markers.read[A] = markers.ends[A] - 2
    markers.run(12)
    assert markers.opened == []


def test_a_share_of_refused_records_is_told_by_its_reason() -> None:
    streams = Streams(A)
    streams.run(10, p0=100)
    assert streams.opened == []  # the late ones do not count
    for _ in range(12):
        streams.refused += 10
        streams.run(0.5, p0=100)
    assert streams.opened == ["quarantine_share"]
    assert "most of them as not_json" in streams.message
    streams.run(6, p0=100)
    assert streams.open == set()


# ---------------------------------------------------------------- alerts in the database


class Plant:
    """A watch over one topic, of which a test sets the end."""

    def __init__(self, store: AsyncStore, clock: FakeClock, lease: Lease | None = None) -> None:
        self.end, self.is_away = 0, False
        config = Config.model_validate(
            {
                "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "group": "g"},
                "fleet": [{"name": "turbines", "interval": "1m"}],
            }
        )
        self.clock = clock
        self.watch = StreamWatch(config, store, clock, lease, list_ends=self._ends)

    async def _ends(self, *_: Any) -> Mapping[Partition, int]:
        if self.is_away:
            raise SourceUnavailable("the broker is away")
        return {A: self.end}

    async def run(self, minutes: int, rate: int = 0) -> None:
        for _ in range(2 * minutes):
            self.clock.advance(30)
            self.end += rate
            await self.watch.run_once()


def _alerts(url: str) -> list[tuple[str, str, str]]:
    with open_reader(url) as reader:
        return [(row["class"], row["kind"], row["state"]) for row in reader.alerts()]


async def test_a_restart_goes_on_with_the_open_alert(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'm.db'}", FakeClock()
    async with AsyncStore(url, owner=True) as store:
        plant = Plant(store, clock)
        await plant.run(20, rate=3)
        await plant.run(16)
        assert _alerts(url) == [("data", "stream_silent", "firing")]
        await plant.run(5)
        again = Plant(store, clock)
        again.end = plant.end + 1
        await again.run(1)
        assert _alerts(url) == [("data", "stream_silent", "closed")]


async def test_only_the_holder_of_the_lease_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, clock = f"sqlite:///{tmp_path / 'm.db'}", FakeClock()
    async with AsyncStore(url, owner=True) as store:
        ours, theirs = (Lease(store, "stream_watch", name, clock) for name in ("one", "two"))
        assert await ours.acquire()
        assert not await theirs.acquire()
        first, second = Plant(store, clock, ours), Plant(store, clock, theirs)
        for plant in (first, second):
            await plant.run(20, rate=3)
        await second.run(20)
        assert _alerts(url) == []
        monkeypatch.setattr(leases, "check", _fenced)
        await first.run(20)
        assert _alerts(url) == []
        assert ours.epoch is None


def _fenced(*_: Any) -> None:
    from monitor.errors import Fenced

    raise Fenced("another daemon has it")
