"""From healthy windows to a detector that can be trusted, or a sentence why not.

In: windows of one fleet and what to train. Out: a detector whose card is the receipt.
Law: no label, and no window of the later, held-out time, touches the weights; the threshold comes from held-out
time alone; every training also fits the PCA, and the card shows both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Status
from monitor.errors import NotEnoughData
from monitor.models.calibrate import Budget, Threshold, calibrate, suspects
from monitor.models.detector import Card, Detector
from monitor.models.device import pick_device
from monitor.models.pca import Pca
from monitor.models.residual import Residual, squared_error
from monitor.models.scaler import Scaler
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.training.diagnose import diagnose
from monitor.training.recipe import Learnt, Tensors, learn, window_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network
    from monitor.types import Bool, Float32, Int64

__all__ = ["ModelSpec", "TrainingSet", "fit"]

HELD_OUT = 0.2
"""The latest fifth of each asset's time: stops the learning, sets the scales and the threshold."""
MIN_PRESENT = 0.5
"""A window with fewer of its cells teaches mostly what was filled in."""
MIN_HELD_OUT = 10
PURGE_LEAVES = 0.8
"""Share of the training windows that must remain when those that reach into the held-out time are left out; in a
short history they are most of it, and to learn from them is the smaller evil. The threshold is provisional anyway."""
MAX_TRAIN, MAX_HELD_OUT = 40_000, 40_000
MAX_CELLS = 60_000_000
"""Windows held in memory: to learn from, evenly spaced (neighbours at stride 1 share all but one cell); held out, whole
stretches. 60 M cells are 240 MB."""
N_PCA = 8192
N_SCALE = 400_000
"""Windows the PCA is solved on, and readings the scales are measured on, evenly spaced."""
JOIN_US, MAX_SPELLS = 24 * 3600 * 1_000_000, 20


@dataclass(frozen=True, slots=True)
class _Split:
    train: Int64
    """Rows of the training set, in order."""
    held_out: Int64
    n_purged: int
    """Training windows left out because they reach into the held-out time."""


