"""What is wrong with a trained network, found by trying it: facts for the card and sentences for people.

In: the network, the PCA beside it, windows it learnt from and windows it did not, and how learning went.
Out: figures, and a list of troubles, empty when there are none.
Law: pure, and judged on data alone, no label; every trouble says what it means for whoever relies on the scores.

The three ways in which autoencoders usually fail, each asked in turn: they learn their windows by heart (overfitting),
they hardly learn (hard training), or they lose what matters in the bottleneck, or keep all of it (distorted features).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from monitor.models.objectives import kl_divergence
from monitor.models.variational import Variational
from monitor.training.loop import Tensors, evenly, typical, window_errors

if TYPE_CHECKING:
    from monitor.models.network import Network
    from monitor.models.pca import Pca
    from monitor.training.loop import Learnt

N_WINDOWS = 1024
"""Looked at, evenly spaced: a share of them is known to about 3 %."""
OVERFITTED = 1.25
"""Held-out over training error, as a multiple of the PCA's own: the PCA has no capacity to learn windows by heart, so
what it loses between the two times is drift; what a network loses beyond a quarter more is its own doing."""
OFTEN_CLIPPED = 0.5
"""Share of the steps: above, the clipping and not the learning rate sets the pace."""
STILL_FALLING = 0.05
"""Fall of the held-out error over the last quarter of the steps, relative: below it is the checks' own noise."""
NOT_REBUILT = 0.1
"""Explained variance of a sensor: below, a fault in it must be about as large as the sensor's whole range."""
LIKE_NOISE = 0.7
"""Mean square of a sensor's changes over that of white noise: neighbours then correlate by less than .3."""
AS_THE_MEAN = 0.02
"""Explained variance of all: below, the mean alone would do as well."""
PASSES_NOISE = 0.5
"""Share of noise that comes out again. A projection on k of n dimensions passes k/n, and no code here is wider
than a quarter of its window: a network that passes half copies."""
TOO_ALIKE = 1.2
"""Error on windows that cannot be over error on healthy ones: below, the network does not know the difference."""
NO_VARIANCE = 1e-3
"""Variance of a code's number, as a share of the mean one: below it says nothing."""
ACTIVE = 0.01
"""Variance of a variational code's mean: below, the number is unused (Burda et al. 2016)."""
JUDGE_SURE = 0.8
"""Share that an adversary gets right; a half is guessing."""
NOISE = 0.5
"""Spread of the noise that is tried, in spreads of the sensor."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    facts: dict[str, Any]
    troubles: list[str]


def diagnose(
    network: Network, pca: Pca, learning: Tensors, held_out: Tensors, learnt: Learnt | None, sensors: tuple[str, ...]
) -> Diagnosis:
    """Try the network. Both sets without the windows that are suspected of a fault, neither of them empty."""
    learning = learning.take(evenly(len(learning), N_WINDOWS))
    held_out = held_out.take(evenly(len(held_out), N_WINDOWS))
    with torch.inference_mode():
        parts = [
            _overfitting(network, pca, learning, held_out, learnt),
            _features(network, held_out, sensors),
            _copying(network, held_out),
            _code(network, held_out),
        ]
    if learnt is not None:
        parts.insert(1, _course(learnt))
    facts = {name: value for part in parts for name, value in part.facts.items()}
    return Diagnosis(facts, [trouble for part in parts for trouble in part.troubles])


def _overfitting(
    network: Network, pca: Pca, learning: Tensors, held_out: Tensors, learnt: Learnt | None
) -> Diagnosis:
    gap, beside = (
        typical(window_errors(each, held_out)) / max(typical(window_errors(each, learning)), 1e-12)
        for each in (network, pca)
    )
    troubles = []
    if learnt is not None and gap > OVERFITTED * max(beside, 1.0):
        troubles.append(
            f"overfitting: the error on held-out windows is {gap:.1f} times that on training windows, the PCA's "
            f"{beside:.1f}; learning was ended at its best held-out step, {learnt.best_step} of {learnt.n_steps}. "
            "More history or a simpler model, down to pca, would help"
        )
    elif beside > 2 * OVERFITTED:
        troubles.append(
            f"drift: held-out windows are rebuilt {beside:.1f} times worse than training windows by the PCA too; "
            "the latest time is unlike the time before it, and healthy windows may score high"
        )
    return Diagnosis({"gap": round(gap, 3), "pca_gap": round(beside, 3)}, troubles)


def _course(learnt: Learnt) -> Diagnosis:
    facts: dict[str, Any] = {
        "gradient_norm": learnt.gradient_norm,
        "curve": [[p.step, round(p.loss, 5), round(p.held_out_error, 5)] for p in learnt.few_points()],
        **learnt.objective,
    }
    if learnt.layers:
        facts["layers"] = learnt.layers
    troubles = []
    if learnt.restarts:
        troubles.append(
            f"hard training: {len(learnt.restarts)} seeds failed before this one ({learnt.restarts[-1]}); "
            "the data may hold values far outside their usual range"
        )
    if learnt.gradient_norm.get("clipped", 0.0) > OFTEN_CLIPPED:
        troubles.append(
            f"hard training: gradients were clipped in {learnt.gradient_norm['clipped']:.0%} of the steps; "
            "a few windows pull much harder than the rest"
        )
    if learnt.stopped == "time budget":
        troubles.append(
            f"learning was cut short by max_train after {learnt.n_steps} steps; more time may make it better"
        )
    elif learnt.stopped == "all steps" and len(learnt.curve) >= 8:
        before, last = (learnt.curve[i].held_out_error for i in (-len(learnt.curve) // 4 - 1, -1))
        if last < (1 - STILL_FALLING) * before:
            troubles.append(
                f"learning had not ended: the held-out error fell by {1 - last / before:.0%} in the last quarter "
                f"of {learnt.n_steps} steps"
            )
    if learnt.objective.get("judge_right", 0.5) > JUDGE_SURE:
        troubles.append(
            f"the judge tells codes from the prior in {learnt.objective['judge_right']:.0%} of the cases (a half "
            "is guessing): windows that are sampled will be unlike healthy ones"
        )
    return Diagnosis(facts, troubles)


def _features(network: Network, held_out: Tensors, sensors: tuple[str, ...]) -> Diagnosis:
    """Ask what is lost: sensors as a whole, and their changes from cell to cell."""
    x, here = held_out.x, _here(held_out)
    rebuilt = network(x)
    seen = slice(network.n_unscored, None)
    explained = _explained(rebuilt[..., seen], x[..., seen], here[..., seen])
    both = here[..., 1:] * here[..., :-1]
    detail = _explained(rebuilt.diff()[..., seen], x.diff()[..., seen], both[..., seen], of_change=True)
    known = {name: value for name, value in zip(sensors, explained, strict=True) if value is not None}
    # For white noise the mean square of a change is twice the variance.
    jumps = _mean(x.diff().square(), both) / (2 * _mean((x - _mean(x, here)[:, None]).square(), here)).clamp(min=1e-12)
    noisy = {name for name, jump in zip(sensors, jumps.tolist(), strict=True) if jump > LIKE_NOISE}
    not_rebuilt = [name for name, value in known.items() if value < NOT_REBUILT]
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
                f"{NOT_REBUILT:.0%} of the variance on held-out windows); a fault there shows only when values leave "
                "their usual range"
            )
        if noise:
            troubles.append(
                f"noise: {_named(noise)} cannot be rebuilt by anything, each reading says little of the next; a fault "
                "there shows only when values leave their usual range"
            )
    facts = {
        "detail_explained": {name: value for name, value in zip(sensors, detail, strict=True) if value is not None},
        "not_rebuilt": not_rebuilt,
    }
    return Diagnosis(facts, troubles)


def _copying(network: Network, held_out: Tensors) -> Diagnosis:
    """Ask whether it rebuilds what cannot be: noise, cells out of order, sensors of different moments."""
    x, draw = held_out.x, torch.Generator().manual_seed(0)
    n, n_sensors, length = x.shape
    noise = NOISE * torch.randn(x.shape, generator=draw).to(x.device)
    passed = float(((network(x + noise) - network(x)) * noise).sum() / noise.square().sum())
    facts: dict[str, Any] = {"noise_passed": round(passed, 3)}
    troubles = []
    if passed > PASSES_NOISE:
        troubles.append(
            f"copying: {passed:.0%} of the noise in a window comes out again; faults will be rebuilt as well as "
            "healthy windows"
        )

    def ratio(implausible: torch.Tensor) -> float:
        errors = (typical(window_errors(network, Tensors(each, held_out.present))) for each in (implausible, x))
        return next(errors) / max(next(errors), 1e-12)

    shuffled = x[..., torch.randperm(length, generator=draw).to(x.device)]
    facts["shuffled_time"] = round(ratio(shuffled), 3)
    if facts["shuffled_time"] < TOO_ALIKE:
        troubles.append(
            "windows with their cells in random order are rebuilt as well as healthy ones: the order of readings "
            "tells this network nothing, as with white noise"
        )
    if n_sensors > 1 and n > 1:
        # Half of the sensors stay, the others come from the window half the set away.
        moved = torch.randperm(n_sensors, generator=draw)[: n_sensors // 2].to(x.device)
        swapped = x.clone()
        swapped[:, moved] = x.roll(n // 2, 0)[:, moved]
        facts["swapped_sensors"] = round(ratio(swapped), 3)
        if facts["swapped_sensors"] < TOO_ALIKE:
            troubles.append(
                "windows whose sensors come from different moments are rebuilt as well as healthy ones: to this "
                "network the sensors do not belong together, and it will not notice when they no longer do"
            )
    return Diagnosis(facts, troubles)


def _code(network: Network, held_out: Tensors) -> Diagnosis:
    """Ask whether the code is used."""
    try:
        z = network.encode(held_out.x).flatten(1)                        # (N, code)
    except NotImplementedError:
        return Diagnosis({}, [])
    n_numbers, variance = z.shape[1], z.var(0, correction=0)
    if isinstance(network, Variational):
        mean, log_variance = network.posterior(held_out.x)
        nats = float(kl_divergence(mean, log_variance).sum(1).mean())
        n_active = int((variance > ACTIVE).sum())
        facts: dict[str, Any] = {"code": n_numbers, "code_active": n_active, "code_nats": round(nats, 3)}
        collapsed = n_active == 0 or nats < 0.1
        why = "posterior collapse: the decoder ignores the code and returns the mean; train it with plain or denoising"
        return Diagnosis(facts, [why] if collapsed else [])
    n_active = int((variance > NO_VARIANCE * variance.mean()).sum()) if variance.mean() > 1e-12 else 0
    troubles = []
    if n_active <= n_numbers // 2:
        troubles.append(f"collapse: only {n_active} of the code's {n_numbers} numbers ever change")
    return Diagnosis({"code": n_numbers, "code_active": n_active}, troubles)


def _explained(
    rebuilt: torch.Tensor, x: torch.Tensor, here: torch.Tensor, *, of_change: bool = False
) -> list[float | None]:
    """Return each sensor's explained variance; None: it stood still."""
    n = here.sum((0, 2)).clamp(min=1)
    mean = torch.zeros_like(n) if of_change else (x * here).sum((0, 2)) / n
    total = ((x - mean[:, None]).square() * here).sum((0, 2))            # (C,)
    left = ((rebuilt - x).square() * here).sum((0, 2))
    return [
        round(1 - one / all_, 4) if all_ > 1e-6 * count else None
        for one, all_, count in zip(left.tolist(), total.tolist(), n.tolist(), strict=True)
    ]


def _mean(of: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Return each sensor's mean over the cells that are there, (C,)."""
    return (of * here).sum((0, 2)) / here.sum((0, 2)).clamp(min=1)


def _named(sensors: list[str]) -> str:
    return ", ".join(sensors[:8]) + (f" and {len(sensors) - 8} more" if len(sensors) > 8 else "")


def _here(windows: Tensors) -> torch.Tensor:
    return torch.ones_like(windows.x) if windows.present is None else windows.present.to(windows.x.dtype)
