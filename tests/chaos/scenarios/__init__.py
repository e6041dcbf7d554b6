"""The scenarios. Each is a function of the servers, a seed and a size, and returns Figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.scenarios.brokers import brokers, heartbeats, rebalances
from tests.chaos.scenarios.daemons import blocked, clocks, models, recovery, replicas, swaps, takeover
from tests.chaos.scenarios.stores import database, disk_full, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.figures import Figures

SCENARIOS: dict[str, Callable[..., Figures]] = {
    function.__name__: function
    for function in (
        replicas, sqlite, database, rebalances, brokers, models, swaps, heartbeats, recovery, takeover, blocked, clocks,
        disk_full,
    )
}  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    "replicas": {"n_records": 10_000, "n_faults": 3, "pause_s": (1.0, 2.0)},
    "sqlite": {"n_records": 8_000, "n_kills": 4},
    "database": {"n_records": 8_000, "n_faults": 4},
    "rebalances": {"n_records": 8_000, "n_assignments": 16},
    "brokers": {"n_records": 15_000, "n_faults": 2},
    "heartbeats": {"n_records": 8_000, "n_faults": 1, "watch_s": 30.0},
    "recovery": {"n_faults": 2},
    "takeover": {"n_faults": 1},
    "blocked": {"n_records": 12_000, "seconds": 10.0},
    "models": {"n_records": 30_000, "n_retrainings": 2},
    "swaps": {"n_records": 12_000, "n_swaps": 25},
    "clocks": {"n_records": 15_000, "n_faults": 3},
    "disk_full": {},
}
"""Sizes for CI."""