def fit(
    train: TrainingSet,
    spec: ModelSpec,
    *,
    fleet: str,
    sensors: tuple[str, ...],
    interval_s: float,
    budget: Budget,
    device: str = "cpu",
    on_progress: Callable[[float, str], None] = lambda _share, _message: None,
    trained_at: datetime | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Detector:
    """Train and calibrate one detector. Raises NotEnoughData, TrainingDiverged or ConfigError.

    `budget` is what the threshold is calibrated to: the false alarms allowed, and what makes an alarm.
    `on_progress` gets a share 0..1 and a sentence. Deterministic on the CPU for one number of threads, unless
    `spec.max_train_s` cuts it short.
    """
    began = now()
    where = pick_device(device)
    n, length, n_sensors = train.values.shape
    if n_sensors != len(sensors):
        raise ValueError(f"{n_sensors} columns for {len(sensors)} sensors")
    usable = _usable(train.values)
    if len(usable) < spec.min_windows:
        more = spec.min_windows - len(usable)
        raise NotEnoughData(f"{len(usable)} usable windows of {n}, {spec.min_windows} are needed: {more} more")

    split = _split(train, usable, length * interval_s)
    if len(split.held_out) < MIN_HELD_OUT:
        raise NotEnoughData(
            f"{len(split.held_out)} of {len(usable)} windows could be held out, {MIN_HELD_OUT} are needed: "
            "no asset has a history yet"
        )
    rows = _thin(split.train, min(MAX_TRAIN, MAX_CELLS // (length * n_sensors)))
    held_rows = _latest(split.held_out, train, min(MAX_HELD_OUT, MAX_CELLS // (length * n_sensors)))
    scaler = Scaler.fit(sensors, _readings(train.values, rows))
    learning = _standardise(train.values, rows, scaler, where)
    held_out = _standardise(train.values, held_rows, scaler, where)

    on_progress(0.02, f"{len(rows)} windows to learn from, {len(held_rows)} held out")
    pca, pca_trimmed = _solve_pca(learning, spec)
    network: Network = pca
    trimmed, learnt = pca_trimmed, None
    if spec.architecture != "pca":
        learnt = learn(learning, held_out, spec, where, lambda p, m: on_progress(0.05 + 0.9 * p, m), now, pca)
        network, trimmed = learnt.network, learnt.trimmed

    on_progress(0.96, "calibrating on held-out windows")
    suspect = suspects(window_errors(network, held_out), spec.max_trim)
    clean = held_out.take(torch.from_numpy(np.flatnonzero(~suspect)))
    residual = _residual(network, clean)
    raw = _raw_scores(network, residual, clean)
    if np.isnan(raw).all():
        raise NotEnoughData("no held-out window has a sensor that was seen before it")
    # The scales are measured on the same windows: a few numbers from thousands, while a threshold from half of the
    # time would be known half as well.
    limit = calibrate(raw, train.asset[held_rows[~suspect]], train.end_us[held_rows[~suspect]], budget)

    figures = _figures(network, held_out, scaler)
    beside = _figures(pca, held_out, scaler)
    usual = learning.take(torch.from_numpy(np.flatnonzero(~trimmed)))
    found = diagnose(network, pca, usual, clean, learnt, sensors)
    card = Card(
        fleet=fleet,
        architecture=spec.architecture,
        objective=spec.objective,
        hyper=network.hyper,
        sensors=sensors,
        length=length,
        interval_s=interval_s,
        seed=learnt.seed if learnt else spec.seed,
        trained_at=(trained_at or datetime.now(UTC)).isoformat(timespec="seconds"),
        threshold=limit,
        training={
            **_receipt(train, n - len(usable), split, rows, held_rows, trimmed, suspect),
            **_course(learnt),
            **figures,
            "diagnosis": found.facts,
            "troubles": found.troubles,
            "took_s": round(now() - began, 2),
        },
        baseline={"architecture": "pca", **pca.hyper, **beside},
        metrics=_metrics(limit, figures, beside, len(rows)),
    )
    on_progress(1.0, "done")
    return Detector(card, network, scaler, residual, where)


def _usable(values: Float32) -> Int64:
    """Return the rows with enough present cells to learn from."""
    rows = []
    for start in range(0, len(values), 4096):
        # Cells with any sensor: one that no asset of the fleet has must not make every window unusable.
        present = np.isfinite(values[start : start + 4096]).any(axis=2).mean(axis=1)
        rows.append(start + np.flatnonzero(present >= MIN_PRESENT))
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def _split(train: TrainingSet, usable: Int64, span_s: float) -> _Split:
    """Hold out the latest part of each asset's time, and purge what reaches into it."""
    kept, held, n_purged = [], [], 0
    asset = train.asset[usable]
    for one in np.unique(asset):
        mine = usable[asset == one]
        cut = len(mine) - max(1, round(HELD_OUT * len(mine))) if len(mine) > 1 else 1
        early, late = mine[:cut], mine[cut:]
        if len(late):
            apart = train.end_us[early] <= train.end_us[late[0]] - int(span_s * 1e6)
            if apart.sum() >= PURGE_LEAVES * len(early):
                n_purged += int((~apart).sum())
                early = early[apart]
        kept.append(early)
        held.append(late)
    return _Split(np.concatenate(kept), np.concatenate(held), n_purged)


def _latest(rows: Int64, train: TrainingSet, n_max: int) -> Int64:
    """Return at most `n_max` of the rows: each asset's latest ones, whole, for an alert is made of neighbours."""
    asset = train.asset[rows]
    counts = np.unique(asset, return_counts=True)[1]
    share = n_max
    while share > 1 and np.minimum(counts, share).sum() > n_max:
        share = max(1, int(share * n_max / np.minimum(counts, share).sum()))
    return np.concatenate([rows[asset == one][-share:] for one in np.unique(asset)])


def _thin(rows: Int64, n_max: int) -> Int64:
    """Return at most `n_max` of the rows, evenly spaced."""
    if len(rows) <= n_max:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n_max).round().astype(np.int64)]


def _readings(values: Float32, rows: Int64) -> Float32:
    """Return readings [n, C] of the windows, at most `N_SCALE`."""
    length = values.shape[1]
    some = _thin(rows, max(1, N_SCALE // length))
    return values[some].reshape(-1, values.shape[2])


def _standardise(values: Float32, rows: Int64, scaler: Scaler, device: torch.device) -> Tensors:
    on_device = scaler.to(device)
    parts = [on_device.standardise(torch.from_numpy(np.ascontiguousarray(values[part], dtype=np.float32)).to(device))
             for part in np.array_split(rows, max(1, len(rows) // 2048))]
    x = torch.cat([x for x, _ in parts])
    if all(present is None for _, present in parts):
        return Tensors(x, None)
    return Tensors(x, torch.cat([torch.ones_like(x, dtype=torch.bool) if p is None else p for x, p in parts]))


def _solve_pca(learning: Tensors, spec: ModelSpec) -> tuple[Pca, Bool]:
    """Solve, leave the suspects out, solve again."""
    some = torch.from_numpy(_thin(np.arange(len(learning)), N_PCA))
    pca = Pca.solve(learning.x[some], seed=spec.seed)
    odd = suspects(window_errors(pca, learning), spec.max_trim)
    if not odd.any():
        return pca, odd
    kept = torch.from_numpy(_thin(np.flatnonzero(~odd), N_PCA))
    return Pca.solve(learning.x[kept], seed=spec.seed), odd


def _residual(network: Network, clean: Tensors) -> Residual:
    with torch.inference_mode():
        parts = [squared_error(network, p.x, p.present) for p in _chunks(clean)]
    return Residual.fit(torch.cat(parts), clean.present)


def _raw_scores(network: Network, residual: Residual, windows: Tensors) -> Float32:
    with torch.inference_mode():
        parts = []
        for p in _chunks(windows):
            z = residual.per_sensor(squared_error(network, p.x, p.present), p.present)
            parts.append(residual.combine(z, p.present)[0])
    # NaN: all that is left of the window is a sensor that was never seen in training time.
    raw: Float32 = torch.cat(parts).cpu().numpy()
    return raw


def _chunks(windows: Tensors) -> list[Tensors]:
    return [windows.take(slice(start, start + 512)) for start in range(0, len(windows), 512)]


def _figures(network: Network, held_out: Tensors, scaler: Scaler) -> dict[str, Any]:
    """Return held-out error and explained variance, all and per sensor: the same figures for every architecture."""
    errors = window_errors(network, held_out)
    p50, p90, p99 = np.quantile(errors, [0.5, 0.9, 0.99]).tolist()
    mean = held_out.x.mean((0, 2))[:, None]                               # (C, 1)
    left, total = torch.zeros(len(scaler.sensors)), torch.zeros(len(scaler.sensors))
    with torch.inference_mode():
        for p in _chunks(held_out):
            here = torch.ones_like(p.x) if p.present is None else p.present
            left += ((network(p.x) - p.x).square_() * here).sum((0, 2)).cpu()
            total += ((p.x - mean).square() * here).sum((0, 2)).cpu()
    # A sensor that stood still has no variance to explain.
    moved = total > 1e-6 * len(held_out)
    explained = torch.where(moved, 1 - left / total.clamp(min=1e-12), torch.nan)
    return {
        "held_out_error": {"mean": float(errors.mean()), "p50": p50, "p90": p90, "p99": p99},
        "explained_variance": {
            "all": round(float(1 - left.sum() / total.sum()), 4) if moved.any() else None,
            **{
                s.name: round(float(v), 4) if here else None
                for s, v, here in zip(scaler.sensors, explained, moved, strict=True)
            },
        },
    }


def _metrics(limit: Threshold, figures: dict[str, Any], beside: dict[str, Any], n_train: int) -> dict[str, float]:
    known = {
        "threshold": limit.raw,
        "held_out_error": figures["held_out_error"]["mean"],
        "held_out_error_p99": figures["held_out_error"]["p99"],
        "explained_variance": figures["explained_variance"]["all"],
        "pca_held_out_error": beside["held_out_error"]["mean"],
        "pca_held_out_error_p99": beside["held_out_error"]["p99"],
        "pca_explained_variance": beside["explained_variance"]["all"],
        "n_train": float(n_train),
        "bound_per_week": limit.bound_per_week,
        "provisional": float(limit.state is not Status.CERTIFIED),
    }
    return {name: value for name, value in known.items() if value is not None}


def _course(learnt: Learnt | None) -> dict[str, Any]:
    if learnt is None:
        return {"stopped": "solved", "restarts": []}
    return {
        "stopped": learnt.stopped, "n_steps": learnt.n_steps, "best_step": learnt.best_step,
        "train_error": learnt.train_error, "check_error": learnt.held_out_error, "restarts": learnt.restarts,
    }


def _receipt(
    train: TrainingSet, n_gappy: int, split: _Split, rows: Int64, held_rows: Int64, trimmed: Bool, suspect: Bool
) -> dict[str, Any]:
    return {
        "n_windows": len(train),
        "n_assets": len(np.unique(train.asset)),
        "from": _at(train.end_us.min()),
        "to": _at(train.end_us.max()),
        "n_train": len(rows),
        "n_held_out": len(held_rows),
        "left_out": {
            "too_many_gaps": n_gappy,
            "reaches_into_held_out": split.n_purged,
            "thinned": len(split.train) - len(rows) + len(split.held_out) - len(held_rows),
            "suspected_fault_train": int(trimmed.sum()),
            "suspected_fault_held_out": int(suspect.sum()),
        },
        "suspected_faults": _spells(train, np.sort(np.concatenate([rows[trimmed], held_rows[suspect]]))),
    }


def _spells(train: TrainingSet, rows: Int64) -> list[dict[str, Any]]:
    """Return when the suspected windows end, neighbours within a day of one asset joined, at most `MAX_SPELLS`."""
    spells: list[dict[str, Any]] = []
    last_us = 0
    for row in rows[np.lexsort((train.end_us[rows], train.asset[rows]))]:
        asset, end_us = int(train.asset[row]), int(train.end_us[row])
        if spells and spells[-1]["asset"] == asset and end_us - last_us <= JOIN_US:
            spells[-1]["to"] = _at(end_us)
            spells[-1]["n_windows"] += 1
        else:
            spells.append({"asset": asset, "from": _at(end_us), "to": _at(end_us), "n_windows": 1})
        last_us = end_us
    return sorted(spells, key=lambda spell: -spell["n_windows"])[:MAX_SPELLS]


def _at(us: int) -> str:
    return datetime.fromtimestamp(int(us) / 1e6, UTC).isoformat(timespec="seconds")
