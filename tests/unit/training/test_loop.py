"""Learning cannot fail quietly: every way of failing has its sentence."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.errors import TrainingDiverged
from monitor.models.network import Network
from monitor.models.objectives import OBJECTIVES, plain
from monitor.models.spec import ModelSpec
from monitor.training.loop import Tensors, learn, window_errors

CPU = torch.device("cpu")


def windows(n: int, seed: int = 0) -> Tensors:
    """Two sensors on one wave, its phase at random, with noise."""
    draw = torch.Generator().manual_seed(seed)
    phase = 6.28 * torch.rand(n, 1, generator=draw)
    steps = torch.arange(12) / 2
    x = torch.stack([(phase + steps).sin(), (phase + steps).cos()], dim=1)   # (N, 2, 12)
    return Tensors(x + 0.1 * torch.randn(n, 2, 12, generator=draw), None)


def spec(**more: object) -> ModelSpec:
    return ModelSpec("conv", **{"max_steps": 200, "max_train_s": 600.0, **more})   # type: ignore[arg-type]  # test values


def quiet(_share: float, _message: str) -> None:
    pass


def test_it_learns_and_keeps_the_best_step() -> None:
    heard: list[tuple[float, str]] = []
    learnt = learn(windows(300), windows(80, 1), spec(), CPU, lambda p, m: heard.append((p, m)))
    assert learnt.train_error < 0.5
    assert learnt.held_out_error < 0.5
    assert 0 < learnt.best_step <= learnt.n_steps == 200
    assert learnt.restarts == []
    assert not learnt.network.training
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_nan_is_a_divergence_and_another_seed_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlucky(net: object, x: torch.Tensor, present: object, draw: torch.Generator) -> torch.Tensor:
        loss = plain(net, x, present, draw)   # type: ignore[arg-type]  # passed through
        return loss * math.nan if draw.initial_seed() == 5 else loss

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: unlucky)
    learnt = learn(windows(200), windows(50, 1), spec(seed=5), CPU, quiet)
    assert learnt.seed == 6
    assert [why[:11] for why in learnt.restarts] == ["seed 5: los"]
    assert "nan" in learnt.restarts[0]


def test_an_exploding_loss_is_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10_000))

    def exploding(net: object, x: torch.Tensor, present: object, draw: torch.Generator) -> torch.Tensor:
        return plain(net, x, present, draw) * 1.3 ** next(calls)   # type: ignore[arg-type]  # passed through

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: exploding)
    with pytest.raises(TrainingDiverged, match="at the first"):
        learn(windows(200), windows(50, 1), spec(n_tries=1), CPU, quiet)


def test_worse_than_the_mean_is_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    def perverse(net: object, x: torch.Tensor, _present: object, _draw: object) -> torch.Tensor:
        return (net(x) - 5.0).square().mean()   # type: ignore[operator]  # a network is called

    monkeypatch.setitem(OBJECTIVES, "plain", lambda _: perverse)
    with pytest.raises(TrainingDiverged, match=r"seed 0: .*the mean alone.*; seed 1: .*the mean alone") as raised:
        learn(windows(200), windows(50, 1), spec(n_tries=2), CPU, quiet)
    assert "seed 2" not in str(raised.value)


def test_out_of_time_keeps_the_best_and_says_so() -> None:
    ticks = iter(range(1000))
    learnt = learn(windows(200), windows(50, 1), spec(max_train_s=4.5), CPU, quiet, now=lambda: float(next(ticks)))
    assert learnt.stopped == "time budget"
    assert learnt.n_steps == 50   # the clock is read every tenth step


def test_it_stops_when_it_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.training.loop.PATIENCE", 1)
    monkeypatch.setattr("monitor.training.loop.MOST_EPOCHS", 2000)
    noise = Tensors(torch.randn(60, 2, 12, generator=torch.Generator().manual_seed(0)), None)
    other = Tensors(torch.randn(60, 2, 12, generator=torch.Generator().manual_seed(1)), None)
    learnt = learn(noise, other, spec(max_steps=2000), CPU, quiet)
    assert learnt.stopped == "no better"
    assert learnt.n_steps < 2000


def test_the_worst_windows_are_left_out_and_named() -> None:
    train = windows(400)
    faulty = torch.arange(100, 115)
    train.x[faulty] = 8 * torch.randn(15, 2, 12, generator=torch.Generator().manual_seed(2))
    learnt = learn(train, windows(80, 1), spec(max_steps=300), CPU, quiet)
    assert learnt.trimmed.nonzero()[0].tolist() == faulty.tolist()
    trusting = learn(train, windows(80, 1), spec(max_steps=300, max_trim=0.0), CPU, quiet)
    assert not trusting.trimmed.any()


def test_chance_comes_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = learn(windows(200), windows(50, 1), spec(max_steps=20), CPU, quiet)
    torch.manual_seed(2)
    outside = torch.random.get_rng_state()
    two = learn(windows(200), windows(50, 1), spec(max_steps=20), CPU, quiet)
    assert torch.equal(torch.random.get_rng_state(), outside)
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_way_is_on_record() -> None:
    learnt = learn(windows(300), windows(80, 1), spec(max_steps=1000), CPU, quiet)
    assert [point.step for point in learnt.curve[:3]] == [1, 50, 100]
    assert learnt.curve[-1].step == learnt.n_steps
    assert min(point.held_out_error for point in learnt.curve[1:]) == learnt.held_out_error
    few = learnt.few_points()
    assert len(few) <= 12
    assert (few[0], few[-1]) == (learnt.curve[0], learnt.curve[-1])
    assert 0 < learnt.gradient_norm["p50"] <= learnt.gradient_norm["p99"]
    assert learnt.gradient_norm["clipped"] == 0.0


def test_wild_windows_are_clipped_and_counted() -> None:
    wild = Tensors(windows(300).x * 30, None)
    assert learn(wild, wild, spec(), CPU, quiet).gradient_norm["clipped"] > 0.5


def test_a_judge_leaves_its_facts() -> None:
    learnt = learn(windows(300), windows(80, 1), ModelSpec("dense", "adversarial", max_steps=200), CPU, quiet)
    assert 0.3 < learnt.objective["judge_right"] < 1.0
    assert not any("judge" in name for name in learnt.network.state_dict())


def test_codes_are_measured_where_no_prior_was_taught() -> None:
    plain_one, normal = (
        learn(windows(300), windows(80, 1), ModelSpec("dense", objective, max_steps=60), CPU, quiet).network
        for objective in ("plain", "adversarial")
    )
    assert not torch.equal(plain_one.get_buffer("latent_root"), torch.eye(len(plain_one.get_buffer("latent_mean"))))
    assert torch.equal(normal.get_buffer("latent_root"), torch.eye(len(normal.get_buffer("latent_mean"))))


def test_learning_begins_where_the_principal_components_end() -> None:
    first = learn(windows(300), windows(80, 1), spec(max_steps=50), CPU, quiet).curve[0].held_out_error
    assert first < 0.05   # the noise alone has 0.01, the mean 0.5


def test_missing_cells_ask_for_nothing() -> None:
    """The target of a missing cell does not matter: here it is far from what the network can reach."""
    x = windows(200).x
    present = torch.ones_like(x, dtype=torch.bool)
    present[:, 1, 4:8] = False
    target = torch.where(present, x, 1e4)

    class Constant(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    draw, constant = torch.Generator(), Constant()
    masked = plain(constant, target, present, draw)
    assert masked < 2
    assert window_errors(constant, Tensors(target, present)).max() < 5
    assert plain(constant, target, None, draw) > 1e6
