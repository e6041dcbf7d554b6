"""`architecture = "auto"`: which network speaks beside the plain statistics, decided by faults that nobody labelled.

In: standardised windows to learn from and held-out healthy ones. Out: the voices of the detector, and the table.
Law: the choice is made on held-out normal data with faults injected into copies of it; no label is used, and the
table of what each candidate found goes into the card.

Four voices are added up (`models.member.blend`): how far from usual, how far from a moment ago, how far from the
principal components, and how far from what a network expects. On labelled recordings the best single one differs from
plant to plant and cannot be told from healthy data: to take the one that finds most injected faults was worse than the
PCA alone (VUS-PR, mean of sets: .645 against .669), to add all up was better than each (.70). So what is chosen is
which network joins.
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
from monitor.training.loop import Tensors, chunks, evenly, learn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.models.network import Network
    from monitor.models.spec import ModelSpec
    from monitor.training.loop import Learnt

CANDIDATES = {"dense": "denoising", "conv": "denoising"}
"""Architecture → objective. Denoising, because it drops whole sensors while it learns: so the network learns what they
have to do with one another, which the other voices know little of, and serves assets that lack one.

Not `forecast`, which takes three to five times as long as `conv` to train and to score (with it among the candidates
the mean of sets was .694, without .705), and not `lstm`, which takes as long and alone finds as much as `conv` (.672
and .666)."""
N_FAULTS = 84 * len(KINDS)
N_CALM = 4096
"""Healthy held-out windows that say what is usual, evenly spaced."""
FALSE_SHARE = 0.02
"""Of healthy windows that may be above the level at which a fault counts as found: all candidates at the same cost."""


class Choice(NamedTuple):
    """Who speaks, and why."""

    members: tuple[Member, ...]
    """As calibrated on held-out windows that none of them has learnt from; the network last."""
    learnt: Learnt
    table: dict[str, Any]


def choose(
    learning: Tensors,
    clean: Tensors,
    pca: Pca,
    spec: ModelSpec,
    device: torch.device,
    on_progress: Callable[[float, str], None],
    now: Callable[[], float],
) -> Choice:
    """Train the candidates, each in its share of the time, and choose. Raises TrainingDiverged when all did."""
    _, n_sensors, length = clean.x.shape
    always = [member(name, build(name, n_sensors, length).to(device), clean) for name in ("level", "moving")]
    always.append(member("pca", pca, clean))
    deadline = now() + spec.max_train_s
    trained: dict[str, tuple[Member, Learnt]] = {}
    failed: dict[str, str] = {}
    for i, (name, objective) in enumerate(CANDIDATES.items()):
        left_s = max(1.0, deadline - now()) / (len(CANDIDATES) - i)
        own = replace(spec, architecture=name, objective=objective, max_train_s=left_s)

        def show(share: float, text: str, i: int = i, name: str = name) -> None:
            on_progress((i + share) / len(CANDIDATES), f"{name}: {text}")

        try:
            learnt = learn(learning, clean, own, device, show, now, pca)
        except TrainingDiverged as error:
            failed[name] = error.detail or str(error)
        else:
            trained[name] = member(name, learnt.network, clean), learnt
    if not trained:
        raise TrainingDiverged("; ".join(f"{name}: {why}" for name, why in failed.items()))

    trial = _Trial(learning, clean, spec.seed)
    voices = {voice.name: trial.evidence(voice) for voice in [*always, *(voice for voice, _ in trained.values())]}
    rows = [trial.row([name], voices) for name in voices]
    usual = [voice.name for voice in always]
    blends = {name: trial.row([*usual, name], voices) for name in trained}
    chosen = max(blends, key=lambda name: blends[name]["found"])
    network, learnt = trained[chosen]
    return Choice(
        (*always, network),
        learnt,
        {
            "chosen": chosen,
            "objective": CANDIDATES[chosen],
            "n_faults": N_FAULTS,
            "false_share": FALSE_SHARE,
            "renewed": "pca",
            "rows": [*rows, trial.row(usual, voices), *blends.values()],
            "failed": failed,
        },
    )


def renewed(members: tuple[Member, ...], learning: Tensors, clean: Tensors, seed: int) -> tuple[Member, ...]:
    """Solve the PCA among the members again, on the held-out windows too: the newest are the most like what comes.

    Only after all is measured: scales and threshold stay those of windows that it had not seen.
    """
    both = torch.cat([learning.x[evenly(len(learning), 4 * N_SOLVE // 5)], clean.x[evenly(len(clean), N_SOLVE // 5)]])
    return tuple(
        replace(one, network=Pca.solve(both, seed=seed)) if isinstance(one.network, Pca) else one for one in members
    )


def member(name: str, network: Network, clean: Tensors) -> Member:
    """Calibrate a network on healthy held-out windows."""
    with torch.inference_mode():
        squared = torch.cat([squared_error(network, part.x, part.present) for part in chunks(clean)])
        return Member.fit(name, network, squared, clean.present)


class Heard(NamedTuple):
    """A voice's evidence, summed over its time scales."""

    calm: NDArray[np.float32]
    """[n], in healthy windows."""
    faulty: NDArray[np.float32]
    """[N_FAULTS]"""


class _Trial:
    """The same healthy windows and the same faults for every candidate."""

    def __init__(self, learning: Tensors, clean: Tensors, seed: int) -> None:
        self._calm = clean.take(evenly(len(clean), N_CALM))
        spoilt = clean.take(torch.from_numpy(np.linspace(0, len(clean) - 1, N_FAULTS).round().astype(np.int64)))
        x, self._kinds = inject(spoilt.x, spoilt.present, learning.x[evenly(len(learning), N_CALM)], seed)
        self._faulty = Tensors(x, spoilt.present)

    def evidence(self, voice: Member) -> Heard:
        """Return what a voice says of the calm windows and of the faulty ones."""
        with torch.inference_mode():
            calm, faulty = (
                torch.cat([voice.score(part.x, part.present)[0].sum(1) for part in chunks(windows)]).cpu().numpy()
                for windows in (self._calm, self._faulty)
            )
        return Heard(calm, faulty)

    def row(self, names: list[str], voices: dict[str, Heard]) -> dict[str, Any]:
        """Return what these voices find together."""
        calm, faulty = (np.sum([voices[name][which] for name in names], axis=0) for which in (0, 1))
        found = faulty > np.nanquantile(calm, 1 - FALSE_SHARE)
        by_kind = {kind: round(float(found[self._kinds == number].mean()), 3) for number, kind in enumerate(KINDS)}
        return {"members": names, "found": round(float(found.mean()), 4), "by_kind": by_kind}
