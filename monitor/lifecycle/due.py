"""The next training of a fleet: its time, and the reason for it.

Input: the settings of `[fleet.retrain]`, and facts from the database. Output: a time and a reason, or None.
Invariant: pure. Everything it needs survives a restart, so each daemon comes to the same answer. A training that ended
without a new champion, because it failed, was rejected or was rolled back, is not repeated at once: the next one is due
a whole period after its end, or after a pause that doubles with each failure.

    sooner than the schedule    no champion; other sensors than the champion's; drift; the retry of a failed training
    the schedule                `cron`: its first time after the last training. `every`: so long after its end
    later than the schedule     a challenger that is compared in shadow is decided on first
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from monitor.clock import from_us, to_us
from monitor.retry import backoff_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config.retrain import RetrainConfig
    from monitor.timing import Timing
    from monitor.types import JobView

FIRST_DRIFT_PAUSE, LONGEST_DRIFT_PAUSE = timedelta(days=1), timedelta(days=16)
"""Between two trainings for the drift of one champion, doubled after each: a challenger that was rejected would be
rejected again on the same data."""


@dataclass(frozen=True, slots=True)
class DriftFound:
    """A finding of the test for drift that no training has answered yet."""

    at: datetime
    reason: str
    """drift or regime."""
    why: str
    """One sentence."""


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Facts about a fleet that decide on its next training. Times are processing time."""

    now: datetime
    has_champion: bool
    """A champion that can be loaded."""
    champion_trained_at: datetime | None = None
    has_other_sensors: bool = False
    """The champion was trained on other sensors than the fleet has."""
    ended: Sequence[JobView] = ()
    """Trainings that are done or failed, newest first."""
    drift: DriftFound | None = None
    shadow_until: datetime | None = None
    """End of the comparison of a challenger in shadow. None = there is none."""


@dataclass(frozen=True, slots=True)
class Due:
    """A training that is due, now or later."""

    at: datetime
    reason: str
    """first, schedule, drift, regime, sensors; of a retry that of the failed training."""
    why: str
    """One sentence without a full stop."""


def next_training(retrain: RetrainConfig, facts: TrainingFacts, timing: Timing) -> Due | None:
    """Return the fleet's next training. None = none is planned."""
    if (retry := _retry(facts, timing)) is not None:
        return retry
    if not facts.has_champion:
        return Due(facts.now, "first", "the fleet has no model")
    if facts.has_other_sensors:
        return Due(facts.now, "sensors", "the fleet has other sensors than its champion")
    planned = [due for due in (_by_drift(facts), _by_schedule(retrain, facts)) if due is not None]
    return min(planned, key=lambda due: due.at, default=None)


def _retry(facts: TrainingFacts, timing: Timing) -> Due | None:
    """Return the next attempt after a failure. Failures before the champion was trained do not count."""
    since = facts.champion_trained_at
    failed = []
    for job in facts.ended:
        if job.state != "failed" or job.finished_at is None or (since is not None and job.finished_at < since):
            break
        failed.append(job)
    if not failed or failed[0].finished_at is None:
        return None
    first_s, longest_s = timing.training_retry_first_s, timing.training_retry_longest_s
    pause = timedelta(seconds=backoff_s(len(failed), first_s=first_s, longest_s=longest_s))
    why = f"attempt {len(failed) + 1} after: {failed[0].message}"
    return Due(failed[0].finished_at + pause, failed[0].reason or "schedule", why)


def _by_drift(facts: TrainingFacts) -> Due | None:
    if facts.drift is None:
        return None
    since = facts.champion_trained_at
    answered = [
        job.finished_at
        for job in facts.ended
        if job.reason in ("drift", "regime") and job.finished_at is not None
        and (since is None or job.finished_at > since)
    ]  # fmt: skip
    if not answered:
        return Due(facts.drift.at, facts.drift.reason, facts.drift.why)
    # Beyond 2⁹ days the longest pause counts anyway.
    pause = min(FIRST_DRIFT_PAUSE * 2 ** min(len(answered) - 1, 9), LONGEST_DRIFT_PAUSE)
    return Due(max(facts.drift.at, max(answered) + pause), facts.drift.reason, facts.drift.why)


def _by_schedule(retrain: RetrainConfig, facts: TrainingFacts) -> Due | None:
    ends = [facts.champion_trained_at, *(job.finished_at for job in facts.ended[:1])]
    last = max((end for end in ends if end is not None), default=None)
    if last is None:
        return None
    if retrain.cron:
        found = retrain.recurrence.next(to_us(last))
        at = None if found is None else from_us(found[0])
    else:
        at = None if retrain.every is None else last + retrain.every
    if at is None:
        return None
    if facts.shadow_until is not None:
        at = max(at, facts.shadow_until)
    return Due(at, "schedule", f"the schedule says {retrain.schedule}")
