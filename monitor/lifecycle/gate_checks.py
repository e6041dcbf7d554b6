"""The checks of the gate.

Input: versions, recent windows, and the alerts that the versions would raise on them. Output: a `Check` each.
Invariant: each check can be read alone, and its sentence names its numbers. `gate.py` says why there are these.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.lifecycle.event_memory import remember_events
from monitor.lifecycle.fault_memory import remember
from monitor.lifecycle.fault_trial import MIN_FAULTS, FaultTrial, loss_of
from monitor.lifecycle.recent import windows_at
from monitor.lifecycle.verdict import Check, count, figure, rounded
from monitor.models.card import learnt_until_us
from monitor.models.spec import budget_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.budget import Budget
    from monitor.config import FleetConfig
    from monitor.lifecycle.fault_memory import RememberedFault
    from monitor.lifecycle.recent import Projection, Recent, Version
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool, ConfirmedFault

MAX_THRESHOLD_RATIO = 1.5
"""Largest ratio of the threshold to the one that the held-out scores give, either way. It is 1 where nobody changed the
version since its training."""
MIN_RECALL = 0.05
"""Share of the injected faults that a challenger finds at least, where the champion is no measure."""
THRESHOLD_MARGIN = 0.15
"""Share of the champion's recall, besides the margin, whose loss must be certain (95 %) to refuse a challenger that is
as good at equal headroom: the budget may need a higher threshold than the champion's history showed."""
YOUNG = 0.25
"""Share of the challenger's held-out time below which the champion's threshold is a first guess. Then only a certain
loss of recall refuses, beyond twice the `THRESHOLD_MARGIN`: a fleet must get past the model of its first day."""
GROUP_MARGIN = 0.15
"""Loss of recall for one kind of fault or one sensor, besides the margin of all, that must be certain to refuse."""
MIN_GROUP = 20
"""Faults of a kind or a sensor that are compared on their own."""
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


def check_schema(challenger: Version, limits: Limits, windows: TrainingSet) -> Check:
    """Check that the version fits the configuration of the fleet."""
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


def check_budget(challenger: Version, own: Projection, of_champion: Projection | None) -> Check:
    """Check the alerts on recent windows, and that the threshold is the calibrated one."""
    threshold, ratio = challenger.card.threshold, challenger.threshold_ratio()
    alerts = f"{count(own.n_alerts, 'alert')} in {figure(own.weeks)} recent normal asset-weeks"
    problems = []
    if own.alarms_all_the_time:
        problems.append(f"it would call {own.anomalous_share:.0%} of the recent normal windows anomalous")
    elif own.breaks_budget:
        problems.append(
            f"it would raise {alerts}, at least {figure(own.low_per_week)} a week (95 %) where the budget is "
            f"{figure(own.per_week)}"
        )
    if ratio is not None and not 1 / MAX_THRESHOLD_RATIO <= ratio <= MAX_THRESHOLD_RATIO:
        problems.append(f"its threshold is {ratio:.2g} times the one that its own held-out scores give")
    numbers = {
        "n_alerts": own.n_alerts,
        "weeks": rounded(own.weeks),
        "per_week": rounded(own.per_week),
        "low_per_week": rounded(own.low_per_week),
        "high_per_week": rounded(own.high_per_week) if math.isfinite(own.high_per_week) else None,
        "anomalous_share": rounded(own.anomalous_share),
        "accepted_share": rounded(own.accepted_share),
        "champion_alerts": None if of_champion is None else of_champion.n_alerts,
        "champion_share": None if of_champion is None else rounded(of_champion.anomalous_share),
        "threshold_ratio": None if ratio is None else rounded(ratio),
        "held_out_alerts": threshold.n_episodes,
        "held_out_weeks": threshold.weeks,
    }
    return Check("budget", not problems, " and ".join(problems) or alerts, numbers)


def check_history(
    challenger: Version, champion: Version | None, n_there: int, of_champion: Projection | None
) -> Check:
    """Check that it learnt from enough. `n_there`: windows of the history, or in shadow those since the training."""
    n_learnt = int(challenger.card.training.get("n_windows", 0))
    weeks = challenger.card.threshold.weeks
    champion_weeks = None if champion is None else champion.card.threshold.weeks
    problem = ""
    if n_learnt < MIN_SHARE_OF_HISTORY * n_there:
        problem = f"it was trained on {n_learnt:,} windows, and the history has {n_there:,}"
    elif (
        champion_weeks is not None
        and weeks < MIN_SHARE_OF_CHAMPION * champion_weeks
        and (of_champion is None or not of_champion.is_refuted)
    ):
        problem = (
            f"it was tested on {figure(weeks)} asset-weeks, and the champion on {figure(champion_weeks)}: wait for "
            "more history, or promote it by hand"
        )
    numbers = {"n_windows": n_learnt, "n_there": n_there, "weeks": weeks, "champion_weeks": champion_weeks}
    return Check("history", not problem, problem or f"trained on {n_learnt:,} windows", numbers)


