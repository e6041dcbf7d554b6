"""The gate judges versions by their windows, by injected faults, by remembered faults and by their card."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.explain import Evidence
from monitor.lifecycle.fault_trial import KINDS, loss_of
from monitor.lifecycle.gate import Limits, judge
from monitor.lifecycle.recent import Recent
from monitor.models.inputs import ModelInputs
from monitor.models.spec import TrainingSet
from monitor.store.evidence_chunks import Chunk, encode
from monitor.training.judge import judge as learnable
from monitor.types import ConfirmedFault, JudgedTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.lifecycle.recent import Version
    from monitor.lifecycle.verdict import Verdict
    from monitor.types import Bool, Float32

LENGTH, DAY = 16, 144
STEP_US = 600_000_000
SENSORS = ("flow", "pressure")
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=600.0)
LIMITS = Limits(SENSORS, 600.0, BUDGET, LENGTH, 1, 0.05)
AT = datetime(2026, 3, 9, tzinfo=UTC)
START_US = 1_772_323_200_000_000  # 2026-03-01


@dataclass
class FakeVersion:
    """Scores a window by the largest deviation in its newest four cells from a centre, in thresholds."""

    threshold: float = 5.0
    centre: float = 0.0
    version: str = "fake-1"
    sensors: tuple[str, ...] = SENSORS
    length: int = LENGTH
    interval_s: float = 600.0
    blind: tuple[str, ...] = ()
    """Sensors that it does not look at."""
    n_learnt: int = 10_000
    weeks: float = 2.0
    calibrated: float | None = None
    windows_scored: int = 0

    @property
    def card(self) -> Any:
        threshold = SimpleNamespace(raw=self.threshold, weeks=self.weeks, n_episodes=0)
        return SimpleNamespace(
            length=self.length, interval_s=self.interval_s, threshold=threshold, training={"n_windows": self.n_learnt}
        )

    @property
    def inputs(self) -> ModelInputs:
        return ModelInputs(self.sensors)

    def score(self, values: Float32, assets: Sequence[str] | None = None, **_: Any) -> Any:
        assert values.shape[1:] == (self.length, len(self.sensors))
        self.windows_scored += len(values)
        seen = [name not in self.blind for name in self.sensors]
        size = np.abs(values[:, -4:][..., seen] - self.centre) / self.threshold
        with np.errstate(all="ignore"):
            known = np.isfinite(size).any((1, 2))
            return SimpleNamespace(score=np.where(known, np.nanmax(np.where(np.isnan(size), -1, size), (1, 2)), np.nan))

    def threshold_ratio(self) -> float | None:
        return None if self.calibrated is None else self.threshold / self.calibrated


@dataclass
class SinceVersion(FakeVersion):
    """Has a card that tells the end of its training."""

    until: str = ""

    @property
    def card(self) -> Any:
        found = FakeVersion.card.fget(self)  # type: ignore[attr-defined]
        found.training["to"] = self.until
        return found


def readings(n: int = 14 * DAY, seed: int = 0, level: float = 0.0) -> Float32:
    return (np.random.default_rng(seed).standard_normal((n, 2)) + level).astype(np.float32)


def windows(values: Float32, length: int = LENGTH, alerted: Bool | None = None, asset: int = 0) -> TrainingSet:
    cut = np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)
    end_us = START_US + (np.arange(len(cut)) + length) * STEP_US
    return TrainingSet(cut, np.full(len(cut), asset, np.int32), end_us, alerted, ("P-101", "P-102"))


def verdict(
    challenger: Any, champion: Any, *, recent: TrainingSet | None = None, faults: Any = (), **limits: Any
) -> Verdict:
    there = windows(readings()) if recent is None else recent
    return judge(challenger, champion, there, faults, replace(LIMITS, **limits), at=AT)


def check(found: Verdict, name: str) -> dict[str, Any]:
    return next(each for each in found.to_json()["checks"] if each["name"] == name)


# ---------------------------------------------------------------- what is promoted


def test_an_equal_challenger_passes_and_says_why() -> None:
    found = verdict(FakeVersion(version="fake-2"), FakeVersion())
    assert found.passed
    assert found.why.startswith("passed: no alerts in 2 recent normal asset-weeks; ")
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (told["challenger"], told["champion"], told["passed"]) == ("fake-2", "fake-1", True)
    assert told["alerts"] == {"same": 0, "gained": 0, "lost": 0}
    assert [each["name"] for each in told["checks"]] == [
        "budget", "history", "faults", "memory", "events", "latency", "schema"
    ]  # fmt: skip
    assert told["from"] == "2026-03-01T00:00:00+00:00"
    assert told["n_windows"] == 14 * DAY - LENGTH + 1


def test_a_verdict_is_the_same_for_the_same_windows() -> None:
    first, second = (verdict(FakeVersion(version="b"), FakeVersion()).to_json() for _ in range(2))
    for told in (first, second):
        del told["took_s"]
        told["checks"] = [each for each in told["checks"] if each["name"] != "latency"]
    assert first == second


@pytest.mark.parametrize("challenger", [FakeVersion(), FakeVersion(threshold=0.1)])
def test_a_first_version_is_promoted_whatever_it_alarms(challenger: FakeVersion) -> None:
    found = verdict(challenger, None)
    assert found.passed
    assert found.champion is None
    assert ("although" in found.why) is not check(found, "budget")["passed"]


# ---------------------------------------------------------------- budget


def test_a_challenger_that_alarms_all_the_time_is_refused() -> None:
    found = verdict(FakeVersion(threshold=1.0), FakeVersion())
    assert not found.passed
    assert not check(found, "budget")["passed"]
    assert check(found, "budget")["anomalous_share"] > 0.5


def test_a_budget_of_many_alerts_allows_their_windows() -> None:
    values = readings()
    values[range(100, 2000, 30)] = 40.0
    generous = replace(BUDGET, alarms_per_week=100.0)
    one, other = FakeVersion(centre=0.0), FakeVersion(centre=0.0)
    allowed, refused = (verdict(one, other, recent=windows(values), budget=each) for each in (generous, BUDGET))
    assert check(allowed, "budget")["anomalous_share"] > 0.1
    assert check(allowed, "budget")["passed"]
    assert not check(refused, "budget")["passed"]


def test_alerts_that_prove_a_broken_budget_refuse() -> None:
    values = readings()
    values[range(100, 2000, 200)] = 40.0
    found = verdict(FakeVersion(centre=0.0), FakeVersion(threshold=50.0), recent=windows(values))
    assert not check(found, "budget")["passed"]
    assert check(found, "budget")["n_alerts"] == 10
    assert check(found, "budget")["champion_alerts"] == 0
    assert found.alerts == {"same": 0, "gained": 10, "lost": 0}


def test_a_single_alert_in_a_short_time_proves_nothing() -> None:
    values = readings(5 * DAY)
    values[300] = 40.0
    found = verdict(FakeVersion(), FakeVersion(), recent=windows(values))
    assert check(found, "budget")["passed"]
    assert check(found, "budget")["n_alerts"] == 1
    assert found.alerts == {"same": 1, "gained": 0, "lost": 0}


def test_alerts_in_alerted_windows_do_not_count() -> None:
    values, alerted = readings(), np.zeros(14 * DAY - LENGTH + 1, np.bool_)
    for row in range(100, 1000, 200):
        values[row] = 40.0
        alerted[row - LENGTH : row + LENGTH] = True
    found = verdict(FakeVersion(), FakeVersion(), recent=windows(values, alerted=alerted))
    assert check(found, "budget")["n_alerts"] == 0
    assert found.alerts["same"] == 5


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_threshold_that_its_held_out_scores_deny_refuses(factor: float) -> None:
    found = verdict(FakeVersion(calibrated=5.0 / factor), FakeVersion())
    assert check(found, "budget")["threshold_ratio"] == pytest.approx(factor, rel=1e-3)
    assert "its own held-out scores" in found.why


# ---------------------------------------------------------------- injected faults


def test_a_challenger_that_is_blind_for_a_sensor_is_refused() -> None:
    found = verdict(FakeVersion(blind=("flow",)), FakeVersion())
    assert not found.passed
    assert check(found, "faults")["by_sensor"]["flow"]["recall"] < 0.1
    assert set(check(found, "faults")["by_kind"]) == set(KINDS)
    assert "injected faults" in found.why


def test_a_threshold_three_times_as_high_is_refused() -> None:
    found = verdict(FakeVersion(threshold=15.0), FakeVersion())
    assert not check(found, "faults")["passed"]
    assert check(found, "budget")["passed"]


def test_a_threshold_a_little_higher_is_not_refused() -> None:
    assert verdict(FakeVersion(threshold=5.5), FakeVersion()).passed


def test_the_model_of_a_first_day_is_easier_to_replace() -> None:
    less = FakeVersion(threshold=8.25, weeks=2.0)
    assert not verdict(less, FakeVersion(weeks=2.0)).passed
    assert verdict(less, FakeVersion(weeks=0.1)).passed
    assert not verdict(replace(less, threshold=20.0), FakeVersion(weeks=0.1)).passed


def test_a_champion_that_always_alarms_is_no_measure() -> None:
    recent = windows(readings(level=20.0))
    found = verdict(FakeVersion(centre=20.0), FakeVersion(), recent=recent)
    assert found.passed
    assert check(found, "faults")["champion_recall"] == 0
    assert not check(found, "faults")["compared"]
    assert check(found, "budget")["champion_share"] == 1
    assert found.alerts["lost"] == 1


def test_an_accepted_normal_refutes_a_champion_that_alarms() -> None:
    values, accepted = readings(), np.zeros(14 * DAY - LENGTH + 1, np.bool_)
    values[-DAY:, 0] += 20.0
    accepted[-DAY:] = True
    blind = FakeVersion(blind=("flow",))
    recent = windows(values)
    assert not verdict(blind, FakeVersion(), recent=recent).passed
    found = verdict(blind, FakeVersion(), recent=replace(recent, accepted=accepted))
    assert found.passed
    assert "alarms in the time accepted as normal" in found.why


def test_a_challenger_without_recall_is_refused_after_a_change() -> None:
    found = verdict(FakeVersion(centre=20.0, threshold=1e6), FakeVersion(), recent=windows(readings(level=20.0)))
    assert not found.passed
    assert "only 0%" in found.why


def test_sensors_that_stand_still_leave_nothing_to_compare() -> None:
    found = verdict(FakeVersion(), FakeVersion(), recent=windows(np.zeros((14 * DAY, 2), np.float32)))
    assert found.passed
    assert "not judged" in check(found, "faults")["why"]


def test_the_loss_of_recall_has_bounds_that_hold_its_mean() -> None:
    champion, challenger = np.ones(100, np.bool_), np.ones(100, np.bool_)
    assert loss_of(champion, challenger).mean == 0
    challenger[:30] = False
    found = loss_of(champion, challenger)
    assert found.mean == pytest.approx(0.3)
    assert 0.2 < found.low < 0.3 < found.high < 0.4
    assert loss_of(challenger, champion).mean == pytest.approx(-0.3)


# ---------------------------------------------------------------- remembered faults


def fault(size: float, *, interval_us: int = STEP_US) -> ConfirmedFault:
    n_cells, note = 3 * LENGTH, "bearing"
    cells = START_US + np.arange(n_cells) * interval_us
    values = np.zeros((n_cells, 2), np.float32)
    values[LENGTH // 2 :] = size
    scores = np.ones(1, np.float32)
    evidence = Evidence(SENSORS, cells, values, values * 0, cells[-1:], scores)
    return ConfirmedFault(7, "P-101", START_US + DAY * STEP_US, ("flow",), note, (encode(Chunk(evidence, 10_000)),))


@pytest.mark.parametrize(
    ("centre", "trained_until", "is_accepted", "passed"),
    [
        (0.0, 14, False, True),   # an honest one still alarms
        (8.0, 14, False, False),  # it learnt the event
        (8.0, 14, True, True),    # the rest of a change that was accepted
        (8.0, 9, False, True),    # it happened after the training, as in shadow
    ],
)
def test_an_event_without_a_label_must_still_alarm(
    centre: float, trained_until: int, is_accepted: bool, passed: bool
) -> None:
    values = readings()
    values[10 * DAY : 12 * DAY] += 8.0
    there = windows(values)
    last = START_US + 12 * DAY * STEP_US
    alert = JudgedTime(START_US + 10 * DAY * STEP_US, last, "unlabelled", "alert", 7)
    times = [alert, JudgedTime(last, last + DAY * STEP_US, "accepted", "label", 1)] if is_accepted else [alert]
    marked = learnable(there, {"P-101": times}, span_us=LENGTH * STEP_US, step_us=STEP_US, new_normal_us=None)
    until = datetime.fromtimestamp(START_US / 1e6 + trained_until * 86_400, UTC).isoformat()
    found = verdict(SinceVersion(centre=centre, until=until), FakeVersion(), recent=marked)
    told = check(found, "events")
    assert told["passed"] is passed
    if not passed:
        assert "alert 7 of 2026-03-11 on P-101" in found.why
        assert told["events"][0]["champion"] > 0.9


def test_a_forgotten_fault_refuses_and_is_named() -> None:
    found = verdict(FakeVersion(threshold=5.5), FakeVersion(), faults=[fault(5.2), fault(9.0)])
    assert not found.passed
    assert found.why == 'refused: it would miss the fault "bearing" of 2026-03-02 on P-101 (score 0.94)'
    told = check(found, "memory")
    assert (told["n"], told["n_judged"], told["n_lost"]) == (2, 2, 1)
    assert told["faults"][0]["lost"]
    assert told["faults"][0]["champion"] == pytest.approx(1.04)


def test_a_fault_that_the_champion_misses_blocks_nothing() -> None:
    found = verdict(FakeVersion(), FakeVersion(), faults=[fault(4.0)])
    assert found.passed
    assert check(found, "memory")["n_judged"] == 0
    assert check(found, "memory")["faults"][0]["challenger"] == pytest.approx(0.8)


def test_evidence_shorter_than_a_window_is_not_judged() -> None:
    longer = FakeVersion(length=4 * LENGTH)
    found = verdict(longer, FakeVersion(), recent=windows(readings(), 4 * LENGTH), faults=[fault(9.0)], length=None)
    assert found.passed
    told = check(found, "memory")["faults"][0]
    assert told["challenger"] is None
    assert told["problem"] == "its evidence has 48 readings in a row, and a window now has 64"
    assert told["champion"] == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("remembered", "problem"),
    [
        (replace(fault(9.0), chunks=()), "no kept evidence"),
        (replace(fault(9.0), chunks=(b"\x09later",)), "form 9"),
        (fault(9.0, interval_us=STEP_US * 2), "a reading each 1200 s, and the fleet one each 600 s"),
    ],
)
def test_a_fault_without_usable_evidence_says_why(remembered: ConfirmedFault, problem: str) -> None:
    found = verdict(FakeVersion(), FakeVersion(), faults=[remembered])
    assert found.passed
    assert problem in check(found, "memory")["faults"][0]["problem"]


def test_thinned_cells_make_no_window() -> None:
    cells = np.concatenate([np.arange(0, 40, 2), np.arange(40, 40 + LENGTH)])
    values = np.full((len(cells), 2), 9.0, np.float32)
    values[-LENGTH:] = 0.0
    at_us = START_US + cells * STEP_US
    evidence = Evidence(SENSORS, at_us, values, values * 0, at_us[-1:], np.ones(1, np.float32))
    remembered = replace(fault(9.0), chunks=(encode(Chunk(evidence, 10_000)),))
    told = check(verdict(FakeVersion(), FakeVersion(), faults=[remembered]), "memory")["faults"][0]
    assert told["challenger"] == 0, "the fault is in thinned cells alone"


def test_a_sensor_that_the_evidence_lacks_is_missing() -> None:
    wide = FakeVersion(sensors=(*SENSORS, "heat"))
    three = np.concatenate([readings(), readings(seed=1)[:, :1]], 1)
    found = verdict(wide, FakeVersion(), recent=windows(three), faults=[fault(9.0)], sensors=wide.sensors)
    assert found.passed
    assert check(found, "memory")["faults"][0]["challenger"] == pytest.approx(1.8)


# ---------------------------------------------------------------- history, latency, schema


def test_a_challenger_of_a_small_part_of_the_history_is_refused() -> None:
    found = verdict(FakeVersion(n_learnt=100), FakeVersion())
    assert not found.passed
    assert "it was trained on 100 windows, and the history has 2,001" in found.why


def test_a_challenger_tested_on_hours_does_not_replace_weeks() -> None:
    assert "wait for more history" in verdict(FakeVersion(weeks=0.1), FakeVersion()).why
    changed = windows(readings(level=20.0))
    assert verdict(FakeVersion(weeks=0.1, centre=20.0), FakeVersion(), recent=changed).passed, "the champion is broken"


@pytest.mark.parametrize(
    ("challenger", "why"),
    [
        (FakeVersion(sensors=("flow",)), "it lacks the sensors pressure"),
        (FakeVersion(sensors=(*SENSORS, "heat")), "it has sensors that the fleet lacks: heat"),
        (FakeVersion(interval_s=60.0), "its interval is 60 s, and the fleet's is 600 s"),
        (FakeVersion(length=8), "its windows have 8 cells, and the fleet's have 16"),
    ],
)
def test_a_challenger_of_another_schema_is_not_even_scored(challenger: FakeVersion, why: str) -> None:
    for champion in (FakeVersion(), None):
        found = verdict(challenger, champion)
        assert not found.passed
        assert found.why == f"refused: {why}"
        assert challenger.windows_scored == 0


class SlowVersion(FakeVersion):
    def score(self, values: Float32, assets: Sequence[str] | None = None, **_: Any) -> Any:
        found = super().score(values, assets)
        for _ in range(20):
            super().score(values, assets)
        return found


def test_a_slow_challenger_is_refused_where_time_matters() -> None:
    few = check(verdict(SlowVersion(), FakeVersion()), "latency")
    assert few["passed"]
    assert few["us_per_window"] > 3 * few["champion_us_per_window"]
    busy = replace(BUDGET, step_s=few["us_per_window"] / 1e6)
    assert not check(verdict(SlowVersion(), FakeVersion(), budget=busy), "latency")["passed"]


# ---------------------------------------------------------------- recent windows


def test_versions_of_other_lengths_are_compared_at_the_same_ends() -> None:
    longer: Version = FakeVersion(length=3 * LENGTH)  # type: ignore[assignment]
    recent = Recent.of(windows(readings(2 * DAY)), SENSORS, 600.0).fitting([longer])
    assert len(recent.series[0].end) == 2 * DAY - 3 * LENGTH + 1
    assert np.isfinite(recent.scores(longer)[0]).all()
    assert verdict(FakeVersion(), longer).passed


def test_the_newest_windows_of_some_assets_are_taken() -> None:
    each = [replace(windows(readings(6 * DAY, number), asset=0), assets=()) for number in range(40)]
    every = TrainingSet(
        np.concatenate([one.values for one in each]),
        np.repeat(np.arange(40, dtype=np.int32), len(each[0])),
        np.concatenate([one.end_us for one in each]),
    )
    recent = Recent.of(every, SENSORS, 600.0)
    assert (recent.n_assets, len(recent.series)) == (40, 16)
    assert recent.n_windows == 16 * 512
    assert all(one.end_us[-1] == each[0].end_us[-1] for one in recent.series)


def test_alerted_windows_do_not_use_up_the_share_of_an_asset() -> None:
    alerted = np.zeros(14 * DAY - LENGTH + 1, np.bool_)
    alerted[-300:] = True
    recent = Recent.of(windows(readings(), alerted=alerted), SENSORS, 600.0, n_max=600)
    assert (recent.n_windows, recent.n_counted) == (900, 600)


def test_a_gap_makes_no_stretch_for_faults() -> None:
    whole = windows(readings())
    kept = np.flatnonzero(np.arange(len(whole)) % 30 < 20)
    gappy = TrainingSet(whole.values[kept], whole.asset[kept], whole.end_us[kept], None, whole.assets)
    found = check(verdict(FakeVersion(n_learnt=2000), FakeVersion(), recent=gappy), "faults")
    assert found["n"] == 0
