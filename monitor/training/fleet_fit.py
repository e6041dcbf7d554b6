"""Fit of a fleet: one model, or a bundle with a model for each asset that has enough windows.

Input: the windows of a fleet. Output: one trained model, whose card names the assets with a model of their own, and the
reason of each other. Invariant: the version does not depend on the executor or its workers. The fleet's model is
trained first, on all windows, and is what an asset has whose own training fails. All models have one length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import WEEK_S
from monitor.models.bundle import MAX_MODELS
from monitor.models.detector import TrainedModel
from monitor.models.device import pick_device
from monitor.training.executors import Failure, map_ordered
from monitor.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.budget import Budget
    from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet

MAX_BYTES = 512 << 20
"""Size of the assets' models in one checkpoint, half of what is read."""
MIN_ALARMS = 1.5
"""False alarms that the budget allows in the history of an asset with a model of its own: 10.5 days at one a week. Of
simulated fleets such models with three days raised five a week, and with fourteen days 1.2 to 1.5 (tests/quality)."""
N_NAMED = 5
"""Assets that the card names for each reason."""
FLEET_SHARE = 0.3
"""Share of the progress for the fleet's model. It has all windows, the others have a part each."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Means of training the models of many assets."""

    executor: str = "serial"
    """See `executors`."""
    workers: int = 1


@dataclass(frozen=True, slots=True)
class _AssetTask:
    """Training of one asset, picklable."""

    windows: TrainingSet
    spec: ModelSpec
    fleet: FleetSpec
    device: str
    trained_at: datetime


def fit_fleet(
    windows: TrainingSet,
    spec: ModelSpec,
    fleet: FleetSpec,
    *,
    scope: str = "fleet",
    workers: Workers = Workers(),
    device: str = "cpu",
    on_progress: Callable[[float, str], None] = lambda _share, _message: None,
    trained_at: datetime | None = None,
) -> TrainedModel:
    """Train and calibrate the model of a fleet. `scope`: "fleet" = one model, "asset" = a bundle.

    Raises what `fit` raises for the fleet's model. An asset whose own training fails has the fleet's.
    """
    at = trained_at or datetime.now(UTC)
    if scope == "fleet":
        return fit(windows, spec, fleet, device=device, on_progress=on_progress, trained_at=at)
    whole = fit(
        windows, spec, fleet, device=device, trained_at=at,
        on_progress=lambda share, text: on_progress(FLEET_SHARE * share, f"the fleet's model: {text}"),
    )  # fmt: skip
    chosen, reasons = choose_assets(windows, spec.min_windows, fleet.budget)

    def tasks() -> Iterator[_AssetTask]:
        for number in chosen:
            yield _AssetTask(_of_asset(windows, number), spec, fleet, device, at)

    def on_done(n_done: int) -> None:
        share = FLEET_SHARE + (1 - FLEET_SHARE) * n_done / len(chosen)
        on_progress(share, f"{n_done} of {len(chosen)} models of single assets")

    results = map_ordered(fit_asset, tasks(), workers.executor, workers.workers, on_done)
    own: dict[str, TrainedModel] = {}
    n_bytes = 0
    for number, result in zip(chosen, results, strict=True):
        name = str(windows.asset_name(number))
        if isinstance(result, Failure):
            reasons[name] = f"{result.error}: {result.why}"
        elif n_bytes + len(result) > MAX_BYTES:
            reasons[name] = f"the checkpoint would be larger than {MAX_BYTES >> 20} MB"
        else:
            n_bytes += len(result)
            own[name] = TrainedModel.parse(result, pick_device(device))
    return whole.with_own(own, {"fleet": _by_reason(reasons)}) if own or reasons else whole


def choose_assets(windows: TrainingSet, min_windows: int, budget: Budget) -> tuple[list[int], dict[str, str]]:
    """Return the assets that get a model of their own, by number, and the reason for each other asset."""
    too_short = f"less time than the budget allows {MIN_ALARMS:g} false alarms in"
    min_time_s = MIN_ALARMS / budget.alarms_per_week * WEEK_S
    numbers, counts = np.unique(windows.asset, return_counts=True)
    if not windows.assets:
        return [], {str(number): "its name is not known" for number in numbers.tolist()}
    order = sorted(zip((-counts).tolist(), map(windows.asset_name, numbers.tolist()), numbers.tolist(), strict=True))
    chosen: list[int] = []
    reasons: dict[str, str] = {}
    for negative, name, number in order:
        if -negative < min_windows:
            reasons[str(name)] = f"fewer than {min_windows} windows"
        elif -negative * windows.stride_factor * budget.step_s < min_time_s:
            reasons[str(name)] = too_short
        elif len(chosen) == MAX_MODELS:
            reasons[str(name)] = f"a version holds {MAX_MODELS} models, of the assets with most windows"
        else:
            chosen.append(number)
    return chosen, reasons


def fit_asset(task: _AssetTask) -> bytes:
    """Train the model of one asset. Return it as `TrainedModel.dump` does."""
    torch.set_num_threads(1)
    return fit(task.windows, task.spec, task.fleet, device=task.device, trained_at=task.trained_at).dump()


def _of_asset(windows: TrainingSet, number: int) -> TrainingSet:
    """Return the windows of one asset, with its own part of the receipt."""
    own, name = windows.select(np.flatnonzero(windows.asset == number)), windows.asset_name(number)
    return replace(own, n_labelled=0, skipped=tuple(each for each in windows.skipped if each.asset == name))


def _by_reason(reasons: dict[str, str]) -> dict[str, Any]:
    """Return the number of assets for each reason, with the first names: a fleet may have thousands."""
    names: dict[str, list[str]] = {}
    for name, why in sorted(reasons.items()):
        names.setdefault(why, []).append(name)
    return {why: {"n": len(each), "assets": each[:N_NAMED]} for why, each in sorted(names.items())}
