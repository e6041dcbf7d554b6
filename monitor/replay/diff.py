"""Two sides over the same windows: alerts gained, lost and moved, and the alert rate of each side.

A side is a model version (or the versions that decided live) together with alert parameters.
Input: the `SideResults` of both sides. Output: a `Difference`. Invariants:

- An alert belongs to one episode (`compare.group_episodes`) and is counted under exactly one of same, moved, gained and
  lost. The other side had no alert open during a gained or a lost one. The difference of (A, B) mirrors that of (B, A).
- *moved* means a change that an operator notices: another opening, firing or closing time, another severity, a split
  or a merge. A different peak score alone is not a move, since no two versions give equal scores. It is shown.
- An episode counts when any of its alerts opened in the compared range. All alerts of a counted episode count, so the
  alerts of each side are the sum of its same, moved, and gained or lost ones.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.budget import WEEK_S
from monitor.evaluation.compare import AlertSpan, group_episodes
from monitor.evaluation.policy import PolicyChange
from monitor.store.queries import iso, number
from monitor.store.results import FIRST_US
from monitor.stream.alerting import AlertPolicy
from monitor.types import AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.config import FleetConfig
    from monitor.types import AlertChange, Contribution, Int64, Scores

LIVE = "live"
HELP = 'write a version, "champion", "live", alert parameters like "confirm=5 of 8, recover=12", or a version and those'
_POLICY = re.compile(r".*=.*|\d+\s*(of|/)\s*\d+|.*\s.*")


@dataclass(frozen=True, slots=True)
class Side:
    """A model version and alert parameters."""

    version: str | None = None
    """It scores all windows of its fleet. `champion`: today's champion of each fleet. None = the live versions."""
    change: PolicyChange = field(default_factory=PolicyChange)

    @classmethod
    def parse(cls, text: str) -> Side:
        """Read a side (see HELP). Raises ValueError with the accepted forms."""
        words = [word.strip() for word in text.split(",")]
        versions = [word for word in words if not _POLICY.fullmatch(word)]
        if not all(words) or len(versions) > 1:
            raise ValueError(f'"{text}" is no side; {HELP}')
        policy = ",".join(word for word in words if word not in versions)
        version = versions[0] if versions and versions[0] != LIVE else None
        return cls(version, PolicyChange.parse(policy) if policy else PolicyChange())

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.version, str(self.change)))) or LIVE


# ---------------------------------------------------------------- results of one side


@dataclass(frozen=True, slots=True)
class SideAlert:
    """An alert as it stood at the end of the replay."""

    asset: str
    opened_us: int
    """End of its first anomalous window."""
    fired_us: int
    """End of the window that confirmed it, which is when notifications are sent."""
    closed_us: int | None
    """None = still open."""
    severity: Severity
    peak_score: float
    n_anomalous: int
    contributions: tuple[Contribution, ...]
    version: str

    @property
    def span(self) -> AlertSpan:
        """Its opening, firing and closing time."""
        return AlertSpan(self.asset, self.opened_us, self.fired_us, self.closed_us)

    def row(self) -> dict[str, Any]:
        """Return it with the keys of `monitor alerts list --json`."""
        return {
            "opened_at": iso(self.opened_us),
            "fired_at": iso(self.fired_us),
            "closed_at": iso(self.closed_us),
            "severity": str(self.severity),
            "peak_score": number(self.peak_score),
            "n_anomalous": self.n_anomalous,
            "sensors": [asdict(sensor) for sensor in self.contributions],
            "version": self.version,
        }


