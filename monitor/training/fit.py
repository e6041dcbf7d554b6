"""Fit: from healthy windows to a calibrated detector, or an error that names the reason.

Input: windows of one fleet and the model to train. Output: a detector whose card is the receipt.
Invariant: no label is used, and no held-out window changes a weight before scales and threshold are measured on it
(after that, `auto` solves its PCA again, and its card says so). Every training also fits the PCA, and the card shows
both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from monitor.errors import NotEnoughData
from monitor.models.calibrate import find_outliers
from monitor.models.detector import Card, TrainedModel
from monitor.models.device import pick_device
from monitor.models.held_out import HeldOut, parts_every
from monitor.models.inputs import ModelInputs
from monitor.models.knobs import Knobs
from monitor.models.member import Member, ensemble_score, error_parts
from monitor.models.pca import N_SOLVE, Pca
from monitor.models.residual import N_SCALES
from monitor.models.scaler import Scaler
from monitor.models.sensor_profile import learn
from monitor.models.spec import MAX_VALUES
from monitor.models.terms import knobs_to_json
from monitor.training.auto import calibrated_member, choose, refit_pca
from monitor.training.diagnose import diagnose
from monitor.training.forward import Rows, forward, has_room, later_half, part_begins
from monitor.training.loop import TrainingResult, train
from monitor.training.receipt import (
    data_receipt,
    reconstruction_metrics,
    recurring_faults,
    training_summary,
    version_metrics,
)
from monitor.training.recognise import recognise, suggestions, with_ranges
from monitor.training.split import Split, latest, readings, split, thin, usable_rows
from monitor.training.tensors import WindowTensors, chunks, joined, window_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.models.network import Network
    from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
    from monitor.types import Bool, Float32, Int32, Int64

SOLVED_ALONE = ("pca",)
"""Architectures that are solved in closed form, so that their threshold is from the later half of the history."""
MIN_HELD_OUT = 10
MAX_FLOAT16 = 65504.0  # the largest of the type
MAX_PROFILE = 10_000
"""Windows that the healthy behaviour of the sensors is measured on, evenly chosen."""
MAX_TRAIN, MAX_HELD_OUT = 40_000, 40_000
"""Training windows are thinned evenly, held-out windows are kept in whole stretches."""
MAX_LEARNT = 2 * N_SOLVE
"""Windows that members are solved on for a threshold from the later half, evenly spaced."""


def fit(
    windows: TrainingSet,
    spec: ModelSpec,
    fleet: FleetSpec,
    *,
    device: str = "cpu",
    on_progress: Callable[[float, str], None] = lambda _share, _message: None,
    trained_at: datetime | None = None,
    now: Callable[[], float] = time.monotonic,
) -> TrainedModel:
    """Train and calibrate one detector. Raises NotEnoughData, TrainingDiverged or ConfigError.

    `on_progress` gets a share 0..1 and a sentence. The result is deterministic on the CPU for one number of threads,
    unless `spec.max_train_s` cuts the training short.
    """
    started = now()
    where = pick_device(device)
    data = _prepare(windows, spec, fleet, where)
    on_progress(0.02, f"{len(data.rows)} windows to learn from, {len(data.held_rows)} held out")
    for note in data.notes:
        on_progress(0.03, note)
    trained = _train(data, spec, where, lambda share, text: on_progress(0.05 + 0.9 * share, text), now)
    on_progress(0.96, "calibrating on held-out windows")
    later = _forward(data, spec, fleet, where) if spec.architecture in SOLVED_ALONE else None
    held_out = (_held_out(data, trained) if later is None else later.held_out).with_factors(fleet.budget)
    members = trained.members if later is None else later.members
    knobs = {name: knob for name, knob in fleet.knobs.items() if name in fleet.sensors}
    heavier = Knobs(data.inputs, data.scaler, knobs).heavier
    threshold = held_out.threshold(fleet.budget, members, heavier)

    pca, result = trained.pca, trained.result
    metrics, pca_metrics = (
        reconstruction_metrics(network, data.held_out, data.scaler) for network in (trained.network, pca)
    )
    receipt = {**_receipt(data, trained, metrics), "n_calibrated": len(held_out.raw)}
    if trained.choice:
        members = refit_pca(members, trained.clean_training(data), trained.clean_held_out(data), spec.seed)
    card = Card(
        fleet=fleet.name,
        architecture=spec.architecture,
        objective=spec.objective,
        members=tuple(member.to_json() for member in members),
        sensors=fleet.sensors,
        length=windows.values.shape[1],
        interval_s=fleet.interval_s,
        seed=result.seed if result else spec.seed,
        trained_at=(trained_at or datetime.now(UTC)).isoformat(timespec="seconds"),
        threshold=threshold,
        training={**receipt, "took_s": round(now() - started, 2)},
        baseline={"architecture": "pca", **pca.hyper, **pca_metrics},
        choice=trained.choice,
        metrics=version_metrics(threshold, metrics, pca_metrics, len(data.rows)),
        inputs=data.inputs.to_json(),
        min_channels=_min_channels(data),
        held_out=held_out.to_json(),
        sensor_profile=_sensor_profile(data, trained),
        knobs=knobs_to_json(knobs),
        asset_factors=held_out.factors_by_name(),
    )
    on_progress(1.0, "done")
    return TrainedModel(card, members, data.scaler, where, held_out=held_out)


# ---------------------------------------------------------------- the data


@dataclass(frozen=True, slots=True)
class _Data:
    windows: TrainingSet
    inputs: ModelInputs
    notes: list[str]
    """Findings about the sensors, for operators."""
    n_gappy: int
    split: Split
    rows: Int64
    """Training rows used."""
    held_rows: Int64
    """Held-out rows used."""
    scaler: Scaler
    training: WindowTensors
    held_out: WindowTensors


def _prepare(windows: TrainingSet, spec: ModelSpec, fleet: FleetSpec, device: torch.device) -> _Data:
    """Split the windows, recognise the sensors, and standardise both parts. Raises NotEnoughData."""
    n, length, n_sensors = windows.values.shape
    if n_sensors != len(fleet.sensors):
        raise ValueError(f"{n_sensors} columns for {len(fleet.sensors)} sensors")
    inputs = ModelInputs(fleet.sensors)
    parts, n_usable = _split(windows, inputs, spec, fleet)
    inputs = recognise(windows, parts.train, fleet)
    if not inputs.channels:
        raise NotEnoughData(f"no sensor is left to learn from: {'; '.join(inputs.notes)}")
    if not inputs.is_plain:
        # A window in which all sensors write their code for "missing" is empty.
        parts, n_usable = _split(windows, inputs, spec, fleet)
    n_max = MAX_VALUES // (length * len(inputs.channels))
    rows = thin(parts.train, min(MAX_TRAIN, n_max))
    held_rows = latest(parts.held_out, windows, min(MAX_HELD_OUT, n_max))
    scaler = Scaler.fit(inputs.channels, readings(windows.values, rows, inputs))
    training, held_out = (_standardise(windows.values, part, inputs, scaler, device) for part in (rows, held_rows))
    notes = [*inputs.notes, *suggestions(windows, rows, fleet, inputs)]
    inputs = with_ranges(inputs, windows.values, np.concatenate([rows, held_rows]))
    return _Data(windows, inputs, notes, n - n_usable, parts, rows, held_rows, scaler, training, held_out)


def _split(windows: TrainingSet, inputs: ModelInputs, spec: ModelSpec, fleet: FleetSpec) -> tuple[Split, int]:
    """Return the split, and the number of usable windows. Raises NotEnoughData."""
    n, length, _ = windows.values.shape
    usable = usable_rows(windows.values, inputs)
    n_without_alert = len(usable) if windows.alerted is None else int((~windows.alerted[usable]).sum())
    if n_without_alert < spec.min_windows:
        more = spec.min_windows - n_without_alert
        raise NotEnoughData(f"{n_without_alert} usable windows of {n}, {spec.min_windows} are needed: {more} more")

    parts = split(windows, usable, length * fleet.interval_s)
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
    return parts, len(usable)


def _standardise(
    values: Float32, rows: Int64, inputs: ModelInputs, scaler: Scaler, device: torch.device
) -> WindowTensors:
    on_device = scaler.to(device)
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // 2048)):
        channels = np.ascontiguousarray(inputs.to_channels(values[part]), dtype=np.float32)
        parts.append(on_device.standardise(torch.from_numpy(channels).to(device)))
    return joined([WindowTensors(x, present) for x, present in parts])


# ---------------------------------------------------------------- the model


@dataclass(frozen=True, slots=True)
class _TrainedMembers:
    members: tuple[Member, ...]
    """Calibrated. The network of the architecture is the last."""
    pca: Pca
    result: TrainingResult | None
    """None = the PCA alone, which is solved in one step."""
    trimmed: Bool
    """Training windows left out as suspected faults."""
    outlier: Bool
    """Held-out windows suspected of a fault."""
    choice: dict[str, Any]

    @property
    def network(self) -> Network:
        return self.members[-1].network

    def clean_training(self, data: _Data) -> WindowTensors:
        return data.training.without(self.trimmed)

    def clean_held_out(self, data: _Data) -> WindowTensors:
        return data.held_out.without(self.outlier)


def _train(
    data: _Data,
    spec: ModelSpec,
    device: torch.device,
    on_progress: Callable[[float, str], None],
    now: Callable[[], float],
) -> _TrainedMembers:
    pca, trimmed = _solve_pca(data.training, spec)
    if spec.architecture == "auto":
        outlier = find_outliers(window_errors(pca, data.held_out), spec.max_trim)
        choice = choose(data.training, data.held_out.without(outlier), pca, spec, device, on_progress, now)
        return _TrainedMembers(choice.members, pca, choice.result, choice.result.trimmed, outlier, choice.table)
    network: Network = pca
    result = None
    if spec.architecture != "pca":
        result = train(data.training, data.held_out, spec, device, on_progress, now, pca)
        network, trimmed = result.network, result.trimmed
    outlier = find_outliers(window_errors(network, data.held_out), spec.max_trim)
    member = calibrated_member(spec.architecture, network, data.held_out.without(outlier))
    return _TrainedMembers((member,), pca, result, trimmed, outlier, {})


def _solve_pca(training: WindowTensors, spec: ModelSpec) -> tuple[Pca, Bool]:
    """Solve the PCA, and solve it again without the outliers. Return it and the mask of the outliers."""
    some = torch.from_numpy(thin(np.arange(len(training)), N_SOLVE))
    pca = Pca.solve(training.x[some], seed=spec.seed)
    outlier = find_outliers(window_errors(pca, training), spec.max_trim)
    if not outlier.any():
        return pca, outlier
    kept = torch.from_numpy(thin(np.flatnonzero(~outlier), N_SOLVE))
    return Pca.solve(training.x[kept], seed=spec.seed), outlier


# ---------------------------------------------------------------- the threshold and the receipt


def _held_out(data: _Data, trained: _TrainedMembers) -> HeldOut:
    """Return the scores of the held-out windows, which the threshold is from. Raises NotEnoughData.

    They are the windows that the scales were measured on. The scales are a few numbers from thousands of windows, while
    a threshold from half of the time would be known half as well.
    """
    windows, rows = data.windows, data.held_rows
    raw = _raw_scores(trained.members, data.held_out)
    if np.isnan(raw[~trained.outlier]).all():
        raise NotEnoughData("no held-out window has a sensor that was seen before it")
    every = parts_every(len(rows), len(trained.members) * N_SCALES * len(data.inputs.channels))
    order, asset, names = _by_asset_and_time(windows, rows)
    return HeldOut(
        raw=raw[order],
        asset=asset,
        end_us=windows.end_us[rows][order],
        outlier=trained.outlier[order],
        names=names,
        stride_factor=windows.stride_factor,
        n_overlapping=data.split.n_overlapping,
        parts=_error_parts(trained.members, data.held_out.select(torch.from_numpy(order[::every]))),
        every=every,
    )


class _Later(NamedTuple):
    members: tuple[Member, ...]
    held_out: HeldOut


def _forward(data: _Data, spec: ModelSpec, fleet: FleetSpec, device: torch.device) -> _Later | None:
    """Calibrate on the later half of the history (`training.forward`). None = the history is too short."""
    windows, n_channels = data.windows, len(data.inputs.channels)
    span_us = round(windows.values.shape[1] * fleet.interval_s * 1e6)
    rows = later_half(windows.asset, usable_rows(windows.values, data.inputs))
    rows = latest(rows, windows, min(MAX_HELD_OUT, MAX_VALUES // (2 * windows.values.shape[1] * n_channels)))
    begins = part_begins(windows.asset[rows], windows.end_us[rows])
    n, alerted = len(data.rows), windows.alerted
    held = np.arange(len(data.held_rows)) if alerted is None else np.flatnonzero(~alerted[data.held_rows])
    some = thin(np.concatenate([np.arange(n), n + held]), MAX_LEARNT)
    early, late = some[some < n], some[some >= n] - n
    learnt_rows = np.concatenate([data.rows[early], data.held_rows[late]])
    asset, end_us = windows.asset[learnt_rows], windows.end_us[learnt_rows]
    if data.split.n_overlapping or not has_room(asset, end_us, begins, span_us, spec.min_windows):
        return None
    learnt = joined([
        data.training.select(torch.from_numpy(early)), data.held_out.select(torch.from_numpy(late))
    ])  # fmt: skip
    scored = _standardise(windows.values, rows, data.inputs, data.scaler, device)
    found = forward(
        Rows(asset, end_us, learnt), Rows(windows.asset[rows], windows.end_us[rows], scored), begins, span_us,
        lambda some: {"pca": _solve_pca(some, spec)[0]}, spec.max_trim,
    )  # fmt: skip
    if found is None or np.isnan(found.raw[~found.outlier]).all():
        return None
    every = parts_every(len(rows), len(found.members) * N_SCALES * n_channels)
    order, asset, names = _by_asset_and_time(windows, rows)
    parts = found.error_parts(every, order)
    return _Later(
        found.members,
        HeldOut(
            raw=found.raw[order], asset=asset, end_us=windows.end_us[rows][order], outlier=found.outlier[order],
            names=names, stride_factor=windows.stride_factor, n_overlapping=0, parts=_rounded_parts(parts), every=every,
        ),
    )  # fmt: skip


def _by_asset_and_time(windows: TrainingSet, rows: Int64) -> tuple[Int64, Int32, tuple[int | str, ...]]:
    """Return the order of rows, and in this order the numbers of their assets, from 0, and the names by number."""
    numbers, asset = np.unique(windows.asset[rows], return_inverse=True)
    order: Int64 = np.lexsort((windows.end_us[rows], asset)).astype(np.int64)
    return order, asset[order].astype(np.int32), tuple(windows.asset_name(number) for number in numbers.tolist())


def _min_channels(data: _Data) -> int:
    """Return the number of channels that a window needs: half of them, or as few as a training window had.

    Missing sensors are filled by the model. With half of them missing at random, the share of healthy windows above the
    threshold grew from .03 to .10 at most (recording `skab`, `anomaly_free`, 8 sensors), with seven of eight to .85.
    """
    n_known = sum(scale.kind != "absent" for scale in data.scaler.sensors)
    fewest = [int(each.present.any(-1).sum(-1).min()) for each in (data.training, data.held_out)
              if each.present is not None]  # fmt: skip
    return max(1, min([-(-n_known // 2), *fewest]))


def _sensor_profile(data: _Data, trained: _TrainedMembers) -> dict[str, Any]:
    """Return the healthy behaviour of the sensors. Windows that are suspected of a fault do not count."""
    rows = np.concatenate([data.rows[~trained.trimmed], data.held_rows[~trained.outlier]])
    return learn(data.windows.values, thin(rows, MAX_PROFILE), data.inputs)


def _raw_scores(members: tuple[Member, ...], windows: WindowTensors) -> Float32:
    """Return raw scores [N]. NaN: every sensor with a value in the window was absent in training."""
    with torch.inference_mode():
        raw: Float32 = torch.cat([ensemble_score(members, p.x, p.present)[0] for p in chunks(windows)]).cpu().numpy()
    return raw


def _error_parts(members: tuple[Member, ...], windows: WindowTensors) -> NDArray[np.float16]:
    """Return each channel's part [N, M, S, C] of the errors of each member. 0 where nothing is present."""
    with torch.inference_mode():
        return _rounded_parts(torch.cat([error_parts(members, p.x, p.present) for p in chunks(windows)]))


def _rounded_parts(parts: torch.Tensor) -> NDArray[np.float16]:
    rounded: NDArray[np.float16] = parts.nan_to_num(0.0).clamp(max=MAX_FLOAT16).to(torch.float16).cpu().numpy()
    return rounded


def _receipt(data: _Data, trained: _TrainedMembers, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the card's entry of the training, without its duration."""
    diagnosis = diagnose(
        trained.network,
        trained.pca,
        trained.clean_training(data),
        trained.clean_held_out(data),
        trained.result,
        tuple(sensor.name for sensor in data.scaler.sensors),
    )
    rows, held_rows = data.rows, data.held_rows
    suspected = np.concatenate([rows[trained.trimmed], held_rows[trained.outlier]])
    return {
        **data_receipt(data.windows, data.n_gappy, data.split, rows, held_rows, trained.trimmed, trained.outlier),
        **training_summary(trained.result),
        "inputs": data.notes,
        **metrics,
        "diagnosis": diagnosis.metrics,
        "troubles": diagnosis.troubles + recurring_faults(data.windows, suspected),
    }
