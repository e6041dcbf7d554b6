"""Members of an ensemble: scores in units of each network's own healthy errors, added up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.models.detector import TrainedModel
from monitor.models.member import Member, amplitude, ensemble_score, sensor_errors
from monitor.models.network import Network
from monitor.models.pca import Pca
from monitor.models.residual import TimeScales, impute
from monitor.models.scaler import Scaler, SensorScale
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.models.statistics import HealthyMedian, MovingMean
from monitor.training.fit import fit

N_SENSORS, LENGTH = 3, 16
CPU = torch.device("cpu")


class Scaled(Network):
    """Network with an error of `factor` times the value."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.hyper, self.factor = {}, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (1 - self.factor) * x


class ConstantOutput(Network):
    """Network that reconstructs one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.hyper, self.value = {}, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, self.value)


@pytest.fixture
def healthy() -> torch.Tensor:
    """Standardised windows (N, C, T)."""
    return torch.randn(400, N_SENSORS, LENGTH, generator=torch.Generator().manual_seed(0))


def member(network: Network, healthy: torch.Tensor, name: str = "level") -> Member:
    network.eval()
    return Member.fit(name, network, sensor_errors(network, TimeScales.of(network), healthy, None))


def ensemble(healthy: torch.Tensor) -> tuple[Member, ...]:
    networks = (HealthyMedian(N_SENSORS, LENGTH), MovingMean(N_SENSORS, LENGTH), Pca.solve(healthy))
    return tuple(member(one, healthy, name) for name, one in zip(("level", "moving", "pca"), networks, strict=True))


@pytest.mark.parametrize("factor", [0.1, 10.0, 1000.0])
def test_scores_are_relative_to_healthy_errors(healthy: torch.Tensor, factor: float) -> None:
    x = torch.cat([healthy[:50], 3 * healthy[:50], 30 * healthy[:50]])
    usual, other = member(Scaled(1.0), healthy), member(Scaled(factor), healthy)
    torch.testing.assert_close(other.score(x, None), usual.score(x, None), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.errors(x, None).shares(), usual.errors(x, None).shares())


def test_a_member_has_its_own_scales_and_positive_scores(healthy: torch.Tensor) -> None:
    own = ((Scaled(1.0), 3), (HealthyMedian(N_SENSORS, LENGTH), 1), (MovingMean(N_SENSORS, LENGTH), 1))
    for network, n_scales in own:
        one = member(network, healthy)
        score = one.score(torch.zeros(2, N_SENSORS, LENGTH), None)
        assert score.shape == (2, n_scales)
        assert one.errors(torch.zeros(2, N_SENSORS, LENGTH), None).shares().shape == (2, n_scales, N_SENSORS)
        assert ((score >= 0) & (score < 0.1)).all()   # windows more ordinary than usual


def test_a_weight_is_that_of_its_evidence(healthy: torch.Tensor) -> None:
    level, moving, pca = ensemble(healthy)
    silent = (level, dataclasses.replace(moving, weight=0.0), pca)
    for without, with_silent in zip(
        ensemble_score((level, pca), 2 * healthy, None), ensemble_score(silent, 2 * healthy, None), strict=True
    ):
        torch.testing.assert_close(with_silent, without)


def test_only_windows_above_a_score_have_shares(healthy: torch.Tensor) -> None:
    members = ensemble(healthy)
    raw, every = ensemble_score(members, 2 * healthy, None)
    limit = raw.median().expand(len(raw))
    again, some = ensemble_score(members, 2 * healthy, None, shares_from=limit)
    assert torch.equal(again, raw)
    assert torch.equal(some[raw >= limit], every[raw >= limit])
    assert (some[raw < limit] == 0).all()


def test_a_member_without_a_sensor_has_no_say(healthy: torch.Tensor) -> None:
    class FirstSensor(Scaled):
        @property
        def scored_sensors(self) -> torch.Tensor:
            return torch.tensor([True, False, False])

    level, first = member(HealthyMedian(N_SENSORS, LENGTH), healthy), member(FirstSensor(1.0), healthy)
    present = torch.ones(2, N_SENSORS, LENGTH, dtype=torch.bool)
    present[0, 0] = False
    raw, share = ensemble_score((level, first), healthy[:2], present)
    assert raw.isfinite().all()
    assert share[0, 0] == 0
    alone = ensemble_score((first,), healthy[:2], present)[0]
    assert alone.isnan().tolist() == [True, False]


def test_one_member_fills_the_gaps_of_all(healthy: torch.Tensor) -> None:
    class Flipped(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(1)   # each sensor is expected to be like another, which it fills a gap with, too

    flipped, pca = member(Flipped(1.0), healthy), ensemble(healthy)[-1]
    present = torch.ones(2, N_SENSORS, LENGTH, dtype=torch.bool)
    present[:, 0] = False
    gappy = torch.where(present, healthy[:2], 0.0)
    members = (flipped, dataclasses.replace(pca, imputes=True))
    filled = impute(pca.network, gappy, present)
    scores = [one.score(filled, present, imputer=pca.network) for one in members]
    raw = ensemble_score(members, gappy, present)[0]
    assert torch.equal(raw, amplitude(members, scores))
    older = ensemble_score((flipped, pca), gappy, present)[0]
    assert torch.equal(older, amplitude(members, [one.score(gappy, present) for one in members]))
    assert (raw > older).all()


def test_an_older_card_has_no_member_that_fills_gaps(healthy: torch.Tensor) -> None:
    pca = ensemble(healthy)[-1]
    tensors = pca.tensors("0.")
    assert "imputes" not in pca.to_json()
    for imputes in (False, True):
        entry = dataclasses.replace(pca, imputes=imputes).to_json()
        assert Member.load(entry, tensors, "0.", N_SENSORS, LENGTH).to(CPU).imputes is imputes


def test_an_older_card_has_two_scales(healthy: torch.Tensor) -> None:
    one = member(Scaled(1.0), healthy, "moving")
    entry = {name: value for name, value in one.to_json().items() if name not in ("scales", "weight")}
    tensors = one.tensors("0.")
    older = {name: t[:2] if name.endswith(("centre", "spread")) else t for name, t in tensors.items()}
    loaded = Member.load(entry | {"hyper": {}}, older, "0.", N_SENSORS, LENGTH)
    assert loaded.residual.scales.names == ("newest", "latest")
    assert loaded.weight == 1.0
    with pytest.raises(ValueError, match="shapes"):
        Member.load(entry | {"hyper": {}}, tensors, "0.", N_SENSORS, LENGTH)


def test_a_doubled_member_scores_the_same(healthy: torch.Tensor) -> None:
    one = member(HealthyMedian(N_SENSORS, LENGTH), healthy)
    alone_and_twice = (ensemble_score(members, 3 * healthy, None) for members in ((one,), (one, one)))
    for alone, doubled in zip(*alone_and_twice, strict=True):
        torch.testing.assert_close(doubled, alone)


def test_scores_are_proportional_to_errors(healthy: torch.Tensor) -> None:
    few = ensemble(healthy)[:2]   # their errors are proportional to the window
    for factor in (3.0, 10.0):
        score, larger = (ensemble_score(few, each * healthy, None)[0] for each in (factor, 10 * factor))
        assert 9 < (larger / score).median() < 15
        # A score is the relative increase of the errors: 0 = no larger than usual.
        assert ((1 + larger) / (1 + score)).median() == pytest.approx(10, rel=0.1)


def test_one_high_member_is_enough(healthy: torch.Tensor) -> None:
    level, moving, pca = ensemble(healthy)
    x = healthy[:100].clone()
    x += 6.0   # another level, which the moving mean follows
    normal = ensemble_score((level, moving, pca), healthy[:100], None)[0]
    shifted, usual = (ensemble_score((moving,), each, None)[0] for each in (x, healthy[:100]))
    assert shifted.median() < 2 * usual.median()
    assert ensemble_score((level, moving, pca), x, None)[0].min() > normal.quantile(0.99)


def test_an_empty_window_has_no_score(healthy: torch.Tensor) -> None:
    present = torch.ones(3, N_SENSORS, LENGTH, dtype=torch.bool)
    present[1] = False
    score, share = ensemble_score(ensemble(healthy), healthy[:3], present)
    assert score.isnan().tolist() == [False, True, False]
    assert (share[1] == 0).all()
    torch.testing.assert_close(share[[0, 2]].sum(1), torch.ones(2))


def test_unscored_steps_are_not_zero_errors(healthy: torch.Tensor) -> None:
    network = Scaled(1.0)
    network.n_unscored = 4
    present = torch.zeros(2, N_SENSORS, LENGTH, dtype=torch.bool)
    present[0, :, :4] = True                                                  # unscored steps only
    present[1] = True
    score, share = ensemble_score((member(network, healthy),), healthy[:2], present)
    assert score[0].isnan()
    assert (share[0] == 0).all()
    assert score[1].isfinite()


def test_shares_sum_to_one(healthy: torch.Tensor) -> None:
    present = torch.ones(400, N_SENSORS, LENGTH, dtype=torch.bool)
    present[:, 1] = False
    for x in (healthy, torch.zeros_like(healthy), 100 * healthy):
        share = ensemble_score(ensemble(healthy), x, None)[1]
        torch.testing.assert_close(share.sum(1), torch.ones(400))
        assert (share >= 0).all()
        masked = ensemble_score(ensemble(healthy), x, present)[1]
        torch.testing.assert_close(masked.sum(1), torch.ones(400))
        assert (masked[:, 1] == 0).all()


def test_the_faulty_sensor_has_the_most(healthy: torch.Tensor) -> None:
    x = healthy[:50].clone()
    x[:, 2] += 8.0
    assert (ensemble_score(ensemble(healthy), x, None)[1].argmax(1) == 2).all()


def test_loaded_members_score_the_same(healthy: torch.Tensor) -> None:
    before = ensemble(healthy)
    tensors = {name: t for i, one in enumerate(before) for name, t in one.tensors(f"{i}.").items()}
    after = tuple(
        Member.load(one.to_json(), tensors, f"{i}.", N_SENSORS, LENGTH).to(CPU) for i, one in enumerate(before)
    )
    assert [one.name for one in after] == ["level", "moving", "pca"]
    scores = (ensemble_score(members, 2 * healthy, None) for members in (before, after))
    for old, new in zip(*scores, strict=True):
        assert torch.equal(old, new)


def test_missing_tensors_are_a_key_error(healthy: torch.Tensor) -> None:
    one = ensemble(healthy)[0]
    with pytest.raises(KeyError):
        Member.load(one.to_json(), one.tensors("0."), "1.", N_SENSORS, LENGTH)


def test_explain_uses_the_highest_member() -> None:
    # Healthy windows are near 0 or near 3, and each of two members expects one of them: 6 scores higher for the one
    # that expects 0, and -3 for the one that expects 3.
    state = 3.0 * (torch.arange(400) % 2)[:, None, None]
    healthy = state + 0.3 * torch.randn(400, N_SENSORS, LENGTH, generator=torch.Generator().manual_seed(1))
    members = (member(ConstantOutput(0.0), healthy), member(ConstantOutput(3.0), healthy))
    sensors = ("speed", "power", "pitch")
    values = healthy.transpose(1, 2).numpy()
    train = TrainingSet(values, np.zeros(400, np.int32), np.arange(400) * 1_000_000)
    budget = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)
    card = fit(train, ModelSpec("pca"), FleetSpec("f", sensors, 1.0, budget)).card
    scaler = Scaler(tuple(SensorScale(name, "continuous", 100.0, 10.0) for name in sensors))
    detector = TrainedModel(dataclasses.replace(card, architecture="auto", inputs=None), members, scaler, CPU)
    windows = np.stack([np.full((LENGTH, N_SENSORS), level, np.float32) for level in (160.0, 70.0)])
    high, low = detector.explain(windows, detector.score(windows).share)
    assert [(each.expected, each.actual) for each in high] == [(100.0, 160.0)] * N_SENSORS
    assert [(each.expected, each.actual) for each in low] == [(130.0, 70.0)] * N_SENSORS


def test_explain_leaves_out_a_member_without_a_score(healthy: torch.Tensor) -> None:
    """A member that scores one sensor, which is missing, once gave the expected values: the windows themselves."""

    class FirstSensor(Scaled):
        @property
        def scored_sensors(self) -> torch.Tensor:
            return torch.tensor([True, False, False])

    members = (member(FirstSensor(0.0), healthy), member(HealthyMedian(N_SENSORS, LENGTH), healthy))
    sensors = ("speed", "power", "pitch")
    values = healthy.transpose(1, 2).numpy()
    train = TrainingSet(values, np.zeros(400, np.int32), np.arange(400) * 1_000_000)
    budget = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)
    card = fit(train, ModelSpec("pca"), FleetSpec("f", sensors, 1.0, budget)).card
    scaler = Scaler(tuple(SensorScale(name, "continuous", 0.0, 1.0) for name in sensors))
    detector = TrainedModel(dataclasses.replace(card, architecture="auto", inputs=None), members, scaler, CPU)
    window = np.full((1, LENGTH, N_SENSORS), 5.0, np.float32)
    window[..., 0] = np.nan
    assert (detector.reconstruct(window) == 0).all()