def check_faults(
    challenger: Version, champion: Version, recent: Recent, own_alerts: Projection, champion_alerts: Projection,
    limits: Limits,
) -> Check:  # fmt: skip
    """Compare the injected faults that both versions find."""
    trial = FaultTrial.draw(recent, limits.budget, champion, limits.seed)
    n = len(trial.faults)
    numbers: dict[str, Any] = {"n": n, "margin": limits.recall_margin, "compared": False}
    if n < MIN_FAULTS:
        why = "not judged: recent readings have too few stretches without an alert, or no sensor that moves"
        return Check("faults", True, why, numbers)
    by_challenger, by_champion = trial.run(challenger), trial.run(champion)
    own, of_champion = by_challenger.found(), by_champion.found()
    own_normal, champion_normal = own_alerts.normal_score, champion_alerts.normal_score
    headroom = min(1.0, own_normal / champion_normal) if champion_normal > 0 else 1.0
    matched = by_champion.found(headroom)
    recall, champion_recall = float(own.mean()), float(of_champion.mean())
    compared = not champion_alerts.is_refuted
    loss, actual = loss_of(matched, own), loss_of(of_champion, own)
    numbers |= {
        "compared": compared,
        "recall": rounded(recall),
        "champion_recall": rounded(champion_recall),
        "normal_score": rounded(own_normal),
        "champion_normal_score": rounded(champion_normal),
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
    if not compared and recall < MIN_RECALL:
        return Check("faults", False, f"it would find only {found}", numbers)
    if not compared:
        where = "breaks its budget" if champion_alerts.breaks_budget else "alarms in the time accepted as normal"
        why = f"{found}; the champion is no measure, because it {where}"
        return Check("faults", True, why, numbers)
    by_threshold = THRESHOLD_MARGIN * champion_recall
    is_young = champion.card.threshold.weeks < YOUNG * challenger.card.threshold.weeks
    is_worse = actual.low > limits.recall_margin + (2 * by_threshold if is_young else by_threshold)
    if is_worse or (loss.mean > limits.recall_margin and not is_young):
        why = f"it would find {found}, and the champion {champion_recall:.0%}"
        return Check("faults", False, why, numbers)
    worst = _worst_group(trial, own, of_champion, limits.recall_margin)
    if worst is not None:
        name, recall, champion_recall = worst
        why = f"it would find {recall:.0%} of the injected faults {name}, and the champion {champion_recall:.0%}"
        return Check("faults", False, why, numbers)
    return Check("faults", True, f"{found}, the champion {champion_recall:.0%}", numbers)


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


def check_memory(
    challenger: Version, champion: Version, faults: Sequence[ConfirmedFault], limits: Limits
) -> Check:
    """Check that the confirmed faults are still found."""
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


def check_events(challenger: Version, recent: Recent, own: Projection, of_champion: Projection) -> Check:
    """Check that events without a label, which it must not have learnt, still alarm."""
    until_us = learnt_until_us(challenger.card)
    found = [] if until_us is None else remember_events(recent, own.scores, of_champion.scores, until_us)
    judged, lost = [each for each in found if each.is_judged], [each for each in found if each.is_lost]
    numbers = {
        "n": len(found), "n_judged": len(judged), "n_lost": len(lost), "events": [each.to_json() for each in found]
    }  # fmt: skip
    if lost:
        worst = min(lost, key=lambda each: each.challenger)
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        label = "it" if worst.alert is None else f"alert {worst.alert}"
        why = (
            f"it takes {worst.name}, which nobody has labelled, as normal ({worst.challenger:.0%} of its windows "
            f"anomalous where the champion has {worst.champion:.0%}){more}: label {label} normal if it was"
        )
        return Check("events", False, why, numbers)
    if not judged:
        return Check("events", True, "no alert without a label has lasted", numbers)
    return Check("events", True, f"it finds {count(len(judged), 'event')} without a label", numbers)


def check_latency(challenger: Version, champion: Version, recent: Recent, limits: Limits) -> Check:
    """Compare the time per window, on the same windows in the same process."""
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
        version.score(windows, names, end_us=series.end_us[-N_TIMED:], share_normal=False)
        times.append(time.perf_counter() - started)
    return min(times) / max(1, len(windows)) * 1e6


def _z(chance: float) -> float:
    """Return the quantile of the normal distribution that is passed with a chance, by bisection."""
    low, high = 0.0, 10.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) / 2 > chance else (low, middle)
    return high
