"""Residuals: z-scores of errors at each time scale, without the missing values."""

from __future__ import annotations

import pytest
import torch

from monitor.models.network import Network
from monitor.models.residual import (
    BATCH_MULTIPLE,
    SCALES,
    Residual,
    SensorErrors,
    TimeScales,
    reconstruction,
    squared_error,
)

ALL = TimeScales(0.125)


@pytest.fixture
def healthy() -> torch.Tensor:
    """Squared errors (N, C, T) of three sensors, those of the second a hundred times larger."""
    torch.manual_seed(0)
    return torch.randn(400, 3, 16).square() * torch.tensor([1.0, 100.0, 1.0])[None, :, None]


def fitted(healthy: torch.Tensor, present: torch.Tensor | None = None) -> Residual:
    return Residual.fit(ALL.errors(healthy, present), ALL)


def error(residual: Residual, squared: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    return residual.in_units(ALL.errors(squared, present)).of_all   # (B, S)


def z_scores(
    residual: Residual, squared: torch.Tensor, present: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    errors = residual.in_units(ALL.errors(squared, present))
    return residual.in_spreads(errors.of_all), errors.shares()


def test_healthy_errors_are_the_unit_of_a_sensor(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    _, share = z_scores(residual, healthy, None)
    # By squared error alone the second sensor would have 98 %.
    assert share.mean((0, 1))[1] < 0.7


def test_healthy_z_scores_are_standard(healthy: torch.Tensor) -> None:
    z, _ = z_scores(fitted(healthy), healthy, None)
    assert z.shape == (400, len(SCALES))
    assert z.median(0).values.abs().max() < 0.05
    above = (z > 1.645).float().mean(0)
    assert (above[:2] - 0.05).abs().max() < 0.02
    assert above[2] < 0.05   # means of many steps are alike, and the least spread is wider


def test_zero_errors_do_not_divide_by_zero(healthy: torch.Tensor) -> None:
    healthy[:, 0] = 0.0
    assert torch.isfinite(z_scores(fitted(healthy), torch.ones(1, 3, 16), None)[0]).all()


def test_an_unseen_sensor_gets_the_mean_error(healthy: torch.Tensor) -> None:
    present = torch.ones_like(healthy, dtype=torch.bool)
    present[:, 2] = False
    residual = fitted(healthy, present)
    assert residual.sensor_error[2] == pytest.approx(float(residual.sensor_error[:2].log().mean().exp()), rel=1e-4)
    back = z_scores(residual, healthy, None)[0]
    assert (back > 3).float().mean() < 0.02


def test_equal_errors_still_have_a_spread() -> None:
    alike = fitted(torch.ones(50, 3, 16))
    assert (alike.spread >= 0.1).all()


def test_an_error_is_an_amplitude(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    torch.testing.assert_close(error(residual, 100 * healthy), 10 * error(residual, healthy))


def test_the_fast_scale_is_the_newest_step(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    old, new = torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)
    old[..., 0], new[..., -1] = 1.0, 1.0
    newest, latest, whole = error(residual, old)[0].tolist()
    assert newest == 0.0
    assert error(residual, new)[0, 1] > 10 * latest > 0.0
    assert error(residual, new)[0, 2] == pytest.approx(whole)


def test_a_scale_is_an_average_over_its_steps() -> None:
    weight = ALL.weights(torch.zeros(1, 3, 16))
    torch.testing.assert_close(weight.sum(0), torch.ones(3))
    assert weight[:, 0].tolist() == [0.0] * 15 + [1.0]
    assert weight[13, 1] == pytest.approx(float(weight[15, 1]) / 2)   # a half-life of an eighth of the window
    torch.testing.assert_close(weight[:, 2], torch.full((16,), 1 / 16))


def test_unscored_steps_have_no_weight() -> None:
    weight = TimeScales(0.125, ("latest", "whole"), n_unscored=12).weights(torch.zeros(1, 3, 16))
    assert (weight[:12] == 0).all()
    torch.testing.assert_close(weight.sum(0), torch.ones(2))


def test_parts_are_joined_in_their_order(healthy: torch.Tensor) -> None:
    present = torch.ones_like(healthy, dtype=torch.bool)
    present[50:, 1] = False
    whole = ALL.errors(healthy, present)
    joined = SensorErrors.concatenated([ALL.errors(healthy[:50], None), ALL.errors(healthy[50:], present[50:])])
    assert whole.here is not None
    assert joined.here is not None
    torch.testing.assert_close(joined.error, whole.error)
    assert torch.equal(joined.here, whole.here)


def test_missing_values_contribute_nothing(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    present = torch.ones(2, 3, 16, dtype=torch.bool)
    present[:, 1, 10:] = False
    present[:, 2] = False
    squared = torch.ones(2, 3, 16)
    squared[1, 1, 10:] = 1e6
    squared[1, 2] = 1e6
    score, share = z_scores(residual, squared, present)
    assert torch.equal(score[0], score[1])
    assert (share[..., 2] == 0).all()
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 3))


def test_present_values_replace_missing_ones(healthy: torch.Tensor) -> None:
    residual = fitted(healthy)
    squared = torch.ones(1, 3, 16)
    half = torch.ones(1, 3, 16, dtype=torch.bool)
    half[..., 2:8] = False
    torch.testing.assert_close(error(residual, squared, half), error(residual, squared))


def test_an_empty_window_has_no_score(healthy: torch.Tensor) -> None:
    nothing = torch.zeros(1, 3, 16, dtype=torch.bool)
    score, share = z_scores(fitted(healthy), torch.ones(1, 3, 16), nothing)
    assert score.isnan().all()
    assert (share == 0).all()


def test_without_errors_shares_are_equal(healthy: torch.Tensor) -> None:
    score, share = z_scores(fitted(healthy), torch.zeros(1, 3, 16), None)
    assert score.isfinite().all()
    assert (score < 0).all()
    torch.testing.assert_close(share, torch.full((1, 3, 3), 1 / 3))


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
