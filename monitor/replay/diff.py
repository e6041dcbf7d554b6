"""Two sides over the same windows: alerts gained, lost and moved, and how often each side would have fired.

A side is who decides (a version, or those that decided live) and by which alert parameters. In: what each side said,
in a `Ledger`. Out: a `Difference`. The laws:

- An alert belongs to one episode (`compare.episodes`), and so stands under exactly one of same, moved, gained, lost:
  gained and lost are alerts during which the other side said nothing. The difference of (A, B) mirrors that of (B, A).
- *moved* is what an operator notices: opened, fired or closed at another time, of another severity, or split or merged.
  A peak alone moves nothing: no two versions ever score alike. It is shown.
- What a side said is every alert of the episodes that count, and an episode counts when any alert of it opened in the
  stretch: so each side's alerts are the sum of its same, moved, and gained or lost.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.evaluation.assess import WEEK_S
from monitor.evaluation.compare import AlertSpan, episodes
from monitor.evaluation.policy import PolicyChange
from monitor.store.queries import iso, number
from monitor.store.results import FIRST_US
from monitor.stream.shard import alert_policy
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
    """Who decides, and by which alert parameters."""

    version: str | None = None
    """This one its fleet; `champion`: today's everything; None = those that decided live."""
    change: PolicyChange = field(default_factory=PolicyChange)

    @classmethod
    def parse(cls, text: str) -> Side:
        """Read "turbines-1a2b", "confirm=5 of 8", "live", or "turbines-1a2b, confirm=5 of 8".

        Raises ValueError with what to write.
        """
        words = [word.strip() for word in text.split(",")]
        versions = [word for word in words if not _POLICY.fullmatch(word)]
        if not all(words) or len(versions) > 1:
            raise ValueError(f'"{text}" is no side; {HELP}')
        policy = ",".join(word for word in words if word not in versions)
        version = versions[0] if versions and versions[0] != LIVE else None
        return cls(version, PolicyChange.parse(policy) if policy else PolicyChange())

    @property
    def decider(self) -> str:
        """Who decides, in a word."""
        return self.version or LIVE

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.version, str(self.change)))) or LIVE


# ---------------------------------------------------------------- what a side said


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as it stood when the stretch ended."""

    asset: str
    opened_us: int
    """End of its first anomalous window."""
    fired_us: int
    """End of the window that confirmed it: nobody heard of it before."""
    closed_us: int | None
    """None = still open."""
    severity: Severity
    peak_score: float
    n_anomalous: int
    contributions: tuple[Contribution, ...]
    version: str

    @property
    def span(self) -> AlertSpan:
        """Its time alone."""
        return AlertSpan(self.asset, self.opened_us, self.fired_us, self.closed_us)

    def row(self) -> dict[str, Any]:
        """Return it as `monitor alerts list --json` names things."""
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
class Ledger:
    """All that one side said, by fleet."""

    from_us: int = FIRST_US
    """Windows up to here are its run-up: they count nowhere."""
    alerts: defaultdict[str, dict[tuple[str, int], Alert]] = field(default_factory=lambda: defaultdict(dict))
    assets: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    scored: Counter[str] = field(default_factory=Counter)
    """Windows of the stretch that have a score."""
    why_unscored: dict[str, str] = field(default_factory=dict)
    """As said last."""

    def take(self, names: Sequence[str], scores: Scores, end_us: Int64, changes: Iterable[AlertChange]) -> None:
        """Enter a batch of windows and what became of it. `names`: the lane's assets; `end_us`: [N], window ends."""
        fleet, inside = scores.windows.fleet, end_us > self.from_us
        self.scored[fleet] += int(np.count_nonzero(inside & ~np.isnan(scores.score)))
        self.assets[fleet].update(names[asset] for asset in np.unique(scores.windows.asset[inside]).tolist())
        if scores.unscored_reason is not None and inside.any():
            self.why_unscored[fleet] = scores.unscored_reason
        mine = self.alerts[fleet]
        for change in changes:
            name = (names[change.asset], change.opened_us)
            mine[name] = Alert(
                asset=names[change.asset],
                opened_us=change.opened_us,
                fired_us=mine[name].fired_us if name in mine else change.at_us,
                closed_us=change.at_us if change.state is AlertState.CLOSED else None,
                severity=change.severity,
                peak_score=change.peak_score,
                n_anomalous=change.n_anomalous,
                contributions=change.contributions,
                version=change.version,
            )