@dataclass(slots=True)
class SideResults:
    """Alerts, assets and number of scored windows of one side, by fleet."""

    from_us: int = FIRST_US
    """Windows that end up to here belong to the run-up. They are not counted."""
    alerts: defaultdict[str, dict[tuple[str, int], SideAlert]] = field(default_factory=lambda: defaultdict(dict))
    """By fleet, then by asset and opening time. Alerts of the run-up are included: an episode may begin with one."""
    assets: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    scored: Counter[str] = field(default_factory=Counter)
    """Windows after the run-up that have a score."""
    why_unscored: dict[str, str] = field(default_factory=dict)
    """By fleet, the latest reason for an unscored window."""

    def add(self, names: Sequence[str], scores: Scores, end_us: Int64, changes: Iterable[AlertChange]) -> None:
        """Add the scores of a batch of windows and the alert changes decided by them.

        `names` are the shard's assets by index. `end_us` is [N], the ends of the windows.
        """
        fleet, is_counted = scores.windows.fleet, end_us > self.from_us
        self.scored[fleet] += int(np.count_nonzero(is_counted & ~np.isnan(scores.score)))
        self.assets[fleet].update(names[asset] for asset in np.unique(scores.windows.asset[is_counted]).tolist())
        if scores.unscored_reason is not None and is_counted.any():
            self.why_unscored[fleet] = scores.unscored_reason
        alerts = self.alerts[fleet]
        for change in changes:
            key = (names[change.asset], change.opened_us)
            alerts[key] = SideAlert(
                asset=names[change.asset],
                opened_us=change.opened_us,
                fired_us=alerts[key].fired_us if key in alerts else change.at_us,
                closed_us=change.at_us if change.state is AlertState.CLOSED else None,
                severity=change.severity,
                peak_score=change.peak_score,
                n_anomalous=change.n_anomalous,
                contributions=change.contributions,
                version=change.version,
            )


# ---------------------------------------------------------------- differences


@dataclass(frozen=True, slots=True)
class EpisodeDiff:
    """One episode on one asset, with the alerts of both sides."""

    what: str
    """same, moved, gained or lost"""
    fleet: str
    asset: str
    before: tuple[SideAlert, ...]
    """The first side's alerts in order of opening. Several, where the other side has fewer and longer ones."""
    after: tuple[SideAlert, ...]
    """The second side's."""

    @property
    def opened_by_s(self) -> float | None:
        """Delay of the second side's opening in seconds. None = one side has no alert."""
        return _delay_s(self.before, self.after, "opened_us")

    @property
    def fired_by_s(self) -> float | None:
        """Delay of the second side's first notification in seconds. None = one side has no alert."""
        return _delay_s(self.before, self.after, "fired_us")

    @property
    def closed_by_s(self) -> float | None:
        """Delay of the second side's last closing in seconds. None also where a side's last alert is still open."""
        return _delay_s(self.before[-1:], self.after[-1:], "closed_us")

    def row(self) -> dict[str, Any]:
        """Return it with the keys of `--json`."""
        return {
            "what": self.what,
            "fleet": self.fleet,
            "asset": self.asset,
            "opened_by_s": self.opened_by_s,
            "fired_by_s": self.fired_by_s,
            "closed_by_s": self.closed_by_s,
            "before": [alert.row() for alert in self.before],
            "after": [alert.row() for alert in self.after],
        }


