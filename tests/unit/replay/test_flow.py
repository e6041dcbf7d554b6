from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.config import parse
from monitor.decode import block_msgpack, reading_json
from monitor.errors import Conflict
from monitor.replay.flow import (
    TICK_S,
    ReplayInput,
    ReplayObserver,
    event_times,
    flow,
    needed_cell,
    paced,
    scored_from_us,
    scratch,
)
from monitor.replay.from_kafka import skip_old_records
from monitor.replay.offsets import OffsetRange
from monitor.store.results import FIRST_US
from monitor.types import Partition
from tests.fakes import FakeClock, batch_of
from tests.unit.stream.plant import Unscored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from monitor.config import Config
    from monitor.types import RecordBatch

S = 1_000_000
HOME = Partition("plant", 0)


def _config(**fleet: Any) -> Config:
    return parse(
        {
            "kafka": {"bootstrap": "localhost:9092", "topics": ["plant"]},
            "fleet": [{"name": "f", "interval": "1s", "window": 8, "sensors": ["power"], **fleet}],
        }
    )


def _batch(times_s: list[float], first: int = 0, stamps_us: list[int] | None = None) -> RecordBatch:
    stamps = stamps_us or [-1] * len(times_s)
    return batch_of(
        HOME,
        [
            (first + n, stamps[n], b"R1", reading_json("R1", int(at * S), [1.0], ["power"]))
            for n, at in enumerate(times_s)
        ],
    )


async def _pace(batches: list[RecordBatch], speed: float) -> tuple[list[tuple[float, list[int]]], FakeClock]:
    clock = FakeClock()
    began_s = clock.monotonic_s()
    yielded = [
        (round(clock.monotonic_s() - began_s, 3), batch.offsets.tolist())
        async for batch in paced(batches, speed, clock, event_times(_config()))
    ]
    return yielded, clock


async def test_event_time_passes_at_the_given_speed() -> None:
    yielded, clock = await _pace([_batch([0, 60, 120]), _batch([180], first=3)], speed=60)
    assert yielded == [(0, [0]), (1, [1]), (2, [2]), (3, [3])]
    assert sum(clock.slept_s) == pytest.approx(3)


async def test_records_due_together_are_one_batch() -> None:
    yielded, _ = await _pace([_batch([0, 0, 100, 30, 100 + TICK_S, 200])], speed=1)
    assert yielded == [(0, [0, 1]), (100, [2, 3, 4]), (200, [5])]


async def test_undecodable_records_keep_their_position() -> None:
    good = _batch([0, 10])
    values = [b"nonsense", good.values[0], b"{", good.values[1]]
    torn = batch_of(HOME, [(n, -1, b"R1", value) for n, value in enumerate(values)])
    yielded, _ = await _pace([torn], speed=1)
    assert yielded == [(0, [0, 1, 2]), (10, [3])]


async def test_a_block_is_due_with_its_last_reading() -> None:
    block = block_msgpack("R1", np.arange(5) * S, np.ones((5, 1), np.float32), ["power"])
    second = block_msgpack("R1", np.arange(5, 9) * S, np.ones((4, 1), np.float32), ["power"])
    yielded, _ = await _pace([batch_of(HOME, [(0, -1, b"R1", block), (1, -1, b"R1", second)])], speed=1)
    assert yielded == [(0, [0]), (4, [1])]


def test_a_range_needs_run_up_and_lateness() -> None:
    fleet = _config(lateness="3s", alerts={"confirm": "2 of 4", "recover": 2}).fleets[0]
    assert scored_from_us(fleet, 1000 * S) == (1000 - 4 * 4) * S
    assert needed_cell(fleet, 1000 * S) == 1000 - 16 - 8 - 3 - 1
    assert scored_from_us(fleet, FIRST_US) == FIRST_US


async def _aiter(*batches: RecordBatch) -> AsyncIterator[RecordBatch]:
    for batch in batches:
        yield batch


async def test_only_old_records_are_skipped() -> None:
    config = _config()
    day_us = 86_400 * S
    needed_us = needed_cell(config.fleets[0], 10 * day_us) * S
    # An event time may be `max_skew`, ten minutes, ahead of the record's timestamp.
    stamps = [needed_us - 600 * S - 1, needed_us - 600 * S, 5 * S, -1]
    some, old = _batch([0] * 4, stamps_us=stamps), _batch([0, 0], stamps_us=[0, 5])
    kept = [batch async for batch in skip_old_records(_aiter(some), config, 10 * day_us)]
    assert [batch.offsets.tolist() for batch in kept] == [[1, 2, 3]]
    assert [batch async for batch in skip_old_records(_aiter(old), config, 10 * day_us)] == []


async def test_an_existing_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'live.db'}"
    async with scratch(url) as (store, _):
        assert store.address.path == tmp_path / "live.db"
    with pytest.raises(Conflict, match="is there already"):
        async with scratch(url):
            pass
    with pytest.raises(Conflict, match="SQLite file"):
        async with scratch("postgresql://u@h/d"):
            pass


@pytest.mark.parametrize("speed", [None, 60.0])
async def test_a_replay_that_ends_early_closes_its_records(speed: float | None) -> None:
    closed = False

    async def records() -> AsyncIterator[RecordBatch]:
        nonlocal closed
        try:
            for first in range(0, 100, 10):
                yield _batch(list(range(first, first + 10)), first=first)
        finally:
            await asyncio.sleep(0)  # as the end of a consumer
            closed = True

    config = _config()
    history: Any = records()
    batches = skip_old_records(OffsetRange(history, [HOME]), config, FIRST_US)
    replay_input = ReplayInput(config, batches, [HOME], to_us=20 * S)
    async with scratch(None) as (store, _):
        counters = await flow(replay_input, store, Unscored(), ReplayObserver(), FakeClock(), speed=speed)
    assert counters.records < 100
    assert closed
