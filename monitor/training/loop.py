"""Training loop: steps, checks on held-out windows, restarts.

Input: standardised training and held-out windows. Output: the network at its best held-out step, and the course of its
training.
Invariant: no silent failure. A training that learns nothing, explodes or turns to NaN is repeated with another seed,
and then raises TrainingDiverged. One that runs out of time says so in its result.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from monitor.errors import TrainingDiverged
from monitor.models.build import build
from monitor.models.calibrate import find_outliers
from monitor.models.network import MAX_LATENT, Autoencoder, Network
from monitor.models.objectives import OBJECTIVES, PRIOR_OBJECTIVES, Adversarial, Denoising
from monitor.models.pca import Pca
from monitor.models.rows import evenly_spaced
from monitor.models.variational import N_DRAWS, autoencoder_in
from monitor.training.stacked import pretrain_layers
from monitor.training.tensors import WindowTensors, trimmed_mean, window_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.spec import ModelSpec
    from monitor.types import Bool

BATCH = 128
CHECK_EVERY = 50
PATIENCE = 6
"""Checks without a better held-out error before training stops: 300 steps."""
TRIM_AT = 200
"""Steps before outliers are removed: by then the network reconstructs the usual windows, and not yet the outliers."""
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
"""Decay of the nonlinear path alone: weights that the data do not need go to zero, and the linear path remains."""
LINEAR_PATH = frozenset({"to_latent", "linear_decoder", "to_log_variance", "linear"})
"""Modules without weight decay."""
WARM_UP = 50
"""Steps of rising learning rate, followed by a cosine down to a twentieth."""
CLIP_NORM = 1.0
MAX_EPOCHS = 100
"""Uses of each window at most: in a short history more of them only overfit."""
EXPLOSION = 100.0
"""A training loss so many times the first one is a divergence."""
N_CHECK = 2048
"""Held-out windows in one check, evenly spaced."""
MAX_RELATIVE_ERROR = 1.02
"""A training error above this multiple of `_MeanPredictor`'s: nothing was learnt (on white noise it may be 1)."""
N_CURVE = 12
"""Points of the training curve that are kept."""
N_START = 4096
"""Windows that the initial PCA is solved on, where the caller passes none."""


class CurvePoint(NamedTuple):
    """One check of the training curve."""

    step: int
    loss: float
    """Loss of the present batch."""
    held_out_error: float
    """Of the objective: a denoising network reconstructs corrupted copies of the held-out windows."""


@dataclass
class TrainingResult:
    """A trained network and the course of its training."""

    network: Network
    seed: int
    n_steps: int = 0
    best_step: int = 0
    stopped: str = "all steps"
    """all steps, no better, or time budget"""
    train_error: float = math.nan
    """Trimmed mean over training windows, comparable with `held_out_error`."""
    held_out_error: float = math.nan
    restarts: list[str] = field(default_factory=list)
    """Reasons for which earlier seeds were given up."""
    trimmed: Bool = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """[N] of the training windows: left out as suspected faults."""
    curve: list[CurvePoint] = field(default_factory=list)
    """Every check, in order."""
    gradient_norm: dict[str, float] = field(default_factory=dict)
    """p50, p99, and the share of the steps that were clipped."""
    objective: dict[str, Any] = field(default_factory=dict)
    """Summary of the objective, under its keys in the card."""
    layers: list[dict[str, float]] = field(default_factory=list)
    """Stacked only: the error of each layer before and after its pretraining."""

    def thinned_curve(self) -> list[CurvePoint]:
        """Return at most `N_CURVE` points of the curve, evenly spaced."""
        return [self.curve[i] for i in evenly_spaced(len(self.curve), N_CURVE).tolist()]


class _Diverged(Exception):
    """Training with one seed failed."""


def train(
    training: WindowTensors,
    held_out: WindowTensors,
    spec: ModelSpec,
    device: torch.device,
    on_progress: Callable[[float, str], None],
    now: Callable[[], float] = time.monotonic,
    pca: Pca | None = None,
    trusted: Bool | None = None,
) -> TrainingResult:
    """Train the network of `spec`. Raises TrainingDiverged when every seed failed.

    An autoencoder starts from `pca`, with a latent of the same width. None = solved here.
    `trusted`: [N], training windows that are never trimmed. None = there are none.
    """
    deadline = now() + spec.max_train_s
    start = pca or Pca.solve(training.x[evenly_spaced(len(training), N_START)], seed=spec.seed)
    task = _Task(training, held_out, spec, start, device, on_progress, deadline, now, trusted)
    restarts: list[str] = []
    for seed in range(spec.seed, spec.seed + spec.n_tries):
        try:
            result = _Attempt(task, seed).run()
        except _Diverged as why:
            restarts.append(f"seed {seed}: {why}")
            on_progress(0.0, f"restart, {restarts[-1]}")
        else:
            result.restarts = restarts
            return result
    raise TrainingDiverged("; ".join(restarts))


