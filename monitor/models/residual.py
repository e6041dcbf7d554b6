"""What a reconstruction error means: errors in, evidence of a fault and each sensor's share of it out.

In: standardised windows, what a network expects there, what is present: (B, C, T). Out: per time scale, how far the
error is out of the ordinary, in standard deviations, and shares: (B, S) and (B, S, C).
Law: each step is measured on healthy held-out windows, so no sensor shouts because it is merely hard to rebuild, and
no model because its errors are large:

    squared error   → per sensor, over the newest cell and over the latest part of the window (`Residual.per_sensor`)
    in units of the sensor's usual error → mean over the sensors (`Residual.combine`)
    its logarithm, less the healthy middle, in healthy spreads (`Residual.standard`)

Sensors are weighed one by one. A covariance of their residuals, shrunk towards the diagonal, was tried and left out: of
a PCA's or a network's errors it takes from what is found (VUS-PR of the mean of sets .638 → .631 → .625 with half and
nine tenths of the covariance), for what sensors have in common the model has explained already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from monitor.models.network import Network

BLOCK = 16
"""A network is given 1, 2, 4, 8 or a multiple of this many windows. oneDNN (convolutions and LSTMs on a CPU) keeps what
it compiled for each number of windows it ever met: all from 1 to 256 held 250 MiB for one `conv`, these hold 14."""

N_REFILLS = 2
"""Times a gap is filled with what the network expects there; after one, a sensor that is missing altogether still
bends the others (normal windows above 1.0 in the contract's data: all without, half after one, none after two)."""

SHRINK = 0.5
"""How far a sensor's own healthy error is drawn to the fleet's (on a log scale). Full trust in the own one finds more
where healthy rows abound, and fails where they were too few or not typical."""

N_SCALES = 2
"""The newest cell, and the latest part of the window (`Network.half_life`)."""

FLOOR = 1e-4
"""Least healthy squared error (standardised units): a hundredth of a spread. Below it is a sensor's resolution."""

LEAST_SPREAD = 0.1
"""Of the log error, added in quadrature: a short held-out time in which all went the same way is no proof that it
always does."""
LEAST_ERROR = 1e-6


def rebuild(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the reconstruction of standardised (B, C, T)."""
    return _expect(network, fill(network, x, present))                                  # (B, C, T)


def squared_error(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return how far (B, C, T) the reconstruction is from `x`, squared, as the network counts it."""
    return network.squared_error(_in_blocks(fill(network, x, present)), _in_blocks(x))[: len(x)]


def fill(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return standardised (B, C, T) with what the network expects where cells are missing.

    What they were filled with before would bend the reconstruction of their neighbours; so they are filled again
    (expectation-maximisation, as for a PCA with gaps).
    """
    if present is None:
        return x
    rows = (~present).any(-1).any(-1).nonzero()[:, 0]
    if not len(rows):
        return x
    gappy, here = x[rows], present[rows]
    filled = gappy
    for _ in range(N_REFILLS):
        filled = torch.where(here, gappy, _expect(network, filled))
    out = x.clone()
    out[rows] = filled
    return out


def _expect(network: Network, x: torch.Tensor) -> torch.Tensor:
    return network(_in_blocks(x))[: len(x)]                                             # (B, C, T)


def _in_blocks(x: torch.Tensor) -> torch.Tensor:
    """Return (B, C, T) and as many empty windows behind it as `BLOCK` asks for."""
    n = 1 << (len(x) - 1).bit_length() if len(x) < BLOCK else -(-len(x) // BLOCK) * BLOCK
    return F.pad(x, (0, 0, 0, 0, 0, n - len(x)))                                        # (n, C, T)


class Residual:
    """What is usual in one network's errors: per sensor, and of all sensors together at each time scale."""

    def __init__(self, usual: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor, half_life: float) -> None:
        self.usual = usual           # (C,), squared error
        self.centre = centre         # (S,), of the log error over all sensors
        self.spread = spread         # (S,)
        self.half_life = half_life   # share of the window

    @classmethod
    def fit(cls, squared: torch.Tensor, present: torch.Tensor | None, half_life: float) -> Residual:
        """Measure on healthy held-out squared errors (N, C, T)."""
        counted = torch.ones_like(squared) if present is None else present.to(squared.dtype)
        n_seen = counted.sum((0, 2))                                                    # (C,)
        own = ((squared * counted).sum((0, 2)) / n_seen.clamp(min=1)).clamp(min=FLOOR)  # (C,)
        seen = n_seen > 0
        pooled = own[seen].log().mean().exp() if seen.any() else own.new_tensor(1.0)
        # A sensor that nobody saw in held-out time is no perfect one: it is taken for as hard as the others.
        usual = torch.where(seen, own ** (1 - SHRINK) * pooled**SHRINK, pooled)         # (C,)
        unit = torch.zeros(N_SCALES, device=squared.device)
        residual = cls(usual, unit, unit + 1, half_life)
        log = residual._log_error(squared, present)[0]                                  # (N, S)
        log = log[log.isfinite().all(1)]
        if len(log):
            middle, high = log.quantile(torch.tensor([0.5, 0.95], device=log.device), dim=0)
            residual.centre = middle
            residual.spread = ((high - middle) / SIGMAS_OF_95).square().add(LEAST_SPREAD**2).sqrt()
        return residual

    def to(self, device: torch.device) -> Residual:
        """Return the same on another device."""
        return Residual(self.usual.to(device), self.centre.to(device), self.spread.to(device), self.half_life)

    def standard(self, squared: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how many spreads the errors (B, C, T) are above the healthy middle, (B, S), NaN where nothing is
        present, and each sensor's share of them, (B, S, C).
        """
        log, share = self._log_error(squared, present)
        return (log - self.centre) / self.spread, share

    def _log_error(self, squared: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        error, share = self.combine(self.per_sensor(squared, present), present)
        return error.clamp(min=LEAST_ERROR).log(), share

    def per_sensor(self, squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Turn squared errors (B, C, T) into errors in units of the healthy one: (B, S, C); a missing sensor has 0."""
        weight = recency(squared, self.half_life)                                        # (T, S)
        if present is None:
            z = squared @ weight                                                        # (B, C, S)
        else:
            here = present.to(squared.dtype)
            # What is missing says nothing: the cells that are there speak for their sensor.
            known = here @ weight                                                       # (B, C, S)
            z = (squared * here) @ weight / known.clamp(min=torch.finfo(squared.dtype).tiny)
        return z.transpose(1, 2) / self.usual                                           # (B, S, C)

    @staticmethod
    def combine(z: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn errors per sensor (B, S, C) into one (B, S), NaN where nothing is present, and shares (B, S, C)."""
        # The root makes it a size, not a power: squares would leave the word to the loudest sensor, logarithms
        # to the many quiet ones.
        part = z.sqrt()
        if present is None:
            here = torch.ones_like(part[:, :1])                                         # (B, 1, C)
        else:
            here = present.any(-1).to(part.dtype)[:, None]                              # (B, 1, C)
            part = part * here
        n, total = here.sum(-1), part.sum(-1)                                           # (B, 1), (B, S)
        even = (here / n.clamp(min=1)[..., None]).expand_as(part)
        share = torch.where(total[..., None] > 0, part / total[..., None], even)
        return total / n, share   # 0/0 = NaN: nothing present


def recency(like: torch.Tensor, half_life: float) -> torch.Tensor:
    """Return how much each cell of (…, T) counts at each time scale, (T, S): the newest alone, and with a half-life."""
    length = like.shape[-1]
    age = torch.arange(length - 1, -1, -1, dtype=like.dtype, device=like.device)
    slow = 0.5 ** (age / max(1.0, half_life * length))
    return torch.stack([(age == 0).to(like.dtype), slow / slow.sum()], dim=1)


SIGMAS_OF_95 = 1.645
"""Of the normal distribution, 95 % lie below the middle and so many deviations."""
