"""One figure from many errors: healthy is the middle, missing says nothing, spike and drift have a scale each."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.models.network import Network
from monitor.models.residual import BLOCK, Residual, rebuild, recency, squared_error


@pytest.fixture
def healthy() -> torch.Tensor:
    """Squared errors (N, C, T) of three sensors, the second a hundred times harder to rebuild."""
    torch.manual_seed(0)
    return torch.randn(400, 3, 16).square() * torch.tensor([1.0, 100.0, 1.0])[None, :, None]


def fitted(healthy: torch.Tensor) -> Residual:
    return Residual.fit(healthy, None, 0.125)


def error(residual: Residual, squared: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    return residual.combine(residual.per_sensor(squared, present), present)[0]   # (B, S)


def test_a_sensor_hard_to_rebuild_does_not_shout(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    _, share = residual.standard(healthy, None)
    # By squared error alone the second sensor would have 98 %.
    assert share.mean((0, 1))[1] < 0.7


def test_healthy_errors_are_about_the_middle_at_both_time_scales_and_few_are_far_above(healthy: torch.Tensor) -> None:
    standard, _ = fitted(healthy).standard(healthy, None)
    assert standard.shape == (400, 2)
    assert standard.median(0).values.abs().max() < 0.05
    assert ((standard > 1.645).float().mean(0) - 0.05).abs().max() < 0.02


def test_a_perfect_sensor_does_not_divide_by_zero(healthy: torch.Tensor) -> None:
    healthy[:, 0] = 0.0
    assert torch.isfinite(fitted(healthy).standard(torch.ones(1, 3, 16), None)[0]).all()


def test_a_sensor_that_was_missing_in_held_out_time_is_as_hard_as_the_others_and_not_perfect(
    healthy: torch.Tensor,
) -> None:
    present = torch.ones_like(healthy, dtype=torch.bool)
    present[:, 2] = False
    residual = Residual.fit(healthy, present, 0.125)
    assert residual.usual[2] == pytest.approx(float(residual.usual[:2].log().mean().exp()), rel=1e-4)
    back = residual.standard(healthy, None)[0]
    assert (back > 3).float().mean() < 0.02


def test_healthy_errors_all_alike_still_have_a_spread() -> None:
    alike = Residual.fit(torch.ones(50, 3, 16), None, 0.125)
    assert (alike.spread >= 0.1).all()


def test_an_error_is_a_size_ten_times_as_large_is_ten_times_the_error(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    torch.testing.assert_close(error(residual, 100 * healthy), 10 * error(residual, healthy))


def test_the_fast_scale_is_the_newest_cell_and_the_slow_one_forgets(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    old, new = torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)
    old[..., 0], new[..., -1] = 1.0, 1.0
    fast, slow = error(residual, old)[0].tolist()
    assert fast == 0.0
    assert error(residual, new)[0, 1] > 10 * slow > 0.0


def test_without_a_half_life_all_cells_count_alike() -> None:
    weight = recency(torch.zeros(1, 3, 16), math.inf)
    torch.testing.assert_close(weight[:, 1], torch.full((16,), 1 / 16))
    assert weight[:, 0].tolist() == [0.0] * 15 + [1.0]


def test_missing_cells_say_nothing(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    present = torch.ones(2, 3, 16, dtype=torch.bool)
    present[:, 1, 10:] = False
    present[:, 2] = False
    squared = torch.ones(2, 3, 16)
    squared[1, 1, 10:] = 1e6
    squared[1, 2] = 1e6
    score, share = residual.standard(squared, present)
    assert torch.equal(score[0], score[1])
    assert (share[..., 2] == 0).all()
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 2))


def test_what_is_present_speaks_for_the_rest_of_its_sensor(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    squared = torch.ones(1, 3, 16)
    half = torch.ones(1, 3, 16, dtype=torch.bool)
    half[..., 2:8] = False
    torch.testing.assert_close(error(residual, squared, half), error(residual, squared))


def test_nothing_present_is_no_score(healthy: torch.Tensor) -> None:
    nothing = torch.zeros(1, 3, 16, dtype=torch.bool)
    score, share = fitted(healthy).standard(torch.ones(1, 3, 16), nothing)
    assert score.isnan().all()
    assert (share == 0).all()


def test_no_error_at_all_is_nobodys_share(healthy: torch.Tensor) -> None:
    score, share = fitted(healthy).standard(torch.zeros(1, 3, 16), None)
    assert score.isfinite().all()
    assert (score < 0).all()
    torch.testing.assert_close(share, torch.full((1, 2, 3), 1 / 3))


def test_a_missing_sensor_does_not_bend_the_others() -> None:
    """The mean of all sensors as a network: a sensor filled with 0 would pull it down, refilled it does not."""

    def mean_of_all(x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True).expand_as(x).clone()

    whole = torch.full((2, 3, 4), 6.0)
    gappy, present = whole.clone(), torch.ones(2, 3, 4, dtype=torch.bool)
    gappy[0, 1], present[0, 1] = 0.0, False
    rebuilt = rebuild(mean_of_all, gappy, present)   # type: ignore[arg-type]  # a function will do for a network
    assert rebuilt[0, 0, 0] > 5.7
    assert rebuilt[1, 0, 0] == 6.0


class Counting(Network):
    """Expects twice what it sees, and remembers in what numbers windows came."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[int] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.met.add(len(x))
        return 2 * x


def test_a_network_meets_few_numbers_of_windows_however_many_come_for_it_keeps_something_of_each() -> None:
    network = Counting()
    for n in range(2, 65):
        x = torch.randn(n, 3, 16)
        present = torch.ones_like(x, dtype=torch.bool)
        present[: n // 2, 0, 5] = False
        assert torch.equal(rebuild(network, x, None), 2 * x)
        assert torch.equal(squared_error(network, x, None), x.square())
        assert len(rebuild(network, x, present)) == n
    assert network.met == {1, 2, 4, 8, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK}
