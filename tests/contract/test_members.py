"""Model contract of the members that are solved in closed form, promises of `test_models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from monitor.models.autoregression import Autoregression
from monitor.models.build import ONLY_MEMBERS, SOLVED, build
from monitor.models.cross import Cross
from monitor.models.member import Member, ensemble_score, sensor_errors
from monitor.models.memory import Memory
from monitor.models.residual import TimeScales
from monitor.models.scaler import forward_fill
from monitor.models.shape import Shape
from monitor.models.short_memory import ShortMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network

LENGTH = 32

SOLVE: dict[str, Callable[[torch.Tensor], Network | None]] = {
    "autoregression": Autoregression.solve,
    "cross": Cross.solve,
    "memory": Memory.solve,
    "shape": lambda x: Shape.solve(x, periodic=torch.ones(x.shape[1], dtype=torch.bool)),
    "short_memory": ShortMemory.solve,
}
of_each_member = pytest.mark.parametrize("name", SOLVE)
of_each_network = pytest.mark.parametrize("name", ONLY_MEMBERS)


def series(n: int, n_sensors: int = 3, noise: float = 0.1, seed: int = 0) -> torch.Tensor:
    """Return standardised readings (n, C) of periodic sensors, each correlated with the others."""
    draw = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(n) / 20
    mixed = np.stack([np.sin(phase), np.cos(phase)], 1) @ np.random.default_rng(9).standard_normal((2, n_sensors))
    return torch.from_numpy((mixed + noise * draw.standard_normal((n, n_sensors))).astype(np.float32))


def windows(readings: torch.Tensor, length: int = LENGTH) -> torch.Tensor:
    return readings.unfold(0, length, 1).contiguous()


def solved(name: str, n_sensors: int = 3, length: int = LENGTH, n: int = 800) -> Network:
    network = SOLVE[name](windows(series(n, n_sensors), length))
    assert network is not None
    return network


def member(name: str, n_sensors: int = 3) -> Member:
    network = solved(name, n_sensors)
    x = windows(series(600, n_sensors, seed=1))
    return Member.fit(name, network, sensor_errors(network, TimeScales.of(network), x, None))


def test_every_solved_member_is_tested() -> None:
    assert set(SOLVE) == set(SOLVED)


@of_each_network
@pytest.mark.parametrize("length", [8, 9, 15, 16, 36, 63, 64])
def test_rebuilds_the_shape(name: str, length: int) -> None:
    x = torch.randn(5, 3, length)
    assert build(name, 3, length)(x).shape == x.shape
    if name in SOLVE:
        assert solved(name, 3, length)(x).shape == x.shape


@of_each_network
@pytest.mark.parametrize("n_sensors", [1, 2, 40, 60])
def test_rebuilds_the_shape_of_any_sensors(name: str, n_sensors: int) -> None:
    x = torch.randn(2, n_sensors, LENGTH)
    assert build(name, n_sensors, LENGTH)(x).shape == x.shape
    if name in SOLVE and (name, n_sensors) != ("cross", 1):
        assert solved(name, n_sensors)(x).shape == x.shape


@of_each_member
def test_sees_every_input(name: str) -> None:
    """A change of each scored value changes an expectation. That of a memory jumps, so a gradient cannot tell."""
    network = solved(name)
    x = windows(series(200, seed=2))[::7]
    expected = network(x)
    last_seen = LENGTH - 1 if name == "autoregression" else LENGTH   # it predicts nothing from the last step
    first_seen = network.n_unscored if name == "short_memory" else 0
    for sensor in range(x.shape[1]):
        for step in range(first_seen, last_seen):
            changed = x.clone()
            changed[:, sensor, step] += 5.0
            moved = (network(changed) - expected).abs()
            moved[:, sensor, step] = 0.0
            assert moved.max() > 0, (sensor, step)


@of_each_member
def test_learns_one_window(name: str) -> None:
    """One window without noise: its sensors follow from each other, and its steps from the steps before."""
    x = windows(series(LENGTH, 4, noise=0.0))
    network = SOLVE[name](x.repeat(16, 1, 1))   # a memory keeps a mean of four windows
    assert network is not None
    assert network.squared_error(x, x).mean() < 0.01 * x.square().mean()


@of_each_member
@pytest.mark.parametrize("gaps", [False, True])
def test_scores_survive_saving(name: str, gaps: bool) -> None:
    before = member(name)
    tensors = {key: tensor.contiguous() for key, tensor in before.tensors("3.").items()}
    stored = safetensors.torch.load(safetensors.torch.save(tensors))
    entry: dict[str, Any] = before.to_json()
    after = Member.load(entry, stored, "3.", 3, LENGTH)
    x, present = recorded(gaps)
    torch.testing.assert_close(after.score(x, present), before.score(x, present), rtol=0, atol=0, equal_nan=True)
    assert after.to_json() == entry


@of_each_member
@pytest.mark.parametrize("gaps", [False, True])
def test_one_window_scores_alike_alone_and_in_a_batch(name: str, gaps: bool) -> None:
    each = member(name)
    x, present = recorded(gaps)
    with torch.inference_mode():
        score, share = ensemble_score((each,), x, present)
        for row in [0, 1, 2, 100, 120, len(x) - 1]:
            here = None if present is None else present[row : row + 1]
            alone, own_share = ensemble_score((each,), x[row : row + 1], here)
            torch.testing.assert_close(alone, score[row : row + 1], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(own_share, share[row : row + 1], rtol=0, atol=1e-5)


@of_each_member
def test_a_gap_changes_no_verdict(name: str) -> None:
    each = member(name)
    x, present = recorded(True)
    assert present is not None
    healthy, _ = ensemble_score((each,), windows(series(600, seed=1)), None)
    score, share = ensemble_score((each,), x[:80], present[:80])
    assert (score > healthy.quantile(0.99)).float().mean() < 0.1
    assert torch.isfinite(score).all()
    torch.testing.assert_close(share.sum(1), torch.ones(80))


@of_each_member
def test_a_missing_sensor_changes_no_verdict(name: str) -> None:
    each = member(name, n_sensors=6)
    healthy, _ = ensemble_score((each,), windows(series(600, 6, seed=1)), None)
    x = windows(series(300, 6, seed=3))
    present = torch.ones_like(x, dtype=torch.bool)
    present[:, 1] = False
    score, share = ensemble_score((each,), torch.where(present, x, 0.0), present)
    assert (score > healthy.quantile(0.99)).float().mean() < 0.15
    assert (share[:, 1] == 0).all()


@of_each_member
def test_the_same_windows_give_the_same_member(name: str) -> None:
    first, again = (solved(name).state_dict() for _ in range(2))
    assert first.keys() == again.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key]), key


@of_each_member
def test_a_fault_stands_out(name: str) -> None:
    """The readings of a sensor turn upside down for half a window."""
    each = member(name, n_sensors=6)
    readings = series(300, 6, seed=4)
    readings[200:216, 1] *= -1
    score, share = ensemble_score((each,), windows(readings), None)
    faulty = slice(208 - LENGTH, 217 - LENGTH)
    assert score[faulty].median() > score[: 200 - LENGTH].quantile(0.99)
    assert int(share[faulty].mean(0).argmax()) == 1


def recorded(gaps: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return fresh windows, some with a fault, and the mask of present values."""
    readings = series(300, seed=3)
    readings[150:160] *= 3
    x = windows(readings)
    if not gaps:
        return x, None
    present = torch.ones_like(x, dtype=torch.bool)
    present[::7, 1, LENGTH - 8 : LENGTH - 3] = False
    return forward_fill(torch.where(present, x, 0.0), present), present   # as the scaler does
