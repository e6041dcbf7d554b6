"""One score from many errors: healthy is about 1, missing says nothing, new counts more than old."""

from __future__ import annotations

import pytest
import torch

from monitor.models.residual import Residual, rebuild


@pytest.fixture
def healthy() -> torch.Tensor:
    """Squared errors (N, C, T) of three sensors, the second a hundred times harder to rebuild."""
    torch.manual_seed(0)
    return torch.randn(400, 3, 16).square() * torch.tensor([1.0, 100.0, 1.0])[None, :, None]


def raw(residual: Residual, squared: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    return residual.combine(residual.per_sensor(squared, present), present)[0]


def test_a_sensor_hard_to_rebuild_does_not_shout(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    _, share = residual.combine(residual.per_sensor(healthy, None), None)
    # By squared error alone the second sensor would have 98 %.
    assert share.mean(0)[1] < 0.7


def test_a_perfect_sensor_does_not_divide_by_zero(healthy: torch.Tensor) -> None:
    healthy[:, 0] = 0.0
    residual = Residual.fit(healthy, None)
    assert torch.isfinite(residual.weight).all()
    assert torch.isfinite(raw(residual, torch.ones(1, 3, 16))).all()


def test_a_score_is_a_size_ten_times_the_error_ten_times_the_score(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    torch.testing.assert_close(raw(residual, 100 * healthy), 10 * raw(residual, healthy))


def test_the_newest_cell_counts_most(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    old, new = torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)
    old[..., 0], new[..., -1] = 1.0, 1.0
    assert raw(residual, new) > 10 * raw(residual, old)


def test_missing_cells_say_nothing(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    present = torch.ones(2, 3, 16, dtype=torch.bool)
    present[:, 1, 10:] = False
    present[:, 2] = False
    squared = torch.ones(2, 3, 16)
    squared[1, 1, 10:] = 1e6
    squared[1, 2] = 1e6
    score, share = residual.combine(residual.per_sensor(squared, present), present)
    assert score[0] == score[1]
    assert share[:, 2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(share.sum(1), torch.ones(2))


def test_what_is_present_speaks_for_the_rest_of_its_sensor(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    squared = torch.ones(1, 3, 16)
    half = torch.ones(1, 3, 16, dtype=torch.bool)
    half[..., 8:] = False
    torch.testing.assert_close(raw(residual, squared, half), raw(residual, squared))


def test_nothing_present_is_no_score(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    nothing = torch.zeros(1, 3, 16, dtype=torch.bool)
    score, share = residual.combine(residual.per_sensor(torch.ones(1, 3, 16), nothing), nothing)
    assert score.isnan().all()
    assert (share == 0).all()


def test_no_error_at_all_is_nobodys_share(healthy: torch.Tensor) -> None:
    residual = Residual.fit(healthy, None)
    score, share = residual.combine(residual.per_sensor(torch.zeros(1, 3, 16), None), None)
    assert score.item() == 0.0
    torch.testing.assert_close(share, torch.full((1, 3), 1 / 3))


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
