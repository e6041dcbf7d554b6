"""False-alarm budget, promised and observed: on simulated machines, and on clean stretches of real recordings.

`MONITOR_QUALITY=full` takes 200 assets and all sets of recordings instead of the few of every build, an hour instead of
a minute. `-s` shows the tables. Labels are used to find the clean stretches of a recording, and for nothing else.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Alarm, Budget, Burn, Status, burn
from monitor.models.calibrate import Threshold, episodes
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.store.burn import FAMILIES
from monitor.stream.sensor_health import NOT_TESTED, SensorTests
from monitor.training.fit import fit
from tests.quality.live import BUDGET, DAY, LENGTH, STEP_US, WEEK, alarms, judged_times, trained, windows_of
from tests.quality.machines import FAULTS, inject, machine
from tests.quality.machines import KINDS as MACHINE_KINDS
from tests.quality.recordings import load

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.models.detector import TrainedModel

IS_FULL = os.environ.get("MONITOR_QUALITY") == "full"
N_ASSETS = {"pca": 200 if IS_FULL else 30, "auto": 12 if IS_FULL else 6}
SPECS = {"pca": ModelSpec("pca"), "auto": ModelSpec(max_steps=1000 if IS_FULL else 40)}
MAX_VIOLATED = 0.06
"""Share of the clean assets: six held-out days do not show heavy tails. Measured .060 of 200, each of which has shown
(95 %) that its threshold breaks the budget, and .03 and .015 without heavy tails."""
N_ALIKE = 12
"""Machines of a fleet. Six held-out days of each are enough to certify one alarm a week."""
N_SENSORS = 3
HISTORY, CLEAN, DRIFT = 30 * DAY, 10 * WEEK, 3 * WEEK
KINDS = ("autoregressive", "seasonal", "heavy-tailed")


# ---------------------------------------------------------------- machines


def machines(n: int, n_rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Return healthy readings [n, n_rows, C], a third of each kind, all different."""
    draw = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    memory = np.choose(kind, [draw.uniform(0.7, 0.98, n), draw.uniform(0.2, 0.8, n), draw.uniform(0.3, 0.9, n)])
    shocks = draw.standard_normal((n_rows, n, N_SENSORS + 1))
    heavy = kind == 2
    freedom = draw.uniform(3.0, 6.0, int(heavy.sum()))[:, None]
    shocks[:, heavy] = draw.standard_t(freedom, (n_rows, int(heavy.sum()), N_SENSORS + 1)) * np.sqrt(1 - 2 / freedom)
    shocks *= np.sqrt(1 - memory**2)[:, None]
    for row in range(1, n_rows):
        shocks[row] += memory[:, None] * shocks[row - 1]
    common = draw.uniform(0.5, 2.0, (n, N_SENSORS))
    readings = shocks[..., :N_SENSORS] + common * shocks[..., N_SENSORS:]
    phase = 2 * np.pi * (np.arange(n_rows) / DAY)[:, None, None] + draw.uniform(0, 2 * np.pi, (n, N_SENSORS))
    season = draw.uniform(1.0, 4.0, (n, N_SENSORS)) * (kind == 1)[:, None]
    readings += season * (np.sin(phase) + 0.3 * np.sin(2 * phase))
    units = 10 ** draw.uniform(-2, 3, (n, N_SENSORS))
    return (readings * units + 5 * units).transpose(1, 0, 2).astype(np.float32)


@dataclass(frozen=True)
class TrainedAsset:
    """One machine after its training."""

    kind: str
    detector: TrainedModel
    clean: Burn
    drifted: Burn
    """With three weeks of wear after the clean ones: the amplitude grows to four times its size."""
    hours_to_find: float
    """Time to an alert after one sensor gets noise of five standard deviations of its residual. inf = not within two
    days."""


