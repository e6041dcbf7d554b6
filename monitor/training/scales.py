"""Scales of single assets, measured on their early windows, and used where they find more faults on held-out ones.

Input: the windows of a fleet and its scaler. Output: centre and scale of each channel of an asset, or a reason for
none. Invariant: no label is used. Assets that are alike have the fleet's scales.

    measure   each asset's centre and scale are shrunk towards the mean of the fleet, like its threshold
              (`calibrate.shrink`): the less, the more the assets differ beyond what is uncertain of each. The
              uncertainty is that of the blocks of its time. A scale is never far below the others'.
    trial     a PCA of windows in either unit has to find injected faults in held-out windows. The scales are used if it
              finds more with them. In each unit an asset has a level of its own, as it has a threshold of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.models.asset_scales import AssetScales, ScaleTable
from monitor.models.calibrate import calibrate, shrink
from monitor.models.member import ensemble_score
from monitor.models.pca import N_SOLVE, Pca
from monitor.models.rows import evenly_spaced
from monitor.models.scaler import FLOAT32_STEPS, IQR_OF_NORMAL, SPAN_OF_NORMAL
from monitor.training.faults import KINDS, inject
from monitor.training.split import latest, readings, thin
from monitor.training.tensors import WindowTensors, joined, window_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.budget import Budget
    from monitor.models.held_out import HeldOut
    from monitor.models.inputs import ModelInputs
    from monitor.models.member import Member
    from monitor.models.scaler import Scaler
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool, Float32, Int64

    Float64 = NDArray[np.float64]

MIN_WINDOWS = 100
"""Early windows from which an asset has scales of its own, as with its threshold."""
N_BLOCKS, MIN_BLOCKS = 8, 4
"""Parts of an asset's time, whose centres and scales tell the uncertainty of its own. Sensors with values in fewer
have the fleet's."""
N_READINGS = 20_000
"""Readings of an asset that are measured, evenly spaced."""
MIN_SD = 0.02
"""Least uncertainty of a centre, in the fleet's scales, and of the logarithm of a scale."""
MAX_GAIN = 5.0
"""Most that an asset's scale is above or below the fleet's median. A sensor that hardly moved in one asset is known
from the others to move, and must not alarm when it does."""
N_FAULTS, N_HEALTHY = 40 * len(KINDS), 2048
FALSE_SHARE = 0.02
"""Share of an asset's healthy windows above its level in the trial."""
MARGIN = 0.03
"""Share of the faults that the scales have to find more: twice the standard deviation of the difference where assets
are alike."""
N_AS_NEW = 8192
"""Held-out windows that the threshold of a new asset is measured on."""
N_HIGHEST = 5
"""Assets with the highest scores as new ones, of whose thresholds the highest is that of a new asset."""


@dataclass(frozen=True, slots=True)
class ScaleChoice:
    """Scales of a fleet's assets, or the reason for none."""

    scales: AssetScales | None
    receipt: dict[str, Any]
    """For the card."""


def standardise(
    windows: TrainingSet,
    rows: Int64,
    inputs: ModelInputs,
    scaler: Scaler,
    scales: AssetScales | None,
    device: torch.device,
) -> WindowTensors:
    """Return rows as tensors, each in the scales of its asset. None = all in the fleet's."""
    on_device = scaler.to(device)
    table = None if scales is None else ScaleTable(scales, on_device)
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // 2048)):
        channels = np.ascontiguousarray(inputs.to_channels(windows.values[part]), dtype=np.float32)
        own = on_device
        if table is not None:
            names = [str(windows.asset_name(number)) for number in windows.asset[part].tolist()]
            own = table.scaler(table.rows(names, len(part)))
        parts.append(own.standardise(torch.from_numpy(channels).to(device)))
    return joined([WindowTensors(x, present) for x, present in parts])


def choose_scales(
    windows: TrainingSet,
    early: Int64,
    held_out: Int64,
    known: Bool,
    inputs: ModelInputs,
    scaler: Scaler,
    seed: int,
) -> ScaleChoice | None:
    """Measure the scales of the assets, and try them. None = one asset, or no names.

    `early`, `held_out`: rows of windows. `known`: [N] of the held-out ones, without alerts.
    """
    if not windows.assets or len(np.unique(windows.asset[early])) < 2:
        return None
    scales = measure(windows, early, inputs, scaler)
    if scales is None:
        return ScaleChoice(None, {"used": False, "why": "the assets do not differ beyond what is uncertain of each"})
    found = _trial(windows, early, held_out[known], inputs, scaler, scales, seed)
    if found is None:
        return ScaleChoice(None, {"used": False, "why": "too few held-out windows to try them"})
    fleet, asset = found
    is_better = asset >= fleet + MARGIN
    why = (
        f"with scales per asset a PCA finds {asset:.0%} of the injected faults in held-out windows, with the fleet's "
        f"{fleet:.0%}"
    )
    receipt = {"used": is_better, "why": why, "found_fleet": round(fleet, 4), "found_asset": round(asset, 4)}
    return ScaleChoice(scales if is_better else None, receipt)


