"""Two sides in one river: the records are read, decoded and cut into windows once, and decided twice.

In: two sides, and the second one's scorer where other versions decide there. Out: a ledger for each side. The laws: the
first side is the replay itself, with its database and its digest, and knows nothing of the second, whose decisions are
saved nowhere; where one version decides on both sides a window is scored once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from monitor.replay.diff import Difference, Ledger, Side, difference
from monitor.store.results import FIRST_US
from monitor.stream.alerting import Decider
from monitor.stream.shard import alert_policy
from monitor.types import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import Config, FleetConfig
    from monitor.stream.score import Scorer
    from monitor.stream.shard import Lane
    from monitor.types import AlertChange, Int64, Windows


class Twin:
    """Two sides and what each of them says."""

    def __init__(self, before: Side, after: Side, from_us: int = FIRST_US) -> None:
        self.sides = (before, after)
        self.ledgers = (Ledger(from_us), Ledger(from_us))
        self._other: Scorer | None = None
        self._rescored: frozenset[str] = frozenset()
        self._fleets: dict[str, FleetConfig] = {}

    @property
    def is_of_versions(self) -> bool:
        """Whether the sides name versions, so that a registry is needed."""
        return any(side.version is not None for side in self.sides)

    def memory(self, config: Config) -> int:
        """How many windows back the longer-minded side looks."""
        return max(side.change.on(alert_policy(fleet.alerts)).memory for side in self.sides for fleet in config.fleets)

    def lend(self, other: Scorer, fleets: frozenset[str]) -> None:
        """Give the second side a scorer for the fleets where other versions decide."""
        self._other, self._rescored = other, fleets

    def scorer(self, own: Scorer, other: Scorer | None) -> Scorer:
        """Return a scorer for both."""
        return _TwinScorer(own, other, self._rescored)

    @property
    def other(self) -> Scorer | None:
        """The second side's scorer; None = the first one's scores are its own."""
        return self._other

    def watch(self, lane: Lane) -> None:
        """Let both sides decide in a lane that has just begun."""
        self._fleets[lane.config.name] = lane.config
        lane.decider = _TwinDecider(lane, self)

    def difference(self) -> Difference:
        """Hold the sides against each other."""
        return difference(self.sides, self.ledgers, list(self._fleets.values()))


@dataclass(frozen=True, slots=True)
class _TwinScores(Scores):
    """The first side's, with the second side's beside them."""

    other: Scores = field(kw_only=True)


class _TwinScorer:
    def __init__(self, own: Scorer, other: Scorer | None, fleets: frozenset[str]) -> None:
        self._own = own
        self._other = other
        self._fleets = fleets

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        own = other = await self._own.score(windows, end_us, sensors)
        if self._other is not None and windows.fleet in self._fleets:
            other = await self._other.score(windows, end_us, sensors)
        return _TwinScores(**{each.name: getattr(own, each.name) for each in fields(own)}, other=other)


class _TwinDecider(Decider):
    """The first side's decider, which lets the second side's decide too."""

    def __init__(self, lane: Lane, twin: Twin) -> None:
        base = alert_policy(lane.config.alerts)
        own, other = (side.change.on(base) for side in twin.sides)
        super().__init__(lane.config.name, own)
        self._other = Decider(lane.config.name, other)
        self._names = lane.assets.names
        self._ledgers = twin.ledgers

    def decide(self, scores: Scores, end_us: Int64) -> list[AlertChange]:
        """Decide twice; return what the first side says."""
        others = scores.other if isinstance(scores, _TwinScores) else scores
        said = super().decide(scores, end_us)
        self._ledgers[0].take(self._names, scores, end_us, said)
        self._ledgers[1].take(self._names, others, end_us, self._other.decide(others, end_us))
        return said
