"""Calibrated reconstruction errors: standard deviations above the healthy error, and each sensor's share.

Input: standardised windows, a network's reconstruction, the mask of present values: (B, C, T). Output: z-scores (B, S)
and shares (B, S, C) at each of S time scales.
Invariant: the units below are measured on healthy held-out windows. So no sensor weighs more because it is hard to
reconstruct, and no network because its errors are large:

    squared error   → per sensor, over the newest step and over the latest part of the window (`sensor_errors`)
    in units of the sensor's healthy error → mean over the sensors (`combine`)
    its logarithm, less the healthy median, in healthy spreads (`z_scores`)

Sensors are weighed one by one. A covariance of their residuals, shrunk towards the diagonal, was tried and left out: on
the errors of a PCA or a network it detects less (VUS-PR of the mean of sets .638 → .631 → .625 with half and nine
tenths of the covariance), because the model has explained already what sensors have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from monitor.models.knobs import BoundKnobs
    from monitor.models.network import Network

BATCH_MULTIPLE = 16
"""A network gets 1, 2, 4, 8 or a multiple of this many windows. oneDNN (convolutions and LSTMs on a CPU) compiles code
for each batch size and keeps it: for one `conv` all sizes from 1 to 256 took 250 MiB, these take 14."""

N_IMPUTATIONS = 2
"""Passes that fill a gap with the network's own reconstruction. A sensor that is missing altogether distorts the
others: in the data of `tests/contract/test_models.py` all normal windows score above 1.0 without a pass, half of them
after one pass, and none after two."""

SHRINKAGE = 0.5
"""Weight of the fleet's mean error in a sensor's own healthy error (on a log scale). A weight of 0 finds
more where there are many healthy rows, and fails where they are too few or not typical."""

N_SCALES = 2
"""The newest step, and the latest part of the window (`Network.half_life`)."""

MIN_SENSOR_ERROR = 1e-4
"""Least healthy squared error (standardised units), a hundredth of a spread: a sensor's resolution."""

MIN_SPREAD = 0.1
"""Added in quadrature to the spread of the log error. A short held-out time in which all errors were alike does not
prove that they always are."""
MIN_ERROR = 1e-6

Z_95 = 1.645
"""Standard deviations above the median of a normal distribution that 95 % lie below."""