def measure(windows: TrainingSet, early: Int64, inputs: ModelInputs, scaler: Scaler) -> AssetScales | None:
    """Return the scales of the assets, shrunk towards the fleet's. None = no asset differs."""
    numbers = [one for one in np.unique(windows.asset[early]).tolist() if _n_of(windows, early, one) >= MIN_WINDOWS]
    if len(numbers) < 2:
        return None
    found = [_of_asset(windows, early[windows.asset[early] == one], inputs, scaler) for one in numbers]
    centre, centre_var, log, log_var = (np.stack([each[part] for each in found]) for part in range(4))    # (A, K)
    own_centre = np.tile([sensor.centre for sensor in scaler.sensors], (len(numbers), 1))
    own_scale = np.tile([sensor.scale for sensor in scaler.sensors], (len(numbers), 1))
    differs = False
    for channel, sensor in enumerate(scaler.sensors):
        is_angle = inputs.inputs[int(inputs.owner[channel])].kind == "angle"
        if is_angle or sensor.kind not in ("continuous", "heavy-tailed"):
            continue
        at_centre, moved = _shrunk(centre[:, channel], centre_var[:, channel])
        at_scale, gain = _shrunk(log[:, channel], log_var[:, channel])
        if not moved.any() and not gain.any():
            continue
        differs = True
        rows, usual = np.isfinite(centre[:, channel]), float(np.median(at_scale + gain))
        limited = np.clip(at_scale + gain, usual - np.log(MAX_GAIN), usual + np.log(MAX_GAIN))
        own_centre[rows, channel] = sensor.centre + sensor.scale * (at_centre + moved)[rows]
        own_scale[rows, channel] = sensor.scale * np.exp(limited)[rows]
    if not differs:
        return None
    names = tuple(str(windows.asset_name(one)) for one in numbers)
    return AssetScales(names, own_centre.astype(np.float32), own_scale.astype(np.float32))


def as_new_factor(
    windows: TrainingSet,
    rows: Int64,
    held_out: HeldOut,
    members: Sequence[Member],
    inputs: ModelInputs,
    scaler: Scaler,
    scales: AssetScales,
    budget: Budget,
) -> float:
    """Return the threshold of a new asset as a multiple of the fleet's.

    Each held-out window is scored as though its asset was new. `rows`: those of `held_out`, in its order.
    """
    raw, outlier = held_out.raw, held_out.outlier
    factors = np.array(held_out.with_factors(budget).factors or [1.0] * len(held_out.names), np.float32)
    raw = raw / factors[held_out.asset]
    own = {number for number in np.unique(windows.asset[rows]).tolist()
           if str(windows.asset_name(number)) in scales.names}  # fmt: skip
    place = np.flatnonzero(np.isin(windows.asset[rows], list(own)) & ~outlier)
    known = place[np.isfinite(raw[place])]
    if not len(known):
        return 1.0
    chosen, device = latest(rows[place], windows, N_AS_NEW), scaler.centre.device
    as_new = np.empty(len(chosen), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(chosen), 512):
            part = standardise(windows, chosen[start : start + 512], inputs, scaler, None, device)
            none = torch.full((len(part),), torch.inf, device=device)
            score, _ = ensemble_score(tuple(members), part.x, part.present, shares_from=none)
            as_new[start : start + 512] = score.cpu().numpy()
    asset = windows.asset[chosen]

    def threshold(score: Float32, at: Int64) -> float:
        return calibrate(
            score[at], asset[at], windows.end_us[chosen][at], budget, stride_factor=windows.stride_factor
        ).raw

    # An asset at another level may be above a common threshold all the time, which is one alert without an end.
    at = {one: np.flatnonzero((asset == one) & np.isfinite(as_new)) for one in sorted(own)}
    highest = sorted(((float(np.median(as_new[rows])), one) for one, rows in at.items() if len(rows)), reverse=True)
    if not highest:
        return 1.0
    new = max(threshold(as_new, at[one]) for _, one in highest[:N_HIGHEST])
    usual = calibrate(raw[known], windows.asset[rows[known]], windows.end_us[rows[known]], budget,
                      stride_factor=windows.stride_factor).raw  # fmt: skip
    return float(f"{max(1.0, new / usual):.6g}")


def with_factor(scales: AssetScales, factor: float) -> AssetScales:
    """Return the same with a threshold for new assets."""
    return replace(scales, new_asset_factor=factor)


# ---------------------------------------------------------------- one asset


def _n_of(windows: TrainingSet, rows: Int64, asset: int) -> int:
    return int((windows.asset[rows] == asset).sum())


