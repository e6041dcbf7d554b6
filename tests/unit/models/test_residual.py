"""Residuals: z-scores of errors at two time scales, without the missing values."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.models.network import Network
from monitor.models.residual import BATCH_MULTIPLE, Residual, recency_weights, reconstruction, squared_error


@pytest.fixture
def healthy() -> torch.Tensor:
    """Squared errors (N, C, T) of three sensors, those of the second a hundred times larger."""
    torch.manual_seed(0)
    return torch.randn(400, 3, 16).square() * torch.tensor([1.0, 100.0, 1.0])[None, :, None]


def fitted(healthy: torch.Tensor) -> Residual:
    return Residual.fit(healthy, None, 0.125)


def error(residual: Residual, squared: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    return residual.combine(residual.sensor_errors(squared, present), present)[0]   # (B, S)


def test_healthy_errors_are_the_unit_of_a_sensor(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    _, share = residual.z_scores(healthy, None)
    # By squared error alone the second sensor would have 98 %.
    assert share.mean((0, 1))[1] < 0.7


def test_healthy_z_scores_are_standard(healthy: torch.Tensor) -> None:
    z, _ = fitted(healthy).z_scores(healthy, None)
    assert z.shape == (400, 2)
    assert z.median(0).values.abs().max() < 0.05
    assert ((z > 1.645).float().mean(0) - 0.05).abs().max() < 0.02


def test_zero_errors_do_not_divide_by_zero(healthy: torch.Tensor) -> None:
    healthy[:, 0] = 0.0
    assert torch.isfinite(fitted(healthy).z_scores(torch.ones(1, 3, 16), None)[0]).all()


def test_an_unseen_sensor_gets_the_mean_error(healthy: torch.Tensor) -> None:
    present = torch.ones_like(healthy, dtype=torch.bool)
    present[:, 2] = False
    residual = Residual.fit(healthy, present, 0.125)
    assert residual.sensor_error[2] == pytest.approx(float(residual.sensor_error[:2].log().mean().exp()), rel=1e-4)
    back = residual.z_scores(healthy, None)[0]
    assert (back > 3).float().mean() < 0.02


def test_equal_errors_still_have_a_spread() -> None:
    alike = Residual.fit(torch.ones(50, 3, 16), None, 0.125)
    assert (alike.spread >= 0.1).all()


def test_an_error_is_an_amplitude(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    torch.testing.assert_close(error(residual, 100 * healthy), 10 * error(residual, healthy))


def test_the_fast_scale_is_the_newest_step(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    old, new = torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)
    old[..., 0], new[..., -1] = 1.0, 1.0
    fast, slow = error(residual, old)[0].tolist()
    assert fast == 0.0
    assert error(residual, new)[0, 1] > 10 * slow > 0.0


def test_no_half_life_means_equal_weights() -> None:
    weight = recency_weights(torch.zeros(1, 3, 16), math.inf)
    torch.testing.assert_close(weight[:, 1], torch.full((16,), 1 / 16))
    assert weight[:, 0].tolist() == [0.0] * 15 + [1.0]


def test_missing_values_contribute_nothing(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    present = torch.ones(2, 3, 16, dtype=torch.bool)
    present[:, 1, 10:] = False
    present[:, 2] = False
    squared = torch.ones(2, 3, 16)
    squared[1, 1, 10:] = 1e6
    squared[1, 2] = 1e6
    score, share = residual.z_scores(squared, present)
    assert torch.equal(score[0], score[1])
    assert (share[..., 2] == 0).all()
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 2))


def test_present_values_replace_missing_ones(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    squared = torch.ones(1, 3, 16)
    half = torch.ones(1, 3, 16, dtype=torch.bool)
    half[..., 2:8] = False
    torch.testing.assert_close(error(residual, squared, half), error(residual, squared))


def test_an_empty_window_has_no_score(healthy: torch.Tensor) -> None:
    nothing = torch.zeros(1, 3, 16, dtype=torch.bool)
    score, share = fitted(healthy).z_scores(torch.ones(1, 3, 16), nothing)
    assert score.isnan().all()
    assert (share == 0).all()


def test_without_errors_shares_are_equal(healthy: torch.Tensor) -> None:
    score, share = fitted(healthy).z_scores(torch.zeros(1, 3, 16), None)
    assert score.isfinite().all()
    assert (score < 0).all()
    torch.testing.assert_close(share, torch.full((1, 2, 3), 1 / 3))


def test_a_missing_sensor_distorts_no_other() -> None:
    """The network is the mean of all sensors: a sensor filled with 0 would pull it down, an imputed one does not."""

    def mean_of_all(x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True).expand_as(x).clone()

    whole = torch.full((2, 3, 4), 6.0)
    gappy, present = whole.clone(), torch.ones(2, 3, 4, dtype=torch.bool)
    gappy[0, 1], present[0, 1] = 0.0, False
    x = reconstruction(mean_of_all, gappy, present)   # type: ignore[arg-type]  # a function in place of a network
    assert x[0, 0, 0] > 5.7
    assert x[1, 0, 0] == 6.0


class Counting(Network):
    """Doubles its input, and records the batch sizes it got."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: set[int] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.add(len(x))
        return 2 * x


def test_a_network_meets_few_batch_sizes() -> None:
    network = Counting()
    for n in range(2, 65):
        x = torch.randn(n, 3, 16)
        present = torch.ones_like(x, dtype=torch.bool)
        present[: n // 2, 0, 5] = False
        assert torch.equal(reconstruction(network, x, None), 2 * x)
        assert torch.equal(squared_error(network, x, None), x.square())
        assert len(reconstruction(network, x, present)) == n
    assert network.batch_sizes == {1, 2, 4, 8, *(n * BATCH_MULTIPLE for n in (1, 2, 3, 4))}
