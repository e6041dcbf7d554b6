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
    history   it learnt from most of the history that there is, and from no less than a tenth of the champion's
    latency   it is not several times slower than the champion, where its time matters
    schema    sensors, interval and length of windows are those of the fleet

Two kinds of evidence for the budget. The threshold comes from forward folds: scores of windows by members that had not
seen them (`training/auto.py`). That is out of sample, and says nothing of the final weights, which are solved again on
all windows. So the final weights score the recent windows, too. They have seen most of them, which hides a little
overfitting, and no broken model: one of shuffled sensors, of another machine or with another threshold alarms there.
Leaving the newest windows out of the final fit would show overfitting as well, and would cost every version the days
that are most like those to come. In shadow, nothing was seen by either version.

After a real change the champion alarms all the time. Then it finds no injected fault, because an alert on the clean
copy counts as none, and its promise is broken already: nothing is compared with it, and the challenger must find
`MIN_RECALL` of the faults by itself.

A threshold moves by a tenth or two from night to night, and with it the recall of faults that are just large enough.
The budget decides where it stands, so recall is compared at equal headroom: the champion's threshold is raised to stand
as far above its scores of recent normal windows as the challenger's above its own. A loss by the threshold alone is
refused where it is certain and beyond `THRESHOLD_MARGIN`.

Without a champion there are the checks budget, history and schema, and only the schema decides.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.budget import lower_bound, upper_bound
from monitor.lifecycle.fault_memory import remember
from monitor.lifecycle.fault_trial import MIN_FAULTS, FaultTrial, loss_of
from monitor.lifecycle.recent import Recent, windows_at
from monitor.lifecycle.verdict import Check, Verdict, count, figure, reason, rounded
from monitor.models.spec import budget_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.budget import Budget
    from monitor.config import FleetConfig
    from monitor.lifecycle.fault_memory import RememberedFault
    from monitor.lifecycle.recent import ProjectedAlert, Version
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool, ConfirmedFault, Float32

MAX_ANOMALOUS_SHARE = 0.1
"""Largest share of anomalous recent windows. With more, few alerts mean that they do not end."""
MAX_THRESHOLD_RATIO = 1.5
"""Largest ratio of the threshold to the one that the held-out scores give, either way. It is 1 where nobody changed the
version since its training."""
MIN_RECALL = 0.15
"""Share of the injected faults that a challenger finds at least, whatever the champion finds."""
THRESHOLD_MARGIN = 0.15
"""Loss of recall, besides the margin, that must be certain to refuse a challenger that is as good as the champion at
equal headroom: the budget may need a higher threshold than the champion's history showed."""
NORMAL_QUANTILE = 0.995
"""Quantile of the scores of normal windows from which the headroom of a threshold is measured."""
GROUP_MARGIN = 0.15
"""Loss of recall for one kind of fault or one sensor, besides the margin of all, that must be certain to refuse."""
MIN_GROUP = 20
"""Faults of a kind or a sensor that are compared on their own."""
MIN_CHAMPION_CLEAN = 0.5
"""Share of the clean copies on which the champion must be silent for its recall to be compared with."""
MIN_SHARE_OF_HISTORY = 0.25
"""Share of the windows of the history that a challenger learnt from at least."""
MIN_SHARE_OF_CHAMPION = 0.1
"""Share of the champion's held-out time that a challenger's is at least, unless the champion breaks its budget."""
LATENCY_FACTOR = 3.0
"""Time per window, as a multiple of the champion's."""
MAX_LOAD = 0.1
"""Share of one core that scoring the whole fleet may take before a slower challenger is refused."""
N_TIMED, N_ROUNDS = 256, 5
"""Windows in a measurement of latency, and rounds: the fastest counts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Configuration of a fleet that a challenger must fit, and the margins of the gate."""

    sensors: tuple[str, ...]
    """Of the columns of the windows."""
    interval_s: float
    budget: Budget
    length: int | None = None
    """Cells of a window. None = the training chooses it."""
    stride: int = 1
    """Cells between two windows."""
    recall_margin: float = 0.05
    """Share of the injected faults that a challenger may find fewer than the champion."""
    seed: int = 0
    """Of the injected faults."""

    @classmethod
    def of(cls, fleet: FleetConfig, sensors: tuple[str, ...]) -> Limits:
        """Read a fleet's configuration, with the length of its windows. `sensors`: those of its readings."""
        return cls(
            sensors=sensors,
            interval_s=fleet.interval.total_seconds(),
            budget=budget_of(fleet),
            length=fleet.length,
            stride=fleet.stride,
            recall_margin=fleet.retrain.recall_margin,
        )


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
    schema = _check_schema(challenger, limits, windows)
    if not schema.passed:
        return _verdict([schema], challenger, champion, None, [], at, now() - started)
    versions = [challenger] if champion is None else [challenger, champion]
    recent = Recent.of(windows, limits.sensors, limits.interval_s).fitting(versions)
    scores = [recent.scores(version) for version in versions]
    alerts = [recent.alerts(each, limits.budget) for each in scores]
    budget = _check_budget(challenger, recent, scores, alerts, limits)
    checks = [budget, _check_history(challenger, champion, windows, recent, scores)]
    if champion is not None:
        checks += [
            _check_faults(challenger, champion, recent, scores, limits),
            _check_memory(challenger, champion, faults, limits),
            _check_latency(challenger, champion, recent, limits),
        ]
    checks.append(schema)
    return _verdict(checks, challenger, champion, recent, alerts, at, now() - started)


