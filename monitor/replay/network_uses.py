"""Uses of a trained network besides scoring, over recordings: latents, the denoised signal, synthetic recordings.

Input: a model and recordings. Output: rows for a table, and the windows that a sample is compared with.
Invariant: the ensemble of `auto` is used by its last member: the PCA, or the trained network of an older release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import from_us
from monitor.models import apply
from monitor.replay.grids import Stretch, is_full, stretches, stride_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from monitor.models.detector import TrainedModel
    from monitor.recordings import Recording
    from monitor.types import Bool, Float32, Int64

    OnProgress = Callable[[float | None, str], None]

CHUNK = 2048
"""Windows at once."""
LEAST_FULL = 7 / 8
"""Share of cells with a value that a window needs to be encoded, as for a score by the default `max_gap`."""
LEAST_HALF = 0.5
"""Share of cells with a value that a window needs to be reconstructed."""


# ---------------------------------------------------------------- latents


@dataclass(frozen=True, slots=True)
class Latents:
    """Latents of N windows."""

    asset: list[str]
    start_us: Int64
    end_us: Int64
    score: Float32
    """[N], NaN = unscored."""
    label: Bool
    """[N], windows with a cell that is labelled as a fault."""
    latent: Float32
    """[N, K]"""
    stride: int
    """Cells between two windows."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each window."""
        for n, asset in enumerate(self.asset):
            row = {"asset": asset, "start": _iso(self.start_us[n]), "end": _iso(self.end_us[n]),
                   "score": float(self.score[n]) if np.isfinite(self.score[n]) else None,
                   "label": bool(self.label[n])}  # fmt: skip
            yield row | {f"latent_{k}": float(value) for k, value in enumerate(self.latent[n])}

    def columns(self) -> dict[str, Any]:
        """Return name → kind of the columns."""
        fixed = {"asset": "text", "start": "time", "end": "time", "score": "number", "label": "flag"}
        return fixed | {f"latent_{k}": "number" for k in range(self.latent.shape[1])}


def encode(
    model: TrainedModel, recordings: Sequence[Recording], stride: int | None, on_progress: OnProgress
) -> Latents:
    """Return the latents of all windows. `stride`: in cells, None = that of the fleet.

    Raises NotFound (a network without a latent), BadRecording.
    """
    apply.encode(model, np.zeros((0, model.card.length, len(model.sensors)), np.float32))
    found = [each for recording in recordings for each in stretches(recording, model)]
    length, interval_us = model.card.length, round(model.card.interval_s * 1e6)
    wanted = stride or max(1, round(model.card.threshold.step_s / model.card.interval_s))
    stride = stride_for(found, length, wanted)
    latents, scores, assets, starts, labels = [], [], [], [], []
    for number, each in enumerate(found):
        for at in _parts(each.starts(length, stride)):
            windows = each.windows(at, length)
            full = is_full(windows, LEAST_FULL)
            at, windows = at[full], windows[full]
            names = [each.asset] * len(windows)
            latents.append(apply.encode(model, windows, names))
            ends_us = (each.first_cell + at + length) * interval_us
            scores.append(model.score(windows, names, end_us=ends_us).score)
            assets += [each.asset] * len(at)
            starts.append((each.first_cell + at) * interval_us)
            labels.append(np.array([each.label[row : row + length].any() for row in at.tolist()], dtype=bool))
            on_progress((number + at[-1] / len(each.values) if len(at) else number) / len(found), each.asset)
    if not latents:
        latents, scores = [apply.encode(model, np.zeros((0, length, len(model.sensors)), np.float32))], []
    start_us = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    return Latents(
        assets,
        start_us,
        start_us + length * interval_us,
        np.concatenate(scores) if scores else np.zeros(0, np.float32),
        np.concatenate(labels) if labels else np.zeros(0, bool),
        np.concatenate(latents),
        stride,
    )


def principal_axes(latent: Float32) -> tuple[Float32, tuple[float, float]]:
    """Return the first two principal components [N, 2] of latents [N, K], and the share of variance of each."""
    centred = latent.astype(np.float64) - latent.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    total = max(float((singular**2).sum()), 1e-300)
    points = np.zeros((len(latent), 2), dtype=np.float32)
    n = min(2, len(axes))
    points[:, :n] = centred @ axes[:n].T
    shares = [float(each**2) / total for each in singular[:2]] + [0.0, 0.0]
    return points, (shares[0], shares[1])


# ---------------------------------------------------------------- the denoised signal


@dataclass(frozen=True, slots=True)
class Denoised:
    """N cells of one asset, raw and denoised."""

    stretch: Stretch
    values: Float32
    """[N, C], mean of the reconstructions of all windows over a cell. NaN = no window, or a sensor left out."""


