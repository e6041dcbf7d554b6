"""Two sides in one pipeline: the records are read, decoded and cut into windows once, and decided twice.

Input: two sides, and a scorer for the second one where other versions decide there. Output: `SideResults` of each.
Invariants: the first side is the replay itself. Its database and its digest do not depend on the second side, whose
decisions are not stored. Where one version decides on both sides, a window is scored once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from monitor.replay.diff import Difference, Side, SideResults, difference
from monitor.store.results import FIRST_US
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import Config, FleetConfig
    from monitor.decode import AssetIndex
    from monitor.stream.score import Scorer
    from monitor.types import AlertChange, Int64, Windows


class SideBySide:
    """Two sides and their results."""

    def __init__(self, before: Side, after: Side, from_us: int = FIRST_US) -> None:
        self.sides = (before, after)
        self.results = (SideResults(from_us), SideResults(from_us))
        self._second_scorer: Scorer | None = None
        self._rescored: frozenset[str] = frozenset()
        self._fleets: dict[str, FleetConfig] = {}

    @property
    def needs_versions(self) -> bool:
        """True if a side names a version, so that a model registry is needed."""
        return any(side.version is not None for side in self.sides)

    def memory(self, config: Config) -> int:
        """Return the number of windows that the alert policy with the longer memory looks back over."""
        policies = [
            side.change.apply_to(AlertPolicy.of(fleet.alerts)) for side in self.sides for fleet in config.fleets
        ]
        return max(policy.memory for policy in policies)

    def score_second_with(self, scorer: Scorer, fleets: frozenset[str]) -> None:
        """Set the second side's scorer for the fleets where other versions decide."""
        self._second_scorer, self._rescored = scorer, fleets

    @property
    def second_scorer(self) -> Scorer | None:
        """The second side's scorer. None = it decides by the first side's scores."""
        return self._second_scorer

    def paired_scorer(self, first: Scorer, second: Scorer | None) -> Scorer:
        """Return a scorer that scores for both sides."""
        return _PairedScorer(first, second, self._rescored)

    def make_decider(self, fleet: FleetConfig, assets: AssetIndex) -> Decider:
        """Make the decider of a new shard, for both sides. `assets`: the names of the shard's assets."""
        self._fleets[fleet.name] = fleet
        return _PairedDecider(fleet, assets, self)

    def difference(self) -> Difference:
        """Compare the results of the two sides."""
        return difference(self.sides, self.results, list(self._fleets.values()))


@dataclass(frozen=True, slots=True)
class _PairedScores(Scores):
    """The first side's scores together with the second side's."""

    second: Scores = field(kw_only=True)


class _PairedScorer:
    def __init__(self, first: Scorer, second: Scorer | None, fleets: frozenset[str]) -> None:
        self._first = first
        self._second = second
        self._fleets = fleets

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        first = second = await self._first.score(windows, end_us, sensors)
        if self._second is not None and windows.fleet in self._fleets:
            second = await self._second.score(windows, end_us, sensors)
        return _PairedScores(**{each.name: getattr(first, each.name) for each in fields(first)}, second=second)


class _PairedDecider(Decider):
    """The first side's decider. It runs the second side's decider on the same windows."""

    def __init__(self, fleet: FleetConfig, assets: AssetIndex, side_by_side: SideBySide) -> None:
        base = AlertPolicy.of(fleet.alerts)
        first, second = (side.change.apply_to(base) for side in side_by_side.sides)
        super().__init__(fleet.name, first)
        self._second = Decider(fleet.name, second)
        self._assets = assets
        self._results = side_by_side.results

    def decide(self, scores: Scores, end_us: Int64) -> list[AlertChange]:
        """Decide for both sides and return the first side's alert changes."""
        second_scores = scores.second if isinstance(scores, _PairedScores) else scores
        changes = super().decide(scores, end_us)
        self._results[0].add(self._assets.names, scores, end_us, changes)
        self._results[1].add(self._assets.names, second_scores, end_us, self._second.decide(second_scores, end_us))
        return changes
