"""Predictors without training: the healthy median and the moving mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from monitor.models.statistics import MAX_BAND, N_BEFORE, HealthyMedian, MovingMean

if TYPE_CHECKING:
    from monitor.models.network import Network

LENGTH = 24


def test_the_median_is_always_predicted() -> None:
    x = 5 + torch.randn(4, 3, LENGTH)
    assert (HealthyMedian(3, LENGTH)(x) == 0).all()   # the median, in standardised units


def test_the_moving_mean_is_of_earlier_steps() -> None:
    x = torch.randn(4, 3, LENGTH)
    expected = MovingMean(3, LENGTH)(x)
    for step in (N_BEFORE, LENGTH - 1):
        torch.testing.assert_close(expected[..., step], x[..., step - N_BEFORE : step].mean(-1))


def test_first_steps_are_repeated_backwards() -> None:
    x = torch.randn(4, 3, LENGTH)
    expected = MovingMean(3, LENGTH)(x)
    torch.testing.assert_close(expected[..., 0], x[..., 0])
    torch.testing.assert_close(expected[..., 2], ((N_BEFORE - 1) * x[..., 0] + x[..., 1]) / N_BEFORE)


def test_only_a_moving_mean_adapts_to_a_jump() -> None:
    x = torch.zeros(1, 1, LENGTH)
    x[..., 10:] = 4.0
    moving, level = ((network(x) - x).abs()[0, 0] for network in (MovingMean(1, LENGTH), HealthyMedian(1, LENGTH)))
    assert moving[:10].max() == 0
    assert moving[10] == 4.0
    assert moving[10 + N_BEFORE :].max() == 0
    assert (level[10:] == 4.0).all()


@pytest.mark.parametrize("architecture", [HealthyMedian, MovingMean])
@pytest.mark.parametrize("length", [1, 5, N_BEFORE, LENGTH])
def test_predictions_are_causal(architecture: type[Network], length: int) -> None:
    network = architecture(2, length)
    x, other = torch.randn(2, 3, 2, length)
    assert network(x).shape == x.shape
    for step in range(1, length):
        changed = torch.cat([x[..., :step], other[..., step:]], dim=-1)
        torch.testing.assert_close(network(changed)[..., : step + 1], network(x)[..., : step + 1])


@pytest.mark.parametrize("length", [1, 8, 64, MAX_BAND, MAX_BAND + 1])
def test_the_moving_mean_equals_the_pooled_one(length: int) -> None:
    """Older checkpoints were calibrated on this formula."""
    x = torch.randn(5, 3, length).clamp(-10, 10)
    before = F.pad(x, (N_BEFORE, 0), mode="replicate")[..., :-1]
    torch.testing.assert_close(MovingMean(3, length)(x), F.avg_pool1d(before, N_BEFORE, stride=1), rtol=0, atol=1e-6)


def test_the_moving_mean_has_a_gradient_after_scoring() -> None:
    with torch.inference_mode():
        MovingMean(1, 20)(torch.randn(1, 1, 20))
    x = torch.randn(1, 1, 20, requires_grad=True)
    MovingMean(1, 20)(x).sum().backward()
    assert x.grad is not None
