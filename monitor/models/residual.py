"""Calibrated reconstruction errors: standard deviations above the healthy error, and each sensor's share.

Input: squared errors of a network and the mask of present values, (B, C, T). Output: `Errors` at each of S time scales.
Invariant: the units below are measured on healthy held-out windows. So no sensor weighs more because it is hard to
reconstruct, and no network because its errors are large:

    squared error   → per sensor, over each time scale, in units of the sensor's healthy error
    its root, an amplitude → mean over the sensors (`in_units`)
    its logarithm, less the healthy median, in healthy spreads (`in_spreads`)

Sensors are weighed one by one. A covariance of their residuals, shrunk towards the diagonal, was tried and left out: on
the errors of a PCA or a network it detects less (VUS-PR of the mean of sets .638 → .631 → .625 with half and nine
tenths of the covariance), because the model has explained already what sensors have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

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

SCALES = ("newest", "latest", "whole")
"""Time scales of errors: the newest step, the latest part of the window (`Network.half_life`), and the whole window. A
spike stands out at the first, a fault that lasts longer than the window at the last."""
FIRST_SCALES = SCALES[:2]
"""Time scales of a version of an older release, whose card names none."""
N_SCALES = len(SCALES)

MIN_SENSOR_ERROR = 1e-4
"""Least healthy squared error (standardised units), a hundredth of a spread: a sensor's resolution."""

MIN_STATE_ERROR = 0.01
"""Least healthy squared error in one operating state, as a share of that in all. A machine at rest is quieter, but not
without limit: a tenth of the amplitude."""
N_PRIOR = 4
"""Windows without a common step that the calibration in all states counts for, against those in one state."""
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
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    knobs: BoundKnobs | None = None,
    imputer: Network | None = None,
) -> torch.Tensor:
    """Return the squared error (B, C, T) of the reconstruction, as the network defines it.

    With knobs, it is 0 where the deviation does not count, and times the square of the sensor's weight. `replaces`: the
    values that do not count are replaced by expected ones where that lowers the error of others. `imputer`: the network
    that has filled the gaps of `x`. None = they are not filled yet, and the network itself does it.
    """
    filled = impute(network, x, present) if imputer is None else x
    squared = network.squared_error(_padded(filled), _padded(x))[: len(x)]
    if knobs is None:
        return squared
    factor = knobs.factor(_forward(network, filled) if knobs.needs_expected else None)
    if knobs.replaces:
        counts = (factor > 0).expand_as(x)
        replaced = impute(imputer or network, x, counts if present is None else counts & present)
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


@dataclass(frozen=True, slots=True)
class TimeScales:
    """Time scales at which the errors of a network count."""

    half_life: float
    """Of `latest`, as a share of the window."""
    names: tuple[str, ...] = SCALES
    """Of `SCALES`, in their order."""
    n_unscored: int = 0
    """First steps of a window without an error."""

    @classmethod
    def of(cls, network: Network) -> TimeScales:
        """Return the time scales of a network."""
        return cls(network.half_life, network.scales, network.n_unscored)

    def errors(self, squared: torch.Tensor, present: torch.Tensor | None) -> SensorErrors:
        """Return the errors of each sensor from squared errors (B, C, T)."""
        weight = self.weights(squared)                                                  # (T, S)
        if present is None:
            return SensorErrors(squared @ weight, None)                                 # (B, C, S)
        counted = present.to(squared.dtype)
        # A missing value carries no information: the present ones stand for the whole sensor.
        known = counted @ weight                                                        # (B, C, S)
        error = (squared * counted) @ weight / known.clamp(min=torch.finfo(squared.dtype).tiny)
        return SensorErrors(error, present[..., self.n_unscored :].any(-1))

    def weights(self, like: torch.Tensor) -> torch.Tensor:
        """Return the weight (T, S) of each step of (…, T) at each time scale."""
        return _weights(self, like.shape[-1], like.dtype, like.device)


class SensorErrors(NamedTuple):
    """Squared errors of each sensor in B windows, at S time scales, in standardised units."""

    error: torch.Tensor
    """(B, C, S), 0 for a missing sensor."""
    here: torch.Tensor | None
    """Mask (B, C) of the sensors with a value. None = all have one."""

    def rows(self, rows: torch.Tensor | slice) -> SensorErrors:
        """Return some of the windows."""
        return SensorErrors(self.error[rows], None if self.here is None else self.here[rows])

    @classmethod
    def concatenated(cls, parts: Sequence[SensorErrors]) -> SensorErrors:
        """Return the windows of all parts, in their order."""
        error = torch.cat([part.error for part in parts])
        if all(part.here is None for part in parts):
            return cls(error, None)
        known = [
            torch.ones_like(part.error[..., 0], dtype=torch.bool) if part.here is None else part.here for part in parts
        ]
        return cls(error, torch.cat(known))


