"""Fit: from healthy windows to a calibrated detector, or an error that names the reason.

Input: windows of one fleet and the model to train. Output: a detector whose card is the receipt.
Invariant: no label is used, and no held-out window changes a weight before scales and threshold are measured on it.
After that, `auto` solves its members again on all windows, and its card says so. Every training also fits the PCA, and
the card shows both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.errors import NotEnoughData
from monitor.models.card import Card
from monitor.models.detector import TrainedModel
from monitor.models.device import pick_device
from monitor.models.held_out import HeldOut, classes_of, parts_every
from monitor.models.inputs import ModelInputs
from monitor.models.knobs import Knobs
from monitor.models.member import Member, amplitude, error_parts
from monitor.models.residual import N_SCALES, SensorErrors
from monitor.models.scaler import Scaler
from monitor.models.sensor_profile import learn
from monitor.models.spec import MAX_VALUES
from monitor.models.terms import knobs_to_json
from monitor.training.auto import Timeline, errors_of, fit_ensemble, solve_pca, suspected
from monitor.training.calendar import find_calendar
from monitor.training.diagnose import diagnose
from monitor.training.loop import TrainingResult, train
from monitor.training.period import LATEST_ROWS, common_period, newest_readings, periodic_sensors
from monitor.training.receipt import (
    data_receipt,
    reconstruction_metrics,
    recurring_faults,
    training_summary,
    version_metrics,
)
from monitor.training.recognise import recognise, suggestions, with_ranges
from monitor.training.scales import ScaleChoice, as_new_factor, choose_scales, standardise, with_factor
from monitor.training.split import (
    HELD_OUT,
    Split,
    accepted,
    alerted,
    latest,
    of_events,
    readings,
    split,
    thin,
    usable_rows,
)
from monitor.training.states import classes_of_rows, find_states, keep_rows, with_states
from monitor.training.tensors import WindowTensors, window_errors
from monitor.training.used_data import used_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.models.asset_scales import AssetScales
    from monitor.models.network import Network
    from monitor.models.pca import Pca
    from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
    from monitor.models.states import States
    from monitor.types import Bool, Float32, Int8, Int32, Int64

MIN_HELD_OUT = 10
MAX_FLOAT16 = 65504.0  # the largest of the type
MAX_PROFILE = 10_000
"""Windows that the healthy behaviour of the sensors is measured on, evenly chosen."""
MAX_TRAIN, MAX_HELD_OUT = 40_000, 40_000
"""Training windows are thinned evenly, held-out windows are kept in whole stretches."""
SOLVED = ("auto", "pca")
"""Architectures that are solved in closed form, so that the later half of their history is held out, in `FOLDS`."""
FOLDS = (0.5, 2 / 3, 5 / 6)
"""Shares of each asset's time at which the forward folds begin. Each is scored by members that know the time before it
alone (forward validation; Dawid 1984, prequential). The last fifth of four weeks is 5.6 days, with one weekend: of 75
simulated assets of ten kinds (`tests/quality/machines.py`, PCA, retrained weekly for ten weeks) .66 keep a budget of
one alarm a week by the last fifth, and of 70 of them .945 by the later half, with the placement of short histories."""
MIN_SPANS = 50
"""Lengths of a window in the history that the later half is held out of. Members that are solved on less are not like
those of the whole time, and the latest fifth is held out."""
MAX_CYCLE = 8
"""Windows in the longest cycle of a repeating signal."""
MAX_STRETCH = MAX_VALUES // 4
"""Values of the windows that cycles are looked for in."""


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
    held_out = _held_out(data, trained)
    scales = _asset_scales(data, trained, held_out, fleet)
    states = data.states
    if states is not None:
        trained, held_out = _with_states(data, trained, held_out, states, fleet)
        states = replace(states, factors=held_out.state_factors)
    calendar = find_calendar(held_out, fleet.calendar)
    held_out = replace(held_out, calendar=calendar).with_factors(fleet.budget, scales)
    knobs = {name: knob for name, knob in fleet.knobs.items() if name in fleet.sensors}
    heavier = Knobs(data.inputs, data.scaler, knobs).heavier
    threshold = held_out.threshold(fleet.budget, trained.members, heavier)

    members, pca, result = trained.members, trained.pca, trained.result
    metrics, pca_metrics = (
        reconstruction_metrics(network, data.held_out, data.scaler) for network in (trained.network, pca)
    )
    receipt = {**_receipt(data, trained, metrics, spec, fleet), "n_calibrated": len(held_out.raw)}
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
        window_reason=fleet.window_reason or None,
        asset_scales=None if scales is None else scales.to_json(),
        states=states.to_json() if states is not None else None,
        calendar=calendar.to_json() if calendar is not None else None,
    )
    on_progress(1.0, "done")
    return TrainedModel(card, members, data.scaler, where, held_out=held_out, asset_scales=scales)


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
    fold: Int64
    """Forward fold of each of them, from 0."""
    event: Bool
    """Those of them that overlap an alert that was no false alarm."""
    interval_s: float
    states: States | None
    n_thinned: int
    """Windows at rest that are not learnt from, because they would be most of all."""
    kept: Bool
    """[M] of the held-out rows used, False = at rest for so long that not all of it is learnt from."""
    state: Int8 | None
    """[M], class of the held-out windows."""
    scaler: Scaler
    scale_choice: ScaleChoice | None
    """None = a fleet of one asset."""
    training: WindowTensors
    held_out: WindowTensors

    @property
    def asset_scales(self) -> AssetScales | None:
        return None if self.scale_choice is None else self.scale_choice.scales


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
    # Rare states need all of the history. Held-out windows give levels and times alone, and no scale or threshold.
    seen = np.concatenate([parts.train, parts.held_out])
    states = find_states(windows, seen[~alerted(windows)[seen]], inputs, fleet)
    learnt = keep_rows(states, windows, parts.train)
    rows = thin(learnt, min(MAX_TRAIN, n_max))
    held_rows = latest(parts.held_out, windows, min(MAX_HELD_OUT, n_max))
    folds = _folds(n_usable, windows, spec, fleet)
    fold = _fold_of(windows.asset[held_rows], folds)
    is_known = (fold < fold.max()) & ~alerted(windows)[held_rows]
    kept = np.isin(held_rows, keep_rows(states, windows, held_rows))
    known = np.concatenate([rows, held_rows[is_known & kept]])
    scaler = Scaler.fit(inputs.channels, readings(windows.values, known, inputs))
    choice = choose_scales(windows, rows, held_rows, is_known, inputs, scaler, spec.seed)
    scales = None if choice is None else choice.scales
    training, held_out = (standardise(windows, part, inputs, scaler, scales, device) for part in (rows, held_rows))
    notes = [*inputs.notes, *suggestions(windows, rows, fleet, inputs)]
    inputs = with_ranges(inputs, windows.values, np.concatenate([rows, held_rows]))
    return _Data(
        windows, inputs, notes, n - n_usable, parts, rows, held_rows, fold,
        of_events(windows)[held_rows], fleet.interval_s, states,
        len(parts.train) - len(learnt) + int((~kept).sum()), kept,
        None if states is None else classes_of_rows(states, windows, held_rows), scaler, choice, training, held_out,
    )  # fmt: skip


def _fold_of(asset: Int32, folds: tuple[float, ...]) -> Int64:
    """Return the fold of each held-out window, by its place in the time of its asset. No fold is empty."""
    fold = np.zeros(len(asset), dtype=np.int64)
    for one in np.unique(asset):
        mine = np.flatnonzero(asset == one)
        place = folds[0] + (1 - folds[0]) * (np.arange(len(mine)) + 0.5) / len(mine)
        fold[mine] = np.searchsorted(folds, place, side="right") - 1
    # Assets with a window or two leave some of the folds empty.
    numbers: Int64 = np.unique(fold, return_inverse=True)[1]
    return numbers


def _folds(n_usable: int, windows: TrainingSet, spec: ModelSpec, fleet: FleetSpec) -> tuple[float, ...]:
    """Return the shares of the time at which held-out folds begin."""
    span_s = windows.values.shape[1] * fleet.interval_s
    is_long = n_usable * windows.stride_factor * fleet.budget.step_s >= MIN_SPANS * span_s
    is_long &= n_usable >= 2.5 * spec.min_windows
    return FOLDS if spec.architecture in SOLVED and is_long else (1 - HELD_OUT,)


def _split(windows: TrainingSet, inputs: ModelInputs, spec: ModelSpec, fleet: FleetSpec) -> tuple[Split, int]:
    """Return the split, and the number of usable windows. Raises NotEnoughData."""
    n, length, _ = windows.values.shape
    usable = usable_rows(windows.values, inputs)
    n_without_alert = int((~alerted(windows)[usable]).sum())
    if n_without_alert < spec.min_windows:
        more = spec.min_windows - n_without_alert
        raise NotEnoughData(f"{n_without_alert} usable windows of {n}, {spec.min_windows} are needed: {more} more")

    folds = _folds(len(usable), windows, spec, fleet)
    parts = split(windows, usable, length * fleet.interval_s, 1 - folds[0])
    if len(parts.held_out) < MIN_HELD_OUT:
        raise NotEnoughData(
            f"{len(parts.held_out)} of {len(usable)} windows could be held out, {MIN_HELD_OUT} are needed: "
            "no asset has a history yet"
        )
    if len(parts.train) < spec.min_windows // 2:
        raise NotEnoughData(
            f"{len(parts.train)} windows are left to learn from, for {parts.n_alerted} overlap alerts; label as normal "
            f"those that were none, or accept their time: monitor retrain {fleet.name} --accept-normal FROM TO"
        )
    return parts, len(usable)


# ---------------------------------------------------------------- the model


@dataclass(frozen=True, slots=True)
class _TrainedMembers:
    members: tuple[Member, ...]
    """Calibrated. The network of the architecture is the last."""
    network: Network
    """That network as it was before it learnt from held-out windows."""
    pca: Pca
    result: TrainingResult | None
    """None = solved in one step."""
    trimmed: Bool
    """Training windows left out as suspected faults."""
    outlier: Bool
    """Held-out windows suspected of a fault."""
    errors: tuple[SensorErrors, ...]
    """Of each member, its errors of the held-out windows."""
    choice: dict[str, Any]

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
    if spec.architecture in SOLVED:
        found = fit_ensemble(_timeline(data), spec, device, on_progress)
        pca = found.first_pca
        return _TrainedMembers(found.members, pca, pca, None, found.trimmed, found.outlier, found.errors, found.table)
    windows, held_rows = data.windows, data.held_rows
    trusted = accepted(windows)[data.rows]
    pca, trimmed = solve_pca(data.training, spec, trusted)
    result = train(data.training, data.held_out, spec, device, on_progress, now, pca, trusted)
    network, trimmed = result.network, result.trimmed
    outlier = suspected(
        window_errors(network, data.held_out), spec.max_trim,
        accepted(windows)[held_rows], data.event, alerted(windows)[held_rows],
    )  # fmt: skip
    errors = errors_of(network, data.held_out)
    member = Member.fit(spec.architecture, network, errors.rows(torch.from_numpy(np.flatnonzero(~outlier))))
    return _TrainedMembers((member,), network, pca, result, trimmed, outlier, (errors,), {})


def _timeline(data: _Data) -> Timeline:
    """Return the windows with their times and folds."""
    windows, held_rows, fold = data.windows, data.held_rows, data.fold
    asset, ends_us = windows.asset[held_rows], windows.end_us[held_rows]
    reaches = fold + 1
    if not data.split.n_overlapping:
        span_us = int(data.windows.values.shape[1] * data.interval_s * 1e6)
        for one in np.unique(asset):
            mine = np.flatnonzero(asset == one)
            for number in np.unique(fold[mine])[1:]:
                begin_us = ends_us[mine[fold[mine] == number][0]]
                before = mine[(fold[mine] < number) & (ends_us[mine] > begin_us - span_us)]
                reaches[before] = np.maximum(reaches[before], number + 1)
    trusted = accepted(windows)
    x = _latest_stretch(data)
    cycle = common_period(newest_readings(x), data.interval_s, MAX_CYCLE * windows.values.shape[1])
    return Timeline(
        data.training, windows.end_us[data.rows], data.held_out, ends_us, fold,
        ~alerted(windows)[held_rows] & data.kept, reaches, periodic_sensors(x), repeats=cycle is not None,
        event=data.event, trusted=trusted[data.rows], held_trusted=trusted[held_rows],
    )  # fmt: skip


def _latest_stretch(data: _Data) -> Float32:
    """Return the newest early windows (n, K, T) of the asset with most of them, standardised.

    The training windows themselves may be thinned, and their readings then do not follow one another.
    """
    values, rows = data.windows.values, data.split.train
    asset = data.windows.asset[rows]
    names, counts = np.unique(asset, return_counts=True)
    n_max = min(LATEST_ROWS, MAX_STRETCH // (values.shape[1] * len(data.inputs.channels)))
    one = rows[asset == names[counts.argmax()]][-max(1, n_max) :]
    cpu = torch.device("cpu")
    x: Float32 = standardise(data.windows, one, data.inputs, data.scaler, data.asset_scales, cpu).x.numpy()
    return x


# ---------------------------------------------------------------- the threshold and the receipt


def _held_out(data: _Data, trained: _TrainedMembers, states: States | None = None) -> HeldOut:
    """Return the scores of the held-out windows, which the threshold is from. Raises NotEnoughData.

    They are the windows that the scales were measured on. The scales are a few numbers from thousands of windows, while
    a threshold from half of the time would be known half as well.
    """
    windows, rows = data.windows, data.held_rows
    state = None if states is None else data.state
    raw = np.empty(len(rows), dtype=np.float32)
    for number, places in classes_of(state, len(rows)):
        raw[places] = _raw_scores(trained, torch.from_numpy(places), number)
    if states is not None and states.left_out:
        raw[data.state == states.transition] = np.nan
    if np.isnan(raw[~trained.outlier]).all():
        raise NotEnoughData("no held-out window has a sensor that was seen before it")
    every = parts_every(len(rows), len(trained.members) * N_SCALES * len(data.inputs.channels))
    numbers, asset = np.unique(windows.asset[rows], return_inverse=True)
    order = np.lexsort((windows.end_us[rows], asset))
    return HeldOut(
        raw=raw[order],
        asset=asset[order].astype(np.int32),
        end_us=windows.end_us[rows][order],
        outlier=trained.outlier[order],
        names=tuple(windows.asset_name(number) for number in numbers.tolist()),
        stride_factor=windows.stride_factor,
        n_overlapping=data.split.n_overlapping,
        parts=_error_parts(trained, order[::every], None if state is None else state[order[::every]]),
        every=every,
        state=None if state is None else state[order],
        n_classes=0 if states is None else len(states.classes),
    )


def _asset_scales(
    data: _Data, trained: _TrainedMembers, held_out: HeldOut, fleet: FleetSpec
) -> AssetScales | None:
    """Return the scales of the assets with the threshold of a new one. None = all assets have the fleet's."""
    scales = data.asset_scales
    if scales is None:
        return None
    rows = data.held_rows
    order = np.lexsort((data.windows.end_us[rows], data.windows.asset[rows]))
    factor = as_new_factor(
        data.windows, rows[order], held_out, trained.members, data.inputs,
        data.scaler.to(data.held_out.x.device), scales, fleet.budget,
    )  # fmt: skip
    return with_factor(scales, factor)