def watch(kind: str, readings: NDArray[np.float32], seed: int, spec: ModelSpec) -> TrainedAsset:
    detector = trained(readings[None, :HISTORY], spec)
    threshold = detector.card.threshold
    before = (threshold.n_episodes, threshold.weeks)

    def burnt(future: NDArray[np.float32]) -> Burn:
        score = detector.score(windows_of(future)).score
        weeks = len(score) / WEEK
        return burn(
            alarms(score), 0, len(score) * STEP_US, weeks, BUDGET.alarms_per_week, before=before, one_of=FAMILIES
        )

    future = readings[HISTORY - LENGTH + 1 :]
    centre, spread = readings[:HISTORY].mean(0), readings[:HISTORY].std(0)
    wear = np.ones((len(future), 1), np.float32)
    wear[CLEAN:, 0] = np.linspace(1, 4, len(future) - CLEAN)
    drifting = centre + wear * (future - centre)

    sensor = seed % N_SENSORS
    explained = detector.card.training["explained_variance"][f"s{sensor}"]
    faulty = future[: LENGTH - 1 + 2 * DAY].copy()
    noise = np.random.default_rng(seed).standard_normal(2 * DAY)
    faulty[LENGTH - 1 :, sensor] += (5 * np.sqrt(1 - explained) * spread[sensor] * noise).astype(np.float32)
    score = detector.score(windows_of(faulty)).score
    found = [alarm.opened_us for alarm in alarms(score)]
    hours = min(found, default=np.inf) / 3.6e9
    return TrainedAsset(kind, detector, burnt(future[: LENGTH - 1 + CLEAN]), burnt(drifting), hours)


@pytest.mark.parametrize("architecture", SPECS)
def test_assets_keep_their_bound_until_drift(architecture: str) -> None:
    """A third is autoregressive, a third seasonal, a third heavy-tailed. A month of history, then ten clean weeks."""
    n = N_ASSETS[architecture]
    readings = machines(n, HISTORY + CLEAN + DRIFT)
    watched = [watch(KINDS[i % 3], readings[i], i, SPECS[architecture]) for i in range(n)]
    print("\nkind              n  budget  bound  observed  within bound  within budget  violated", end="")
    print("  after wear  5 σ found")
    for kind in (*KINDS, "all"):
        mine = [one for one in watched if kind in (one.kind, "all")]
        print(
            f"{kind:15} {len(mine):3}  {BUDGET.alarms_per_week:6.2f}"
            f"  {np.mean([one.detector.card.threshold.bound_per_week for one in mine]):5.2f}"
            f"  {np.mean([one.clean.per_week for one in mine]):8.2f}"
            f"  {np.mean([within_bound(one) for one in mine]):12.1%}"
            f"  {np.mean([one.clean.at_least_per_week <= BUDGET.alarms_per_week for one in mine]):13.1%}"
            f"  {np.mean([one.clean.status is Status.VIOLATED for one in mine]):8.1%}"
            f"  {np.mean([one.drifted.status is Status.VIOLATED for one in mine]):10.1%}"
            f"  {np.mean([one.hours_to_find < 48 for one in mine]):9.1%}"
        )
    assert np.mean([within_bound(one) for one in watched]) >= 0.9
    violated = [one for one in watched if one.clean.status is Status.VIOLATED]
    assert len(violated) <= MAX_VIOLATED * n + 1
    assert all(one.clean.at_least_per_week > BUDGET.alarms_per_week for one in violated), "by chance"
    assert np.mean([one.drifted.status is Status.VIOLATED for one in watched]) >= 0.99
    assert np.mean([one.hours_to_find < 48 for one in watched]) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_retraining_keeps_the_certificate(kind: str) -> None:
    """Machines of one kind: a month of history, a month of alerts that is the next history, and ten weeks."""
    each = 2 * HISTORY + CLEAN
    alike = machines(3, N_ALIKE * each, seed=1)[KINDS.index(kind)].reshape(N_ALIKE, each, N_SENSORS)
    first = trained(alike[:, :HISTORY], SPECS["pca"])
    month = alike[:, HISTORY - LENGTH + 1 : 2 * HISTORY]
    alerted = np.concatenate([overlapping(first.score(windows_of(one)).score) for one in month])
    second = trained(month, SPECS["pca"], alerted)
    print()
    for name, version in (("first", first), ("retrained", second)):
        found = [alarms(version.score(windows_of(one)).score) for one in alike[:, 2 * HISTORY :]]
        n_alarms, weeks = sum(map(len, found)), N_ALIKE * (CLEAN - LENGTH + 1) / WEEK
        threshold = version.card.threshold
        print(f"{kind:15} {name:9} {n_alarms / weeks:.2f} observed in {weeks:.0f} weeks; {threshold.reason}")
        assert threshold.state is Status.CERTIFIED
        assert n_alarms <= threshold.bound_per_week * weeks
    assert second.card.training["left_out"]["alerted"] > 0
    # In units of its own healthy errors. Heavy tails differ most between two months: .85, others .9 and more.
    assert second.card.threshold.raw > 0.8 * first.card.threshold.raw


