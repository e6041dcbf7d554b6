"""A method's name → an anomaly score for every row behind the training rows.

    default                      the model of a default configuration
    ARCH[+OBJECTIVE][+stacked]   pca, conv, lstm+denoising, dense+sparse+stacked …
    moving-deviation             the simplest baseline: the distance of a row from the mean of the last rows
    pca-window, pca-newest, linear-forecast, dense-window   see `yardsticks`
    random                       random scores

Input: an `UnlabelledSeries`. Output: a score per row, 1.0 = the threshold for every method.
Invariants: training and calibration see the first `train_rows` rows only. A row's score is that of the window that ends
at it, so it is causal. Only the windows of one chunk are copied at a time. Every row is scored, as the evaluation
protocol of the recordings demands, while the pipeline leaves windows with long gaps unscored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Budget, weekly
from monitor.config.tree import ARCHITECTURES, OBJECTIVES, USUAL_WINDOW, AlertConfig, ModelConfig
from monitor.errors import ConfigError, NotEnoughData
from monitor.evaluation.explained import ExplainedFaults, explained_faults, quiet_rows
from monitor.evaluation.metrics import forward_filled
from monitor.evaluation.yardsticks import YARDSTICKS, learn
from monitor.models.calibrate import calibrate
from monitor.models.scaler import CLIP
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet, refuse_unknown
from monitor.training.fit import fit
from monitor.training.period import suggested_length
from monitor.training.split import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.config.values import Rate
    from monitor.evaluation.series import UnlabelledSeries
    from monitor.models.detector import TrainedModel
    from monitor.types import Float32

DEFAULT, MOVING_DEVIATION, RANDOM, STACKED = "default", "moving-deviation", "random", "stacked"
ALWAYS = ("pca", "pca-window", "pca-newest", MOVING_DEVIATION, "linear-forecast", "dense-window")
"""Evaluated in every run: a default that does not beat these is not worth its training."""
BASELINES = (MOVING_DEVIATION, RANDOM, *YARDSTICKS)
"""Methods without a model."""

MOVING_ROWS = 20
"""Rows of the moving mean, the row itself included."""
WINDOWS_AT_ONCE = 4096
"""Windows between two progress reports. The detector copies a few hundred at a time."""


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Settings that a score depends on, besides the method and the data."""

    window: int | None = 64
    """Rows in a window. None = one cycle of the sensors where they have one (`training/period.py`)."""
    seed: int = 0
    max_train_s: float | None = None
    """Training time of each network. None = the default's."""
    budget: Rate = AlertConfig.model_fields["budget"].default
    """Allowed false alarms. Thresholds are calibrated to this rate."""

    @property
    def length(self) -> int:
        """Rows in a window, the usual number where each recording has its own."""
        return USUAL_WINDOW if self.window is None else self.window


@dataclass(frozen=True, slots=True)
class Method:
    """A scoring method with a valid name."""

    name: str
    spec: ModelSpec | None
    """The model to train. None = a baseline without a model."""


@dataclass(frozen=True, slots=True)
class MethodScores:
    """Scores of a method for the R rows behind the training rows."""

    score: Float32
    """[R], 1.0 = the threshold, NaN = unscored."""
    fit_s: float
    score_s: float
    model: dict[str, Any]
    """The trained model: version, architecture, objective, seed and state of the threshold."""
    explained: ExplainedFaults | None = None
    """Sensors blamed for injected faults. None = a baseline, or too few sensors or quiet windows."""


def parse_methods(names: Sequence[str], settings: ScoreSettings) -> list[Method]:
    """Parse names, each once, followed by the baselines that always run. Raises ConfigError with the nearest name."""
    return [parse_method(name, settings) for name in dict.fromkeys((*names, *ALWAYS))]


def parse_method(name: str, settings: ScoreSettings) -> Method:
    """Parse one name. Raises ConfigError."""
    if name in BASELINES:
        return Method(name, None)
    config = ModelConfig()
    wanted: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(ModelSpec) if hasattr(config, f.name)}
    if name != DEFAULT:
        architecture, *rest = name.split("+")
        refuse_unknown("method", architecture, (DEFAULT, *ARCHITECTURES, *BASELINES))
        objectives = [word for word in rest if word != STACKED]
        if len(objectives) > 1 or rest.count(STACKED) > 1:
            raise ConfigError(f'method "{name}" is not ARCHITECTURE[+OBJECTIVE][+stacked], like conv+denoising+stacked')
        for word in objectives:
            refuse_unknown(f'method "{name}": objective', word, (*OBJECTIVES, STACKED))
        wanted |= {"architecture": architecture, "objective": "".join(objectives) or "plain"}
        wanted |= {STACKED: STACKED in rest}
    wanted["seed"] = settings.seed
    if settings.max_train_s is not None:
        wanted["max_train_s"] = settings.max_train_s
    try:
        return Method(name, ModelSpec(**wanted))
    except ConfigError as problem:
        raise ConfigError(f'method "{name}": {problem.detail}') from problem