def _verdict(
    checks: Sequence[Check],
    challenger: Version,
    champion: Version | None,
    recent: Recent | None,
    alerts: Sequence[Sequence[ProjectedAlert]],
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
        alerts=_compared(alerts) if alerts else {"same": 0, "gained": 0, "lost": 0},
        took_s=took_s,
    )


# ---------------------------------------------------------------- the checks


def _check_schema(challenger: Version, limits: Limits, windows: TrainingSet) -> Check:
    problems = []
    if set(challenger.sensors) != set(limits.sensors):
        lacking = sorted(set(limits.sensors) - set(challenger.sensors))
        foreign = sorted(set(challenger.sensors) - set(limits.sensors))
        parts = [f"lacks the sensors {', '.join(lacking)}"] * bool(lacking)
        parts += [f"has sensors that the fleet lacks: {', '.join(foreign)}"] * bool(foreign)
        problems.append(f"it {' and '.join(parts)}")
    if not math.isclose(challenger.card.interval_s, limits.interval_s):
        problems.append(
            f"its interval is {challenger.card.interval_s:g} s, and the fleet's is {limits.interval_s:g} s"
        )
    if limits.length is not None and challenger.card.length != limits.length:
        problems.append(f"its windows have {challenger.card.length} cells, and the fleet's have {limits.length}")
    if not len(windows):
        problems.append("there are no recent windows to judge it by")
    return Check(
        "schema", not problems, "; ".join(problems) or "sensors, interval and window are those of the fleet"
    )