@dataclass(frozen=True, slots=True)
class SideSummary:
    """Alert parameters and alert rate of one side in one fleet."""

    confirm: str
    recover: int
    alerts: int
    critical: int
    windows: int
    """Scored windows."""
    asset_weeks: float
    """Scored time."""
    per_asset_week: float | None
    """None = no window has a score."""
    unscored: str | None
    """Reason for unscored windows. None = every window has a score."""


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """Both sides in one fleet."""

    fleet: str
    assets: int
    before: SideSummary
    after: SideSummary
    same: int
    """Alerts that are equal on both sides."""
    moved: int
    """Episodes that moved."""
    moved_before: int
    """Alerts of the first side in episodes that moved."""
    moved_after: int
    """Alerts of the second side in episodes that moved."""
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The second side against the first."""

    before: Side
    after: Side
    fleets: tuple[FleetSummary, ...]
    """Fleets with at least one window."""
    episodes: tuple[EpisodeDiff, ...]
    """All episodes, in order of their first opening."""

    def document(self) -> dict[str, Any]:
        """Return it with the keys of `--json`."""
        return {
            "before": str(self.before),
            "after": str(self.after),
            "fleets": [asdict(each) for each in self.fleets],
            "alerts": [episode.row() for episode in self.episodes],
        }


def compare_alerts(
    fleet: str, before: Iterable[SideAlert], after: Iterable[SideAlert], from_us: int = FIRST_US
) -> list[EpisodeDiff]:
    """Classify the episodes of one fleet, leaving out those in which no alert opened after `from_us`."""
    found = []
    for ours, theirs in group_episodes(before, after):
        if any(alert.opened_us > from_us for alert in (*ours, *theirs)):
            what = "gained" if not ours else "lost" if not theirs else "same" if _is_same(ours, theirs) else "moved"
            found.append(EpisodeDiff(what, fleet, (ours or theirs)[0].asset, tuple(ours), tuple(theirs)))
    return found


def difference(
    sides: tuple[Side, Side], results: tuple[SideResults, SideResults], fleets: Sequence[FleetConfig]
) -> Difference:
    """Compare the results of two sides, fleet by fleet. Fleets without a window are left out."""
    before, after = results
    everything, summaries = [], []
    for fleet in fleets:
        if before.assets[fleet.name] or after.assets[fleet.name]:
            ours, theirs = (side.alerts[fleet.name].values() for side in results)
            episodes = compare_alerts(fleet.name, ours, theirs, before.from_us)
            everything += episodes
            summaries.append(_fleet_summary(fleet, sides, results, episodes))
    return Difference(*sides, tuple(summaries), tuple(sorted(everything, key=_sort_key)))


def _fleet_summary(
    fleet: FleetConfig,
    sides: tuple[Side, Side],
    results: tuple[SideResults, SideResults],
    episodes: Sequence[EpisodeDiff],
) -> FleetSummary:
    before, after = results
    by_kind = {kind: [each for each in episodes if each.what == kind] for kind in ("same", "moved", "gained", "lost")}
    return FleetSummary(
        fleet=fleet.name,
        assets=len(before.assets[fleet.name] | after.assets[fleet.name]),
        before=_side_summary(fleet, sides[0], before, [alert for each in episodes for alert in each.before]),
        after=_side_summary(fleet, sides[1], after, [alert for each in episodes for alert in each.after]),
        same=len(by_kind["same"]),
        moved=len(by_kind["moved"]),
        moved_before=sum(len(each.before) for each in by_kind["moved"]),
        moved_after=sum(len(each.after) for each in by_kind["moved"]),
        gained=sum(len(each.after) for each in by_kind["gained"]),
        lost=sum(len(each.before) for each in by_kind["lost"]),
    )


def _side_summary(fleet: FleetConfig, side: Side, results: SideResults, alerts: Sequence[SideAlert]) -> SideSummary:
    policy = side.change.apply_to(AlertPolicy.of(fleet.alerts))
    windows = results.scored[fleet.name]
    asset_weeks = windows * fleet.stride * fleet.interval.total_seconds() / WEEK_S
    return SideSummary(
        confirm=f"{policy.confirm} of {policy.among}",
        recover=policy.recover,
        alerts=len(alerts),
        critical=sum(alert.severity is Severity.CRITICAL for alert in alerts),
        windows=windows,
        asset_weeks=round(asset_weeks, 6),
        per_asset_week=round(len(alerts) / asset_weeks, 6) if asset_weeks else None,
        unscored=results.why_unscored.get(fleet.name),
    )


def _is_same(ours: Sequence[SideAlert], theirs: Sequence[SideAlert]) -> bool:
    return [(a.opened_us, a.fired_us, a.closed_us, a.severity) for a in ours] == [
        (a.opened_us, a.fired_us, a.closed_us, a.severity) for a in theirs
    ]


def _sort_key(episode: EpisodeDiff) -> tuple[int, str, str]:
    return min(alert.opened_us for alert in (*episode.before, *episode.after)), episode.fleet, episode.asset


def _delay_s(before: Sequence[SideAlert], after: Sequence[SideAlert], moment: str) -> float | None:
    if not before or not after:
        return None
    before_us, after_us = getattr(before[0], moment), getattr(after[0], moment)
    return None if before_us is None or after_us is None else (after_us - before_us) / 1e6
