"""The gate: broken challengers are refused, good ones pass, with and without a real change, and no label is used.

Broken challengers are trained on faults, on shuffled sensors or on 5 % of the data, or have a threshold off by three.
`MONITOR_QUALITY=full` takes ten kinds of machines with the default ensemble instead of a few with the PCA, about ten
minutes. `-s` shows the table. Seeds from 5000 on are for reports: limits were chosen with seeds 1000 and 1001.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.lifecycle.gate import Limits, judge
from monitor.models.detector import TrainedModel
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit
from tests.quality.machines import DAY, KINDS, WEEK, machine

if TYPE_CHECKING:
    from monitor.lifecycle.verdict import Verdict
    from monitor.types import Float32

IS_FULL = os.environ.get("MONITOR_QUALITY") == "full"
SPEC = ModelSpec("auto" if IS_FULL else "pca")
CASES = [(kind, 5000 + n) for n in range(1) for kind in KINDS] if IS_FULL else [
    ("seasonal", 5002), ("duty cycles", 5003)
]  # fmt: skip
LENGTH, STEP_US = 64, 600_000_000
HISTORY = 4 * WEEK
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=600.0)
POISONS = ("faults", "shuffled", "5 %", "threshold × 3", "threshold ÷ 3")


def windows(readings: Float32, first: int, last: int) -> TrainingSet:
    """Return the windows within the rows [first, last)."""
    cut = np.lib.stride_tricks.sliding_window_view(readings[first:last], LENGTH, axis=0).transpose(0, 2, 1)
    end_us = (np.arange(len(cut)) + first + LENGTH) * STEP_US
    return TrainingSet(cut, np.zeros(len(cut), np.int32), end_us, None, ("m",))


def sensors(readings: Float32) -> tuple[str, ...]:
    return tuple(f"s{number}" for number in range(readings.shape[1]))


def trained(history: TrainingSet) -> TrainedModel:
    names = tuple(f"s{number}" for number in range(history.values.shape[2]))
    return fit(history, SPEC, FleetSpec("f", names, 600.0, BUDGET))


def verdict(challenger: TrainedModel, champion: TrainedModel, recent: TrainingSet) -> Verdict:
    return judge(challenger, champion, recent, [], Limits(challenger.sensors, 600.0, BUDGET, LENGTH))


def with_threshold(model: TrainedModel, factor: float) -> TrainedModel:
    threshold = replace(model.card.threshold, raw=model.card.threshold.raw * factor)
    card = replace(model.card, threshold=threshold)
    return TrainedModel(card, model.members, model.scaler, model.device, held_out=model.held_out)


def faulty(readings: Float32, first: int, last: int, draw: np.random.Generator) -> Float32:
    """Return readings in which two sensors have a fault in 40 % of the time."""
    out, n = readings.copy(), int(0.4 * (last - first))
    begin = last - n - int(draw.integers(0, 2 * DAY))
    for sensor in draw.choice(readings.shape[1], 2, replace=False):
        spread, late = readings[first:last, sensor].std(), out[begin : begin + n, sensor]
        match draw.choice(("bias", "noise", "stuck")):
            case "bias":
                late += np.float32(draw.choice((-1, 1)) * 3 * spread)
            case "noise":
                late += (draw.standard_normal(n) * 2 * spread).astype(np.float32)
            case "stuck":
                late[:] = out[begin - 1, sensor]
    return out


def poisoned(name: str, good: TrainedModel, readings: Float32, first: int, last: int, seed: int) -> TrainedModel:
    draw, history = np.random.default_rng([seed, POISONS.index(name)]), windows(readings, first, last)
    match name:
        case "faults":
            return trained(windows(faulty(readings, first, last, draw), first, last))
        case "shuffled":
            shift = int(draw.integers(1, readings.shape[1]))
            return trained(replace(history, values=np.roll(history.values, shift, axis=2)))
        case "5 %":
            n = len(history) // 20
            some = slice(begin := int(draw.integers(len(history) - n)), begin + n)
            return trained(TrainingSet(history.values[some], history.asset[some], history.end_us[some], None, ("m",)))
    return with_threshold(good, 3.0 if name == "threshold × 3" else 1 / 3)


def changed(readings: Float32, draw: np.random.Generator) -> Float32:
    """Return readings that change for good after the first history: level, gain or noise of some sensors."""
    out, n_sensors = readings.copy(), readings.shape[1]
    spread, mean, late = readings[:HISTORY].std(0), readings[:HISTORY].mean(0), out[HISTORY:]
    some = draw.random(n_sensors) < 0.6
    some[draw.integers(n_sensors)] = True
    match draw.choice(("level", "level", "gain", "noise")):
        case "level":
            late += (some * draw.choice((-1, 1), n_sensors) * draw.uniform(2, 5, n_sensors) * spread).astype(np.float32)
        case "gain":
            late[:] = mean + (late - mean) * np.where(some, draw.uniform(1.5, 2.5, n_sensors), 1.0)
        case "noise":
            late += (some * draw.standard_normal(late.shape) * spread * draw.uniform(0.4, 1, n_sensors)).astype(
                np.float32
            )
    return out


@pytest.mark.timeout(7200 if IS_FULL else 300)
def test_broken_challengers_are_refused_and_good_ones_pass() -> None:
    passed: Counter[str] = Counter()
    print()
    for kind, seed in CASES:
        readings = machine(kind, seed, 5 * WEEK)
        champion = trained(windows(readings, 0, HISTORY))
        first, last = DAY, HISTORY + DAY
        recent = windows(readings, first, last)
        good = trained(recent)
        challengers = {"good": good} | {
            name: poisoned(name, good, readings, first, last, seed) for name in POISONS
        }
        for name, challenger in challengers.items():
            found = verdict(challenger, champion, recent)
            passed[name] += found.passed
            print(f"{kind:20s}{seed}  {name:15s}{found.took_s:5.1f} s  {found.why}")
    print({name: f"{passed[name]} of {len(CASES)} promoted" for name in ("good", *POISONS)})
    assert passed["good"] >= 0.9 * len(CASES)
    assert {name: passed[name] for name in POISONS} == dict.fromkeys(POISONS, 0)


@pytest.mark.timeout(7200 if IS_FULL else 300)
def test_good_challengers_pass_after_a_real_change() -> None:
    n_passed = 0
    print()
    for kind, seed in CASES:
        draw = np.random.default_rng([seed, len(kind)])
        readings = changed(machine(kind, seed, 8 * WEEK), draw)
        champion = trained(windows(readings, 0, HISTORY))
        first = int(draw.integers(14, 29)) * DAY
        recent = windows(readings, first, first + HISTORY)
        found = verdict(trained(recent), champion, recent)
        n_passed += found.passed
        print(f"{kind:20s}{seed}  {found.why}")
    assert n_passed >= 0.9 * len(CASES)
