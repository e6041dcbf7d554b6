"""Memory of healthy windows, and the memory of shapes."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.models.memory import N_SOLVE, Memory
from monitor.models.shape import Shape

ONE = torch.ones(1, dtype=torch.bool)


def cycles(n: int, period: int = 25, noise: float = 0.05, seed: int = 0) -> torch.Tensor:
    """Return a series (n, 1) of equal pulses."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.arange(n) % period
    pulse = torch.exp(-((phase - 8) ** 2) / 8.0) - 0.4 * torch.exp(-((phase - 15) ** 2) / 20.0)
    return (pulse + noise * torch.randn(n, generator=generator))[:, None]


def windows(series: torch.Tensor, length: int = 32) -> torch.Tensor:
    return series.unfold(0, length, 1).contiguous()


def test_the_nearest_window_is_found() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 2, 16)
    memory = Memory.solve(x.repeat_interleave(4, 0), n_max=40)
    assert memory.hyper["n_windows"] == 40
    torch.testing.assert_close(memory(x), x, rtol=1e-4, atol=1e-4)
    assert torch.equal(memory.nearest(x + 0.1), torch.cdist(x.flatten(1) + 0.1, memory.windows).argmin(1))


def test_between_two_neighbours_is_their_mean() -> None:
    """A memory of a few phases expects those between them, too."""
    wave = torch.sin(2 * math.pi * torch.arange(2000) / 50)[:, None]
    few = Memory.solve(windows(wave[::5], 32).repeat_interleave(8, 0), n_max=10)
    assert few.hyper["n_windows"] == 10
    between = windows(torch.sin(2 * math.pi * (torch.arange(200) + 0.5) / 10)[:, None], 32)
    nearest = few.windows[few.nearest(between)].reshape(between.shape)
    assert (few(between) - between).square().mean() < 0.3 * (nearest - between).square().mean()


def test_the_search_in_few_axes_finds_nearly_the_nearest() -> None:
    x = windows(torch.cat([cycles(3000), cycles(3000, 40, seed=1)], 1), 64)
    memory = Memory.solve(x)
    error = (memory(x) - x).square().mean()
    nearest = torch.cdist(x.flatten(1), memory.windows).min(1).values.square().mean() / x[0].numel()
    assert error < 1.1 * nearest
    assert error < 0.1 * x.square().mean()


def test_an_older_card_names_its_cells() -> None:
    assert Memory(2, 16, n_windows=3, n_axes=2, cells=16).hyper == {"n_windows": 3, "n_axes": 2}
    with pytest.raises(ValueError, match="cells 8"):
        Memory(2, 16, cells=8)


def test_an_odd_cycle_is_far_from_all_others() -> None:
    """Its values are usual, their order is not."""
    healthy, odd = cycles(3000), cycles(1000, seed=5)
    odd[500:525] = odd[500:525].flip(0)
    memory = Memory.solve(windows(healthy))
    error = (memory(windows(odd)) - windows(odd)).square().mean((1, 2))
    assert int(error.argmax()) in range(500 - 31, 525)
    assert error.max() > 5 * error[:400].quantile(0.99)


@pytest.mark.parametrize("share_of_newest", [0.05, 0.1])
def test_the_newest_windows_are_remembered_more_densely(share_of_newest: float) -> None:
    """A new regime began a short while ago."""
    n = 2 * N_SOLVE
    torch.manual_seed(0)
    x = torch.randn(n, 1, 4)
    n_new = int(share_of_newest * n)
    x[-n_new:] += 20.0
    shuffled = torch.randperm(n)
    ends = (torch.arange(n) * 1_000_000)[shuffled]
    plain, favouring = Memory.solve(x[shuffled]), Memory.solve(x[shuffled], ends)
    n_plain, n_favouring = (int((memory.windows.mean(1) > 10).sum()) for memory in (plain, favouring))
    assert n_favouring > 1.4 * n_plain


def test_a_remembered_window_knows_its_time() -> None:
    x = windows(cycles(1500))
    ends = torch.arange(len(x)) * 1_000_000
    memory = Memory.solve(x, ends, n_max=50)
    typical = x[memory.ends_us // 1_000_000]
    assert torch.equal(memory.nearest(typical), torch.arange(len(memory.windows)))
    assert (Memory.solve(x).ends_us == 0).all()


def test_few_windows_are_remembered_too() -> None:
    for n in (1, 2, 5):
        x = torch.randn(n, 2, 8)
        assert Memory.solve(x)(x).shape == x.shape


def test_many_sensors_take_a_bounded_memory() -> None:
    memory = Memory.solve(torch.randn(2000, 300, 32))
    assert memory.windows.numel() <= 4_000_000
    assert len(memory.windows) > 300


# ---------------------------------------------------------------- shapes


def test_shapes_count_at_any_level_and_amplitude() -> None:
    shape = Shape.solve(windows(cycles(2000, noise=0.01)), periodic=ONE)
    assert shape is not None
    x = windows(cycles(200, noise=0.01, seed=2))
    raised = 3.0 * x + 5.0
    # Rounding may decide between two shapes that are as near.
    alike = torch.isclose(shape(raised), 3.0 * shape(x) + 5.0, rtol=1e-3, atol=1e-3).all(-1)
    assert alike.float().mean() > 0.95


def test_noise_on_a_still_line_is_no_shape() -> None:
    """A machine that rests now and then. Without a floor of the spread, noise would be blown up."""
    healthy = cycles(4000, noise=0.01)
    healthy[2000:2200] = 0.01 * torch.randn(200, 1)
    shape = Shape.solve(windows(healthy), periodic=ONE)
    assert shape is not None
    still = windows(0.01 * torch.randn(100, 1))
    odd = windows(cycles(100, noise=0.01).flip(0))
    assert shape.squared_error(still, still).mean() < 0.1 * shape.squared_error(odd, odd).mean()


def test_only_periodic_sensors_are_compared() -> None:
    torch.manual_seed(0)
    mixed = torch.cat([torch.randn(3000, 1), cycles(3000), torch.randn(3000, 1).cumsum(0) / 30], 1)
    x = windows(mixed)
    shape = Shape.solve(x, periodic=torch.tensor([False, True, False]))
    assert shape is not None
    assert shape.scored_sensors is not None
    assert shape.scored_sensors.tolist() == [False, True, False]
    assert torch.equal(shape(x)[:, [0, 2]], x[:, [0, 2]])
    assert (shape.squared_error(x, x)[:, [0, 2]] == 0).all()
    assert (shape.squared_error(x, x)[:, 1] > 0).any()


def test_without_a_periodic_sensor_there_is_no_shape() -> None:
    assert Shape.solve(windows(torch.randn(1000, 2)), periodic=torch.zeros(2, dtype=torch.bool)) is None
