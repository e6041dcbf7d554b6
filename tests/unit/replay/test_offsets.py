from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from monitor.kafka.log_reader import LogBounds
from monitor.replay.offsets import OffsetRange
from monitor.store.offsets import Consumed
from monitor.types import Partition
from tests.fakes import batch_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.kafka.log_reader import KafkaHistory
    from monitor.types import RecordBatch

HOME = Partition("plant", 0)


class _Log:
    """A log of one partition, limited to the consumed offsets as `KafkaHistory` limits it."""

    def __init__(self, first: int, end: int, consumed: Consumed) -> None:
        self.bounds = {HOME: LogBounds(max(first, consumed.first), min(end, consumed.end))}

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        first, end = self.bounds[HOME]
        for begin in range(first, end, 7):
            yield batch_of(HOME, [(n, n, str(n).encode(), b"{}") for n in range(begin, min(begin + 7, end))])


@st.composite
def _consumed(draw: st.DrawFn) -> Consumed:
    cuts = sorted(draw(st.sets(st.integers(0, 60), min_size=2, max_size=8)))
    inner = cuts[1:-1]
    gaps = tuple((begin, end) for begin, end in zip(inner[::2], inner[1::2], strict=False))
    return Consumed(cuts[0], cuts[-1], gaps)


@given(_consumed(), st.integers(0, 70), st.integers(0, 70))
async def test_consumed_offsets_are_read(
    consumed: Consumed, first: int, length: int
) -> None:
    wanted = set(range(consumed.first, consumed.end)) - {n for gap in consumed.gaps for n in range(*gap)}
    held = set(range(first, first + length))
    history = cast("KafkaHistory", _Log(first, first + length, consumed))
    found = OffsetRange(history, [HOME], {HOME: consumed})
    read = [int(offset) async for batch in found for offset in batch.offsets]
    assert read == sorted(wanted & held)
    assert found.count_missing() == len(wanted - held)
    assert found.kind == "live"
    keys = [key async for batch in found for key in batch.keys]
    assert keys == [str(offset).encode() for offset in read], "each record keeps its own key"


async def test_all_offsets_have_no_gaps() -> None:
    consumed = Consumed(0, 50)
    found = OffsetRange(cast("KafkaHistory", _Log(3, 40, consumed)), [HOME])
    assert sum([len(batch) async for batch in found]) == 37
    assert (found.kind, found.count_missing()) == ("all", 0)
