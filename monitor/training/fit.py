"""From healthy windows to a detector that can be trusted, or a sentence why not.

In: windows of one fleet and what to train. Out: a detector whose card is the receipt.
Law: no label touches anything, and no window of the later, held-out time touches a weight before scales and threshold
are measured on it (after that, `auto` solves its PCA again, and its card says so); every training also fits the PCA,
and the card shows both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.errors import NotEnoughData
from monitor.models.calibrate import Budget, calibrate, find_outliers
from monitor.models.detector import Card, Detector
from monitor.models.device import pick_device
from monitor.models.member import Member, ensemble_score
from monitor.models.pca import N_SOLVE, Pca
from monitor.models.scaler import Scaler
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.training.auto import choose, member, renewed
from monitor.training.diagnose import diagnose
from monitor.training.loop import Tensors, chunks, learn, window_errors
from monitor.training.receipt import course_of, figures_of, metrics_of, receipt_of, recurring
from monitor.training.split import latest, readings, split, thin, usable_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.training.loop import Learnt
    from monitor.types import Bool, Float32, Int64

__all__ = ["ModelSpec", "TrainingSet", "fit"]

MIN_HELD_OUT = 10
MAX_TRAIN, MAX_HELD_OUT = 40_000, 40_000
MAX_CELLS = 60_000_000
"""Windows held in memory: to learn from, evenly spaced (neighbours at stride 1 share all but one cell); held out, whole
stretches. 60 M cells are 240 MB."""


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
    usable = usable_rows(train.values)
    n_calm = len(usable) if train.alerted is None else int((~train.alerted[usable]).sum())
    if n_calm < spec.min_windows:
        more = spec.min_windows - n_calm
        raise NotEnoughData(f"{n_calm} usable windows of {n}, {spec.min_windows} are needed: {more} more")

    parts = split(train, usable, length * interval_s)
    if len(parts.held_out) < MIN_HELD_OUT:
        raise NotEnoughData(
            f"{len(parts.held_out)} of {len(usable)} windows could be held out, {MIN_HELD_OUT} are needed: "
            "no asset has a history yet"
        )
    if len(parts.train) < spec.min_windows // 2:
        raise NotEnoughData(
            f"{len(parts.train)} windows are left to learn from, for {parts.n_alerted} overlap alerts; label as normal "
            "those that were none"
        )
    rows = thin(parts.train, min(MAX_TRAIN, MAX_CELLS // (length * n_sensors)))
    held_rows = latest(parts.held_out, train, min(MAX_HELD_OUT, MAX_CELLS // (length * n_sensors)))
    scaler = Scaler.fit(sensors, readings(train.values, rows))
    learning = _standardise(train.values, rows, scaler, where)
    held_out = _standardise(train.values, held_rows, scaler, where)

    on_progress(0.02, f"{len(rows)} windows to learn from, {len(held_rows)} held out")
    pca, trimmed = _solve_pca(learning, spec)
    learnt: Learnt | None = None
    choice: dict[str, Any] = {}
    if spec.architecture == "auto":
        suspect = find_outliers(window_errors(pca, held_out), spec.max_trim)
        clean = held_out.without(suspect)
        members, learnt, choice = choose(
            learning, clean, pca, spec, where, lambda p, m: on_progress(0.05 + 0.9 * p, m), now
        )
        network, trimmed = learnt.network, learnt.trimmed
    else:
        network = pca
        if spec.architecture != "pca":
            learnt = learn(learning, held_out, spec, where, lambda p, m: on_progress(0.05 + 0.9 * p, m), now, pca)
            network, trimmed = learnt.network, learnt.trimmed
        suspect = find_outliers(window_errors(network, held_out), spec.max_trim)
        clean = held_out.without(suspect)
        members = (member(spec.architecture, network, clean),)

    on_progress(0.96, "calibrating on held-out windows")
    raw = _raw_scores(members, held_out)
    if np.isnan(raw[~suspect]).all():
        raise NotEnoughData("no held-out window has a sensor that was seen before it")
    # The scales are measured on the same windows: a few numbers from thousands, while a threshold from half of the
    # time would be known half as well.
    limit = calibrate(
        raw, train.asset[held_rows], train.end_us[held_rows], budget,
        outlier=suspect, stride_factor=train.stride_factor, n_overlapping=parts.n_overlapping,
    )
    if isinstance(limit.worst_asset, int):
        limit = replace(limit, worst_asset=train.asset_name(limit.worst_asset))

    figures = figures_of(network, held_out, scaler)
    beside = figures_of(pca, held_out, scaler)
    usual = learning.without(trimmed)
    found = diagnose(network, pca, usual, clean, learnt, sensors)
    if choice:
        members = renewed(members, usual, clean, spec.seed)
    card = Card(
        fleet=fleet,
        architecture=spec.architecture,
        objective=spec.objective,
        members=tuple(one.to_json() for one in members),
        sensors=sensors,
        length=length,
        interval_s=interval_s,
        seed=learnt.seed if learnt else spec.seed,
        trained_at=(trained_at or datetime.now(UTC)).isoformat(timespec="seconds"),
        threshold=limit,
        training={
            **receipt_of(train, n - len(usable), parts, rows, held_rows, trimmed, suspect),
            **course_of(learnt),
            **figures,
            "diagnosis": found.facts,
            "troubles": found.troubles + recurring(train, np.concatenate([rows[trimmed], held_rows[suspect]])),
            "took_s": round(now() - began, 2),
        },
        baseline={"architecture": "pca", **pca.hyper, **beside},
        choice=choice,
        metrics=metrics_of(limit, figures, beside, len(rows)),
    )
    on_progress(1.0, "done")
    return Detector(card, members, scaler, where)


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
    some = torch.from_numpy(thin(np.arange(len(learning)), N_SOLVE))
    pca = Pca.solve(learning.x[some], seed=spec.seed)
    odd = find_outliers(window_errors(pca, learning), spec.max_trim)
    if not odd.any():
        return pca, odd
    kept = torch.from_numpy(thin(np.flatnonzero(~odd), N_SOLVE))
    return Pca.solve(learning.x[kept], seed=spec.seed), odd


def _raw_scores(members: tuple[Member, ...], windows: Tensors) -> Float32:
    """Return raw scores [N]; NaN: all that is left of a window is a sensor that was never seen in training time."""
    with torch.inference_mode():
        raw: Float32 = torch.cat([ensemble_score(members, p.x, p.present)[0] for p in chunks(windows)]).cpu().numpy()
    return raw