def _with_states(
    data: _Data, trained: _TrainedMembers, plain: HeldOut, states: States, fleet: FleetSpec
) -> tuple[_TrainedMembers, HeldOut]:
    """Return members and held-out scores with a calibration of each state. `plain`: the scores without."""
    members = with_states(
        trained.members, trained.errors, data.state, states,
        healthy=~trained.outlier, length=data.windows.values.shape[1],
    )  # fmt: skip
    trained = replace(trained, members=members)
    as_unknown = plain.with_factors(fleet.budget).threshold(fleet.budget).raw
    return trained, _held_out(data, trained, states).with_state_factors(fleet.budget, as_unknown)


def _raw_scores(trained: _TrainedMembers, rows: torch.Tensor, state: int | None) -> Float32:
    """Return raw scores of some held-out windows, by the calibration of a state. None = in all states."""
    members = trained.members if state is None else [member.in_state(state) for member in trained.members]
    errors = [member.residual.in_units(each.rows(rows)) for member, each in zip(members, trained.errors, strict=True)]
    scores = [member.score_of(each.of_all) for member, each in zip(members, errors, strict=True)]
    raw: Float32 = amplitude(members, scores).cpu().numpy()
    return raw


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


def _error_parts(trained: _TrainedMembers, rows: Int64, state: Int8 | None) -> NDArray[np.float16]:
    """Return each channel's part [N, M, S, C] of the errors of each member. 0 where nothing is present."""
    out: NDArray[np.float16] | None = None
    for number, places in classes_of(state, len(rows)):
        members = trained.members if number is None else [member.in_state(number) for member in trained.members]
        some = torch.from_numpy(rows[places])
        errors = [
            member.residual.in_units(each.rows(some)) for member, each in zip(members, trained.errors, strict=True)
        ]
        parts = error_parts(errors).nan_to_num(0.0).clamp(max=MAX_FLOAT16).to(torch.float16).cpu().numpy()
        out = np.empty((len(rows), *parts.shape[1:]), dtype=np.float16) if out is None else out
        out[places] = parts
    if out is None:
        raise NotEnoughData("no held-out window has a part")
    return out


def _receipt(
    data: _Data, trained: _TrainedMembers, metrics: dict[str, Any], spec: ModelSpec, fleet: FleetSpec
) -> dict[str, Any]:
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
        "receipt": used_data(data.windows, data.split, rows, held_rows, trained.trimmed, trained.outlier, spec, fleet),
        **training_summary(trained.result),
        **({} if data.states is None else {"n_off_thinned": data.n_thinned}),
        "inputs": data.notes,
        **metrics,
        **({} if data.scale_choice is None else {"asset_scales": data.scale_choice.receipt}),
        "diagnosis": diagnosis.metrics,
        "troubles": diagnosis.troubles + recurring_faults(data.windows, suspected),
    }