@dataclass(frozen=True, slots=True)
class _Task:
    training: WindowTensors
    held_out: WindowTensors
    spec: ModelSpec
    pca: Pca
    device: torch.device
    on_progress: Callable[[float, str], None]
    deadline: float
    now: Callable[[], float]
    trusted: Bool | None


class _Attempt:
    """Training with one seed."""

    def __init__(self, task: _Task, seed: int) -> None:
        self._task = task
        spec, training = task.spec, task.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = _initial_network(task)
            self._objective = OBJECTIVES[spec.objective](self._network)
        self._generator = torch.Generator().manual_seed(seed)
        self._result = TrainingResult(self._network, seed, trimmed=np.zeros(len(training), dtype=bool))
        if spec.stacked:
            self._result.layers = pretrain_layers(
                self._network, training.x, self._generator, task.deadline, task.now
            )
        self._n_steps = min(spec.max_steps, MAX_EPOCHS * -(-len(training) // BATCH))
        self._optimiser = torch.optim.AdamW(
            _parameter_groups(self._network), lr=LEARNING_RATE, fused=task.device.type != "mps"
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: _learning_rate_factor(step, self._n_steps)
        )
        self._check_windows = task.held_out.select(evenly_spaced(len(task.held_out), N_CHECK))
        self._check_inputs: torch.Tensor | None = None
        """Inputs of the checks of a denoising network, the same at each. None = the windows themselves."""
        self._batches = _Batches(len(training), self._generator)
        self._gradient_norms: list[torch.Tensor] = []
        self._first_loss = self._best_error = math.inf
        self._best_state = copy.deepcopy(self._network.state_dict())

    def run(self) -> TrainingResult:
        """Train to the end. Raises _Diverged."""
        task, result = self._task, self._result
        for step in range(1, self._n_steps + 1):
            loss = self._train_step()
            result.n_steps = step
            is_out_of_time = step % 10 == 0 and task.now() > task.deadline
            if step == 1 or step % CHECK_EVERY == 0 or step == self._n_steps or is_out_of_time:
                self._check(step, float(loss.detach()), is_out_of_time)
                if is_out_of_time:
                    result.stopped = "time budget"
                    break
                if step > TRIM_AT and step - result.best_step >= PATIENCE * CHECK_EVERY:
                    result.stopped = "no better"
                    break
            if step == TRIM_AT and task.spec.max_trim > 0:
                result.trimmed = find_outliers(window_errors(self._network, task.training), task.spec.max_trim)
                if task.trusted is not None:
                    result.trimmed &= ~task.trusted
                self._batches.restrict(torch.from_numpy(np.flatnonzero(~result.trimmed)))
        return self._finished()

    def _train_step(self) -> torch.Tensor:
        batch = self._task.training.select(self._batches.next())
        loss = self._objective(self._network, batch.x, batch.present, self._generator)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._gradient_norms.append(torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP_NORM))
        self._optimiser.step()
        self._schedule.step()
        return loss

    def _check(self, step: int, loss: float, is_out_of_time: bool) -> None:
        """Add a point to the curve and keep the weights if they are the best. Raises _Diverged."""
        if step == 1:
            self._first_loss = loss
        if not math.isfinite(loss) or loss > EXPLOSION * max(self._first_loss, 1e-3):
            raise _Diverged(f"loss {loss:.3g} at step {step}, {self._first_loss:.3g} at the first")
        is_new = self._check_inputs is None and not self._network.n_unscored
        if is_new and isinstance(self._objective, Denoising):
            # On whole windows every step towards less noise is a larger error, for the held-out windows are noisy too.
            # The best step was then nearly always the first check. A forecaster cannot copy noise.
            windows, generator = self._check_windows, torch.Generator().manual_seed(0)
            self._check_inputs = self._objective.corrupted(windows.x, windows.present, generator)
        error = trimmed_mean(window_errors(self._network, self._check_windows, self._check_inputs))
        if not math.isfinite(error):
            raise _Diverged(f"held-out error {error:.3g} at step {step}")
        self._result.curve.append(CurvePoint(step, loss, error))
        # The first check is of the initial network. As the best one it would hide that nothing was learnt after it.
        if error < self._best_error and (step > 1 or self._n_steps == 1 or is_out_of_time):
            self._best_error, self._result.best_step = error, step
            self._best_state = copy.deepcopy(self._network.state_dict())
        self._task.on_progress(step / self._n_steps, f"step {step}, held-out error {error:.4f}")

    def _finished(self) -> TrainingResult:
        """Return the network at its best step. Raises _Diverged if it learnt nothing."""
        network, result, spec = self._network, self._result, self._task.spec
        network.load_state_dict(self._best_state)
        network.eval()
        result.held_out_error = trimmed_mean(window_errors(network, self._check_windows))
        result.gradient_norm = _gradient_summary(torch.stack(self._gradient_norms))
        result.objective = self._objective.summary() if isinstance(self._objective, Adversarial) else {}
        pool = self._batches.pool
        kept = self._task.training.select(pool[evenly_spaced(len(pool), N_CHECK)])
        result.train_error = _checked_train_error(network, kept)
        # A latent that was trained towards the prior is sampled from the prior.
        if isinstance(network, Autoencoder) and spec.objective not in PRIOR_OBJECTIVES:
            network.fit_latent(kept.x)
        return result


class _Batches:
    """Rows in random order, epoch after epoch."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.pool = torch.arange(n)
        self._generator = generator
        self._left = self.pool[:0]

    def restrict(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.pool, self._left = rows, rows[:0]

    def next(self) -> torch.Tensor:
        """Return the next rows, at most `BATCH`."""
        if not len(self._left):
            self._left = self.pool[torch.randperm(len(self.pool), generator=self._generator)]
        rows, self._left = self._left[:BATCH], self._left[BATCH:]
        return rows


class _MeanPredictor(Network):
    """Prediction of each sensor's mean, which every network has to beat."""

    def __init__(self, x: torch.Tensor, n_unscored: int) -> None:
        super().__init__()
        self.mean, self.n_unscored = x.mean((0, 2))[:, None], n_unscored   # (C, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean.expand_as(x)


def _checked_train_error(network: Network, kept: WindowTensors) -> float:
    """Return the trimmed mean error on training windows. Raises _Diverged if the mean alone is as good."""
    errors = window_errors(network, kept)
    mean_error = float(window_errors(_MeanPredictor(kept.x, network.n_unscored), kept).mean())
    if not errors.mean() <= MAX_RELATIVE_ERROR * mean_error + 1e-2:   # true of NaN as well
        raise _Diverged(f"training error {errors.mean():.3g}, the mean alone has {mean_error:.3g}")
    return trimmed_mean(errors)


def _initial_network(task: _Task) -> Network:
    """Build the network. An autoencoder starts as the principal components, with a latent as wide, up to a limit."""
    spec = task.spec
    _, n_sensors, length = task.training.x.shape
    hyper = {"draws": N_DRAWS} if spec.objective == "variational" else {}
    if spec.architecture == "forecast":
        return build(spec.architecture, n_sensors, length).to(task.device).train()
    code = min(MAX_LATENT, task.pca.hyper["n_components"])
    network = build(spec.architecture, n_sensors, length, code=code, **hyper).to(task.device).train()
    # A stacked network starts from its pretrained layers instead.
    if not spec.stacked:
        autoencoder_in(network).init_from_pca(task.pca.mean, task.pca.components[:code], task.pca.spread[:code])
    return network


def _parameter_groups(network: Network) -> list[dict[str, Any]]:
    """Return the parameters in two groups, with and without weight decay. Biases have none."""
    decaying: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for name, parameter in network.named_parameters():
        is_linear = not LINEAR_PATH.isdisjoint(name.split("."))
        (others if is_linear or parameter.ndim < 2 else decaying).append(parameter)
    return [{"params": others, "weight_decay": 0.0}, {"params": decaying, "weight_decay": WEIGHT_DECAY}]


def _learning_rate_factor(step: int, n_steps: int) -> float:
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    part = (step - WARM_UP) / max(1, n_steps - WARM_UP)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def _gradient_summary(norms: torch.Tensor) -> dict[str, float]:
    p50, p99 = norms.float().cpu().quantile(torch.tensor([0.5, 0.99])).tolist()
    clipped = float((norms > CLIP_NORM).float().mean())
    return {"p50": round(p50, 4), "p99": round(p99, 4), "clipped": round(clipped, 4)}
