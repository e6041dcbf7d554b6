"""When the scores are looked through, and how far."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import parse
from monitor.service.maintenance import EVERY_S, Upkeep
from monitor.store import scores
from monitor.store.results import FIRST_US
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DAY_US = 86_400_000_000
NEWEST = {"pumps": 100 * DAY_US, "dead": 3 * DAY_US}


class Store:
    """Knows how far each fleet has come, and remembers what was pruned."""

    def __init__(self, newest: dict[str, int]) -> None:
        self._newest = newest
        self.walked: list[tuple[list[str], float, float]] = []
        """(fleets, from, to), in days."""

    async def read(self, fn: Callable[..., Any], *_fleet: str) -> Any:
        return self._newest if fn is scores.newest_us else None

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        if fn is not scores.prune:
            return 0
        return self._prune(*args)

    def _prune(self, fleets: Sequence[str], from_us: int, before_us: int) -> Any:
        self.walked.append((list(fleets), from_us / DAY_US, before_us / DAY_US))
        return Counter(), before_us


def upkeep_of(store: Any, clock: FakeClock, keep: str) -> Upkeep:
    fleet = {"name": "pumps", "interval": "1m", "sensors": ["a"]}
    tables = {"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "store": {"keep_scores": keep}, "fleet": [fleet]}
    return Upkeep(parse(tables), store, clock, None)


async def test_each_fleet_goes_by_its_own_clock_in_one_walk() -> None:
    store = Store(NEWEST | {"fans": 95 * DAY_US})
    await upkeep_of(store, FakeClock(), "10d").look()
    assert store.walked == [
        (["dead", "fans", "pumps"], FIRST_US / DAY_US, -7.0), (["fans", "pumps"], -7.0, 85.0), (["pumps"], 85.0, 90.0)
    ]  # fmt: skip


@pytest.mark.parametrize(("keep", "every_s"), [("90d", 86_400), ("10h", 3_600), ("1h", EVERY_S)])
async def test_what_a_silent_fleet_keeps_is_walked_through_now_and_then_only(keep: str, every_s: float) -> None:
    store, clock = Store(NEWEST), FakeClock()
    upkeep = upkeep_of(store, clock, keep)
    n_looks = 3 * round(every_s / EVERY_S)
    for _ in range(n_looks):
        await upkeep.look()
        clock.advance(EVERY_S)
    assert [len(fleets) for fleets, *_ in store.walked].count(2) == n_looks, "what all have outlived, each time"
    assert [fleets for fleets, *_ in store.walked].count(["pumps"]) == 3


async def test_nothing_is_pruned_where_nothing_is() -> None:
    store = Store({})
    await upkeep_of(store, FakeClock(), "10d").look()
    assert store.walked == []
