"""The faults of a run, drawn from the seed: some runs have one kind of fault, others have all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

FAR_APART = 1e9


@dataclass
class FaultPlan:
    """Probabilities are per call, unless stated otherwise."""

    # the database
    unavailable: float = 0.0
    """StoreUnavailable, and the transaction did not happen."""
    unknown: float = 0.0
    """StoreUnavailable, although the transaction is committed."""
    overdue: float = 0.0
    """StoreUnavailable at once, and the transaction happens later: the server finishes what the client abandoned."""
    is_database_down: bool = False
    slow: float = 0.0
    """The call takes seconds."""
    dies_before: float = 0.0
    dies_after: float = 0.0
    """The process is killed just before or just after the transaction."""
    freezes_before: float = 0.0
    freezes_after: float = 0.0
    # the broker
    broker_unavailable: float = 0.0
    empty_poll: float = 0.2
    replaced: float = 0.0
    max_records: int = 10
    notice_s: float = 1.0
    """Longest time until a member notices a rebalance."""
    # the machine
    jumps: float = 0.0
    """Of the wall clock, per reading of it."""
    # events: mean seconds between two of a kind
    rebalance_s: float = FAR_APART
    death_s: float = FAR_APART
    freeze_s: float = FAR_APART
    stop_s: float = FAR_APART
    outage_s: float = FAR_APART
    retention_s: float = FAR_APART
    activation_s: float = FAR_APART
    # does not end with the other faults
    overtakes: float = 0.0
    """Probability that retention removes unread records."""

    def end_faults(self) -> None:
        """Stop all faults."""
        for each in fields(self):
            if each.name not in ("max_records", "empty_poll"):
                setattr(self, each.name, each.default)


def draw(rng: Random) -> FaultPlan:
    """Draw the faults: each is present or not, rare or frequent."""

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
        empty_poll=rng.choice([0.0, 0.2, 0.6]),
        replaced=chance(0.03, 0.2),
        max_records=rng.choice([3, 8, 20, 40]),
        notice_s=rng.choice([0.1, 1.0, 6.0]),
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
