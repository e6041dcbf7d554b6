"""Alert transitions from scores.

Input: scores, in order of event time per asset. Output: alert changes. Invariant: pure and driven by event time alone,
so a replay gives the same alerts as live.

States of an asset's alert: `pending → firing → recovering → closed`.

- *pending*: an anomalous window, but not yet `m` among the asset's last `n` scored windows (`confirm = "m of n"`).
- *firing*: the m-th anomalous window. The alert opens, dated back to the end of the first anomalous window among
  those n.
- *recovering*: a normal window. An anomalous one makes the alert fire again.
- *closed*: `recover` normal windows in a row.

An alert is critical if its peak is, or if it lasts: `LONG_US` after it opened, with `LONG_WINDOWS` anomalous windows. A
severity never falls. Both rules use only the alert itself, so a restart continues with them.

Unscored windows are no evidence: they neither confirm nor recover. Peak score and sensors count from the window that
fired. The state is a function of an asset's last `n` or `recover` scored verdicts and its open alert, so a restart
restores it from the database (`Decider.restore`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.types import AlertChange, AlertState, Contribution, Scores, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.config.tree import AlertConfig
    from monitor.types import Bool, Float32, Int32, Int64

CRITICAL_SCORE = 3.0
"""Peak score from which an alert is critical: three times the threshold is more than a misplaced threshold explains."""

LONG_US = 86_400_000_000
"""Time after its opening from which an alert is critical, however small: a day gives every shift a chance to end it."""
LONG_WINDOWS = 10
"""Anomalous windows that it needs besides: of long windows with large strides a day has only a few."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Numbers of verdicts that open and close an alert."""

    confirm: int
    """m anomalous windows …"""
    among: int
    """… among the last n scored ones."""
    recover: int
    """Normal scored windows in a row that close it."""

    @classmethod
    def of(cls, alerts: AlertConfig) -> AlertPolicy:
        """Read the alert rules of a fleet's configuration."""
        return cls(alerts.confirm.m, alerts.confirm.n, alerts.recover)

    @property
    def memory(self) -> int:
        """Number of an asset's last scored verdicts on which the decision depends."""
        return max(self.among, self.recover)

    def fires(self, score: Float32) -> Bool:
        """Return the mask [K] of the sequences of scores [K, N] in which an alert fires. NaN = unscored.

        Tells of many sequences what `Decider` does, without their alerts: the gate asks it of thousands.
        """
        scored = ~np.isnan(score)
        is_anomalous = scored & (score >= 1.0)
        if not scored.all():  # the scored ones first, in their order
            is_anomalous = np.take_along_axis(is_anomalous, np.argsort(~scored, axis=1, kind="stable"), axis=1)
        count = is_anomalous.cumsum(axis=1)
        count[:, self.among :] -= count[:, : -self.among].copy()
        return np.asarray((is_anomalous & (count >= self.confirm)).any(axis=1), np.bool_)


@dataclass(frozen=True, slots=True)
class PastVerdict:
    """Verdict of a scored window, as it is stored in the database."""

    end_us: int
    is_anomalous: bool


