"""Number of principal components, and what more of them see."""

from __future__ import annotations

import pytest
import torch

from monitor.models.pca import MAX_PRODUCT, MIN_OF_MAX, Pca

LENGTH = 64


def pairs(n: int, n_pairs: int, seed: int = 0) -> torch.Tensor:
    """Return readings (n, 2 · pairs): each process moves quickly, and two sensors measure it."""
    generator = torch.Generator().manual_seed(seed)
    process = torch.zeros(n, n_pairs)
    steps = 0.44 * torch.randn(n, n_pairs, generator=generator)
    for t in range(1, n):
        process[t] = 0.9 * process[t - 1] + steps[t]
    return process.repeat(1, 2) + 0.3 * torch.randn(n, 2 * n_pairs, generator=generator)


def windows(readings: torch.Tensor) -> torch.Tensor:
    return readings.unfold(0, LENGTH, 1)


@pytest.mark.parametrize("n_sensors", [1, 8, 40, 100])
def test_components_are_as_many_as_are_affordable(n_sensors: int) -> None:
    size = n_sensors * LENGTH
    torch.manual_seed(0)
    n_components = Pca.solve(torch.randn(1200, n_sensors, LENGTH), explained=1.0).hyper["n_components"]
    assert n_components <= size // 4
    assert n_components * size <= max(MAX_PRODUCT, MIN_OF_MAX * size)
    assert n_components >= min(MIN_OF_MAX, size // 4)


def test_few_windows_give_few_components() -> None:
    assert Pca.solve(torch.randn(40, 8, LENGTH)).hyper["n_components"] <= 10


def test_more_components_see_a_broken_relation_of_many_sensors() -> None:
    """With 64 components the relation is a part of what is not explained, in healthy windows too."""
    x = windows(pairs(5000, 8))
    healthy = x[4000::8]
    broken = healthy.clone()
    broken[:, 3, 16:] = x[: len(broken), 3, 16:]   # its own past: each value is usual
    found = []
    for pca in (Pca.solve(x[:3500:2], n_max=64), Pca.solve(x[:3500:2])):
        usual, faulty = (pca.squared_error(each, each)[:, 3].mean(-1) for each in (healthy, broken))
        found.append(float((faulty > usual.quantile(0.95)).float().mean()))
    assert found[1] > found[0] + 0.2
    assert found[1] > 0.8