def _check_budget(
    challenger: Version,
    recent: Recent,
    scores: Sequence[Sequence[Float32]],
    alerts: Sequence[Sequence[ProjectedAlert]],
    limits: Limits,
) -> Check:
    n_alerts, share = _n_counted(recent, alerts[0]), _anomalous_share(recent, scores[0])
    weeks, per_week = recent.weeks(limits.budget.step_s), limits.budget.alarms_per_week
    low, high = lower_bound(n_alerts, weeks), upper_bound(n_alerts, weeks)
    calibrated = challenger.calibrated_again()
    ratio = None if calibrated is None else challenger.card.threshold.raw / calibrated.raw
    own = challenger.card.threshold
    problems = []
    if share > MAX_ANOMALOUS_SHARE:
        problems.append(f"it would call {share:.0%} of the recent normal windows anomalous")
    elif low > per_week:
        problems.append(
            f"it would raise {count(n_alerts, 'alert')} in {figure(weeks)} recent normal asset-weeks, at least "
            f"{figure(low)} a week (95 %) where the budget is {figure(per_week)}"
        )
    if ratio is not None and not 1 / MAX_THRESHOLD_RATIO <= ratio <= MAX_THRESHOLD_RATIO:
        problems.append(f"its threshold is {ratio:.2g} times the one that its own held-out scores give")
    good = f"{count(n_alerts, 'alert')} in {figure(weeks)} recent normal asset-weeks"
    return Check(
        "budget",
        not problems,
        " and ".join(problems) or good,
        {
            "n_alerts": n_alerts,
            "weeks": rounded(weeks),
            "per_week": rounded(per_week),
            "low_per_week": rounded(low),
            "high_per_week": rounded(high) if math.isfinite(high) else None,
            "anomalous_share": rounded(share),
            "champion_alerts": _n_counted(recent, alerts[1]) if len(alerts) > 1 else None,
            "champion_share": rounded(_anomalous_share(recent, scores[1])) if len(scores) > 1 else None,
            "threshold_ratio": None if ratio is None else rounded(ratio),
            "held_out_alerts": own.n_episodes,
            "held_out_weeks": own.weeks,
        },
    )


def _check_history(
    challenger: Version,
    champion: Version | None,
    windows: TrainingSet,
    recent: Recent,
    scores: Sequence[Sequence[Float32]],
) -> Check:
    n_learnt = int(challenger.card.training.get("n_windows", 0))
    weeks = challenger.card.threshold.weeks
    of_champion = None if champion is None else champion.card.threshold.weeks
    problem = ""
    if n_learnt < MIN_SHARE_OF_HISTORY * len(windows):
        problem = (
            f"it was trained on {n_learnt:,} windows, and the history has {len(windows):,}: it does not know what is "
            "usual"
        )
    elif of_champion is not None and weeks < MIN_SHARE_OF_CHAMPION * of_champion:
        share = _anomalous_share(recent, scores[1])
        if share <= MAX_ANOMALOUS_SHARE:
            problem = (
                f"it was tested on {figure(weeks)} asset-weeks, and the champion on {figure(of_champion)}: wait for "
                "more history, or promote it by hand"
            )
    return Check(
        "history",
        not problem,
        problem or f"trained on {n_learnt:,} windows",
        {
            "n_windows": n_learnt,
            "n_there": len(windows),
            "weeks": weeks,
            "champion_weeks": of_champion,
        },
    )


def _check_faults(
    challenger: Version, champion: Version, recent: Recent, scores: Sequence[Sequence[Float32]], limits: Limits
) -> Check:
    trial = FaultTrial.draw(recent, limits.budget, champion, limits.seed)
    n = len(trial.faults)
    numbers: dict[str, Any] = {"n": n, "margin": limits.recall_margin, "compared": False}
    if n < MIN_FAULTS:
        why = "not judged: recent readings have too few stretches without an alert, or no sensor that moves"
        return Check("faults", True, why, numbers)
    by_challenger, by_champion = trial.run(challenger), trial.run(champion)
    own, of_champion, noisy = by_challenger.found(), by_champion.found(), by_champion.is_noisy()
    headroom = _headroom(recent, scores)
    matched = by_champion.found(headroom)
    recall, champion_recall = float(own.mean()), float(of_champion.mean())
    compared = bool((~noisy).mean() >= MIN_CHAMPION_CLEAN)
    loss, actual = loss_of(matched, own), loss_of(of_champion, own)
    numbers |= {
        "compared": compared,
        "recall": rounded(recall),
        "champion_recall": rounded(champion_recall),
        "headroom": rounded(headroom),
        "matched_recall": rounded(float(matched.mean())),
        "actual_loss": rounded(actual.mean),
        "actual_low": rounded(actual.low),
        "loss": rounded(loss.mean),
        "loss_low": rounded(loss.low),
        "loss_high": rounded(loss.high),
        "by_kind": _by_group(own, of_champion, [each.fault.kind for each in trial.faults]),
        "by_sensor": _by_group(own, of_champion, [recent.sensors[each.fault.sensor] for each in trial.faults]),
    }
    found = f"{recall:.0%} of {n} injected faults"
    if recall < MIN_RECALL:
        return Check("faults", False, f"it would find only {found}", numbers)
    if not compared:
        share = f"{noisy.mean():.0%}"
        why = f"{found}; the champion alarms on {share} of the same stretches without a fault, so it is no measure"
        return Check("faults", True, why, numbers)
    if loss.mean > limits.recall_margin or actual.low > limits.recall_margin + THRESHOLD_MARGIN:
        why = f"it would find {found}, and the champion {champion_recall:.0%}"
        return Check("faults", False, why, numbers)
    worst = _worst_group(trial, own, of_champion, limits.recall_margin)
    if worst is not None:
        name, recall, champion_recall = worst
        why = f"it would find {recall:.0%} of the injected faults {name}, and the champion {champion_recall:.0%}"
        return Check("faults", False, why, numbers)
    return Check("faults", True, f"{found}, the champion {champion_recall:.0%}", numbers)


