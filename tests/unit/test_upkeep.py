"""What is deleted, and by whose clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import parse
from monitor.store import scores
from monitor.testing import FakeClock
from monitor.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_US = 86_400_000_000
CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
        "store": {"keep_scores": "10d"},
        "fleet": [
            {"name": name, "interval": "1m", "sensors": ["a"], "assets": f"{name}*"}
            for name in ("pumps", "fans", "dead", "new")
        ],
    }
)


class Store:
    """Knows how far each fleet has come, and remembers what was pruned."""

    def __init__(self, **days: float) -> None:
        self._days = days
        self.pruned_before_us: list[int] = []

    async def read(self, fn: Callable[..., Any], fleet: str) -> Any:
        assert fn is scores.newest_end_us or fn.__name__ == "of_champion"
        return int(self._days[fleet] * DAY_US) if fn is scores.newest_end_us and fleet in self._days else None

    async def run(self, fn: Callable[..., Any], before_us: int) -> int:
        if fn is scores.prune:
            self.pruned_before_us.append(before_us)
        return 0


@pytest.mark.parametrize(
    ("days", "before"),
    [
        ({"pumps": 100.0, "fans": 95.0}, 85.0),
        ({"pumps": 100.0, "fans": 95.0, "dead": 3.0}, -7.0),
        ({"dead": 3.0}, -7.0),
        ({}, None),
    ],
    ids=["the slowest counts", "also when it is far behind", "alone it counts", "nothing is there"],
)
async def test_scores_go_by_how_far_the_slowest_fleet_has_come(
    days: dict[str, float], before: float | None
) -> None:
    store: Any = Store(**days)
    await Upkeep(CONFIG, store, FakeClock(), None).look()
    assert store.pruned_before_us == ([] if before is None else [int(before * DAY_US)])
