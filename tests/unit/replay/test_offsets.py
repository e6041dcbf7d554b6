from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from monitor.kafka.log_reader import LogBounds
from monitor.replay.offsets import Reach
from monitor.store.offsets import Consumed
from monitor.types import Partition
from tests.fakes import batch_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.kafka.log_reader import KafkaHistory
    from monitor.types import RecordBatch

HOME = Partition("plant", 0)


class _Log:
    """What Kafka holds of one partition, cut to what is asked for as `KafkaHistory` cuts it."""

    def __init__(self, first: int, end: int, asked: Consumed) -> None:
        self.bounds = {HOME: LogBounds(max(first, asked.first), min(end, asked.end))}

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        first, end = self.bounds[HOME]
        for begin in range(first, end, 7):
            yield batch_of(HOME, [(n, n, str(n).encode(), b"{}") for n in range(begin, min(begin + 7, end))])


@st.composite
def _consumed(draw: st.DrawFn) -> Consumed:
    cuts = sorted(draw(st.sets(st.integers(0, 60), min_size=2, max_size=8)))
    inner = cuts[1:-1]
    gaps = tuple((begin, beyond) for begin, beyond in zip(inner[::2], inner[1::2], strict=False))
    return Consumed(cuts[0], cuts[-1], gaps)


@given(_consumed(), st.integers(0, 70), st.integers(0, 70))
async def test_exactly_what_live_consumed_is_read_and_what_is_gone_is_counted(
    asked: Consumed, first: int, length: int
) -> None:
    wanted = set(range(asked.first, asked.end)) - {n for gap in asked.gaps for n in range(*gap)}
    there = set(range(first, first + length))
    history = cast("KafkaHistory", _Log(first, first + length, asked))
    found = Reach(history, [HOME], {HOME: asked})
    read = [int(offset) async for batch in found for offset in batch.offsets]
    assert read == sorted(wanted & there)
    assert found.missing() == len(wanted - there)
    assert found.kind == "live"
    keys = [key async for batch in found for key in batch.keys]
    assert keys == [str(offset).encode() for offset in read], "each record keeps its own key"


async def test_all_that_lies_there_has_no_gaps_and_misses_nothing() -> None:
    asked = Consumed(0, 50)
    found = Reach(cast("KafkaHistory", _Log(3, 40, asked)), [HOME])
    assert sum([len(batch) async for batch in found]) == 37
    assert (found.kind, found.missing()) == ("all", 0)