def overlapping(score: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the windows that overlap an alert."""
    end_us = (np.arange(len(score)) + 1) * STEP_US
    marked = np.zeros(len(score), dtype=bool)
    for alarm in alarms(score):
        closed_us = end_us[-1] if alarm.closed_us is None else alarm.closed_us
        marked |= (end_us >= alarm.opened_us) & (end_us - LENGTH * STEP_US < closed_us)
    return marked


def within_bound(one: TrainedAsset) -> bool:
    return one.clean.n_alarms <= one.detector.card.threshold.bound_per_week * one.clean.weeks


# ---------------------------------------------------------------- the budget that was set


N_OF_KIND, N_WEEKS = (20, 10) if IS_FULL else (1, 2)
FIRST_SEED = 2000
"""No choice in the code was made with these seeds: those were 0 to 9, and 1000."""
SET_FOR = ("auto", "pca") if IS_FULL else ("auto",)
LEAST_KEPT = 0.9 if IS_FULL else 0.7
"""In two weeks three alarms are chance: .08 at half of the budget. So the mean of all must keep it, too."""
LEAST_FOUND = {"bias": 0.78, "stuck": 0.49, "broken": 0.49, "ramp": 0.85}
"""Shares of the faults found within a day by the release before, with thresholds from the last fifth of the history,
which a third of the assets did not keep. Longer evidence must not cost what they found."""


@dataclass(frozen=True)
class WatchedAsset:
    """Ten weeks of one machine, with a training each week on the four weeks before."""

    kind: str
    n_alarms: int
    found: dict[str, list[bool]]
    """By kind of fault, one in each week: whether an alert of the machine or of the sensor opens within a day."""


def inspected(model: TrainedModel, readings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the scores [N] of all windows, and the mask [N, C] of sensors that fail a test, as in the pipeline."""
    tested = SensorTests(model.sensors, None, model).inspect(np.ascontiguousarray(windows_of(readings)))
    return model.score(tested.values).score, (tested.findings > 0) & (tested.findings < NOT_TESTED)


def is_found(model: TrainedModel, readings: NDArray[np.float32]) -> bool:
    score, fails = inspected(model, readings)
    sensor = fails.any(1).astype(np.float32)
    return bool(alarms(score)) or bool(alarms(sensor))


def watch_weekly(kind: str, seed: int, spec: ModelSpec) -> WatchedAsset:
    month = 4 * WEEK
    readings = machine(kind, seed, month + N_WEEKS * WEEK)
    draw = np.random.default_rng(seed)
    first = month - LENGTH + 1
    scores: list[NDArray[np.float32]] = []
    known: list[Alarm] = []
    found: dict[str, list[bool]] = {fault: [] for fault in FAULTS}
    for begin in range(0, N_WEEKS * WEEK, WEEK):
        end = begin + month
        model = trained(readings[None, begin:end], spec, judged=judged_times(known, begin))
        scores.append(inspected(model, readings[end - LENGTH + 1 : end + WEEK])[0])
        known = alarms(np.concatenate(scores), first)
        spread = readings[begin:end].std(0)
        for fault in FAULTS:
            at, sensor = end + int(draw.integers(WEEK - DAY)), int(draw.integers(readings.shape[1]))
            faulty = readings[begin : at + DAY].copy()
            inject(faulty, fault, at - begin, sensor, float(spread[sensor]), draw)
            found[fault].append(is_found(model, faulty[-DAY - LENGTH + 1 :]))
    return WatchedAsset(kind, len(alarms(np.concatenate(scores))), found)


@pytest.mark.timeout(4 * 3600 if IS_FULL else 600)
@pytest.mark.parametrize("architecture", SET_FOR)
def test_clean_assets_keep_the_budget_that_was_set(architecture: str) -> None:
    """Ten kinds of machines, retrained weekly on four weeks, and faults in copies of their clean weeks."""
    watched = [
        watch_weekly(kind, FIRST_SEED + seed, SPECS[architecture])
        for kind in MACHINE_KINDS
        for seed in range(N_OF_KIND)
    ]
    print("\nkind                   n   kept  a week  " + "  ".join(f"{fault:>6}" for fault in FAULTS))
    for kind in (*MACHINE_KINDS, "all"):
        mine = [one for one in watched if kind in (one.kind, "all")]
        shares = [np.mean([found for one in mine for found in one.found[fault]]) for fault in FAULTS]
        print(
            f"{kind:20} {len(mine):3}  {np.mean([keeps(one) for one in mine]):5.0%}"
            f"  {np.mean([one.n_alarms for one in mine]) / N_WEEKS:6.2f}  "
            + "  ".join(f"{share:6.0%}" for share in shares)
        )
    assert np.mean([keeps(one) for one in watched]) >= LEAST_KEPT
    assert np.mean([one.n_alarms for one in watched]) <= BUDGET.alarms_per_week * N_WEEKS
    for fault, least in LEAST_FOUND.items():
        assert np.mean([found for one in watched for found in one.found[fault]]) >= least, fault


def keeps(one: WatchedAsset) -> bool:
    return one.n_alarms <= BUDGET.alarms_per_week * N_WEEKS


# ---------------------------------------------------------------- recordings


KEPT = {"asd": 0.8, "gecco": 1.0, "nab": 0.85, "oil3w": 0.9, "skab": 0.9, "smd": 0.5, "tep": 0.9}
"""Least share of the series that stay within the bound of their version: measured 1.0 (nab .94, smd .75), less a
series. These machines are not stationary: the excess is drift between the training part and the rest."""
SETS = tuple(KEPT) if IS_FULL else ("nab", "skab", "tep")


@dataclass(frozen=True)
class Stretch:
    """Clean rows of a series after its training part."""

    threshold: Threshold
    n_alarms: int
    """Alerts on windows that overlap neither a label nor its neighbourhood of one window."""
    weeks: float


def clean_stretch(folder: Path, name: str, labelled: list[list[int]]) -> Stretch:
    recording = load(folder, name)
    budget = Budget(1.0, BUDGET.confirm, BUDGET.among, BUDGET.recover, recording.interval_s)
    length, begin = min(LENGTH, recording.train_rows // 4), recording.train_rows
    windows = np.lib.stride_tricks.sliding_window_view(recording.values, length, axis=0).transpose(0, 2, 1)
    end = np.arange(len(windows)) + length           # the first row after the window
    end_us = (end * recording.interval_s * 1e6).astype(np.int64)
    n_train = int((end <= begin).sum())
    asset = np.zeros(len(windows), np.int32)
    train = TrainingSet(windows[:n_train], asset[:n_train], end_us[:n_train])
    detector = fit(train, ModelSpec("pca"), FleetSpec(name, recording.sensors, recording.interval_s, budget))
    clean = end - length >= begin
    for first, last in labelled:
        clean &= (end + length <= first) | (end - length > last + length)
    rows = np.flatnonzero(clean)
    parts = np.array_split(rows, len(rows) // 4096 + 1)
    score = np.concatenate([detector.score(windows[part]).score for part in parts])
    alerts = episodes(score, asset[rows], end_us[rows], budget, 1.0) if len(rows) else []
    return Stretch(detector.card.threshold, len(alerts), len(rows) * recording.interval_s / (7 * 86_400))


@pytest.mark.parametrize("name", SETS)
def test_clean_stretches_keep_the_bound(name: str, data_dir: Path) -> None:
    meta = json.loads((data_dir / name / "meta.json").read_text())["series"]
    series = [one for one in meta if (data_dir / name / f"{one}.csv.gz").is_file()]
    found = [clean_stretch(data_dir, f"{name}/{one}", meta[one]["anomaly_range_list"]) for one in series]
    found = [one for one in found if one.weeks]
    weeks, n_alarms = sum(one.weeks for one in found), sum(one.n_alarms for one in found)
    stated = sum(one.threshold.bound_per_week * one.weeks for one in found)
    kept = np.mean([one.n_alarms <= one.threshold.bound_per_week * one.weeks for one in found])
    print(
        f"\n{name:6} {len(found):2} series, {weeks:8.3f} clean weeks: promised {weeks:7.2f} alarms,"
        f" at most {stated:6.1f}, observed {n_alarms:3}; within the bound {kept:.0%},"
        f" without an alarm {np.mean([not one.n_alarms for one in found]):.0%}"
    )
    for one in found if IS_FULL else ():
        print(f"       {one.weeks:.3f} {one.n_alarms} raw {one.threshold.raw:.2f} {one.threshold.reason}")
    assert kept >= KEPT[name]
