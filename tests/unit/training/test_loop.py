"""Training loop: every failure is an error or is named in the result."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.errors import TrainingDiverged
from monitor.models.network import MAX_LATENT, Network
from monitor.models.objectives import OBJECTIVES, plain
from monitor.models.pca import Pca
from monitor.models.spec import ModelSpec
from monitor.training.loop import train
from monitor.training.tensors import WindowTensors, trimmed_mean, window_errors

CPU = torch.device("cpu")


def windows(n: int, seed: int = 0) -> WindowTensors:
    """Return two sensors on one wave with a random phase, with noise."""
    draw = torch.Generator().manual_seed(seed)
    phase = 6.28 * torch.rand(n, 1, generator=draw)
    steps = torch.arange(12) / 2
    x = torch.stack([(phase + steps).sin(), (phase + steps).cos()], dim=1)   # (N, 2, 12)
    return WindowTensors(x + 0.1 * torch.randn(n, 2, 12, generator=draw), None)


def spec(**more: object) -> ModelSpec:
    return ModelSpec("conv", **{"max_steps": 200, "max_train_s": 600.0, **more})   # type: ignore[arg-type]  # test values


def quiet(_share: float, _message: str) -> None:
    pass


def test_training_keeps_the_best_step() -> None:
    reported: list[tuple[float, str]] = []
    result = train(windows(300), windows(80, 1), spec(), CPU, lambda p, m: reported.append((p, m)))
    assert result.train_error < 0.5
    assert result.held_out_error < 0.5
    assert 0 < result.best_step <= result.n_steps == 200
    assert result.restarts == []
    assert not result.network.training
    shares = [share for share, _ in reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_nan_is_retried_with_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlucky(net: object, x: torch.Tensor, present: object, generator: torch.Generator) -> torch.Tensor:
        loss = plain(net, x, present, generator)   # type: ignore[arg-type]  # passed through
        return loss * math.nan if generator.initial_seed() == 5 else loss

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: unlucky)
    result = train(windows(200), windows(50, 1), spec(seed=5), CPU, quiet)
    assert result.seed == 6
    assert [why[:11] for why in result.restarts] == ["seed 5: los"]
    assert "nan" in result.restarts[0]


def test_an_exploding_loss_is_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10_000))

    def exploding(net: object, x: torch.Tensor, present: object, generator: torch.Generator) -> torch.Tensor:
        return plain(net, x, present, generator) * 1.3 ** next(calls)   # type: ignore[arg-type]  # passed through

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: exploding)
    with pytest.raises(TrainingDiverged, match="at the first"):
        train(windows(200), windows(50, 1), spec(n_tries=1), CPU, quiet)


def test_worse_than_the_mean_is_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    def perverse(net: object, x: torch.Tensor, _present: object, _generator: object) -> torch.Tensor:
        return (net(x) - 5.0).square().mean()   # type: ignore[operator]  # a network is called

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: perverse)
    with pytest.raises(TrainingDiverged, match=r"seed 0: .*the mean alone.*; seed 1: .*the mean alone") as raised:
        train(windows(200), windows(50, 1), spec(n_tries=2), CPU, quiet)
    assert "seed 2" not in str(raised.value)


def test_out_of_time_keeps_the_best_step() -> None:
    ticks = iter(range(1000))
    result = train(windows(200), windows(50, 1), spec(max_train_s=4.5), CPU, quiet, now=lambda: float(next(ticks)))
    assert result.stopped == "time budget"
    assert result.n_steps == 50   # the clock is read every tenth step


def test_training_stops_without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.training.loop.PATIENCE", 1)
    monkeypatch.setattr("monitor.training.loop.MAX_EPOCHS", 2000)
    noise = WindowTensors(torch.randn(60, 2, 12, generator=torch.Generator().manual_seed(0)), None)
    other = WindowTensors(torch.randn(60, 2, 12, generator=torch.Generator().manual_seed(1)), None)
    result = train(noise, other, spec(max_steps=2000), CPU, quiet)
    assert result.stopped == "no better"
    assert result.n_steps < 2000


def test_outliers_are_not_trained_on() -> None:
    training = windows(400)
    faulty = torch.arange(100, 115)
    training.x[faulty] = 8 * torch.randn(15, 2, 12, generator=torch.Generator().manual_seed(2))
    result = train(training, windows(80, 1), spec(max_steps=300), CPU, quiet)
    assert result.trimmed.nonzero()[0].tolist() == faulty.tolist()
    trusting = train(training, windows(80, 1), spec(max_steps=300, max_trim=0.0), CPU, quiet)
    assert not trusting.trimmed.any()


def test_training_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = train(windows(200), windows(50, 1), spec(max_steps=20), CPU, quiet)
    torch.manual_seed(2)
    outside = torch.random.get_rng_state()
    two = train(windows(200), windows(50, 1), spec(max_steps=20), CPU, quiet)
    assert torch.equal(torch.random.get_rng_state(), outside)
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_denoising_is_checked_on_corrupted_copies() -> None:
    """Checked on whole windows, less noise is a larger error, and training ends where it began."""
    held_out = windows(80, 1)
    result = train(windows(300), held_out, spec(objective="denoising"), CPU, quiet)
    best = min(result.curve[1:], key=lambda point: point.held_out_error)
    assert best.step == result.best_step > 50
    assert result.held_out_error == pytest.approx(trimmed_mean(window_errors(result.network, held_out)))
    assert best.held_out_error > 1.1 * result.held_out_error, "corrupted copies are harder"


def test_the_result_has_the_training_curve() -> None:
    result = train(windows(300), windows(80, 1), spec(max_steps=1000), CPU, quiet)
    assert [point.step for point in result.curve[:3]] == [1, 50, 100]
    assert result.curve[-1].step == result.n_steps
    assert min(point.held_out_error for point in result.curve[1:]) == result.held_out_error
    few = result.thinned_curve()
    assert len(few) <= 12
    assert (few[0], few[-1]) == (result.curve[0], result.curve[-1])
    assert 0 < result.gradient_norm["p50"] <= result.gradient_norm["p99"]
    assert result.gradient_norm["clipped"] == 0.0


def test_clipped_gradients_are_counted() -> None:
    large = WindowTensors(windows(300).x * 30, None)
    assert train(large, large, spec(), CPU, quiet).gradient_norm["clipped"] > 0.5


def test_only_the_accuracy_is_kept() -> None:
    result = train(windows(300), windows(80, 1), ModelSpec("dense", "adversarial", max_steps=200), CPU, quiet)
    assert 0.3 < result.objective["judge_right"] < 1.0
    assert not any("discriminator" in name for name in result.network.state_dict())


def test_latents_are_fitted_without_a_prior() -> None:
    plain_network, normal = (
        train(windows(300), windows(80, 1), ModelSpec("dense", objective, max_steps=60), CPU, quiet).network
        for objective in ("plain", "adversarial")
    )
    for network, is_standard_normal in ((plain_network, False), (normal, True)):
        root = network.get_buffer("latent_root")
        assert torch.equal(root, torch.eye(len(root))) is is_standard_normal


def test_training_begins_at_the_pca() -> None:
    first = train(windows(300), windows(80, 1), spec(max_steps=50), CPU, quiet).curve[0].held_out_error
    assert first < 0.05   # the noise alone has 0.01, the mean 0.5


def test_a_latent_is_narrower_than_many_components() -> None:
    torch.manual_seed(0)
    x = WindowTensors(torch.randn(600, 8, 64), None)
    pca = Pca.solve(x.x)
    assert pca.hyper["n_components"] > MAX_LATENT
    result = train(x, x, spec(max_steps=1), CPU, quiet, pca=pca)
    assert result.network.hyper["code"] == MAX_LATENT


def test_missing_values_contribute_nothing() -> None:
    """The target of a missing value has no effect: here it is far out of the network's range."""
    x = windows(200).x
    present = torch.ones_like(x, dtype=torch.bool)
    present[:, 1, 4:8] = False
    target = torch.where(present, x, 1e4)

    class ZeroOutput(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    generator, constant = torch.Generator(), ZeroOutput()
    masked = plain(constant, target, present, generator)
    assert masked < 2
    assert window_errors(constant, WindowTensors(target, present)).max() < 5
    assert plain(constant, target, None, generator) > 1e6
