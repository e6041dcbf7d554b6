"""The gate: decides without labels whether a new version, the challenger, may take the champion's place.

Input: both versions, recent windows of the fleet, and its last confirmed faults.
Output: a verdict with its numbers, and the reason in one sentence (`verdict.py`).
Invariant: pure, seeded and bounded (`recent.MAX_WINDOWS`, `fault_trial.N_FAULTS`). The challenger is judged by the
weights that would decide. No label of the data is needed; labels that operators gave are used.

    budget    the alerts that it would raise on recent windows without an alert do not prove (95 %, Poisson) that the
              false-alarm budget is broken, at most a tenth of these windows is anomalous, and its threshold is the one
              that its own held-out scores give
    faults    of the same injected faults it finds no fewer than the champion, beyond a margin
    memory    each of the last confirmed faults that the champion finds in its kept evidence is found
    events    alerts without a label that lasted, which a training leaves out, still alarm
    history   it learnt from most of the history that there is, and from no less than a tenth of the champion's
    latency   it is not several times slower than the champion, where its time matters
    schema    sensors, interval and length of windows are those of the fleet

Two kinds of evidence for the budget. The threshold comes from forward folds: scores of windows by members that had not
seen them (`training/auto.py`). That is out of sample, and says nothing of the final weights, which are solved again on
all windows. So the final weights score the recent windows, too. They have seen most of them, which hides a little
overfitting, and no broken model: one of shuffled sensors, of another machine or with another threshold alarms there.
Leaving the newest windows out of the final fit would show overfitting as well, and would cost every version the days
that are most like those to come. In shadow, nothing was seen by either version.

After a real change the champion alarms all the time. Where the recent windows prove that it breaks its budget, or it
alarms in a time that was accepted as normal, its recall is no measure, and the challenger must find
`gate_checks.MIN_RECALL` of the faults by itself. While the champion keeps its budget, an alert on the clean copy still
takes the fault from it.

A threshold moves by a tenth or two from night to night, and with it the recall of faults that are just large enough.
The budget decides where it stands, so recall is compared at equal headroom: the champion's threshold is raised to stand
as far above its scores of recent normal windows as the challenger's above its own. A loss by the threshold alone is
refused where it is certain and beyond `gate_checks.THRESHOLD_MARGIN`.

Without a champion there are the checks budget, history and schema, and only the schema decides.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from monitor.lifecycle.gate_checks import (
    Limits,
    check_budget,
    check_events,
    check_faults,
    check_history,
    check_latency,
    check_memory,
    check_schema,
)
from monitor.lifecycle.recent import Projection, Recent
from monitor.lifecycle.verdict import Check, Verdict, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.lifecycle.recent import ProjectedAlert, Version
    from monitor.models.spec import TrainingSet
    from monitor.types import ConfirmedFault

__all__ = ["Limits", "judge"]


def judge(
    challenger: Version,
    champion: Version | None,
    windows: TrainingSet,
    faults: Sequence[ConfirmedFault],
    limits: Limits,
    *,
    at: datetime | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Verdict:
    """Judge a challenger. None as champion: the fleet's first version.

    `windows`: of the training, or in shadow those since then. Their columns are `limits.sensors`. `faults`: the last
    confirmed ones. Raises nothing for a bad challenger: that is a verdict.
    """
    started = now()
    schema = check_schema(challenger, limits, windows)
    if not schema.passed:
        return _verdict([schema], challenger, champion, None, compared((), ()), at, now() - started)
    versions = [challenger] if champion is None else [challenger, champion]
    recent = Recent.of(windows, limits.sensors, limits.interval_s).fitting(versions)
    own = Projection.of(recent, challenger, limits.budget)
    of_champion = None if champion is None else Projection.of(recent, champion, limits.budget)
    checks = [
        check_budget(challenger, own, of_champion), check_history(challenger, champion, len(windows), of_champion)
    ]  # fmt: skip
    if champion is not None and of_champion is not None:
        checks += [
            check_faults(challenger, champion, recent, own, of_champion, limits),
            check_memory(challenger, champion, faults, limits),
            check_events(challenger, recent, own, of_champion),
            check_latency(challenger, champion, recent, limits),
        ]
    checks.append(schema)
    alerts = compared(own.alerts, () if of_champion is None else of_champion.alerts)
    return _verdict(checks, challenger, champion, recent, alerts, at, now() - started)


def _verdict(
    checks: Sequence[Check],
    challenger: Version,
    champion: Version | None,
    recent: Recent | None,
    alerts: dict[str, int],
    at: datetime | None,
    took_s: float,
) -> Verdict:
    """Return the verdict. `recent`: None = the schema does not fit, so nothing was scored."""
    is_first = champion is None and recent is not None
    passed = is_first or all(check.passed for check in checks)
    series = () if recent is None else recent.series
    return Verdict(
        passed=passed,
        why=reason(passed, checks, is_first=is_first),
        checks=tuple(checks),
        at=at or datetime.now(UTC),
        challenger=challenger.version,
        champion=None if champion is None else champion.version,
        from_us=min((each.from_us for each in series), default=0),
        to_us=max((int(each.end_us[-1]) for each in series), default=0),
        n_windows=0 if recent is None else recent.n_windows,
        n_assets=len(series),
        alerts=alerts,
        took_s=took_s,
    )


def compared(own: Sequence[ProjectedAlert], of_champion: Sequence[ProjectedAlert]) -> dict[str, int]:
    """Return the numbers of alerts that overlap one of the other version's on the same asset, and of the others."""

    def meets(one: ProjectedAlert, others: Sequence[ProjectedAlert]) -> bool:
        return any(
            one.asset == other.asset and one.opened_us <= other.until_us and other.opened_us <= one.until_us
            for other in others
        )

    same = sum(meets(each, of_champion) for each in own)
    lost = sum(not meets(each, own) for each in of_champion)
    return {"same": same, "gained": len(own) - same, "lost": lost}