def score(
    method: Method, data: UnlabelledSeries, settings: ScoreSettings, on_progress: Callable[[float, str], None]
) -> MethodScores:
    """Train on the head and score the rest.

    Deterministic with one thread, unless the time budget cuts training short. Raises NotEnoughData, TrainingDiverged.
    """
    reason = ""
    if settings.window is None:
        chosen = suggested_length(data.values[: data.train_rows], data.interval_s)
        settings, reason = replace(settings, window=chosen.cells), chosen.reason
    if method.spec is None:
        return _baseline(method.name, data, settings)
    values, length, n_train = data.values, settings.length, data.train_rows
    _check_window(n_train, length)
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)  # [N-T+1, T, C]
    began = time.perf_counter()
    detector = _fit(windows[: n_train - length + 1], method.spec, data, settings, reason, on_progress)
    fitted = time.perf_counter()
    parts = []
    for start in range(n_train - length + 1, len(windows), WINDOWS_AT_ONCE):
        parts.append(detector.score(windows[start : start + WINDOWS_AT_ONCE]).score)
        on_progress(0.9 + 0.1 * start / len(windows), "scoring")
    took_s = time.perf_counter() - fitted
    scores = np.concatenate(parts)
    quiet = windows[quiet_rows(scores) + n_train - length + 1]
    explained = explained_faults(detector, quiet, settings.seed)
    return MethodScores(scores, round(fitted - began, 3), round(took_s, 3), _card(detector), explained)


def _fit(
    windows: Float32,
    spec: ModelSpec,
    data: UnlabelledSeries,
    settings: ScoreSettings,
    reason: str,
    on_progress: Callable[[float, str], None],
) -> TrainedModel:
    torch.set_num_threads(1)
    n, length = windows.shape[:2]
    return fit(
        TrainingSet(windows, np.zeros(n, np.int32), _end_us(n, length, data.interval_s)),
        spec,
        FleetSpec(
            "evaluate", data.sensors, data.interval_s, budget_of(settings, data.interval_s), window_reason=reason
        ),
        on_progress=lambda share, text: on_progress(0.9 * share, text),
    )


def _card(detector: TrainedModel) -> dict[str, Any]:
    card = detector.card
    return {
        "version": detector.version,
        "architecture": card.architecture,
        "objective": card.objective,
        "seed": card.seed,
        "window": card.length,
        "threshold": str(card.threshold.state),
    }


def budget_of(settings: ScoreSettings, interval_s: float) -> Budget:
    """Return the alarm budget under the default alert parameters, for windows that begin at every row."""
    alerts, rate = AlertConfig(), settings.budget
    return Budget(weekly(rate.count, rate.per), alerts.confirm.m, alerts.confirm.n, alerts.recover, interval_s)


def _end_us(n: int, first_end: int, interval_s: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    return ((np.arange(n) + first_end) * interval_s * 1e6).astype(np.int64)


# ---------------------------------------------------------------- baselines: a raw score per row


def _baseline(name: str, data: UnlabelledSeries, settings: ScoreSettings) -> MethodScores:
    # The threshold comes from the latest fifth of the training rows, as that of a trained network.
    n_train, n_held = data.train_rows, max(1, round(HELD_OUT * data.train_rows))
    began = time.perf_counter()
    if name in YARDSTICKS:
        held_out, score_rest = _yardstick(name, data, settings, n_train - n_held)
    else:
        raw = moving_deviation(data) if name == MOVING_DEVIATION else np.random.default_rng(settings.seed).random(
            len(data.values), dtype=np.float32
        )
        held_out, score_rest = raw[n_train - n_held : n_train], lambda: raw[n_train:]
    ends = _end_us(len(held_out), n_train - len(held_out) + 1, data.interval_s)
    budget = budget_of(settings, data.interval_s)
    limit = calibrate(held_out, np.zeros(len(held_out), np.int32), ends, budget)
    fitted = time.perf_counter()
    rest = (score_rest() / limit.raw).astype(np.float32)
    took_s = time.perf_counter() - fitted
    return MethodScores(rest, round(fitted - began, 3), round(took_s, 3), {"threshold": str(limit.state)})


def _yardstick(
    name: str, data: UnlabelledSeries, settings: ScoreSettings, n_early: int
) -> tuple[Float32, Callable[[], Float32]]:
    """Return raw scores of the held-out rows, learnt from those before, and a function that scores the rest.

    The rest is scored by what was learnt from all of the head. A head too short to be divided is learnt from as a
    whole for both.
    """
    torch.set_num_threads(1)
    fit, length, n_train = YARDSTICKS[name], settings.length, data.train_rows
    _check_window(n_train, length)
    n_fit = n_early if n_early >= 2 * length else n_train
    held_out = learn(fit, data.values[:n_train], n_fit, length, settings.seed)(max(n_early, length - 1))
    scores_from = learn(fit, data.values, n_train, length, settings.seed)
    return held_out, lambda: scores_from(n_train)


def _check_window(n_train: int, length: int) -> None:
    if n_train < length:
        raise NotEnoughData(f"{n_train} training rows hold no window of {length} rows; use a shorter --window")


def moving_deviation(data: UnlabelledSeries) -> Float32:
    """Return the distance of each row from the mean of the last rows, averaged over sensors.

    The unit is the standard deviation of each sensor in the training rows.
    """
    x = forward_filled(data.values)
    head = x[: data.train_rows]
    deviation = head.std(axis=0)
    z = np.clip((x - head.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0), -CLIP, CLIP)
    total = np.cumsum(np.vstack((np.zeros((1, z.shape[1])), z)), axis=0)
    last = np.arange(1, len(z) + 1)
    first = np.maximum(last - MOVING_ROWS, 0)
    mean = (total[last] - total[first]) / (last - first)[:, None]
    deviation_now: Float32 = np.abs(z - mean).mean(axis=1).astype(np.float32)
    return deviation_now
