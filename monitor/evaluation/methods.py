"""A method's name → anomaly scores for every row behind the training rows.

    default            what an operator gets who configures nothing
    ARCH[+OBJECTIVE][+stacked]   pca, conv, lstm+denoising, dense+sparse+stacked …
    moving-deviation   the one-liner to beat: how far a row is from its short moving mean
    random             what no skill at all scores

In: an `Unlabelled` recording. Out: a score per row, 1.0 = the threshold for every method. The laws: learning
and calibration see the first `train_rows` rows only; a row's score is that of the window that ends at it, so it is
causal, and no window is ever copied out but those in hand. Every row is scored, as the protocol of the recordings has
it; the river leaves windows with long holes unscored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Budget
from monitor.config.tree import AlertConfig, ModelConfig
from monitor.errors import ConfigError, NotEnoughData
from monitor.evaluation.metrics import filled
from monitor.models.calibrate import calibrate
from monitor.models.spec import ARCHITECTURES, OBJECTIVES, FleetSpec, ModelSpec, TrainingSet, refuse_unknown
from monitor.training.fit import fit
from monitor.training.split import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.config.values import Rate
    from monitor.evaluation.series import Unlabelled
    from monitor.models.detector import Detector
    from monitor.types import Float32

DEFAULT, MOVING_DEVIATION, RANDOM, STACKED = "default", "moving-deviation", "random", "stacked"
ALWAYS = ("pca", MOVING_DEVIATION)
"""Beside every method, in every run: a network that does not beat these is not worth its training."""

MOVING_ROWS = 20
"""Of the moving mean, the row itself included."""
CLIP = 10.0
"""Standard deviations beyond which it does not matter how far."""
WINDOWS_AT_ONCE = 4096
"""Between two words of progress; the detector itself copies out a few hundred at a time."""

WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """What a score depends on besides the method and the data."""

    window: int = 64
    """Rows in a window."""
    seed: int = 0
    max_train_s: float | None = None
    """Of each method, `auto`'s candidates together; None = the default's."""
    budget: Rate = AlertConfig.model_fields["budget"].default
    """False alarms allowed; thresholds are calibrated to it."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to score, checked."""

    name: str
    spec: ModelSpec | None
    """What to train; None = a baseline that learns next to nothing."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a method says of the R rows behind the training rows."""

    score: Float32
    """[R], 1.0 = the threshold; NaN = unscored."""
    fit_s: float
    score_s: float
    model: dict[str, Any]
    """What was trained: version, architecture, how sure the threshold is."""


def parse_methods(names: Sequence[str], settings: Settings) -> list[Method]:
    """Read names, each once, the baselines that always run behind them. Raises ConfigError with the nearest name."""
    return [parse_method(name, settings) for name in dict.fromkeys((*names, *ALWAYS))]


def parse_method(name: str, settings: Settings) -> Method:
    """Read one name. Raises ConfigError."""
    if name in (MOVING_DEVIATION, RANDOM):
        return Method(name, None)
    config = ModelConfig()
    wanted: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(ModelSpec) if hasattr(config, f.name)}
    if name != DEFAULT:
        architecture, *rest = name.split("+")
        refuse_unknown("method", architecture, (DEFAULT, *ARCHITECTURES, MOVING_DEVIATION, RANDOM))
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
    method: Method, data: Unlabelled, settings: Settings, on_progress: Callable[[float, str], None]
) -> Scored:
    """Learn from the head, score the rest. Raises NotEnoughData, TrainingDiverged. Deterministic with one thread,
    unless the time budget cuts training short.
    """
    if method.spec is None:
        return _baseline(method.name, data, settings)
    values, length, n_train = data.values, settings.window, data.train_rows
    if n_train < length:
        raise NotEnoughData(f"{n_train} training rows hold no window of {length} rows; use a shorter --window")
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)  # [N-T+1, T, C]
    began = time.perf_counter()
    detector = _fit(windows[: n_train - length + 1], method.spec, data, settings, on_progress)
    fitted = time.perf_counter()
    parts = []
    for start in range(n_train - length + 1, len(windows), WINDOWS_AT_ONCE):
        parts.append(detector.score(windows[start : start + WINDOWS_AT_ONCE]).score)
        on_progress(0.9 + 0.1 * start / len(windows), "scoring")
    took_s = time.perf_counter() - fitted
    return Scored(np.concatenate(parts), round(fitted - began, 3), round(took_s, 3), _card(detector))


def _fit(
    windows: Float32, spec: ModelSpec, data: Unlabelled, settings: Settings, on_progress: Callable[[float, str], None]
) -> Detector:
    torch.set_num_threads(1)
    return fit(
        TrainingSet(windows, np.zeros(len(windows), np.int32), _end_us(len(windows), settings.window, data.interval_s)),
        spec,
        FleetSpec("evaluate", data.sensors, data.interval_s, budget_of(settings, data.interval_s)),
        on_progress=lambda share, text: on_progress(0.9 * share, text),
    )


def _card(detector: Detector) -> dict[str, Any]:
    card = detector.card
    return {
        "version": detector.version,
        "architecture": card.architecture,
        "objective": card.objective,
        "seed": card.seed,
        "threshold": str(card.threshold.state),
    }


def budget_of(settings: Settings, interval_s: float) -> Budget:
    """Return the budget with what makes an alert by default: windows begin at every row."""
    alerts, rate = AlertConfig(), settings.budget
    weekly = rate.count * WEEK_S / rate.per.total_seconds()
    return Budget(weekly, alerts.confirm.m, alerts.confirm.n, alerts.recover, interval_s)


def _end_us(n: int, first_end: int, interval_s: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    return ((np.arange(n) + first_end) * interval_s * 1e6).astype(np.int64)


# ---------------------------------------------------------------- baselines: a raw score per row


def _baseline(name: str, data: Unlabelled, settings: Settings) -> Scored:
    began = time.perf_counter()
    raw = moving_deviation(data) if name == MOVING_DEVIATION else np.random.default_rng(settings.seed).random(
        len(data.values), dtype=np.float32
    )
    scored = time.perf_counter()
    # Held out as `fit` does: the threshold comes from the latest fifth of the training rows.
    n_held = max(1, round(HELD_OUT * data.train_rows))
    held_out = raw[data.train_rows - n_held : data.train_rows]
    ends = _end_us(n_held, data.train_rows - n_held + 1, data.interval_s)
    limit = calibrate(held_out, np.zeros(n_held, np.int32), ends, budget_of(settings, data.interval_s))
    fitted = time.perf_counter()
    rest = (raw[data.train_rows :] / limit.raw).astype(np.float32)
    return Scored(rest, round(fitted - scored, 3), round(scored - began, 3), {"threshold": str(limit.state)})


def moving_deviation(data: Unlabelled) -> Float32:
    """Return per row the mean over sensors of how far it is from the mean of the last rows, in training deviations."""
    x = filled(data.values)
    head = x[: data.train_rows]
    deviation = head.std(axis=0)
    z = np.clip((x - head.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0), -CLIP, CLIP)
    total = np.cumsum(np.vstack((np.zeros((1, z.shape[1])), z)), axis=0)
    last = np.arange(1, len(z) + 1)
    first = np.maximum(last - MOVING_ROWS, 0)
    mean = (total[last] - total[first]) / (last - first)[:, None]
    deviation_now: Float32 = np.abs(z - mean).mean(axis=1).astype(np.float32)
    return deviation_now
