"""Yardsticks: simple detectors that a default has to beat, written apart from `models` so that work there helps none.

    pca-window        principal components of whole windows: the mean squared error of the window
    pca-newest        the same components: the mean squared error of the newest row
    linear-forecast   each sensor from the last rows of all of them, in closed form: the error of the newest row
    dense-window      a plain dense autoencoder with default training: the mean squared error of the window

Input: rows float32 [N, C], and the number of those to learn from. Output: a raw score for each row behind them.
Invariants: labels are not used, and no setting depends on the recording. A sensor is in units of its own standard
deviation in the training rows, clipped, and blanks hold the value before them. Where a setting was open, the one with
the higher figures on labelled recordings was taken, for a weak yardstick proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from monitor.evaluation.metrics import forward_filled

if TYPE_CHECKING:
    from torch import Tensor

    from monitor.types import Float32

Score = Callable[["Tensor"], "Tensor"]
"""Windows (n, T, C) → raw scores (n)."""
Yardstick = Callable[["Tensor"], Score]
"""Training windows (n, T, C) → a score."""

CLIP = 10.0
N_WINDOWS = 1500
"""Training windows of the components, evenly spaced: more cost seconds and change little."""
VARIANCE = 0.9
"""Share of the variance that the components explain."""
LAGS, RIDGE = 8, 0.1
"""Rows that a forecast sees, and its penalty as a share of the number of training windows."""
MIN_UNIT = 1e-3
"""Least error that a sensor's errors are divided by."""
HIDDEN, LATENT, STEPS, BATCH, LEARNING_RATE = 64, 16, 500, 128, 2e-3
AT_ONCE = 2048
"""Windows scored at once."""


def standardised(values: Float32, n_fit: int) -> Float32:
    """Return rows [N, C] in units of each sensor's standard deviation in the first `n_fit` rows, without blanks."""
    x = forward_filled(values)
    head = x[:n_fit]
    deviation = head.std(axis=0)
    z = (x - head.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0)
    clipped: Float32 = np.clip(z, -CLIP, CLIP).astype(np.float32)
    return clipped


def learn(fit: Yardstick, values: Float32, n_fit: int, length: int, seed: int) -> Callable[[int], Float32]:
    """Fit on the first `n_fit` rows of [N, C]. Return a function of the first row to score, at least `length - 1`.

    It scores the rows from that one on, each by the window that ends at it. Deterministic with one thread.
    """
    windows = torch.from_numpy(standardised(values, n_fit)).unfold(0, length, 1).transpose(1, 2)  # (N-T+1, T, C)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        score = fit(windows[: n_fit - length + 1])

    def scores_from(first: int) -> Float32:
        with torch.no_grad():
            parts = [score(part).numpy() for part in torch.split(windows[first - length + 1 :], AT_ONCE)]
        return np.concatenate(parts).astype(np.float32)

    return scores_from


def pca_window(train: Tensor) -> Score:
    """Score a window by its squared distance from the plane of the components, per cell."""
    mean, basis = _components(train)

    def score(windows: Tensor) -> Tensor:
        x = windows.flatten(1) - mean                                      # (n, T·C)
        return ((x**2).sum(1) - ((x @ basis) ** 2).sum(1)).clamp(min=0) / x.shape[1]

    return score


def pca_newest(train: Tensor) -> Score:
    """Score a window by the squared distance of its newest row from the reconstruction."""
    mean, basis = _components(train)
    n_sensors = train.shape[2]

    def score(windows: Tensor) -> Tensor:
        x = windows.flatten(1) - mean
        newest = (x @ basis) @ basis[-n_sensors:].T                        # (n, C)
        return ((x[:, -n_sensors:] - newest) ** 2).mean(1)

    return score


def _components(train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D) and the components (D, k) of the windows, D = T·C."""
    thinned = train[torch.linspace(0, len(train) - 1, min(len(train), N_WINDOWS)).round().long()]
    x = thinned.flatten(1).double()
    mean = x.mean(0)
    x = x - mean
    is_tall = x.shape[0] >= x.shape[1]
    variance, vectors = torch.linalg.eigh(x.T @ x if is_tall else x @ x.T)  # the smaller of the two, ascending
    share = variance.flip(0).clamp(min=0).cumsum(0) / variance.clamp(min=0).sum().clamp(min=1e-12)
    n_kept = min(int((share < VARIANCE).sum()) + 1, len(variance))
    kept = vectors[:, -n_kept:]
    basis = kept if is_tall else nn.functional.normalize(x.T @ kept, dim=0)
    return mean.float(), basis.float()


def linear_forecast(train: Tensor) -> Score:
    """Score a window by the error of its newest row, predicted from the `LAGS` rows before it.

    The unit is each sensor's own error in training, and the score is the mean over sensors.
    """
    n_lags, n_sensors = min(LAGS, train.shape[1] - 1), train.shape[2]

    def inputs(windows: Tensor) -> Tensor:
        past = windows[:, -1 - n_lags : -1].flatten(1)
        return torch.cat((past, torch.ones(len(past), 1)), 1)              # (n, lags·C + 1)

    size = n_lags * n_sensors + 1
    squares, products = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, n_sensors, dtype=torch.float64)
    for part in torch.split(train, AT_ONCE):
        x = inputs(part).double()
        squares += x.T @ x
        products += x.T @ part[:, -1].double()
    penalty = RIDGE * len(train) * torch.eye(size, dtype=torch.float64)
    weights = torch.linalg.solve(squares + penalty, products).float()      # (lags·C + 1, C)

    def errors(windows: Tensor) -> Tensor:
        error: Tensor = windows[:, -1] - inputs(windows) @ weights         # (n, C)
        return error

    unit = (torch.cat([errors(part) for part in torch.split(train, AT_ONCE)]) ** 2).mean(0).sqrt().clamp(min=MIN_UNIT)
    return lambda windows: (errors(windows).abs() / unit).mean(1)


def dense_window(train: Tensor) -> Score:
    """Score a window by the mean squared error of a dense autoencoder, trained for `STEPS` steps of Adam."""
    size = train.shape[1] * train.shape[2]
    network = nn.Sequential(
        nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, LATENT),
        nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for _ in range(STEPS):
        x = train[torch.randint(len(train), (BATCH,))].flatten(1)          # (batch, T·C)
        loss = ((network(x) - x) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def score(windows: Tensor) -> Tensor:
        x = windows.flatten(1)
        error: Tensor = ((network(x) - x) ** 2).mean(1)
        return error

    return score


YARDSTICKS: dict[str, Yardstick] = {
    "pca-window": pca_window,
    "pca-newest": pca_newest,
    "linear-forecast": linear_forecast,
    "dense-window": dense_window,
}
