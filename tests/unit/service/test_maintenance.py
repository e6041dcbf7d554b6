"""The walks through the scores: when, and how far."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import parse
from monitor.service.maintenance import Maintenance
from monitor.store import judged, pruning, score_hours, scores
from monitor.store.results import FIRST_US
from monitor.timing import DEFAULT_TIMING
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DAY_US = 86_400_000_000
EVERY_S = DEFAULT_TIMING.maintenance_every_s
NEWEST = {"pumps": 100 * DAY_US, "dead": 3 * DAY_US}


class ScoreStore:
    """Knows the newest window of each fleet, and records the walks."""

    def __init__(self, newest: dict[str, int]) -> None:
        self._newest = newest
        self.walked: list[tuple[list[str], float, float]] = []
        """(fleets, from, to), in days."""
        self.hours: list[tuple[list[str], float]] = []
        """(fleets, to) of the walks through the hours."""

    async def read(self, fn: Callable[..., Any], *_args: Any) -> Any:
        if fn in (pruning.marked, pruning.prunable):
            return []
        return self._newest if fn is scores.newest_us else {} if fn is judged.read_counts else None

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        if fn is score_hours.prune:
            self.hours.append((list(args[0]), args[2] / DAY_US))
            return Counter(), args[2]
        if fn is not scores.prune:
            return 0
        return self._prune(*args)

    def _prune(self, fleets: Sequence[str], from_us: int, before_us: int) -> Any:
        self.walked.append((list(fleets), from_us / DAY_US, before_us / DAY_US))
        return Counter(), before_us


def maintenance_of(store: Any, clock: FakeClock, keep: str) -> Maintenance:
    fleet = {"name": "pumps", "interval": "1m", "sensors": ["a"]}
    tables = {"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "store": {"keep_scores": keep}, "fleet": [fleet]}
    return Maintenance(parse(tables), store, clock, None)


async def test_each_fleet_goes_by_its_own_event_time_in_one_walk() -> None:
    store = ScoreStore(NEWEST | {"fans": 95 * DAY_US})
    await maintenance_of(store, FakeClock(), "10d").run_once()
    assert store.walked == [
        (["dead", "fans", "pumps"], FIRST_US / DAY_US, -7.0), (["fans", "pumps"], -7.0, 85.0), (["pumps"], 85.0, 90.0)
    ]  # fmt: skip


@pytest.mark.parametrize(("keep", "hours"), [("10d", 730), ("800d", 800)])
async def test_hours_are_kept_for_two_years_or_as_scores(keep: str, hours: int) -> None:
    store = ScoreStore({"pumps": 1000 * DAY_US})
    await maintenance_of(store, FakeClock(), keep).run_once()
    assert store.hours == [(["pumps"], 1000 - hours)]


@pytest.mark.parametrize(("keep", "every_s"), [("90d", 86_400), ("10h", 3_600), ("1h", EVERY_S)])
async def test_the_scores_of_a_silent_fleet_are_walked_rarely(keep: str, every_s: float) -> None:
    store, clock = ScoreStore(NEWEST), FakeClock()
    maintenance = maintenance_of(store, clock, keep)
    n_rounds = 3 * round(every_s / EVERY_S)
    for _ in range(n_rounds):
        await maintenance.run_once()
        clock.advance(EVERY_S)
    assert [len(fleets) for fleets, *_ in store.walked].count(2) == n_rounds, "expired for all fleets"
    assert [fleets for fleets, *_ in store.walked].count(["pumps"]) == 3


async def test_nothing_is_pruned_where_there_are_no_scores() -> None:
    store = ScoreStore({})
    await maintenance_of(store, FakeClock(), "10d").run_once()
    assert store.walked == []
