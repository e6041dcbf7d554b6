"""`architecture = "auto"`: choice of the network that joins the plain statistics, by injected faults.

Input: standardised training windows and healthy held-out ones. Output: the members of the ensemble, and the table.
Invariant: the choice is made on held-out normal data with faults injected into copies of it. No label is used. The
share of faults that each candidate found goes into the card.

Scores of four members are added up (`models.member.ensemble_score`): the distance from the healthy median, from the
moving mean, from the principal components, and from a network's reconstruction. On labelled recordings the best single
one differs from plant to plant, and healthy data cannot predict it. The one that finds most injected faults was worse
than the PCA alone (VUS-PR, mean of sets: .645 against .669). The sum of all was better than each (.70). So the only
choice is the network that joins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from monitor.errors import TrainingDiverged
from monitor.models.build import build
from monitor.models.member import Member
from monitor.models.pca import N_SOLVE, Pca
from monitor.models.residual import squared_error
from monitor.training.faults import KINDS, inject
from monitor.training.loop import train
from monitor.training.tensors import WindowTensors, chunks, evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.models.network import Network
    from monitor.models.spec import ModelSpec
    from monitor.training.loop import TrainingResult

CANDIDATES = {"dense": "denoising", "conv": "denoising"}
"""Architecture → objective. Denoising drops whole sensors in training. So the network learns the relations between
sensors, which the other members model little, and works for assets that lack a sensor.

`forecast` is left out: it takes three to five times as long as `conv` to train and to score (with it among the
candidates the mean of sets was .694, without .705). So is `lstm`: it takes as long, and alone finds as much as `conv`
(.672 and .666)."""
N_FAULTS = 84 * len(KINDS)
N_HEALTHY = 4096
"""Healthy held-out windows that give the level of normal scores, evenly spaced."""
FALSE_SHARE = 0.02
"""Share of healthy windows above the level at which a fault counts as found, the same for all candidates."""


class Choice(NamedTuple):
    """Members of the ensemble, and the reason for the choice."""

    members: tuple[Member, ...]
    """Calibrated on held-out windows that none of them was trained on. The network is the last."""
    result: TrainingResult
    table: dict[str, Any]


def choose(
    training: WindowTensors,
    healthy: WindowTensors,
    pca: Pca,
    spec: ModelSpec,
    device: torch.device,
    on_progress: Callable[[float, str], None],
    now: Callable[[], float],
) -> Choice:
    """Train the candidates, each in its share of the time, and choose. Raises TrainingDiverged when all did."""
    _, n_sensors, length = healthy.x.shape
    fixed = [
        calibrated_member(name, build(name, n_sensors, length).to(device), healthy) for name in ("level", "moving")
    ]
    fixed.append(calibrated_member("pca", pca, healthy))
    deadline = now() + spec.max_train_s
    trained: dict[str, tuple[Member, TrainingResult]] = {}
    failed: dict[str, str] = {}
    for i, (name, objective) in enumerate(CANDIDATES.items()):
        left_s = max(1.0, deadline - now()) / (len(CANDIDATES) - i)
        own = replace(spec, architecture=name, objective=objective, max_train_s=left_s)

        def report(share: float, text: str, i: int = i, name: str = name) -> None:
            on_progress((i + share) / len(CANDIDATES), f"{name}: {text}")

        try:
            result = train(training, healthy, own, device, report, now, pca)
        except TrainingDiverged as error:
            failed[name] = error.detail or str(error)
        else:
            trained[name] = calibrated_member(name, result.network, healthy), result
    if not trained:
        raise TrainingDiverged("; ".join(f"{name}: {why}" for name, why in failed.items()))
    table = _compare(_FaultTrial(training, healthy, spec.seed), fixed, [member for member, _ in trained.values()])
    member, result = trained[table["chosen"]]
    return Choice((*fixed, member), result, {**table, "failed": failed})


def _compare(trial: _FaultTrial, fixed: list[Member], candidates: list[Member]) -> dict[str, Any]:
    """Return the card's table: faults found by each member alone, and by the ensemble with each candidate."""
    scores = {member.name: trial.scores(member) for member in [*fixed, *candidates]}
    alone = [trial.row([name], scores) for name in scores]
    names = [member.name for member in fixed]
    ensembles = {member.name: trial.row([*names, member.name], scores) for member in candidates}
    chosen = max(ensembles, key=lambda name: ensembles[name]["found"])
    return {
        "chosen": chosen,
        "objective": CANDIDATES[chosen],
        "n_faults": N_FAULTS,
        "false_share": FALSE_SHARE,
        "renewed": "pca",
        "rows": [*alone, trial.row(names, scores), *ensembles.values()],
    }


def refit_pca(
    members: tuple[Member, ...], training: WindowTensors, healthy: WindowTensors, seed: int
) -> tuple[Member, ...]:
    """Solve the PCA among the members again, on the held-out windows too: the newest are most like those to come.

    To be called after all measurements: scales and threshold stay those of windows that the PCA had not seen.
    """
    newest = healthy.x[evenly_spaced(len(healthy), N_SOLVE // 5)]
    both = torch.cat([training.x[evenly_spaced(len(training), 4 * N_SOLVE // 5)], newest])
    return tuple(
        replace(member, network=Pca.solve(both, seed=seed)) if isinstance(member.network, Pca) else member
        for member in members
    )


def calibrated_member(name: str, network: Network, healthy: WindowTensors) -> Member:
    """Calibrate a network on healthy held-out windows."""
    with torch.inference_mode():
        squared = torch.cat([squared_error(network, part.x, part.present) for part in chunks(healthy)])
        return Member.fit(name, network, squared, healthy.present)


class MemberScores(NamedTuple):
    """Scores of a member, summed over its time scales."""

    healthy: NDArray[np.float32]
    """[n], of healthy windows."""
    faulty: NDArray[np.float32]
    """[N_FAULTS]"""


class _FaultTrial:
    """The same healthy windows and the same injected faults for every candidate."""

    def __init__(self, training: WindowTensors, healthy: WindowTensors, seed: int) -> None:
        self._healthy = healthy.select(evenly_spaced(len(healthy), N_HEALTHY))
        rows = np.linspace(0, len(healthy) - 1, N_FAULTS).round().astype(np.int64)
        base = healthy.select(torch.from_numpy(rows))
        pool = training.x[evenly_spaced(len(training), N_HEALTHY)]
        x, self._kinds = inject(base.x, base.present, pool, seed)
        self._faulty = WindowTensors(x, base.present)

    def scores(self, member: Member) -> MemberScores:
        """Return a member's scores of the healthy windows and of the faulty ones."""
        with torch.inference_mode():
            healthy, faulty = (
                torch.cat([member.score(part.x, part.present)[0].sum(1) for part in chunks(windows)]).cpu().numpy()
                for windows in (self._healthy, self._faulty)
            )
        return MemberScores(healthy, faulty)

    def row(self, names: list[str], scores: dict[str, MemberScores]) -> dict[str, Any]:
        """Return the card's row of these members: the share of faults that they find together."""
        healthy, faulty = (np.sum([scores[name][which] for name in names], axis=0) for which in (0, 1))
        found = faulty > np.nanquantile(healthy, 1 - FALSE_SHARE)
        by_kind = {kind: round(float(found[self._kinds == number].mean()), 3) for number, kind in enumerate(KINDS)}
        return {"members": names, "found": round(float(found.mean()), 4), "by_kind": by_kind}