def _headroom(recent: Recent, scores: Sequence[Sequence[Float32]]) -> float:
    """Return the factor, at most 1, of the champion's scores that gives it the challenger's headroom.

    Its threshold then stands as far above its scores of recent normal windows as the challenger's above its own.
    """
    high = []
    for each in scores:
        usual = np.concatenate([own[one.counted] for own, one in zip(each, recent.series, strict=True)])
        usual = usual[np.isfinite(usual)]
        high.append(float(np.quantile(usual, NORMAL_QUANTILE)) if len(usual) else 0.0)
    own, of_champion = high
    return min(1.0, own / of_champion) if of_champion > 0 else 1.0


def _worst_group(
    trial: FaultTrial, own: Bool, of_champion: Bool, margin: float
) -> tuple[str, float, float] | None:
    """Return the kind or sensor whose loss of recall is certain (5 % for all together) and beyond the margins."""
    labels = [
        (f"of kind {kind}", np.array([each.fault.kind == kind for each in trial.faults]))
        for kind in dict.fromkeys(each.fault.kind for each in trial.faults)
    ] + [
        (f"of {trial.recent.sensors[sensor]}", np.array([each.fault.sensor == sensor for each in trial.faults]))
        for sensor in dict.fromkeys(each.fault.sensor for each in trial.faults)
    ]
    groups = [(name, rows) for name, rows in labels if rows.sum() >= MIN_GROUP]
    z = _z(0.05 / max(1, len(groups)))
    found = [(loss_of(of_champion[rows], own[rows], z), name, rows) for name, rows in groups]
    beyond = [each for each in found if each[0].low > margin + GROUP_MARGIN]
    if not beyond:
        return None
    _, name, rows = max(beyond, key=lambda each: each[0].mean)
    return name, float(own[rows].mean()), float(of_champion[rows].mean())


