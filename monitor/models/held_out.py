"""Scores of the held-out windows, kept in the checkpoint: a new threshold without a training.

Input: raw scores of held-out windows, and each sensor's part of them. Output: a threshold for another budget, alert
policy or weight of a sensor, and the table of thresholds behind a preview.
Invariant: for the terms of the training, the threshold is the one that the training found. Assets keep their factors
under all terms, so that the threshold of each changes in the same ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import WEEK_S
from monitor.models.calibrate import Threshold, asset_factors, calibrate, group_factors, rounded
from monitor.models.member import raw_score

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from monitor.budget import Budget
    from monitor.models.asset_scales import AssetScales
    from monitor.models.calendar import Calendar
    from monitor.models.member import Member
    from monitor.types import Bool, Float32, Int8, Int32, Int64

PREFIX = "held_out."
"""Of its tensors' names in a checkpoint."""
MAX_PARTS_BYTES = 2 << 20
"""Size of the parts. With more windows, members or sensors only one in so many windows has them."""

RATES = (1 / 13, 7 / 30, 1.0, 2.0, 7.0, 14.0, 28.0)
"""Alarms per asset and week in the table: from one in 90 days to four a day. Each costs up to 16 ms a policy."""
POLICIES = ((1, 1), (2, 3), (3, 5), (5, 8))
"""Numbers (m, n) of windows that confirm an alert, in the table. That of the fleet is added."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Raw scores of N held-out windows, by asset and time."""

    raw: Float32
    """[N], NaN = unscored."""
    asset: Int32
    """[N], number of the asset, from 0."""
    end_us: Int64
    """[N], event time of the window's end."""
    outlier: Bool
    """[N], windows suspected of a fault."""
    names: tuple[str | int, ...]
    """Of the assets, by number. A number where names are not known."""
    stride_factor: int
    """See `spec.TrainingSet`."""
    n_overlapping: int
    """See `calibrate.Threshold`."""
    parts: NDArray[np.float16]
    """[P, M, S, C], of every `every`-th window: each channel's part of the error of each member at each time scale.
    Their sum over the channels is the error."""
    every: int
    state: Int8 | None = None
    """[N], class of each window (`states.States`). None = no operating states are known."""
    n_classes: int = 0
    """Number of classes. The last is that of windows in no known state."""
    state_factors: tuple[float, ...] = ()
    """Threshold of each class as a multiple of the fleet's. Empty = all have the fleet's. On the card
    (`states.States.factors`)."""
    calendar: Calendar | None = None
    """Factors of the threshold by the time. None = it is the same at all times."""
    factors: tuple[float, ...] = ()
    """Threshold of each asset as a multiple of the fleet's, by number. Empty = all have the fleet's. On the card
    (`detector.Card.asset_factors`)."""

    def unit(self) -> Float32 | None:
        """Return the threshold [N] of each window as a multiple of the fleet's. None = all have the fleet's."""
        of_state = self.state is not None and bool(self.state_factors)
        if not of_state and not self.factors and self.calendar is None:
            return None
        out = np.ones(len(self.raw), dtype=np.float32)
        if self.state is not None and of_state:
            out *= np.array(self.state_factors, dtype=np.float32)[self.state]
        if self.calendar is not None:
            out *= self.calendar.of(self.end_us)
        if self.factors:
            out *= np.array(self.factors, dtype=np.float32)[self.asset]
        return out

    def with_factors(self, budget: Budget, scales: AssetScales | None = None) -> HeldOut:
        """Return the same with a threshold for each asset, where names are known and the assets are not all alike.

        `scales`: of the assets. One without has the threshold of a new asset.
        """
        if not all(isinstance(name, str) for name in self.names):
            return self
        unit = replace(self, factors=()).unit()
        raw = self.raw if unit is None else self.raw / unit
        known = asset_factors(
            raw, self.asset, self.end_us, budget, outlier=self.outlier, stride_factor=self.stride_factor
        )
        of_new = {number: scales.new_asset_factor for number, name in enumerate(self.names) if name not in scales.names
                  } if scales is not None else {}  # fmt: skip
        factors = tuple(of_new.get(number, known.get(number, 1.0)) for number in range(len(self.names)))
        return replace(self, factors=factors if set(factors) != {1.0} else ())

    def with_state_factors(self, budget: Budget, fallback: float) -> HeldOut:
        """Return the same with a threshold for each operating state.

        `fallback`: raw threshold without states, for windows in no known state.
        """
        if self.state is None:
            return self
        known = group_factors(
            self.raw, self.state, self.asset, self.end_us, budget,
            outlier=self.outlier, stride_factor=self.stride_factor,
        )  # fmt: skip
        factors = [known.get(number, 1.0) for number in range(self.n_classes)]
        made = replace(self, state_factors=tuple(factors))
        factors[-1] = rounded(fallback / made.threshold(budget).raw)
        return replace(self, state_factors=tuple(factors))

    def factors_by_name(self) -> dict[str, float] | None:
        """Return the card's `asset_factors`."""
        return {str(name): each for name, each in zip(self.names, self.factors, strict=True)} if self.factors else None

    def threshold(
        self,
        budget: Budget,
        members: Sequence[Member] = (),
        weight: Sequence[float] | None = None,
        factor: float = 1.0,
    ) -> Threshold:
        """Return the threshold for a budget with its alert policy.

        `weight`: [C], factor of each channel's error, with the `members` that the parts are of. It makes the threshold
        depend on the windows with parts alone. `factor`: see `calibrate`.
        """
        raw, rows, stride_factor = self.raw, slice(None), self.stride_factor
        if weight is not None:
            raw, rows, stride_factor = self.weighted(members, weight), slice(None, None, self.every), (
                self.stride_factor * self.every
            )
        asset = self.asset[rows]
        unit = self.unit()
        raw = raw if unit is None else raw / unit[rows]
        return calibrate(
            raw, asset, self.end_us[rows], budget, outlier=self.outlier[rows],
            stride_factor=stride_factor, n_overlapping=self.n_overlapping, names=self.names, factor=factor,
        )  # fmt: skip

    def weighted(self, members: Sequence[Member], weight: Sequence[float]) -> Float32:
        """Return the raw scores [P] of the windows with parts, each channel's error times its weight."""
        factor = torch.tensor(weight, dtype=torch.float32)
        error = (torch.from_numpy(self.parts).to(torch.float32) * factor).sum(-1)          # (P, M, S)
        error = error.to(members[0].residual.centre.device)
        raw = np.empty(len(error), dtype=np.float32)
        for number, places in classes_of(self.state, len(self.raw), self.every):
            own = members if number is None else [member.in_state(number) for member in members]
            raw[places] = raw_score(own, error[torch.from_numpy(places)]).cpu().numpy()
        raw[np.isnan(self.raw[:: self.every])] = np.nan
        return raw

    def table(
        self,
        budget: Budget,
        members: Sequence[Member] = (),
        weight: Sequence[float] | None = None,
        factor: float = 1.0,
    ) -> dict[str, Any]:
        """Return the raw thresholds for other budgets and policies, for `store.queries.preview`. JSON."""
        rates = sorted({*RATES, budget.alarms_per_week})
        rates = [rate for rate in rates if rate * budget.step_s < WEEK_S]
        policies = sorted({*POLICIES, (budget.confirm, budget.among)})
        return {
            "per_week": rates,
            "recover": budget.recover,
            "policies": [
                {
                    "confirm": m,
                    "among": n,
                    "raw": [
                        self.threshold(
                            replace(budget, alarms_per_week=rate, confirm=m, among=n), members, weight, factor
                        ).raw
                        for rate in rates
                    ],
                }
                for m, n in policies
            ],
        }

    # ------------------------------------------------------------------ the checkpoint

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays by their names in the checkpoint."""
        arrays = {name: getattr(self, name) for name in _ARRAYS} | ({} if self.state is None else {"state": self.state})
        return {f"{PREFIX}{name}": torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry."""
        return {
            "assets": list(self.names),
            "stride_factor": self.stride_factor,
            "n_overlapping": self.n_overlapping,
            "every": self.every,
            **({"n_classes": self.n_classes} if self.n_classes else {}),
        }

    @classmethod
    def load(
        cls,
        entry: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        by_name: Mapping[str, float] | None = None,
        state_factors: tuple[float, ...] = (),
        calendar: Calendar | None = None,
    ) -> HeldOut:
        """Read it back. Raises KeyError, TypeError or ValueError where entry and tensors do not fit.

        `by_name`: the card's `asset_factors`. `state_factors`, `calendar`: the card's.
        """
        arrays = {name: tensors[f"{PREFIX}{name}"].numpy() for name in _ARRAYS}
        names, every = tuple(entry["assets"]), int(entry["every"])
        stride_factor, n_overlapping = int(entry["stride_factor"]), int(entry["n_overlapping"])
        n = len(arrays["raw"])
        shapes = [arrays[name].shape for name in ("raw", "asset", "end_us", "outlier")]
        dtypes = {name: each.dtype.name for name, each in arrays.items()}
        if dtypes != _ARRAYS or shapes != [(n,)] * 4 or not n or every < 1 or stride_factor < 1:
            raise ValueError(f"held_out: {dtypes}, {shapes}, every {every}, stride_factor {stride_factor}")
        if arrays["parts"].ndim != 4 or len(arrays["parts"]) != -(-n // every):
            raise ValueError(f"held_out: parts {arrays['parts'].shape} of {n} windows, every {every}")
        if not 0 <= arrays["asset"].min() <= arrays["asset"].max() < len(names):
            raise ValueError(f"held_out: assets beyond the {len(names)} names")
        n_classes, state = int(entry.get("n_classes", 0)), None
        if n_classes:
            state = tensors[f"{PREFIX}state"].numpy()
            if state.dtype != np.int8 or state.shape != (n,) or not 0 <= state.min() <= state.max() < n_classes:
                raise ValueError(f"held_out: states {state.dtype} {state.shape} of {n_classes} classes")
            if len(state_factors) not in (0, n_classes):
                raise ValueError(f"held_out: {len(state_factors)} factors of {n_classes} classes")
        factors = tuple(by_name[str(name)] for name in names) if by_name is not None else ()
        return cls(
            **arrays,
            names=names,
            stride_factor=stride_factor,
            n_overlapping=n_overlapping,
            every=every,
            state=state,
            n_classes=n_classes,
            state_factors=state_factors if n_classes else (),
            calendar=calendar,
            factors=factors,
        )


_ARRAYS = {"raw": "float32", "asset": "int32", "end_us": "int64", "outlier": "bool", "parts": "float16"}


def classes_of(state: Int8 | None, n: int, every: int = 1) -> Iterator[tuple[int | None, Int64]]:
    """Yield each class and the places of its windows among every `every`-th of n. Without states: None, and all."""
    if state is None:
        yield None, np.arange(-(-n // every))
        return
    some = state[::every]
    for number in np.unique(some).tolist():
        yield number, np.flatnonzero(some == number)


def parts_every(n: int, values: int) -> int:
    """Return the distance of windows with parts. `values`: members × scales × channels of one."""
    return max(1, -(-n * values * 2 // MAX_PARTS_BYTES))