# ---------------------------------------------------------------- what differs


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode on one asset, as either side told it."""

    what: str
    """same, moved, gained, lost"""
    fleet: str
    asset: str
    before: tuple[Alert, ...]
    """In order; several: the other side told them as one, or a chain of them."""
    after: tuple[Alert, ...]

    @property
    def opened_by_s(self) -> float | None:
        """How much later the second side opened; None = one side said nothing."""
        return _later(self.before, self.after, "opened_us")

    @property
    def fired_by_s(self) -> float | None:
        """How much later somebody would have heard of it."""
        return _later(self.before, self.after, "fired_us")

    @property
    def closed_by_s(self) -> float | None:
        """How much later it was over; None where a side's last alert is still open too."""
        return _later(self.before[-1:], self.after[-1:], "closed_us")

    def row(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
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
class SideSum:
    """How often one side would have fired in one fleet."""

    confirm: str
    recover: int
    alerts: int
    critical: int
    windows: int
    """Scored ones."""
    asset_weeks: float
    """Scored time."""
    per_asset_week: float | None
    """None = nothing is scored."""
    unscored: str | None
    """Why windows have no score, if any has none."""


@dataclass(frozen=True, slots=True)
class FleetSum:
    """One fleet, both sides."""

    fleet: str
    assets: int
    before: SideSum
    after: SideSum
    same: int
    """Alerts that are alike on both sides."""
    moved: int
    """Episodes told otherwise …"""
    moved_before: int
    """… and the alerts in them, on each side."""
    moved_after: int
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second side would have done otherwise than the first."""

    before: Side
    after: Side
    fleets: tuple[FleetSum, ...]
    """Those with any window."""
    outcomes: tuple[Outcome, ...]
    """Every episode, in order of its first opening."""

    def document(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
        return {
            "before": str(self.before),
            "after": str(self.after),
            "fleets": [asdict(each) for each in self.fleets],
            "alerts": [outcome.row() for outcome in self.outcomes],
        }


def outcomes(fleet: str, before: Iterable[Alert], after: Iterable[Alert], from_us: int = FIRST_US) -> list[Outcome]:
    """Tell apart what two sides said of one fleet; episodes that began up to `from_us` are left out."""
    found = []
    for ours, theirs in episodes(before, after):
        if any(alert.opened_us > from_us for alert in (*ours, *theirs)):
            what = "gained" if not ours else "lost" if not theirs else "same" if _alike(ours, theirs) else "moved"
            found.append(Outcome(what, fleet, (ours or theirs)[0].asset, tuple(ours), tuple(theirs)))
    return found


def difference(sides: tuple[Side, Side], ledgers: tuple[Ledger, Ledger], fleets: Sequence[FleetConfig]) -> Difference:
    """Hold two ledgers against each other."""
    before, after = ledgers
    everything, sums = [], []
    for fleet in fleets:
        if not (before.assets[fleet.name] or after.assets[fleet.name]):
            continue
        found = outcomes(
            fleet.name, before.alerts[fleet.name].values(), after.alerts[fleet.name].values(), before.from_us
        )
        everything += found
        n = Counter(outcome.what for outcome in found)
        moved = [outcome for outcome in found if outcome.what == "moved"]
        told = [[alert for outcome in found for alert in getattr(outcome, side)] for side in ("before", "after")]
        sums.append(
            FleetSum(
                fleet=fleet.name,
                assets=len(before.assets[fleet.name] | after.assets[fleet.name]),
                before=_sum(fleet, sides[0], before, told[0]),
                after=_sum(fleet, sides[1], after, told[1]),
                same=n["same"],
                moved=len(moved),
                moved_before=sum(len(outcome.before) for outcome in moved),
                moved_after=sum(len(outcome.after) for outcome in moved),
                gained=sum(len(outcome.after) for outcome in found if outcome.what == "gained"),
                lost=sum(len(outcome.before) for outcome in found if outcome.what == "lost"),
            )
        )
    return Difference(*sides, tuple(sums), tuple(sorted(everything, key=_when)))


def _alike(ours: Sequence[Alert], theirs: Sequence[Alert]) -> bool:
    return [(a.opened_us, a.fired_us, a.closed_us, a.severity) for a in ours] == [
        (a.opened_us, a.fired_us, a.closed_us, a.severity) for a in theirs
    ]


def _sum(fleet: FleetConfig, side: Side, ledger: Ledger, told: Sequence[Alert]) -> SideSum:
    policy = side.change.on(alert_policy(fleet.alerts))
    windows = ledger.scored[fleet.name]
    asset_weeks = windows * fleet.stride * fleet.interval.total_seconds() / WEEK_S
    return SideSum(
        confirm=f"{policy.confirm} of {policy.among}",
        recover=policy.recover,
        alerts=len(told),
        critical=sum(alert.severity is Severity.CRITICAL for alert in told),
        windows=windows,
        asset_weeks=round(asset_weeks, 6),
        per_asset_week=round(len(told) / asset_weeks, 6) if asset_weeks else None,
        unscored=ledger.why_unscored.get(fleet.name),
    )


def _when(outcome: Outcome) -> tuple[int, str, str]:
    return min(alert.opened_us for alert in (*outcome.before, *outcome.after)), outcome.fleet, outcome.asset


def _later(before: Sequence[Alert], after: Sequence[Alert], moment: str) -> float | None:
    if not before or not after:
        return None
    was_us, is_us = getattr(before[0], moment), getattr(after[0], moment)
    return None if was_us is None or is_us is None else (is_us - was_us) / 1e6
