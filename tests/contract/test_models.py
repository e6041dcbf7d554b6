"""Model contract of every architecture. Each promise was broken once by a real network."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.config.tree import ARCHITECTURES, INCOMPATIBLE_OPTIONS, OBJECTIVES
from monitor.errors import ConfigError, NotFound
from monitor.models.apply import reconstruct, sample
from monitor.models.build import NETWORKS, build
from monitor.models.detector import TrainedModel
from monitor.models.pca import Pca
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.models.network import Network
    from monitor.types import Float32

SENSORS = ("speed", "power", "pitch")
LENGTH = 16
N_STEPS = 400
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)

of_each_network = pytest.mark.parametrize("architecture", NETWORKS)
of_each_model = pytest.mark.parametrize("architecture", ARCHITECTURES)
"""`auto` is not a network. It builds an ensemble, which keeps the same promises."""


def waves(n: int, seed: int = 0) -> Float32:
    """Return readings [n, 3] of three correlated sensors, with noise, in units far apart."""
    draw = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(n) / 20
    shape = np.stack([np.sin(phase), np.cos(phase), np.sin(phase) + np.cos(phase)], axis=1)
    noisy = shape + 0.1 * draw.standard_normal(shape.shape)
    return (noisy * [10.0, 2000.0, 0.01] + [50.0, 1000.0, 0.0]).astype(np.float32)


def windows(readings: Float32) -> Float32:
    return np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1)


def trained_on(values: Float32, spec: ModelSpec) -> TrainedModel:
    train = TrainingSet(values, np.zeros(len(values), np.int32), np.arange(len(values), dtype=np.int64) * 1_000_000)
    return fit(train, spec, FleetSpec("pumps", SENSORS, 1.0, BUDGET))


@pytest.fixture(scope="module")
def trained() -> dict[str, TrainedModel]:
    """Train one detector per architecture, once for the module."""
    return {name: trained_on(windows(waves(600)), ModelSpec(name, max_steps=N_STEPS)) for name in ARCHITECTURES}


def network(architecture: str, length: int = LENGTH) -> torch.nn.Module:
    """Return an untrained network. The PCA is solved on noise: an unsolved one sees the first steps only."""
    torch.manual_seed(0)
    if architecture == "pca":
        return Pca.solve(torch.randn(200, len(SENSORS), length))
    return build(architecture, len(SENSORS), length)


def test_the_table_and_the_names_agree() -> None:
    assert {*NETWORKS, "auto"} == set(ARCHITECTURES)


def test_the_names_cost_no_torch() -> None:
    code = "import sys, monitor.models.spec; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@of_each_network
@pytest.mark.parametrize("length", [8, 9, 15, 16, 36, 63, 64])
def test_rebuilds_the_shape(architecture: str, length: int) -> None:
    x = torch.randn(5, len(SENSORS), length)
    assert network(architecture, length)(x).shape == x.shape


@of_each_network
@pytest.mark.parametrize("n_sensors", [1, 2, 40])
def test_rebuilds_the_shape_of_any_sensors(architecture: str, n_sensors: int) -> None:
    x = torch.randn(2, n_sensors, LENGTH)
    assert build(architecture, n_sensors, LENGTH)(x).shape == x.shape


@of_each_network
def test_sees_every_input(architecture: str) -> None:
    """A LayerNorm over one feature once cut all inputs off, and no test noticed."""
    net = network(architecture)
    x = torch.randn(4, len(SENSORS), LENGTH, requires_grad=True)
    (net(x) * torch.randn(4, len(SENSORS), LENGTH)).sum().backward()
    assert x.grad is not None
    # A forecaster predicts nothing from the last step.
    gradient = x.grad[..., :-1] if architecture == "forecast" else x.grad
    assert (gradient.abs().amax(0) > 0).all(), "inputs without influence"


@of_each_network
def test_learns_one_window(architecture: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, len(SENSORS), LENGTH)
    scored = slice(build(architecture, len(SENSORS), LENGTH).n_unscored, None)
    if architecture == "pca":
        net: Network = Pca.solve(torch.cat([x, -x]))
    else:
        net = build(architecture, len(SENSORS), LENGTH)
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(500):
            loss = (net(x) - x).square()[..., scored].mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if loss < 1e-3:
                break
    assert (net(x) - x).square()[..., scored].mean() < 0.01 * x.square().mean()


@of_each_network
def test_cannot_copy(architecture: str) -> None:
    """A network that copies its input detects nothing. So the latent is smaller than the window, for any sensors.

    A forecaster has no latent. No step of its output depends on that step or on a later one.
    """
    for n_sensors in (1, 3, 8, 52):
        net = build(architecture, n_sensors, 64)
        if architecture == "forecast":
            x, other = torch.randn(2, 4, n_sensors, 64)
            for step in (0, 1, 30, 62, 63):
                changed = torch.cat([x[..., :step], other[..., step:]], dim=-1)
                torch.testing.assert_close(net(changed)[..., : step + 1], net(x)[..., : step + 1])
            continue
        latent = net.encode(torch.randn(1, n_sensors, 64))
        assert latent.numel() <= n_sensors * 64 / 2


@of_each_model
def test_scores_survive_saving(architecture: str, trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    detector = trained[architecture]
    fresh = windows(waves(200, seed=1))
    version = detector.save(tmp_path)
    loaded = TrainedModel.load(tmp_path / version)
    assert version.startswith(f"{architecture}-")
    assert loaded.version == detector.version == version
    assert loaded.card == detector.card
    for before, after in zip(detector.score(fresh), loaded.score(fresh), strict=True):
        np.testing.assert_array_equal(before, after)


@of_each_model
@pytest.mark.parametrize("gaps", [False, True])
def test_one_window_scores_alike_alone_and_in_a_batch(
    architecture: str, gaps: bool, trained: dict[str, TrainedModel]
) -> None:
    fresh = windows(waves(900, seed=2)).copy()
    fresh[300:310] *= 3
    if gaps:
        fresh[::7, 3:9, 1] = np.nan
    detector = trained[architecture]
    together = detector.score(fresh)
    for row in [0, 1, 255, 256, 305, len(fresh) - 1]:
        alone = detector.score(fresh[row : row + 1])
        np.testing.assert_allclose(alone.score, together.score[row : row + 1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.share, together.share[row : row + 1], atol=1e-5)


@of_each_model
def test_faults_score_above_one(architecture: str, trained: dict[str, TrainedModel]) -> None:
    readings = waves(400, seed=3)
    readings[200:216, 1] = 1000.0   # the second sensor freezes at its mean
    scored = trained[architecture].score(windows(readings))
    breaks, frozen = slice(201 - LENGTH, 217 - LENGTH), 216 - LENGTH
    assert scored.score[frozen] > 1.5
    # In a window that is frozen as a whole each of three sensors contradicts the other two, and the largest share is
    # chance. While the fault enters the window, it is that of the faulty sensor.
    assert int(scored.share[breaks].mean(0).argmax()) == 1
    assert np.mean(scored.score[: 200 - LENGTH] >= 1.0) < 0.1


@of_each_model
def test_shares_sum_to_one(architecture: str, trained: dict[str, TrainedModel]) -> None:
    fresh = windows(waves(100, seed=4)).copy()
    fresh[10, :, 2] = np.nan
    share = trained[architecture].score(fresh).share
    np.testing.assert_allclose(share.sum(1), 1.0, atol=1e-5)
    assert share[10, 2] == 0.0
    assert (share >= 0).all()


@of_each_model
def test_a_reconstruction_is_what_contributions_expect(architecture: str, trained: dict[str, TrainedModel]) -> None:
    readings = waves(60, seed=11)
    readings[40:, 1] += 6000.0
    faulty, detector = windows(readings)[30:33].copy(), trained[architecture]
    expected = detector.reconstruct(faulty)
    assert expected.shape == faulty.shape
    for row, contributions in enumerate(detector.explain(faulty, detector.score(faulty).share)):
        for each in contributions:
            c = SENSORS.index(each.name)
            assert each.expected is not None
            cell = int(np.argmin(np.abs(faulty[row, :, c] - np.float32(each.actual or 0.0))))
            scale = float(np.ptp(faulty[row, :, c]))
            assert expected[row, cell, c] == pytest.approx(each.expected, abs=1e-3 * scale)


@of_each_model
def test_one_faulty_sensor_clears_its_alarm(architecture: str, trained: dict[str, TrainedModel]) -> None:
    readings = waves(60, seed=12)
    readings[-2:, 0] += 80.0
    faulty, detector = windows(readings)[-1:].copy(), trained[architecture]
    scored = detector.score(faulty)
    assert scored.score[0] > 1.0
    assert detector.clearing(faulty, scored.share) == [("speed",)]


@of_each_model
def test_a_missing_sensor_changes_no_verdict(architecture: str, trained: dict[str, TrainedModel]) -> None:
    """Missing values are masked: the score is the same for NaN and for infinity in their place."""
    fresh = windows(waves(200, seed=5)).copy()
    detector = trained[architecture]
    gaps = fresh.copy()
    gaps[:, 5:8, :] = np.nan
    infinite = fresh.copy()
    infinite[:, 5:8, :] = np.inf
    np.testing.assert_array_equal(detector.score(gaps).score, detector.score(infinite).score)
    assert np.mean(detector.score(gaps).score >= 1.0) < 0.15


@of_each_model
def test_denoising_serves_a_missing_sensor(architecture: str) -> None:
    """One sensor is missing in every window: the others score as normal, and a fault in them is found."""
    objective = "plain" if "denoising" in INCOMPATIBLE_OPTIONS.get(architecture, ((), ""))[0] else "denoising"
    detector = trained_on(windows(waves(600)), ModelSpec(architecture, objective, max_steps=N_STEPS))
    readings = waves(400, seed=9)
    readings[200:216, 1] = 1000.0
    without = windows(readings).copy()
    without[..., 2] = np.nan
    scored = detector.score(without)
    # A forecaster imputes the missing sensor from the past alone.
    assert np.mean(scored.score[: 200 - LENGTH] >= 1.0) < (0.2 if architecture == "forecast" else 0.1)
    assert scored.score[201 - LENGTH : 217 - LENGTH].max() > 1.5
    assert (scored.share[:, 2] == 0).all()


@of_each_model
def test_an_empty_window_has_no_score(architecture: str, trained: dict[str, TrainedModel]) -> None:
    fresh = windows(waves(40, seed=6)).copy()
    fresh[3] = np.nan
    scored = trained[architecture].score(fresh)
    assert np.isnan(scored.score[3])
    assert (scored.share[3] == 0).all()
    assert np.isfinite(np.delete(scored.score, 3)).all()


@of_each_model
def test_no_windows_give_no_scores(architecture: str, trained: dict[str, TrainedModel]) -> None:
    scored = trained[architecture].score(np.empty((0, LENGTH, len(SENSORS)), np.float32))
    assert scored.score.shape == (0,)
    assert scored.share.shape == (0, len(SENSORS))


@of_each_model
def test_versions_are_deterministic(architecture: str) -> None:
    values = windows(waves(200))
    first, again, other = (
        trained_on(values, ModelSpec(architecture, seed=seed, max_steps=20)).version for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@of_each_model
def test_explains_in_the_sensors_own_units(architecture: str, trained: dict[str, TrainedModel]) -> None:
    readings = waves(300, seed=7)
    readings[150:166, 1] = 9000.0
    gone = readings[150 : 150 + LENGTH].copy()
    gone[:, 0] = np.nan
    values = np.stack([readings[150 : 150 + LENGTH], gone])
    detector = trained[architecture]
    whole, gappy = detector.explain(values, detector.score(values).share)
    assert whole[0].name == "power"
    assert {each.name for each in whole} == set(SENSORS)
    assert whole[0].actual == 9000.0
    assert whole[0].expected is not None
    assert whole[0].expected < 6000.0
    assert sum(each.share for each in whole) == pytest.approx(1.0, abs=1e-5)
    assert [each.actual for each in gappy if each.name == "speed"] == [None]


@of_each_model
def test_incompatible_options_are_refused(architecture: str) -> None:
    not_with, why = INCOMPATIBLE_OPTIONS.get(architecture, ((), ""))
    for objective in set(not_with) & set(OBJECTIVES):
        with pytest.raises(ConfigError, match=why):
            ModelSpec(architecture, objective)
    if "stacked" in not_with:
        with pytest.raises(ConfigError, match=why):
            ModelSpec(architecture, stacked=True)


@of_each_model
def test_every_objective_keeps_the_contract(architecture: str, tmp_path: Path) -> None:
    """Every objective keeps the same promises."""
    healthy, fresh = windows(waves(160)), windows(waves(60, seed=8)).copy()
    fresh[::5, 3:6, 1] = np.nan
    not_with = INCOMPATIBLE_OPTIONS.get(architecture, ((), ""))[0]
    specs = [ModelSpec(architecture, objective, max_steps=30) for objective in OBJECTIVES if objective not in not_with]
    if "stacked" not in not_with:
        specs += [ModelSpec(architecture, each, stacked=True, max_steps=30) for each in ("plain", "variational")]
    for spec in specs:
        detector = trained_on(healthy, spec)
        assert detector.card.objective == spec.objective
        assert all(isinstance(trouble, str) for trouble in detector.card.training["troubles"])
        scored = detector.score(fresh)
        assert np.isfinite(scored.score).all(), spec
        np.testing.assert_allclose(scored.share.sum(1), 1.0, atol=1e-5)
        loaded = TrainedModel.load(tmp_path / detector.save(tmp_path))
        np.testing.assert_array_equal(loaded.score(fresh).score, scored.score)
        for row in (0, 7, len(fresh) - 1):
            alone = detector.score(fresh[row : row + 1]).score
            np.testing.assert_allclose(alone, scored.score[row : row + 1], rtol=1e-5, atol=1e-6)
        assert trained_on(healthy, spec).version == detector.version, spec
        assert reconstruct(detector, fresh).shape == fresh.shape
        if detector.card.choice.get("chosen", architecture) == "forecast":
            with pytest.raises(NotFound, match="no code"):
                sample(detector, 3, seed=0)
        else:
            assert np.isfinite(sample(detector, 3, seed=0)).all()


@of_each_network
def test_a_network_is_as_good_as_the_pca(
    architecture: str, trained: dict[str, TrainedModel]
) -> None:
    detector = trained[architecture]
    if architecture == "forecast":   # it has the past alone, but the noise is a hundredth of the variance
        assert detector.card.training["explained_variance"]["all"] > 0.8
        return
    pca_error = trained["pca"].card.training["held_out_error"]["mean"]
    assert detector.card.training["held_out_error"]["mean"] <= 1.05 * pca_error


# ---------------------------------------------------------------- bundles


def bundle_of(trained: dict[str, TrainedModel], architecture: str) -> TrainedModel:
    """Return a version with the model of the architecture for a fleet, and another for each of two assets."""
    own = {"one": trained[architecture], "two": trained["pca"]}
    copies = {name: TrainedModel.parse(model.dump(), model.device) for name, model in own.items()}
    return trained[architecture].with_own(copies, {"fleet": {}})


@of_each_model
def test_scores_of_a_bundle_survive_saving(architecture: str, trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    bundle, fresh = bundle_of(trained, architecture), windows(waves(200, seed=1))
    names = [("one", "two", "never seen")[row % 3] for row in range(len(fresh))]
    version = bundle.save(tmp_path)
    loaded = TrainedModel.load(tmp_path / version)
    loaded.self_test()
    assert version.startswith(f"{architecture}-")
    assert version != trained[architecture].version
    assert loaded.version == version
    for before, after in zip(bundle.score(fresh, names), loaded.score(fresh, names), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.card == bundle.card


@of_each_model
@pytest.mark.parametrize("gaps", [False, True])
def test_one_window_scores_alike_alone_and_in_a_mixed_batch(
    architecture: str, gaps: bool, trained: dict[str, TrainedModel]
) -> None:
    fresh = windows(waves(700, seed=2)).copy()
    fresh[300:310] *= 3
    if gaps:
        fresh[::7, 3:9, 1] = np.nan
    bundle = bundle_of(trained, architecture)
    names = [("one", "two", "never seen")[row * row % 3] for row in range(len(fresh))]
    together = bundle.score(fresh, names)
    for row in [0, 1, 255, 256, 305, len(fresh) - 1]:
        alone = bundle.score(fresh[row : row + 1], names[row : row + 1])
        np.testing.assert_allclose(alone.score, together.score[row : row + 1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.share, together.share[row : row + 1], atol=1e-5)


@of_each_model
def test_shares_of_a_bundle_sum_to_one(architecture: str, trained: dict[str, TrainedModel]) -> None:
    fresh = windows(waves(100, seed=4)).copy()
    fresh[10, :, 2], fresh[11] = np.nan, np.nan
    names = [("one", "two", "never seen")[row % 3] for row in range(len(fresh))]
    scored = bundle_of(trained, architecture).score(fresh, names)
    assert np.isnan(scored.score[11])
    np.testing.assert_allclose(np.delete(scored.share, 11, 0).sum(1), 1.0, atol=1e-5)
    assert scored.share[10, 2] == 0.0


@of_each_model
def test_no_windows_give_a_bundle_no_scores(architecture: str, trained: dict[str, TrainedModel]) -> None:
    scored = bundle_of(trained, architecture).score(np.empty((0, LENGTH, len(SENSORS)), np.float32), [])
    assert scored.score.shape == (0,)
    assert scored.share.shape == (0, len(SENSORS))