def _by_group(own: Bool, of_champion: Bool, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in dict.fromkeys(names):
        rows = np.array([each == name for each in names])
        found[name] = {
            "n": int(rows.sum()),
            "recall": rounded(float(own[rows].mean())),
            "champion_recall": rounded(float(of_champion[rows].mean())),
        }
    return found


def _check_memory(
    challenger: Version, champion: Version, faults: Sequence[ConfirmedFault], limits: Limits
) -> Check:
    found = remember(
        faults, challenger, champion, interval_us=round(limits.interval_s * 1e6), stride=limits.stride
    )
    lost = [each for each in found if each.is_lost]
    judged = [each for each in found if each.challenger is not None and (each.champion or 0.0) >= 1.0]
    numbers = {
        "n": len(found), "n_judged": len(judged), "n_lost": len(lost), "faults": [each.to_json() for each in found]
    }  # fmt: skip
    if lost:
        return Check("memory", False, _lost(lost), numbers)
    if not found:
        return Check("memory", True, "no fault was confirmed yet", numbers)
    all_of = f"{count(len(judged), 'confirmed fault')}"
    rest = len(found) - len(judged)
    why = f"it finds {'the' if len(judged) == 1 else 'all'} {all_of}" if judged else "no fault could be judged"
    return Check("memory", True, why + (f"; {rest} could not be judged" if rest and judged else ""), numbers)


def _lost(lost: Sequence[RememberedFault]) -> str:
    worst = min(lost, key=lambda each: each.challenger or 0.0)
    more = f", and {len(lost) - 1} more confirmed {'fault' if len(lost) == 2 else 'faults'}" if len(lost) > 1 else ""
    score = math.floor(100 * (worst.challenger or 0.0)) / 100  # a score below 1 must not read as 1
    return f"it would miss {worst.name} (score {score:g}){more}"


def _check_latency(challenger: Version, champion: Version, recent: Recent, limits: Limits) -> Check:
    own, of_champion = _us_per_window(challenger, recent), _us_per_window(champion, recent)
    own, of_champion = min(own, _us_per_window(challenger, recent)), min(of_champion, _us_per_window(champion, recent))
    load = own * recent.n_assets / (limits.budget.step_s * 1e6)
    numbers = {
        "us_per_window": rounded(own), "champion_us_per_window": rounded(of_champion), "load": rounded(load)
    }  # fmt: skip
    times = f"{own:.0f} µs a window where the champion takes {of_champion:.0f} µs"
    if own > LATENCY_FACTOR * of_champion and load > MAX_LOAD:
        return Check("latency", False, f"it takes {times}, and the whole fleet {load:.0%} of a core", numbers)
    return Check("latency", True, times, numbers)


def _us_per_window(version: Version, recent: Recent) -> float:
    series = max(recent.series, key=lambda each: len(each.end), default=None)
    if series is None:
        return 0.0
    windows = windows_at(version, recent.sensors, series.values, series.end[-N_TIMED:])
    names = [series.asset] * len(windows) if isinstance(series.asset, str) else None
    times = []
    for _ in range(N_ROUNDS):
        started = time.perf_counter()
        version.score(windows, names, share_normal=False)
        times.append(time.perf_counter() - started)
    return min(times) / max(1, len(windows)) * 1e6


# ---------------------------------------------------------------- alerts on the recent windows


def _n_counted(recent: Recent, alerts: Sequence[ProjectedAlert]) -> int:
    return sum(recent.is_counted(alert) for alert in alerts)


def _anomalous_share(recent: Recent, scores: Sequence[Float32]) -> float:
    """Return the share of anomalous windows among the scored ones that overlap no alert. 0 = there are none."""
    parts = [own[series.counted] for own, series in zip(scores, recent.series, strict=True)]
    every = np.concatenate(parts) if parts else np.empty(0, np.float32)
    every = every[np.isfinite(every)]
    return float((every >= 1.0).mean()) if len(every) else 0.0


def _compared(alerts: Sequence[Sequence[ProjectedAlert]]) -> dict[str, int]:
    """Return the numbers of alerts that overlap one of the other version's on the same asset, and of the others."""
    if len(alerts) < 2:
        return {"same": 0, "gained": len(alerts[0]), "lost": 0}
    own, of_champion = alerts

    def meets(one: ProjectedAlert, others: Sequence[ProjectedAlert]) -> bool:
        return any(
            one.asset == other.asset and one.opened_us <= other.until_us and other.opened_us <= one.until_us
            for other in others
        )

    same = sum(meets(each, of_champion) for each in own)
    return {
        "same": same,
        "gained": len(own) - same,
        "lost": sum(not meets(each, own) for each in of_champion),
    }


def _z(chance: float) -> float:
    """Return the quantile of the normal distribution that is passed with a chance, by bisection."""
    low, high = 0.0, 10.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) / 2 > chance else (low, middle)
    return high