class Decider:
    """Alert state of one shard. Assets without a recent anomaly and without an open alert cost no memory."""

    def __init__(self, fleet: str, policy: AlertPolicy) -> None:
        self.fleet = fleet
        self.policy = policy
        self._episodes: dict[int, _Episode] = {}

    def decide(self, scores: Scores, end_us: Int64) -> list[AlertChange]:
        """Return the alert changes of these windows, per asset in event order. `end_us`: [N], window ends."""
        scored = ~np.isnan(scores.score)
        is_anomalous = scored & (scores.score >= 1.0)
        rows = self._relevant_rows(scores.windows.asset, scored, is_anomalous)
        changes: list[AlertChange] = []
        last_of: dict[int, int] = {}
        for row in rows.tolist():
            asset = int(scores.windows.asset[row])
            episode = self._episodes.get(asset)
            if episode is None:
                episode = self._episodes[asset] = _Episode(deque(maxlen=self.policy.memory))
            verdict = PastVerdict(int(end_us[row]), bool(is_anomalous[row]))
            change = self._advance(episode, asset, verdict, scores, row)
            if episode.is_over:
                del self._episodes[asset]
            if change is None:
                continue
            last = last_of.get(asset)
            if last is not None and not (change.is_transition or changes[last].is_transition):
                changes[last] = change  # of several updates in one batch the last has all the figures
            else:
                last_of[asset] = len(changes)
                changes.append(change)
        return changes

    def set_clearing(self, asset: int, opened_us: int, clearing: tuple[str, ...]) -> None:
        """Store the clearing sensors of an alert, if it is still open. Its later changes have them, too."""
        episode = self._episodes.get(asset)
        if episode is not None and episode.alert is not None and episode.alert.opened_us == opened_us:
            episode.alert = replace(episode.alert, clearing=clearing)

    def recent(self, assets: Int32) -> dict[int, list[int]]:
        """Return the last verdicts of those of these assets with a recent anomaly: end_us * 2 + is_anomalous."""
        return {
            asset: [past.end_us * 2 + past.is_anomalous for past in self._episodes[asset].recent]
            for asset in (set(assets.tolist()) & self._episodes.keys() if self._episodes else ())
        }

    def restore(
        self, asset: int, recent: Iterable[PastVerdict], open_alert: AlertChange | None, closed_us: int | None
    ) -> None:
        """Load the state of an asset from the database.

        `recent`: its last scored verdicts, oldest first. `closed_us`: end time of its last closed alert.
        """
        episode = _Episode(deque(recent, maxlen=self.policy.memory), open_alert)
        if closed_us is not None:
            episode.closed_us = closed_us
        if not episode.is_over:
            self._episodes[asset] = episode

    def _relevant_rows(self, asset: Int32, scored: Bool, is_anomalous: Bool) -> Int64:
        """Return the rows that can change a state: scored windows of assets with a recent anomaly or with a new one."""
        anomalous = np.union1d(asset[is_anomalous], np.fromiter(self._episodes, dtype=np.int64))
        if not len(anomalous):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(scored & np.isin(asset, anomalous)).astype(np.int64)

    def _advance(
        self, episode: _Episode, asset: int, verdict: PastVerdict, scores: Scores, row: int
    ) -> AlertChange | None:
        episode.recent.append(verdict)
        if episode.alert is None:
            if verdict.is_anomalous and episode.n_anomalous(self.policy.among) >= self.policy.confirm:
                episode.alert = self._fire(episode, asset, verdict, scores, row)
            return episode.alert
        episode.alert = change = self._follow(episode.alert, episode, verdict, scores, row)
        if change.state is AlertState.CLOSED:
            episode.alert = None
        # One more normal window does not change a recovering alert.
        return change if change.is_transition or verdict.is_anomalous else None

    def _fire(self, episode: _Episode, asset: int, verdict: PastVerdict, scores: Scores, row: int) -> AlertChange:
        evidence = [past for past in episode.last(self.policy.among) if past.is_anomalous]
        evidence = [past for past in evidence if past.end_us > episode.closed_us]
        peak, found = float(scores.score[row]), scores.contributions.get(row, ())
        opened_us, lasted_us = evidence[0].end_us, verdict.end_us - evidence[0].end_us
        return AlertChange(
            fleet=self.fleet,
            asset=asset,
            opened_us=opened_us,
            at_us=verdict.end_us,
            state=AlertState.FIRING,
            severity=severity_of(peak, lasted_us, len(evidence)),
            peak_score=peak,
            peak_us=verdict.end_us,
            n_anomalous=len(evidence),
            contributions=found,
            version=scores.version[row] or "",
            onset=found,
        )

    def _follow(
        self, alert: AlertChange, episode: _Episode, verdict: PastVerdict, scores: Scores, row: int
    ) -> AlertChange:
        if not verdict.is_anomalous:
            closes = episode.n_normal_in_a_row() >= self.policy.recover
            state = AlertState.CLOSED if closes else AlertState.RECOVERING
            if closes:
                episode.closed_us = verdict.end_us
            return replace(alert, at_us=verdict.end_us, state=state, is_transition=state is not alert.state)
        peak, n_anomalous = float(scores.score[row]), alert.n_anomalous + 1
        severity = severity_of(max(peak, alert.peak_score), verdict.end_us - alert.opened_us, n_anomalous)
        alert = replace(
            alert,
            at_us=verdict.end_us,
            state=AlertState.FIRING,
            # An alert that an earlier release or a longer rule made critical stays so.
            severity=max(severity, alert.severity, key=list(Severity).index),
            n_anomalous=n_anomalous,
            is_transition=alert.state is not AlertState.FIRING,
        )
        if peak <= alert.peak_score:
            return alert
        found: tuple[Contribution, ...] = scores.contributions.get(row, ())
        return replace(alert, peak_score=peak, peak_us=verdict.end_us, contributions=found)


@dataclass(slots=True)
class _Episode:
    """Recent verdicts of one asset and its open alert."""

    recent: deque[PastVerdict]
    alert: AlertChange | None = None
    closed_us: int = -(1 << 62)
    """End of the window that closed the last alert. Older evidence has fired already."""

    @property
    def is_over(self) -> bool:
        return self.alert is None and not any(past.is_anomalous for past in self.recent)

    def last(self, n: int) -> list[PastVerdict]:
        return list(self.recent)[-n:]

    def n_anomalous(self, among: int) -> int:
        return sum(past.is_anomalous for past in self.last(among))

    def n_normal_in_a_row(self) -> int:
        count = 0
        for past in reversed(self.recent):
            if past.is_anomalous:
                break
            count += 1
        return count


def severity_of(peak_score: float, lasted_us: int, n_anomalous: int) -> Severity:
    """Return the severity of an alert. `lasted_us`: event time from its opening to its last anomalous window."""
    is_long = lasted_us >= LONG_US and n_anomalous >= LONG_WINDOWS
    return Severity.CRITICAL if is_long or peak_score >= CRITICAL_SCORE else Severity.WARNING
