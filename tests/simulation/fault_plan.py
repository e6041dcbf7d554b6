"""How bad it is: drawn from the seed, so that some runs know one trouble only and others all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

FAR_APART = 1e9


@dataclass
class FaultPlan:
    """Chances are per call unless they say otherwise."""

    # the database
    unavailable: float = 0.0
    """It is not done, and StoreUnavailable says so."""
    unknown: float = 0.0
    """It is done, and StoreUnavailable says that nobody knows."""
    overdue: float = 0.0
    """StoreUnavailable at once, and done some time later: the server went on with what the client gave up."""
    is_database_down: bool = False
    slow: float = 0.0
    """It takes seconds."""
    dies_before: float = 0.0
    dies_after: float = 0.0
    """The process, just before or just after the database did it."""
    freezes_before: float = 0.0
    freezes_after: float = 0.0
    # the broker
    broker_unavailable: float = 0.0
    silent_poll: float = 0.2
    replaced: float = 0.0
    most_records: int = 10
    news_s: float = 1.0
    """How long a member may not know of a rebalance."""
    # the machine
    jumps: float = 0.0
    """Of the wall clock, per look."""
    # what happens by itself: seconds between two of a kind, on average
    rebalance_s: float = FAR_APART
    death_s: float = FAR_APART
    freeze_s: float = FAR_APART
    stop_s: float = FAR_APART
    outage_s: float = FAR_APART
    retention_s: float = FAR_APART
    activation_s: float = FAR_APART
    # what does not end with the weather
    overtakes: float = 0.0
    """Chance that retention takes what nobody has read."""

    def end_faults(self) -> None:
        """Let nothing go wrong any more."""
        for fact in fields(self):
            if fact.name not in ("most_records", "silent_poll"):
                setattr(self, fact.name, fact.default)


def draw(rng: Random) -> FaultPlan:
    """Each trouble is there or not, weak or strong."""

    def chance(most: float, share: float = 0.5) -> float:
        return rng.random() * most if rng.random() < share else 0.0

    def every(least_s: float, share: float = 0.5) -> float:
        return least_s + rng.random() * 4 * least_s if rng.random() < share else FAR_APART

    overtakes = 0.3 if rng.random() < 0.2 else 0.0
    return FaultPlan(
        unavailable=chance(0.15),
        unknown=chance(0.15),
        overdue=chance(0.08),
        slow=chance(0.1),
        dies_before=chance(0.04),
        dies_after=chance(0.04),
        freezes_before=chance(0.04),
        freezes_after=chance(0.04),
        broker_unavailable=chance(0.5),
        silent_poll=rng.choice([0.0, 0.2, 0.6]),
        replaced=chance(0.03, 0.2),
        most_records=rng.choice([3, 8, 20, 40]),
        news_s=rng.choice([0.1, 1.0, 6.0]),
        jumps=chance(0.2, 0.3),
        rebalance_s=every(2.0),
        death_s=every(5.0),
        freeze_s=every(5.0),
        stop_s=every(8.0, 0.3),
        outage_s=every(10.0, 0.3),
        retention_s=every(3.0, 1.0 if overtakes else 0.4),
        activation_s=every(5.0, 0.5),
        overtakes=overtakes,
    )
