"""Two expectations that learn nothing: the usual value, and the mean of a moment ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from monitor.models.statistics import N_BEFORE, HealthyMedian, MovingMean

if TYPE_CHECKING:
    from monitor.models.network import Network

LENGTH = 24


def test_level_expects_the_healthy_median_whatever_the_window() -> None:
    x = 5 + torch.randn(4, 3, LENGTH)
    assert (HealthyMedian(3, LENGTH)(x) == 0).all()   # the median, in standardised units


def test_moving_expects_the_mean_of_the_cells_just_before() -> None:
    x = torch.randn(4, 3, LENGTH)
    expected = MovingMean(3, LENGTH)(x)
    for cell in (N_BEFORE, LENGTH - 1):
        torch.testing.assert_close(expected[..., cell], x[..., cell - N_BEFORE : cell].mean(-1))


def test_before_the_window_all_was_as_in_its_first_cell() -> None:
    x = torch.randn(4, 3, LENGTH)
    expected = MovingMean(3, LENGTH)(x)
    torch.testing.assert_close(expected[..., 0], x[..., 0])
    torch.testing.assert_close(expected[..., 2], ((N_BEFORE - 1) * x[..., 0] + x[..., 1]) / N_BEFORE)


def test_a_jump_is_strange_for_moving_until_it_lasts_and_for_level_as_long_as_it_lasts() -> None:
    x = torch.zeros(1, 1, LENGTH)
    x[..., 10:] = 4.0
    moving, level = ((network(x) - x).abs()[0, 0] for network in (MovingMean(1, LENGTH), HealthyMedian(1, LENGTH)))
    assert moving[:10].max() == 0
    assert moving[10] == 4.0
    assert moving[10 + N_BEFORE :].max() == 0
    assert (level[10:] == 4.0).all()


@pytest.mark.parametrize("architecture", [HealthyMedian, MovingMean])
@pytest.mark.parametrize("length", [1, 5, N_BEFORE, LENGTH])
def test_what_is_expected_of_a_cell_depends_on_earlier_cells_alone(architecture: type[Network], length: int) -> None:
    network = architecture(2, length)
    x, other = torch.randn(2, 3, 2, length)
    assert network(x).shape == x.shape
    for cell in range(1, length):
        changed = torch.cat([x[..., :cell], other[..., cell:]], dim=-1)
        torch.testing.assert_close(network(changed)[..., : cell + 1], network(x)[..., : cell + 1])
