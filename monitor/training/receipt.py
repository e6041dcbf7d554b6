"""What a training leaves in the card: what was used and left out and why, how learning went, what came of it.

In: the windows, the split, the networks. Out: plain figures, ready for JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Status
from monitor.training.loop import Tensors, chunks, window_errors

if TYPE_CHECKING:
    from monitor.models.calibrate import Threshold
    from monitor.models.network import Network
    from monitor.models.scaler import Scaler
    from monitor.models.spec import TrainingSet
    from monitor.training.loop import Learnt
    from monitor.training.split import Split
    from monitor.types import Bool, Int64

HOUR_US = 3600 * 1_000_000
JOIN_US, MAX_SPELLS = 24 * HOUR_US, 20
APART_US, RECURS = 6 * HOUR_US, 3
"""Suspected spells further apart are not one; they recur where they begin on so many days."""


def figures_of(network: Network, held_out: Tensors, scaler: Scaler) -> dict[str, Any]:
    """Return held-out error and explained variance, all and per sensor: the same figures for every architecture.

    Cells that a network has no opinion about (a forecaster's first ones) count in neither.
    """
    errors = window_errors(network, held_out)
    p50, p90, p99 = np.quantile(errors, [0.5, 0.9, 0.99]).tolist()
    seen = slice(network.n_unscored, None)
    mean = held_out.x[..., seen].mean((0, 2))[:, None]                    # (C, 1)
    left, total = torch.zeros(len(scaler.sensors)), torch.zeros(len(scaler.sensors))
    with torch.inference_mode():
        for p in chunks(held_out):
            here = (torch.ones_like(p.x) if p.present is None else p.present)[..., seen]
            left += (network.squared_error(p.x, p.x)[..., seen] * here).sum((0, 2)).cpu()
            total += ((p.x[..., seen] - mean).square() * here).sum((0, 2)).cpu()
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


def metrics_of(limit: Threshold, figures: dict[str, Any], beside: dict[str, Any], n_train: int) -> dict[str, float]:
    """Return the few figures that versions are compared by."""
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


def course_of(learnt: Learnt | None) -> dict[str, Any]:
    """Return how learning went; None = there was nothing to learn in steps."""
    if learnt is None:
        return {"stopped": "solved", "restarts": []}
    return {
        "stopped": learnt.stopped, "n_steps": learnt.n_steps, "best_step": learnt.best_step,
        "train_error": learnt.train_error, "check_error": learnt.held_out_error, "restarts": learnt.restarts,
    }


def receipt_of(
    train: TrainingSet, n_gappy: int, split: Split, rows: Int64, held_rows: Int64, trimmed: Bool, suspect: Bool
) -> dict[str, Any]:
    """Return what was used, and what was left out and why."""
    return {
        "n_windows": len(train),
        "n_assets": len(np.unique(train.asset)),
        "from": _at(train.end_us.min()),
        "to": _at(train.end_us.max()),
        "n_train": len(rows),
        "n_held_out": len(held_rows),
        "n_overlapping": split.n_overlapping,
        "left_out": {
            "too_many_gaps": n_gappy,
            "labelled": train.n_labelled,
            "alerted": split.n_alerted,
            "reaches_into_held_out": split.n_purged,
            "thinned": len(split.train) - len(rows) + len(split.held_out) - len(held_rows),
            "suspected_fault_train": int(trimmed.sum()),
            "suspected_fault_held_out": int(suspect.sum()),
        },
        "suspected_faults": sorted(
            _spells(train, np.concatenate([rows[trimmed], held_rows[suspect]]), JOIN_US),
            key=lambda spell: -spell["n_windows"],
        )[:MAX_SPELLS],
    }


def recurring(train: TrainingSet, suspected: Int64) -> list[str]:
    """Return a sentence, if the suspected rows are of so many days that they may be a healthy habit."""
    spells = sorted(_spells(train, suspected, APART_US), key=lambda spell: spell["from"])
    days = {spell["from"][:10] for spell in spells}
    if len(days) < RECURS:
        return []
    last = ", ".join(f"{spell['from']} on {spell['asset']}" for spell in spells[-3:])
    told = (
        f"suspected faults recur: {len(spells)} spells on {len(days)} days, last {last}. They were not learnt from and "
        "will alarm. If they are healthy, a rare state of the machine, set max_trim = 0 in its fleet's model and "
        "retrain; if they are faults, label their alerts"
    )
    return [told]


def _spells(train: TrainingSet, rows: Int64, join_us: int) -> list[dict[str, Any]]:
    """Return when windows end, neighbours of one asset so near to each other joined."""
    spells: list[dict[str, Any]] = []
    last_us = 0
    for row in rows[np.lexsort((train.end_us[rows], train.asset[rows]))]:
        asset, end_us = train.asset_name(int(train.asset[row])), int(train.end_us[row])
        if spells and spells[-1]["asset"] == asset and end_us - last_us <= join_us:
            spells[-1]["to"] = _at(end_us)
            spells[-1]["n_windows"] += 1
        else:
            spells.append({"asset": asset, "from": _at(end_us), "to": _at(end_us), "n_windows": 1})
        last_us = end_us
    return spells


def _at(us: int) -> str:
    return datetime.fromtimestamp(int(us) / 1e6, UTC).isoformat(timespec="seconds")
