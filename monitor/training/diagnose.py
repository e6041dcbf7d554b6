"""Diagnosis of a trained network: metrics for the card, and a sentence for each trouble.

Input: the network, the PCA, training and held-out windows, and the course of the training.
Output: metrics, and a list of troubles, empty when there are none.
Invariant: pure, from data alone, no label. Every trouble says what it means for the scores.

The usual failures of autoencoders are tested in turn: they memorise their windows (overfitting), they hardly learn
(hard training), they lose information in the bottleneck (distorted features), or they pass everything through
(copying).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from monitor.models.objectives import kl_divergence
from monitor.models.rows import evenly_spaced
from monitor.models.variational import Variational
from monitor.training.tensors import WindowTensors, trimmed_mean, window_errors

if TYPE_CHECKING:
    from monitor.models.network import Network
    from monitor.models.pca import Pca
    from monitor.training.loop import TrainingResult

N_WINDOWS = 1024
"""Windows used of each set, evenly spaced. A share of so many windows is exact to about 3 %."""
OVERFITTED = 1.25
"""Held-out over training error, as a multiple of the PCA's own. The PCA has no capacity to memorise windows: its
increase is drift. A network whose increase is a quarter larger overfits."""
OFTEN_CLIPPED = 0.5
"""Share of clipped steps above which the clipping, not the learning rate, limits the step size."""
STILL_FALLING = 0.05
"""Relative fall of the held-out error over the last quarter of the steps. Below it is the noise of the checks."""
MIN_EXPLAINED = 0.1
"""Explained variance of a sensor below which a fault in it must be about as large as the sensor's whole range."""
WHITE_NOISE = 0.7
"""Mean square of a sensor's changes over that of white noise. Above, neighbours correlate by less than .3."""
AS_THE_MEAN = 0.02
"""Explained variance that at least one sensor must reach, else the mean would do as well as the network."""
MAX_NOISE_PASSED = 0.5
"""Share of injected noise in the reconstruction. A projection on k of n dimensions passes k/n, and no latent here is
wider than a quarter of its window. So a network that passes half of it copies."""
MIN_ERROR_RATIO = 1.2
"""Error on implausible windows over error on healthy ones, below which the network does not tell them apart."""
NO_VARIANCE = 1e-3
"""Variance of a number of the latent, as a share of the mean one, below which it is unused."""
ACTIVE = 0.01
"""Variance of the mean of a variational latent below which the number is unused (Burda et al. 2016)."""
MAX_DISCRIMINATOR_ACCURACY = 0.8
"""Accuracy of the adversarial discriminator. A half is guessing."""
NOISE = 0.5
"""Spread of the injected noise, in spreads of the sensor."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Metrics and troubles of a network."""

    metrics: dict[str, Any]
    """Under their keys in the card."""
    troubles: list[str]


def diagnose(
    network: Network,
    pca: Pca,
    training: WindowTensors,
    held_out: WindowTensors,
    result: TrainingResult | None,
    sensors: tuple[str, ...],
) -> Diagnosis:
    """Diagnose a network. Both sets are without the windows suspected of a fault, and neither is empty."""
    training = training.select(evenly_spaced(len(training), N_WINDOWS))
    held_out = held_out.select(evenly_spaced(len(held_out), N_WINDOWS))
    with torch.inference_mode():
        parts = [
            _overfitting(network, pca, training, held_out, result),
            _features(network, held_out, sensors),
            _copying(network, held_out),
            _latent(network, held_out),
        ]
    if result is not None:
        parts.insert(1, _course(result))
    metrics = {name: value for part in parts for name, value in part.metrics.items()}
    return Diagnosis(metrics, [trouble for part in parts for trouble in part.troubles])


def _overfitting(
    network: Network, pca: Pca, training: WindowTensors, held_out: WindowTensors, result: TrainingResult | None
) -> Diagnosis:
    gap, pca_gap = (
        trimmed_mean(window_errors(each, held_out)) / max(trimmed_mean(window_errors(each, training)), 1e-12)
        for each in (network, pca)
    )
    troubles = []
    if result is not None and gap > OVERFITTED * max(pca_gap, 1.0):
        troubles.append(
            f"overfitting: the error on held-out windows is {gap:.1f} times that on training windows, the PCA's "
            f"{pca_gap:.1f}; learning was ended at its best held-out step, {result.best_step} of {result.n_steps}. "
            "More history or a simpler model, down to pca, would help"
        )
    elif pca_gap > 2 * OVERFITTED:
        troubles.append(
            f"drift: held-out windows are rebuilt {pca_gap:.1f} times worse than training windows by the PCA too; "
            "the latest time is unlike the time before it, and healthy windows may score high"
        )
    return Diagnosis({"gap": round(gap, 3), "pca_gap": round(pca_gap, 3)}, troubles)


