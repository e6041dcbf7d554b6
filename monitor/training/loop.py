"""How a network learns: steps, checks, restarts.

In: standardised training and held-out windows. Out: the network at its best held-out step, and how it got there.
Law: it cannot fail quietly. What learns nothing, explodes or turns to NaN is tried again with another seed, and
then raises TrainingDiverged; what runs out of time says so in its facts.
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
from monitor.models.network import Autoencoder, Network
from monitor.models.objectives import OBJECTIVES, PRIOR_OBJECTIVES, Adversarial
from monitor.models.pca import Pca
from monitor.models.variational import N_DRAWS, autoencoder_in
from monitor.training.stacked import learn_layers

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.spec import ModelSpec
    from monitor.types import Bool, Float32

BATCH = 128
CHECK_EVERY = 50
PATIENCE = 6
"""Checks without a better held-out error before learning stops: 300 steps."""
TRIM_AT = 200
"""Steps before the worst windows are set aside: by then the usual ones are rebuilt, the odd ones not yet."""
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
"""Of what the architecture adds to the straight path: what the data do not ask for goes back to the plane."""
WARM_UP = 50
"""Steps of rising learning rate; then a cosine down to a twentieth."""
CLIP_NORM = 1.0
MOST_EPOCHS = 100
"""Times that each window is learnt from at most: in a short history more is learning by heart."""
EXPLOSION = 100.0
"""A training loss so many times the first one is a divergence."""
N_CHECK = 2048
"""Held-out windows looked at in one check, evenly spaced."""
KEPT_IN_CHECK = 0.9
"""Share of them that counts, the best: a fault among the held-out data must not steer the stopping."""
LEARNT = 1.02
"""A training error above this multiple of the mean's own: nothing was learnt (white noise may reach 1)."""
N_CURVE = 12
"""Points of the learning curve that are kept."""
N_START = 4096
"""Windows that the first principal components are solved on, where nobody brought them."""
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Tensors:
    """Standardised windows of one split."""

    x: torch.Tensor
    """(N, C, T)"""
    present: torch.Tensor | None
    """(N, C, T), None = all."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: torch.Tensor | slice) -> Tensors:
        """Return some of the rows."""
        return Tensors(self.x[rows], None if self.present is None else self.present[rows])

    def without(self, odd: Bool) -> Tensors:
        """Return the rows that are not odd [N]."""
        return self.take(torch.from_numpy(np.flatnonzero(~odd)))


class Point(NamedTuple):
    """One check on the way."""

    step: int
    loss: float
    """Of the batch at hand: what the objective asks for."""
    held_out_error: float


@dataclass
class Learnt:
    """A network and how it came to be."""

    network: Network
    seed: int
    n_steps: int = 0
    best_step: int = 0
    stopped: str = "all steps"
    """all steps, no better, or time budget"""
    train_error: float = math.nan
    """Mean over the best nine tenths of the training windows, as the held-out one."""
    held_out_error: float = math.nan
    restarts: list[str] = field(default_factory=list)
    """Why earlier seeds were given up."""
    trimmed: Bool = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """[N] of the training windows: left out as suspected faults."""
    curve: list[Point] = field(default_factory=list)
    """Every check, in order."""
    gradient_norm: dict[str, float] = field(default_factory=dict)
    """p50, p99, and the share of the steps that were clipped."""
    objective: dict[str, Any] = field(default_factory=dict)
    """What the objective has to say."""
    layers: list[dict[str, float]] = field(default_factory=list)
    """Stacked only: the error of each layer before and after it learnt alone."""

    def few_points(self) -> list[Point]:
        """Return the learning curve, thinned."""
        return [self.curve[i] for i in evenly(len(self.curve), N_CURVE).tolist()]


class _Diverged(Exception):
    """One seed failed."""


def learn(
    train: Tensors,
    held_out: Tensors,
    spec: ModelSpec,
    device: torch.device,
    on_progress: Callable[[float, str], None],
    now: Callable[[], float] = time.monotonic,
    pca: Pca | None = None,
) -> Learnt:
    """Train the network of `spec`; raises TrainingDiverged when every seed failed.

    An autoencoder starts from `pca`, its code as wide; None = solved here.
    """
    deadline = now() + spec.max_train_s
    start = pca or Pca.solve(train.x[evenly(len(train), N_START)], seed=spec.seed)
    restarts: list[str] = []
    for seed in range(spec.seed, spec.seed + spec.n_tries):
        try:
            learnt = _one_try(train, held_out, spec, seed, start, device, on_progress, deadline, now)
        except _Diverged as why:
            restarts.append(f"seed {seed}: {why}")
            on_progress(0.0, f"restart, {restarts[-1]}")
        else:
            learnt.restarts = restarts
            return learnt
    raise TrainingDiverged("; ".join(restarts))


def _one_try(
    train: Tensors, held_out: Tensors, spec: ModelSpec, seed: int, pca: Pca, device: torch.device,
    on_progress: Callable[[float, str], None], deadline: float, now: Callable[[], float],
) -> Learnt:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _start(train, spec, pca, device)
        objective = OBJECTIVES[spec.objective](network)
    draw = torch.Generator().manual_seed(seed)
    learnt = Learnt(network, seed, trimmed=np.zeros(len(train), dtype=bool))
    if spec.stacked:
        learnt.layers = learn_layers(network, train.x, draw, deadline, now)
    n_steps = min(spec.max_steps, MOST_EPOCHS * -(-len(train) // BATCH))
    optimiser = torch.optim.AdamW(_groups(network), lr=LEARNING_RATE, fused=device.type != "mps")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, n_steps))
    check = held_out.take(evenly(len(held_out), N_CHECK))

    best_error, best_state, first_loss = math.inf, copy.deepcopy(network.state_dict()), math.nan
    norms: list[torch.Tensor] = []
    batches = _Batches(len(train), draw)
    for step in range(1, n_steps + 1):
        batch = train.take(batches.next())
        loss = objective(network, batch.x, batch.present, draw)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM))
        optimiser.step()
        schedule.step()
        learnt.n_steps = step

        out_of_time = step % 10 == 0 and now() > deadline
        if step == 1 or step % CHECK_EVERY == 0 or step == n_steps or out_of_time:
            value = float(loss.detach())
            first_loss = value if step == 1 else first_loss
            if not math.isfinite(value) or value > EXPLOSION * max(first_loss, 1e-3):
                raise _Diverged(f"loss {value:.3g} at step {step}, {first_loss:.3g} at the first")
            error = typical(window_errors(network, check))
            if not math.isfinite(error):
                raise _Diverged(f"held-out error {error:.3g} at step {step}")
            learnt.curve.append(Point(step, value, error))
            # The first is what learning started from; as a "best" it would hide that nothing was learnt after it.
            if error < best_error and (step > 1 or n_steps == 1 or out_of_time):
                best_error, best_state, learnt.best_step = error, copy.deepcopy(network.state_dict()), step
            on_progress(step / n_steps, f"step {step}, held-out error {error:.4f}")
            if out_of_time:
                learnt.stopped = "time budget"
                break
            if step > TRIM_AT and step - learnt.best_step >= PATIENCE * CHECK_EVERY:
                learnt.stopped = "no better"
                break
        if step == TRIM_AT and spec.max_trim > 0:
            learnt.trimmed = find_outliers(window_errors(network, train), spec.max_trim)
            batches.only(torch.from_numpy(np.flatnonzero(~learnt.trimmed)))

    network.load_state_dict(best_state)
    network.eval()
    learnt.held_out_error = best_error
    learnt.gradient_norm = _norms(torch.stack(norms))
    learnt.objective = objective.summary() if isinstance(objective, Adversarial) else {}
    kept = train.take(batches.pool[evenly(len(batches.pool), N_CHECK)])
    learnt.train_error = _refuse_if_nothing_was_learnt(network, kept)
    # A code that was taught its prior is drawn from the prior.
    if isinstance(network, Autoencoder) and spec.objective not in PRIOR_OBJECTIVES:
        network.fit_latent(kept.x)
    return learnt


class _Batches:
    """Rows in random order, over and over."""

    def __init__(self, n: int, draw: torch.Generator) -> None:
        self.pool = torch.arange(n)
        self._draw = draw
        self._left = self.pool[:0]

    def only(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.pool, self._left = rows, rows[:0]

    def next(self) -> torch.Tensor:
        """Return the next rows, at most `BATCH`."""
        if not len(self._left):
            self._left = self.pool[torch.randperm(len(self.pool), generator=self._draw)]
        rows, self._left = self._left[:BATCH], self._left[BATCH:]
        return rows


def _refuse_if_nothing_was_learnt(network: Network, kept: Tensors) -> float:
    """Return the typical error on windows learnt from."""
    errors = window_errors(network, kept)
    mean_error = float(window_errors(_Mean(kept.x, network.n_unscored), kept).mean())
    if not errors.mean() <= LEARNT * mean_error + 1e-2:   # NaN too
        raise _Diverged(f"training error {errors.mean():.3g}, the mean alone has {mean_error:.3g}")
    return typical(errors)


def _start(train: Tensors, spec: ModelSpec, pca: Pca, device: torch.device) -> Network:
    """Build the network, as wide as the principal components need to be and at their place."""
    _, n_sensors, length = train.x.shape
    hyper = {"draws": N_DRAWS} if spec.objective == "variational" else {}
    if spec.architecture == "forecast":
        return build(spec.architecture, n_sensors, length).to(device).train()
    network = build(spec.architecture, n_sensors, length, code=pca.hyper["n_components"], **hyper).to(device).train()
    # A stacked network starts from its own layers instead.
    if not spec.stacked:
        autoencoder_in(network).init_from_pca(pca.mean, pca.components, pca.spread)
    return network


def _groups(network: Network) -> list[dict[str, Any]]:
    """Return the parameters, those apart that belong to the straight path or are no weights."""
    kept: list[torch.Tensor] = []
    decaying: list[torch.Tensor] = []
    for name, parameter in network.named_parameters():
        straight = any(part in name for part in ("linear_decoder", "to_latent", "to_log_variance", "linear"))
        (kept if straight or parameter.ndim < 2 else decaying).append(parameter)
    return [{"params": kept, "weight_decay": 0.0}, {"params": decaying, "weight_decay": WEIGHT_DECAY}]


def _norms(norms: torch.Tensor) -> dict[str, float]:
    p50, p99 = norms.float().cpu().quantile(torch.tensor([0.5, 0.99])).tolist()
    clipped = float((norms > CLIP_NORM).float().mean())
    return {"p50": round(p50, 4), "p99": round(p99, 4), "clipped": round(clipped, 4)}


def chunks(windows: Tensors) -> list[Tensors]:
    """Return them in parts that fit the cache."""
    return [windows.take(slice(start, start + CHUNK)) for start in range(0, len(windows), CHUNK)]


def window_errors(network: Network, windows: Tensors) -> Float32:
    """Return the mean squared error of each window [N] over its present cells, blind ones left out."""
    out = []
    seen = slice(network.n_unscored, None)
    with torch.inference_mode():
        for start in range(0, len(windows), CHUNK):
            part = windows.take(slice(start, start + CHUNK))
            squared = network.squared_error(part.x, part.x)[..., seen]
            if part.present is None:
                out.append(squared.mean((1, 2)))
            else:
                present = part.present[..., seen]
                out.append((squared * present).sum((1, 2)) / present.sum((1, 2)).clamp(min=1))
    errors: Float32 = torch.cat(out).cpu().numpy()
    return errors


class _Mean(Network):
    """The predictor that every network has to beat: each sensor's mean."""

    def __init__(self, x: torch.Tensor, n_unscored: int) -> None:
        super().__init__()
        self.mean, self.n_unscored = x.mean((0, 2))[:, None], n_unscored   # (C, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean.expand_as(x)


def typical(errors: Float32) -> float:
    """Return the mean over the best nine tenths of window errors; NaN if any is."""
    if not np.isfinite(errors).all():
        return math.nan
    return float(np.sort(errors)[: max(1, int(KEPT_IN_CHECK * len(errors)))].mean())


def _rate(step: int, n_steps: int) -> float:
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    part = (step - WARM_UP) / max(1, n_steps - WARM_UP)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def evenly(n: int, n_max: int) -> torch.Tensor:
    """Return at most `n_max` of the rows 0..n-1, evenly spaced."""
    if n <= n_max:
        return torch.arange(n)
    return torch.linspace(0, n - 1, n_max).round().to(torch.int64)
