"""Forecaster: only steps with enough context are scored, the first ones repeat the step before."""

from __future__ import annotations

import pytest
import torch

from monitor.models.forecast import Forecast


@pytest.mark.parametrize(("length", "n_unscored"), [(4, 1), (16, 4), (32, 8), (64, 8), (400, 8)])
def test_the_first_steps_count_in_no_error(length: int, n_unscored: int) -> None:
    network = Forecast(2, length)
    x = torch.randn(3, 2, length)
    assert network.n_unscored == n_unscored
    squared = network.squared_error(x, x)
    assert not squared[..., :n_unscored].any()
    torch.testing.assert_close(squared[..., n_unscored:], (network(x) - x).square()[..., n_unscored:])


def test_steps_without_context_repeat_the_last() -> None:
    x = torch.full((1, 1, 32), 7.0)
    expected = Forecast(1, 32)(x)
    assert expected[0, 0, :8].tolist() == [0.0, *[7.0] * 7]