def _course(result: TrainingResult) -> Diagnosis:
    metrics: dict[str, Any] = {
        "gradient_norm": result.gradient_norm,
        "curve": [[p.step, round(p.loss, 5), round(p.held_out_error, 5)] for p in result.thinned_curve()],
        **result.objective,
    }
    if result.layers:
        metrics["layers"] = result.layers
    troubles = []
    if result.restarts:
        troubles.append(
            f"hard training: {len(result.restarts)} seeds failed before this one ({result.restarts[-1]}); "
            "the data may hold values far outside their usual range"
        )
    if result.gradient_norm.get("clipped", 0.0) > OFTEN_CLIPPED:
        troubles.append(
            f"hard training: gradients were clipped in {result.gradient_norm['clipped']:.0%} of the steps; "
            "a few windows pull much harder than the rest"
        )
    if result.stopped == "time budget":
        troubles.append(
            f"learning was cut short by max_train after {result.n_steps} steps; more time may make it better"
        )
    elif result.stopped == "all steps" and len(result.curve) >= 8:
        before, last = (result.curve[i].held_out_error for i in (-len(result.curve) // 4 - 1, -1))
        if last < (1 - STILL_FALLING) * before:
            troubles.append(
                f"learning had not ended: the held-out error fell by {1 - last / before:.0%} in the last quarter "
                f"of {result.n_steps} steps"
            )
    if result.objective.get("judge_right", 0.5) > MAX_DISCRIMINATOR_ACCURACY:
        troubles.append(
            f"the judge tells codes from the prior in {result.objective['judge_right']:.0%} of the cases (a half "
            "is guessing): windows that are sampled will be unlike healthy ones"
        )
    return Diagnosis(metrics, troubles)


def _features(network: Network, held_out: WindowTensors, sensors: tuple[str, ...]) -> Diagnosis:
    """Test the reconstruction of each sensor, and of its changes from step to step."""
    x, here = held_out.x, _here(held_out)
    reconstruction = network(x)
    scored = slice(network.n_unscored, None)
    explained = _explained(reconstruction[..., scored], x[..., scored], here[..., scored])
    both = here[..., 1:] * here[..., :-1]
    detail = _explained(
        reconstruction.diff()[..., scored], x.diff()[..., scored], both[..., scored], of_change=True
    )
    known = {name: value for name, value in zip(sensors, explained, strict=True) if value is not None}
    # For white noise the mean square of a change is twice the variance.
    variance = _mean((x - _mean(x, here)[:, None]).square(), here)
    change_ratio = _mean(x.diff().square(), both) / (2 * variance).clamp(min=1e-12)
    noisy = {name for name, ratio in zip(sensors, change_ratio.tolist(), strict=True) if ratio > WHITE_NOISE}
    not_rebuilt = [name for name, value in known.items() if value < MIN_EXPLAINED]
    noise, lost = (
        [name for name in not_rebuilt if (name in noisy) is is_noisy] for is_noisy in (True, False)
    )
    troubles = []
    if known and max(known.values()) < AS_THE_MEAN:
        troubles.append(
            "the network returns little more than each sensor's mean: either the sensors are noise, or it has learnt "
            "nothing; only values outside the usual range will score high"
        )
    else:
        if lost:
            troubles.append(
                f"distorted features: {_named(lost)} cannot be rebuilt, though there is something to rebuild (under "
                f"{MIN_EXPLAINED:.0%} of the variance on held-out windows); a fault there shows only when values leave "
                "their usual range"
            )
        if noise:
            troubles.append(
                f"noise: {_named(noise)} cannot be rebuilt by anything, each reading says little of the next; a fault "
                "there shows only when values leave their usual range"
            )
    metrics = {
        "detail_explained": {name: value for name, value in zip(sensors, detail, strict=True) if value is not None},
        "not_rebuilt": not_rebuilt,
    }
    return Diagnosis(metrics, troubles)


def _copying(network: Network, held_out: WindowTensors) -> Diagnosis:
    """Test the reconstruction of implausible windows: noise, steps out of order, sensors of different moments."""
    x, generator = held_out.x, torch.Generator().manual_seed(0)
    n, n_sensors, length = x.shape
    noise = NOISE * torch.randn(x.shape, generator=generator).to(x.device)
    passed = float(((network(x + noise) - network(x)) * noise).sum() / noise.square().sum())
    metrics: dict[str, Any] = {"noise_passed": round(passed, 3)}
    troubles = []
    if passed > MAX_NOISE_PASSED:
        troubles.append(
            f"copying: {passed:.0%} of the noise in a window comes out again; faults will be rebuilt as well as "
            "healthy windows"
        )

    def ratio(implausible: torch.Tensor) -> float:
        error, healthy = (
            trimmed_mean(window_errors(network, WindowTensors(each, held_out.present))) for each in (implausible, x)
        )
        return error / max(healthy, 1e-12)

    shuffled = x[..., torch.randperm(length, generator=generator).to(x.device)]
    metrics["shuffled_time"] = round(ratio(shuffled), 3)
    if metrics["shuffled_time"] < MIN_ERROR_RATIO:
        troubles.append(
            "windows with their cells in random order are rebuilt as well as healthy ones: the order of readings "
            "tells this network nothing, as with white noise"
        )
    if n_sensors > 1 and n > 1:
        # Half of the sensors stay, the others are from the window half the set away.
        moved = torch.randperm(n_sensors, generator=generator)[: n_sensors // 2].to(x.device)
        swapped = x.clone()
        swapped[:, moved] = x.roll(n // 2, 0)[:, moved]
        metrics["swapped_sensors"] = round(ratio(swapped), 3)
        if metrics["swapped_sensors"] < MIN_ERROR_RATIO:
            troubles.append(
                "windows whose sensors come from different moments are rebuilt as well as healthy ones: to this "
                "network the sensors do not belong together, and it will not notice when they no longer do"
            )
    return Diagnosis(metrics, troubles)


def _latent(network: Network, held_out: WindowTensors) -> Diagnosis:
    """Count the numbers of the latent that vary over the windows."""
    try:
        z = network.encode(held_out.x).flatten(1)                        # (N, code)
    except NotImplementedError:
        return Diagnosis({}, [])
    n_numbers, variance = z.shape[1], z.var(0, correction=0)
    if isinstance(network, Variational):
        mean, log_variance = network.posterior(held_out.x)
        kl = float(kl_divergence(mean, log_variance).sum(1).mean())
        n_active = int((variance > ACTIVE).sum())
        metrics: dict[str, Any] = {"code": n_numbers, "code_active": n_active, "code_nats": round(kl, 3)}
        collapsed = n_active == 0 or kl < 0.1
        why = "posterior collapse: the decoder ignores the code and returns the mean; train it with plain or denoising"
        return Diagnosis(metrics, [why] if collapsed else [])
    n_active = int((variance > NO_VARIANCE * variance.mean()).sum()) if variance.mean() > 1e-12 else 0
    troubles = []
    if n_active <= n_numbers // 2:
        troubles.append(f"collapse: only {n_active} of the code's {n_numbers} numbers ever change")
    return Diagnosis({"code": n_numbers, "code_active": n_active}, troubles)


def _explained(
    reconstruction: torch.Tensor, x: torch.Tensor, here: torch.Tensor, *, of_change: bool = False
) -> list[float | None]:
    """Return each sensor's explained variance. None = it did not move."""
    n = here.sum((0, 2)).clamp(min=1)
    mean = torch.zeros_like(n) if of_change else (x * here).sum((0, 2)) / n
    total = ((x - mean[:, None]).square() * here).sum((0, 2))            # (C,)
    left = ((reconstruction - x).square() * here).sum((0, 2))
    return [
        round(1 - one / all_, 4) if all_ > 1e-6 * count else None
        for one, all_, count in zip(left.tolist(), total.tolist(), n.tolist(), strict=True)
    ]


def _mean(of: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Return each sensor's mean over its present values, (C,)."""
    return (of * here).sum((0, 2)) / here.sum((0, 2)).clamp(min=1)


def _named(sensors: list[str]) -> str:
    return ", ".join(sensors[:8]) + (f" and {len(sensors) - 8} more" if len(sensors) > 8 else "")


def _here(windows: WindowTensors) -> torch.Tensor:
    return torch.ones_like(windows.x) if windows.present is None else windows.present.to(windows.x.dtype)