def denoise(
    model: TrainedModel, recordings: Sequence[Recording], stride: int | None, on_progress: OnProgress
) -> Iterator[Denoised]:
    """Yield each stretch with its reconstruction. `stride`: cells between the averaged windows, None = a quarter."""
    found = [each for recording in recordings for each in stretches(recording, model)]
    length = model.card.length
    stride = stride_for(found, length, stride or max(1, length // 4))
    for number, each in enumerate(found):
        total = np.zeros(each.values.shape)
        n = np.zeros(each.values.shape)
        for at in _parts(each.starts(length, stride)):
            windows = each.windows(at, length)
            full = is_full(windows, LEAST_HALF)
            denoised = apply.denoise(model, windows[full], [each.asset] * int(full.sum()))
            for row, window in zip(at[full].tolist(), denoised, strict=True):
                known = np.isfinite(window)
                total[row : row + length] += np.where(known, window, 0.0)
                n[row : row + length] += known
            on_progress((number + at[-1] / len(each.values)) / len(found), each.asset)
        mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
        yield Denoised(each, mean.astype(np.float32))


def denoised_columns(sensors: Sequence[str]) -> dict[str, Any]:
    """Return name → kind of the columns of `denoised_rows`."""
    columns: dict[str, Any] = {"asset": "text", "time": "time"}
    for name in sensors:
        columns |= {name: "number", f"{name}_denoised": "number", f"{name}_filled": "flag"}
    return columns


def denoised_rows(model: TrainedModel, denoised: Denoised) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell: the measured value, the denoised one, and whether it fills a gap."""
    interval_us = round(model.card.interval_s * 1e6)
    raw, clean = denoised.stretch.values, denoised.values
    for n in range(len(raw)):
        at_us = (denoised.stretch.first_cell + n) * interval_us
        row: dict[str, Any] = {"asset": denoised.stretch.asset, "time": _iso(at_us)}
        for c, name in enumerate(model.sensors):
            measured, found = _number(raw[n, c]), _number(clean[n, c])
            row |= {name: measured, f"{name}_denoised": found,
                    f"{name}_filled": measured is None and found is not None}  # fmt: skip
        yield row


# ---------------------------------------------------------------- synthetic recordings


def sample(model: TrainedModel, n: int, seed: int, *, with_noise: bool = True) -> Float32:
    """Return `n` synthetic windows [n, T, C] in the sensors' own units. Raises NotFound (no latent to draw).

    `with_noise`: add each sensor's healthy error, white and normal. Without it the windows are smoother than real ones.
    """
    windows = apply.sample(model, n, seed)
    if with_noise:
        draw = np.random.default_rng(seed).standard_normal(windows.shape, dtype=np.float32)
        windows = windows + draw * apply.observation_noise(model)
    return windows


def real_windows(model: TrainedModel, recordings: Sequence[Recording]) -> Float32:
    """Return the healthy windows of recordings, without overlap: those without a labelled fault that score below 1."""
    length, interval_us = model.card.length, round(model.card.interval_s * 1e6)
    kept = [np.zeros((0, length, len(model.sensors)), np.float32)]
    for recording in recordings:
        for each in stretches(recording, model):
            at = np.arange(0, len(each.values) - length + 1, length, dtype=np.int64)
            at = at[[not each.label[row : row + length].any() for row in at.tolist()]]
            windows = each.windows(at, length)
            full = is_full(windows, LEAST_FULL)
            at, windows = at[full], windows[full]
            ends_us = (each.first_cell + at + length) * interval_us
            kept.append(windows[model.score(windows, [each.asset] * len(windows), end_us=ends_us).score < 1.0])
    return np.concatenate(kept)


def sample_rows(model: TrainedModel, windows: Float32, first_us: int) -> Iterator[dict[str, Any]]:
    """Yield the readings of synthetic windows, each an asset of its own, from one time on."""
    interval_us = round(model.card.interval_s * 1e6)
    for number, window in enumerate(windows):
        for step, values in enumerate(window):
            row: dict[str, Any] = {"asset": f"sample-{number + 1:05}", "time": _iso(first_us + step * interval_us)}
            yield row | {name: _number(value) for name, value in zip(model.sensors, values, strict=True)}


def sample_columns(sensors: Sequence[str]) -> dict[str, Any]:
    """Return name → kind of the columns of `sample_rows`."""
    return {"asset": "text", "time": "time"} | dict.fromkeys(sensors, "number")


# ---------------------------------------------------------------- parts


def _parts(starts: Int64) -> list[Int64]:
    return [starts[at : at + CHUNK] for at in range(0, len(starts), CHUNK)]


def _number(value: np.float32) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _iso(us: Any) -> str:
    return from_us(int(us)).isoformat().replace("+00:00", "Z")
