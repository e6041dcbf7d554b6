"""Linear predictions: from the last steps, and from the other sensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monitor.models.autoregression import N_LAGS, Autoregression
from monitor.models.cross import MIN_SHRINKAGE, Cross, shrunk_covariance


def coupled(n: int, n_sensors: int, noise: float = 0.3, seed: int = 0) -> torch.Tensor:
    """Return a stable vector autoregression (n, C) of order two."""
    draw = np.random.default_rng(seed)
    one = 0.5 * np.linalg.qr(draw.standard_normal((n_sensors, n_sensors)))[0]
    two = 0.3 * np.linalg.qr(draw.standard_normal((n_sensors, n_sensors)))[0]
    values = np.zeros((n, n_sensors))
    for t in range(2, n):
        values[t] = one @ values[t - 1] + two @ values[t - 2] + noise * draw.standard_normal(n_sensors)
    return torch.from_numpy(values.astype(np.float32)) + 2.0


def windows(series: torch.Tensor, length: int = 32) -> torch.Tensor:
    return series.unfold(0, length, 1).contiguous()


def test_the_error_is_the_innovation() -> None:
    series = coupled(6000, 4)
    network = Autoregression.solve(windows(series[:5000]))
    fresh = windows(series[5000:])
    error = network.squared_error(fresh, fresh)[..., network.n_unscored :]
    assert float(error.mean()) == pytest.approx(0.09, rel=0.08)
    assert error.mean() < 0.75 * fresh.var()


def test_a_prediction_is_from_earlier_steps() -> None:
    for n_factors in (0, 4):
        network = Autoregression.solve(windows(coupled(2000, 6)), n_factors=n_factors)
        x, other = torch.randn(2, 3, 6, 32)
        for step in (0, 1, N_LAGS, 20, 31):
            changed = torch.cat([x[..., :step], other[..., step:]], dim=-1)
            torch.testing.assert_close(network(changed)[..., : step + 1], network(x)[..., : step + 1])
        far = x.clone()
        far[..., : 20 - N_LAGS] += 3.0
        torch.testing.assert_close(network(far)[..., 20:], network(x)[..., 20:])


def test_the_first_steps_repeat_the_step_before_them() -> None:
    network = Autoregression.solve(windows(coupled(500, 2)))
    x = torch.randn(3, 2, 32)
    assert network.n_unscored == N_LAGS
    torch.testing.assert_close(network(x)[..., 1:N_LAGS], x[..., : N_LAGS - 1])
    assert (network(x)[..., 0] == 0).all()


def test_weights_equal_those_of_least_squares() -> None:
    x = windows(coupled(3000, 3), 9)[:, :, -9:]
    network = Autoregression.solve(x)
    n_lags = network.n_unscored
    past = torch.cat([x[..., i : i + n_lags].flatten(1) for i in range(9 - n_lags)])
    target = torch.cat([x[..., i + n_lags] for i in range(9 - n_lags)])
    design = torch.cat([past, torch.ones(len(past), 1)], 1)
    exact = torch.linalg.lstsq(design.double(), target.double()).solution
    predicted = network(x)[..., n_lags:].transpose(1, 2)
    expected = torch.stack([(design.double() @ exact).float().split(len(x))[i] for i in range(9 - n_lags)], 1)
    torch.testing.assert_close(predicted, expected, rtol=1e-2, atol=2e-2)


def test_many_sensors_share_factors() -> None:
    """Sixty sensors that follow three tanks, each with its own slow noise."""
    draw = np.random.default_rng(1)
    tanks = coupled(4000, 3, seed=2).numpy()
    own = np.zeros((4000, 60))
    for t in range(1, 4000):
        own[t] = 0.8 * own[t - 1] + 0.2 * draw.standard_normal(60)
    series = torch.from_numpy((tanks @ draw.standard_normal((3, 60)) + own).astype(np.float32))
    network = Autoregression.solve(windows(series[:3000]))
    assert network.hyper["n_factors"] == 32
    full = Autoregression.solve(windows(series[:3000]), n_factors=0)
    fresh = windows(series[3000:])
    error, full_error = (float(each.squared_error(fresh, fresh).mean()) for each in (network, full))
    assert error < 1.05 * full_error
    assert sum(t.numel() for t in network.state_dict().values()) < 0.6 * full.weight.numel()


def test_constant_sensors_are_solved() -> None:
    x = windows(torch.cat([coupled(500, 2), torch.ones(500, 1), torch.zeros(500, 1)], 1))
    for network in (Autoregression.solve(x), Cross.solve(x)):
        assert network is not None
        error = network.squared_error(x, x)
        assert torch.isfinite(error).all()
        assert error[:, 2:].max() < 1e-3


# ---------------------------------------------------------------- across sensors


def test_a_value_is_expected_from_the_other_sensors() -> None:
    torch.manual_seed(0)
    driver = torch.randn(5000, 1)
    series = torch.cat([driver, 2 * driver + 1, -driver], 1) + 0.1 * torch.randn(5000, 3)
    network = Cross.solve(windows(series, 16))
    assert network is not None
    x = windows(series[:100], 16)
    assert network.squared_error(x, x).mean() < 0.05 * x.var()
    other = x.clone()
    other[:, 1] += 3.0
    torch.testing.assert_close(network(other)[:, 1], network(x)[:, 1])
    assert (network(other)[:, [0, 2]] - network(x)[:, [0, 2]]).abs().min() > 0.1


def test_it_is_the_conditional_expectation() -> None:
    torch.manual_seed(0)
    series = torch.randn(20_000, 4) @ torch.randn(4, 4) + 1.0
    network = Cross.solve(windows(series, 8))
    assert network is not None
    for c in range(4):
        rest = [other for other in range(4) if other != c]
        design = torch.cat([series[:, rest], torch.ones(len(series), 1)], 1).double()
        exact = design @ torch.linalg.lstsq(design, series[:, c].double()[:, None]).solution
        own = network(series.T[None])[0, c]
        torch.testing.assert_close(own, exact[:, 0].float(), rtol=0.05, atol=0.15)


def test_one_sensor_alone_has_no_others() -> None:
    assert Cross.solve(torch.randn(100, 1, 16)) is None


def test_identical_sensors_are_solved() -> None:
    torch.manual_seed(0)
    one = torch.randn(1000, 1)
    x = windows(torch.cat([one, one, torch.randn(1000, 1)], 1), 16)
    network = Cross.solve(x)
    assert network is not None
    assert network.squared_error(x, x)[:, :2].mean() < 1e-3


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    """By the definitions of the paper, term by term."""
    torch.manual_seed(0)
    n, n_sensors = 60, 20
    rows = torch.randn(n, n_sensors) @ torch.diag(torch.linspace(0.5, 2.0, n_sensors))
    x = (rows - rows.mean(0)).double().numpy()
    sample = x.T @ x / n
    mean_variance = np.trace(sample) / n_sensors
    sphere = mean_variance * np.eye(n_sensors)
    distance = np.sum((sample - sphere) ** 2) / n_sensors
    noise = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in x) / n_sensors / n**2
    shrinkage = min(noise, distance) / distance
    assert 10 * MIN_SHRINKAGE < shrinkage < 0.9
    expected = shrinkage * sphere + (1 - shrinkage) * sample
    np.testing.assert_allclose(shrunk_covariance(torch.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-6)
