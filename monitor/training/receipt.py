"""Entries of a training in the card: windows used and left out, the course of the training, its metrics.

Input: the windows, the split, the networks. Output: plain values, ready for JSON.
Invariant: the keys are a contract. Metrics mean the same for every architecture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Status
from monitor.clock import iso_seconds
from monitor.training.tensors import WindowTensors, chunks, window_errors

if TYPE_CHECKING:
    from monitor.models.calibrate import Threshold
    from monitor.models.network import Network
    from monitor.models.scaler import Scaler
    from monitor.models.spec import TrainingSet
    from monitor.training.loop import TrainingResult
    from monitor.training.split import Split
    from monitor.types import Bool, Int64

HOUR_US = 3600 * 1_000_000
JOIN_US, MAX_SPELLS = 24 * HOUR_US, 20
"""Suspected faults of one asset at most a day apart are listed as one spell. The card lists the longest spells."""
APART_US, MIN_DAYS = 6 * HOUR_US, 3
"""Faults recur if spells, which are more than six hours apart, begin on at least three days."""


def reconstruction_metrics(network: Network, held_out: WindowTensors, scaler: Scaler) -> dict[str, Any]:
    """Return held-out error and explained variance, of all sensors and of each.

    Steps that a network does not score (a forecaster's first ones) count in neither.
    """
    errors = window_errors(network, held_out)
    p50, p90, p99 = np.quantile(errors, [0.5, 0.9, 0.99]).tolist()
    scored = slice(network.n_unscored, None)
    mean = held_out.x[..., scored].mean((0, 2))[:, None]                  # (C, 1)
    residual, total = torch.zeros(len(scaler.sensors)), torch.zeros(len(scaler.sensors))
    with torch.inference_mode():
        for part in chunks(held_out):
            here = (torch.ones_like(part.x) if part.present is None else part.present)[..., scored]
            residual += (network.squared_error(part.x, part.x)[..., scored] * here).sum((0, 2)).cpu()
            total += ((part.x[..., scored] - mean).square() * here).sum((0, 2)).cpu()
    # A sensor that did not move has no variance to explain.
    moved = total > 1e-6 * len(held_out)
    explained = torch.where(moved, 1 - residual / total.clamp(min=1e-12), torch.nan)
    return {
        "held_out_error": {"mean": float(errors.mean()), "p50": p50, "p90": p90, "p99": p99},
        "explained_variance": {
            "all": round(float(1 - residual.sum() / total.sum()), 4) if moved.any() else None,
            **{
                s.name: round(float(v), 4) if has_moved else None
                for s, v, has_moved in zip(scaler.sensors, explained, moved, strict=True)
            },
        },
    }


def version_metrics(
    threshold: Threshold, metrics: dict[str, Any], pca_metrics: dict[str, Any], n_train: int
) -> dict[str, float]:
    """Return the metrics that versions are compared by."""
    known = {
        "threshold": threshold.raw,
        "held_out_error": metrics["held_out_error"]["mean"],
        "held_out_error_p99": metrics["held_out_error"]["p99"],
        "explained_variance": metrics["explained_variance"]["all"],
        "pca_held_out_error": pca_metrics["held_out_error"]["mean"],
        "pca_held_out_error_p99": pca_metrics["held_out_error"]["p99"],
        "pca_explained_variance": pca_metrics["explained_variance"]["all"],
        "n_train": float(n_train),
        "bound_per_week": threshold.bound_per_week,
        "provisional": float(threshold.state is not Status.CERTIFIED),
    }
    return {name: value for name, value in known.items() if value is not None}


def training_summary(result: TrainingResult | None) -> dict[str, Any]:
    """Return the course of the training. None = the model was solved in one step."""
    if result is None:
        return {"stopped": "solved", "restarts": []}
    return {
        "stopped": result.stopped, "n_steps": result.n_steps, "best_step": result.best_step,
        "train_error": result.train_error, "check_error": result.held_out_error, "restarts": result.restarts,
    }


def data_receipt(
    windows: TrainingSet, n_gappy: int, split: Split, rows: Int64, held_rows: Int64, trimmed: Bool, outlier: Bool
) -> dict[str, Any]:
    """Return the windows used and left out, with the reasons.

    `rows`, `held_rows`: rows used of the split. `trimmed`, `outlier`: the suspected faults among them.
    """
    return {
        "n_windows": len(windows),
        "n_assets": len(np.unique(windows.asset)),
        "from": iso_seconds(windows.end_us.min()),
        "to": iso_seconds(windows.end_us.max()),
        "n_train": len(rows),
        "n_held_out": len(held_rows),
        "n_overlapping": split.n_overlapping,
        "left_out": {
            "too_many_gaps": n_gappy,
            "labelled": windows.n_labelled,
            "alerted": split.n_alerted,
            "reaches_into_held_out": split.n_purged,
            "thinned": len(split.train) - len(rows) + len(split.held_out) - len(held_rows),
            "suspected_fault_train": int(trimmed.sum()),
            "suspected_fault_held_out": int(outlier.sum()),
        },
        "suspected_faults": sorted(
            _spells(windows, np.concatenate([rows[trimmed], held_rows[outlier]]), JOIN_US),
            key=lambda spell: -spell["n_windows"],
        )[:MAX_SPELLS],
    }


def recurring_faults(windows: TrainingSet, suspected: Int64) -> list[str]:
    """Return a warning if the suspected rows are of so many days that they may be a healthy state, else nothing."""
    spells = sorted(_spells(windows, suspected, APART_US), key=lambda spell: spell["from"])
    days = {spell["from"][:10] for spell in spells}
    if len(days) < MIN_DAYS:
        return []
    last = ", ".join(f"{spell['from']} on {spell['asset']}" for spell in spells[-3:])
    warning = (
        f"suspected faults recur: {len(spells)} spells on {len(days)} days, last {last}. They were not learnt from and "
        "will alarm. If they are healthy, a rare state of the machine, set max_trim = 0 in its fleet's model and "
        "retrain; if they are faults, label their alerts"
    )
    return [warning]


def _spells(windows: TrainingSet, rows: Int64, join_us: int) -> list[dict[str, Any]]:
    """Return spells by asset and time: windows of one asset whose ends are at most `join_us` apart are one."""
    spells: list[dict[str, Any]] = []
    last_us = 0
    for row in rows[np.lexsort((windows.end_us[rows], windows.asset[rows]))]:
        asset, end_us = windows.asset_name(int(windows.asset[row])), int(windows.end_us[row])
        if spells and spells[-1]["asset"] == asset and end_us - last_us <= join_us:
            spells[-1]["to"] = iso_seconds(end_us)
            spells[-1]["n_windows"] += 1
        else:
            spells.append({"asset": asset, "from": iso_seconds(end_us), "to": iso_seconds(end_us), "n_windows": 1})
        last_us = end_us
    return spells
