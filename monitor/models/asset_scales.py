"""Scales of single assets: a fleet whose assets have other levels and gains needs no wider model.

Input: names of assets. Output: a scaler with the centre and the scale of each window's asset.
Invariant: a window's scale depends on the name of its asset alone. An asset without scales of its own, a new one too,
has the fleet's, and a threshold that keeps the budget with them (`new_asset_factor`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.scaler import Scaler
    from monitor.types import Float32, Int64

PREFIX = "asset_scales."
"""Of its tensors' names in a checkpoint."""


@dataclass(frozen=True, slots=True)
class AssetScales:
    """Centre and scale of K channels for each of A assets."""

    names: tuple[str, ...]
    """[A]"""
    centre: Float32
    """[A, K], in the sensors' own units."""
    scale: Float32
    """[A, K]"""
    new_asset_factor: float = 1.0
    """Threshold of an asset without scales of its own, as a multiple of the fleet's: measured on the held-out windows
    of the others, as though each of them was new."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays by their names in the checkpoint."""
        return {f"{PREFIX}centre": torch.from_numpy(self.centre), f"{PREFIX}scale": torch.from_numpy(self.scale)}

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry."""
        return {"assets": list(self.names), "new_asset_factor": self.new_asset_factor}

    @classmethod
    def load(cls, entry: dict[str, Any], tensors: dict[str, torch.Tensor], n_channels: int) -> AssetScales:
        """Read it back. Raises KeyError, TypeError or ValueError where entry and tensors do not fit."""
        names, factor = tuple(entry["assets"]), float(entry["new_asset_factor"])
        centre, scale = (tensors[f"{PREFIX}{name}"].numpy() for name in ("centre", "scale"))
        shapes, dtypes = {centre.shape, scale.shape}, {centre.dtype.name, scale.dtype.name}
        if shapes != {(len(names), n_channels)} or dtypes != {"float32"} or len(set(names)) != len(names):
            raise ValueError(f"asset_scales: {shapes}, {dtypes} of {len(names)} assets and {n_channels} channels")
        is_usable = np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all()
        if not is_usable or not 0 < factor < math.inf or not all(isinstance(name, str) for name in names):
            raise ValueError(f"asset_scales: a scale that is no number, or a factor of {factor}")
        return cls(names, centre, scale, factor)


class ScaleTable:
    """Scales of the assets on one device, with those of the fleet in the last row. Immutable."""

    def __init__(self, scales: AssetScales, scaler: Scaler) -> None:
        self._number = {name: number for number, name in enumerate(scales.names)}
        self._scaler = scaler
        own = (torch.from_numpy(each).to(scaler.centre) for each in (scales.centre, scales.scale))
        centre, scale = own
        self._centre = torch.cat([centre, scaler.centre.T])[..., None]                        # (A + 1, K, 1)
        self._per_unit = torch.cat([1 / scale, scaler.per_unit.T])[..., None]                 # (A + 1, K, 1)
        self.typical = scaler.at(centre.median(0).values[:, None], 1 / scale.median(0).values[:, None])
        """Scaler of a typical asset, for figures that are of no single one."""

    def __contains__(self, name: str) -> bool:
        return name in self._number

    def rows(self, assets: Sequence[str] | None, n: int) -> Int64:
        """Return the row of each of `n` windows, by the name of its asset. None = not known."""
        last = len(self._number)
        if assets is None:
            return np.full(n, last, dtype=np.int64)
        return np.array([self._number.get(name, last) for name in assets], dtype=np.int64)

    def scaler(self, rows: Int64) -> Scaler:
        """Return the scaler of windows with these rows."""
        at = torch.from_numpy(rows).to(self._centre.device)
        return self._scaler.at(self._centre[at], self._per_unit[at])