def reconstruction(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the reconstruction of standardised (B, C, T)."""
    return _forward(network, impute(network, x, present))                               # (B, C, T)


def squared_error(
    network: Network, x: torch.Tensor, present: torch.Tensor | None, knobs: BoundKnobs | None = None
) -> torch.Tensor:
    """Return the squared error (B, C, T) of the reconstruction, as the network defines it.

    With knobs, it is 0 where the deviation does not count, and times the square of the sensor's weight. `replaces`: the
    values that do not count are replaced by expected ones where that lowers the error of others.
    """
    filled = impute(network, x, present)
    squared = network.squared_error(_padded(filled), _padded(x))[: len(x)]
    if knobs is None:
        return squared
    factor = knobs.factor(_forward(network, filled) if knobs.needs_expected else None)
    if knobs.replaces:
        counts = (factor > 0).expand_as(x)
        replaced = impute(network, x, counts if present is None else counts & present)
        squared = torch.minimum(squared, network.squared_error(_padded(replaced), _padded(x))[: len(x)])
    return squared * factor


def impute(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return standardised (B, C, T) with the network's reconstruction where values are missing.

    The values that the scaler filled in would distort the reconstruction of their neighbours. So they are replaced
    (expectation-maximisation, as for a PCA with gaps).
    """
    if present is None:
        return x
    rows = (~present).any(-1).any(-1).nonzero()[:, 0]
    if not len(rows):
        return x
    gappy, here = x[rows], present[rows]
    filled = gappy
    for _ in range(N_IMPUTATIONS):
        filled = torch.where(here, gappy, _forward(network, filled))
    out = x.clone()
    out[rows] = filled
    return out


def _forward(network: Network, x: torch.Tensor) -> torch.Tensor:
    return network(_padded(x))[: len(x)]                                                # (B, C, T)


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Return (B, C, T) followed by as many empty windows as `BATCH_MULTIPLE` asks for."""
    is_small = len(x) < BATCH_MULTIPLE
    n = 1 << (len(x) - 1).bit_length() if is_small else -(-len(x) // BATCH_MULTIPLE) * BATCH_MULTIPLE
    return F.pad(x, (0, 0, 0, 0, 0, n - len(x)))                                        # (n, C, T)


class Residual:
    """Healthy errors of one network: per sensor, and of all sensors together at each time scale."""

    def __init__(
        self, sensor_error: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor, half_life: float
    ) -> None:
        self.sensor_error = sensor_error   # (C,), squared
        self.centre = centre               # (S,), of the log error over all sensors
        self.spread = spread               # (S,)
        self.half_life = half_life         # share of the window

    @classmethod
    def fit(cls, squared: torch.Tensor, present: torch.Tensor | None, half_life: float) -> Residual:
        """Measure healthy held-out squared errors (N, C, T)."""
        counted = torch.ones_like(squared) if present is None else present.to(squared.dtype)
        n_seen = counted.sum((0, 2))                                                    # (C,)
        own = (squared * counted).sum((0, 2)) / n_seen.clamp(min=1)                     # (C,)
        own = own.clamp(min=MIN_SENSOR_ERROR)
        seen = n_seen > 0
        pooled = own[seen].log().mean().exp() if seen.any() else own.new_tensor(1.0)
        # A sensor without a held-out value has no error of its own. It gets the mean of the others, not the minimum.
        sensor_error = torch.where(seen, own ** (1 - SHRINKAGE) * pooled**SHRINKAGE, pooled)   # (C,)
        unit = torch.zeros(N_SCALES, device=squared.device)
        residual = cls(sensor_error, unit, unit + 1, half_life)
        log = _log(residual.errors(squared, present)[0])                                # (N, S)
        log = log[log.isfinite().all(1)]
        if len(log):
            median, p95 = log.quantile(torch.tensor([0.5, 0.95], device=log.device), dim=0)
            residual.centre = median
            residual.spread = ((p95 - median) / Z_95).square().add(MIN_SPREAD**2).sqrt()
        return residual

    def to(self, device: torch.device) -> Residual:
        """Return the same on another device."""
        return Residual(self.sensor_error.to(device), self.centre.to(device), self.spread.to(device), self.half_life)

    def z_scores(self, squared: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z-scores (B, S) of squared errors (B, C, T) and each sensor's share (B, S, C).

        The unit is the healthy spread above the healthy median. NaN where nothing is present.
        """
        error, share = self.errors(squared, present)
        return self.in_spreads(error), share

    def in_spreads(self, error: torch.Tensor) -> torch.Tensor:
        """Return z-scores (B, S) of errors (B, S) over all sensors."""
        return (_log(error) - self.centre) / self.spread

    def errors(self, squared: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the errors (B, S) of squared errors (B, C, T) over all sensors, and each sensor's share (B, S, C)."""
        return self.combine(self.sensor_errors(squared, present), present)

    def sensor_errors(self, squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Turn squared errors (B, C, T) into units of the healthy error: (B, S, C), 0 for a missing sensor."""
        weight = recency_weights(squared, self.half_life)                                # (T, S)
        if present is None:
            error = squared @ weight                                                    # (B, C, S)
        else:
            here = present.to(squared.dtype)
            # A missing value carries no information: the present ones stand for the whole sensor.
            known = here @ weight                                                       # (B, C, S)
            error = (squared * here) @ weight / known.clamp(min=torch.finfo(squared.dtype).tiny)
        return error.transpose(1, 2) / self.sensor_error                                # (B, S, C)

    @staticmethod
    def combine(error: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn errors per sensor (B, S, C) into one (B, S), NaN where nothing is present, and shares (B, S, C)."""
        # The root makes it an amplitude. A mean of squares would depend on the largest sensor alone, a mean of
        # logarithms on the many small ones.
        part = error.sqrt()
        if present is None:
            here = torch.ones_like(part[:, :1])                                         # (B, 1, C)
        else:
            here = present.any(-1).to(part.dtype)[:, None]                              # (B, 1, C)
            part = part * here
        n, total = here.sum(-1), part.sum(-1)                                           # (B, 1), (B, S)
        even = (here / n.clamp(min=1)[..., None]).expand_as(part)
        share = torch.where(total[..., None] > 0, part / total[..., None], even)
        return total / n, share   # 0/0 = NaN: nothing present


def _log(error: torch.Tensor) -> torch.Tensor:
    return error.clamp(min=MIN_ERROR).log()


def recency_weights(like: torch.Tensor, half_life: float) -> torch.Tensor:
    """Return the weight (T, S) of each step of (…, T): the newest step alone, and decay with the half-life."""
    length = like.shape[-1]
    age = torch.arange(length - 1, -1, -1, dtype=like.dtype, device=like.device)
    slow = 0.5 ** (age / max(1.0, half_life * length))
    return torch.stack([(age == 0).to(like.dtype), slow / slow.sum()], dim=1)