def _of_asset(
    windows: TrainingSet, rows: Int64, inputs: ModelInputs, scaler: Scaler
) -> tuple[Float64, Float64, Float64, Float64]:
    """Return centre [K] in the fleet's scales, its variance, the logarithm of the scale, and its variance.

    NaN = not known.
    """
    some = thin(rows, max(N_BLOCKS, N_READINGS // windows.values.shape[1]))
    parts = [_centre_and_log(readings(windows.values, part, inputs), scaler)
             for part in np.array_split(some, N_BLOCKS)]  # fmt: skip
    whole = _centre_and_log(readings(windows.values, some, inputs), scaler)
    blocks = np.stack(parts)                                                              # (B, 2, K)
    n = np.isfinite(blocks).sum(0)                                                        # (2, K)
    safe = np.where(np.isfinite(blocks), blocks, 0.0)
    mean = safe.sum(0) / np.maximum(n, 1)
    between = np.where(np.isfinite(blocks), (blocks - mean) ** 2, 0.0).sum(0) / np.maximum(n - 1, 1)
    variance = np.where(n >= MIN_BLOCKS, np.maximum(between / np.maximum(n, 1), MIN_SD**2), np.nan)
    return whole[0], variance[0], whole[1], variance[1]


def _centre_and_log(values: Float32, scaler: Scaler) -> Float64:
    """Return the centre and the logarithm of the scale [2, K] of readings [n, K], in the fleet's scales."""
    fleet_centre = np.array([sensor.centre for sensor in scaler.sensors])
    fleet_scale = np.array([sensor.scale for sensor in scaler.sensors])
    out = np.full((2, values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        seen = values[:, channel]
        seen = seen[np.isfinite(seen)].astype(np.float64)
        if len(seen) < 2:
            continue
        low, q1, centre, q3, high = np.quantile(seen, [0.005, 0.25, 0.5, 0.75, 0.995])
        scale = max((q3 - q1) / IQR_OF_NORMAL, (high - low) / SPAN_OF_NORMAL)
        out[0, channel] = (centre - fleet_centre[channel]) / fleet_scale[channel]
        if scale > FLOAT32_STEPS * float(np.finfo(np.float32).eps) * abs(centre):
            out[1, channel] = np.log(scale / fleet_scale[channel])
    return out


def _shrunk(value: Float64, variance: Float64) -> tuple[float, Float64]:
    """Return the mean of the assets [A], and each one's deviation, 0 where it is not known."""
    known = np.isfinite(value) & np.isfinite(variance)
    out = np.zeros(len(value))
    if known.sum() < 2:
        return 0.0, out
    mean, out[known] = shrink(value[known], variance[known])
    return mean, out


# ---------------------------------------------------------------- the trial


def _trial(
    windows: TrainingSet,
    early: Int64,
    held_out: Int64,
    inputs: ModelInputs,
    scaler: Scaler,
    scales: AssetScales,
    seed: int,
) -> tuple[float, float] | None:
    """Return the share of injected faults that a PCA finds in the fleet's scales, and in those of the assets."""
    names = [str(windows.asset_name(number)) for number in windows.asset[held_out].tolist()]
    held_out = held_out[np.isin(names, scales.names)]
    healthy_rows, fault_rows = thin(held_out, N_HEALTHY), thin(held_out, N_FAULTS)
    if len(fault_rows) < N_FAULTS // 4:
        return None
    cpu = torch.device("cpu")
    train_rows = early[evenly_spaced(len(early), N_SOLVE).numpy()]
    base = standardise(windows, fault_rows, inputs, scaler, scales, cpu)
    pool = standardise(windows, thin(early, N_HEALTHY), inputs, scaler, scales, cpu)
    faulty, _ = inject(base.x, base.present, pool.x, seed)
    table = ScaleTable(scales, scaler.to(cpu))
    own = table.scaler(table.rows([str(windows.asset_name(n)) for n in windows.asset[fault_rows].tolist()], len(base)))
    found = []
    for each in (None, scales):
        pca = Pca.solve(standardise(windows, train_rows, inputs, scaler, each, cpu).x, seed=seed)
        x = faulty
        if each is None:
            x, _ = scaler.to(cpu).standardise(own.restore(faulty).transpose(1, 2))
        healthy = window_errors(pca, standardise(windows, healthy_rows, inputs, scaler, each, cpu))
        errors = window_errors(pca, WindowTensors(x, base.present))
        found.append(_found(healthy, windows.asset[healthy_rows], errors, windows.asset[fault_rows]))
    return found[0], found[1]


def _found(healthy: Float32, of_healthy: NDArray[np.int32], faulty: Float32, of_faulty: NDArray[np.int32]) -> float:
    """Return the share of faults above the level of their asset."""
    level = {one: float(np.quantile(healthy[of_healthy == one], 1 - FALSE_SHARE)) for one in np.unique(of_healthy)}
    limit = np.array([level.get(one, np.inf) for one in of_faulty.tolist()])
    return float((faulty > limit).mean())