class Errors(NamedTuple):
    """Errors of B windows at S time scales, in units of the healthy error of each sensor."""

    of_all: torch.Tensor
    """(B, S), mean over the sensors. NaN where nothing is present."""
    part: torch.Tensor
    """(B, C, S), each sensor's amplitude. 0 for a missing sensor."""
    here: torch.Tensor | None
    """See `SensorErrors`."""

    def shares(self, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Return each sensor's share (n, S, C) of some of the windows."""
        part = self.part[rows].transpose(1, 2)                                          # (n, S, C)
        here = (torch.ones_like(part[:, 0]) if self.here is None else self.here[rows].to(part.dtype))[:, None]
        even = (here / here.sum(-1, keepdim=True).clamp(min=1)).expand_as(part)         # (n, S, C)
        total = part.sum(-1, keepdim=True)
        return torch.where(total > 0, part / total, even)


class Residual:
    """Healthy errors of one network: per sensor, and of all sensors together at each time scale."""

    def __init__(
        self, sensor_error: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor, scales: TimeScales
    ) -> None:
        self.sensor_error = sensor_error   # (C,), squared
        self.centre = centre               # (S,), of the log error over all sensors
        self.spread = spread               # (S,)
        self.scales = scales

    @classmethod
    def fit(cls, errors: SensorErrors, scales: TimeScales) -> Residual:
        """Measure the errors of N healthy held-out windows."""
        mean = errors.error[..., -1]                                                    # (N, C), over the longest scale
        counted = torch.ones_like(mean) if errors.here is None else errors.here.to(mean.dtype)
        n_seen = counted.sum(0)                                                         # (C,)
        own = ((mean * counted).sum(0) / n_seen.clamp(min=1)).clamp(min=MIN_SENSOR_ERROR)
        seen = n_seen > 0
        pooled = own[seen].log().mean().exp() if seen.any() else own.new_tensor(1.0)
        # A sensor without a held-out value has no error of its own. It gets the mean of the others, not the minimum.
        sensor_error = torch.where(seen, own ** (1 - SHRINKAGE) * pooled**SHRINKAGE, pooled)   # (C,)
        unit = torch.zeros(len(scales.names), device=mean.device)
        residual = cls(sensor_error, unit, unit + 1, scales)
        residual._measure(errors)
        return residual

    def _measure(self, errors: SensorErrors) -> None:
        """Measure centre and spread of the errors of N healthy windows, in units of the sensors' healthy errors."""
        log = _log(self.in_units(errors).of_all)                                        # (N, S)
        log = log[log.isfinite().all(1)]
        if len(log):
            median, p95 = log.quantile(torch.tensor([0.5, 0.95], device=log.device), dim=0)
            self.centre = median
            self.spread = ((p95 - median) / Z_95).square().add(MIN_SPREAD**2).sqrt()

    def of_state(self, errors: SensorErrors, length: int) -> Residual:
        """Return the healthy errors of one operating state, from its N windows of `length` steps, one step apart.

        They are shrunk towards those of all states: windows that share most of their steps tell little.
        """
        own, share = Residual.fit(errors, self.scales), len(errors.error) / (len(errors.error) + N_PRIOR * length)
        log = self.sensor_error.log()
        sensor_error = (log + share * (own.sensor_error.log() - log)).exp()
        sensor_error = torch.maximum(sensor_error, MIN_STATE_ERROR * self.sensor_error)
        made = Residual(sensor_error, self.centre, self.spread, self.scales)
        made._measure(errors)
        made.centre = self.centre + share * (made.centre - self.centre)
        made.spread = self.spread + share * (made.spread - self.spread)
        return made

    def copy(self) -> Residual:
        """Return a copy that shares no tensor: a checkpoint holds each tensor once."""
        return Residual(self.sensor_error.clone(), self.centre.clone(), self.spread.clone(), self.scales)

    def to(self, device: torch.device) -> Residual:
        """Return the same on another device."""
        return Residual(self.sensor_error.to(device), self.centre.to(device), self.spread.to(device), self.scales)

    def in_units(self, errors: SensorErrors) -> Errors:
        """Return errors in units of the healthy error of each sensor."""
        # The root makes it an amplitude. A mean of squares would depend on the largest sensor alone, a mean of
        # logarithms on the many small ones.
        part = (errors.error / self.sensor_error[:, None]).sqrt()                       # (B, C, S)
        if errors.here is None:
            return Errors(part.mean(1), part, None)
        here = errors.here.to(part.dtype)[..., None]                                    # (B, C, 1)
        part = part * here
        return Errors(part.sum(1) / here.sum(1), part, errors.here)                     # 0/0 = NaN: nothing present

    def in_spreads(self, error: torch.Tensor) -> torch.Tensor:
        """Return z-scores (B, S) of errors (B, S) over all sensors.

        The unit is the healthy spread above the healthy median. NaN where nothing is present.
        """
        return (_log(error) - self.centre) / self.spread


def _log(error: torch.Tensor) -> torch.Tensor:
    return error.clamp(min=MIN_ERROR).log()


@lru_cache(maxsize=64)
def _weights(scales: TimeScales, length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(mode=False):                               # the first caller's mode must not stay in it
        age = torch.arange(length - 1, -1, -1, dtype=dtype)
        latest = 0.5 ** (age / max(1.0, scales.half_life * length))
        of_scale = {"newest": (age == 0).to(dtype), "latest": latest, "whole": torch.ones_like(age)}
        weight = torch.stack([of_scale[name] for name in scales.names], dim=1)          # (T, S)
        weight[: scales.n_unscored] = 0
        return (weight / weight.sum(0)).to(device)
