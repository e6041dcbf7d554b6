"""Members that are solved in closed form: the ensemble of `architecture = "auto"`, and the PCA alone.

Input: standardised windows, early ones and held-out ones. Output: calibrated members, and the errors of each window by
members that had not seen it.
Invariant: no label is used. Scales, weights and threshold are measured on windows before any member learns from them.
The members of the version are then solved again on all healthy windows, because the newest are most like those to come.

Scores of the members are added up (`models.member.ensemble_score`). Each has its own idea of what is expected:

    level            the healthy median
    moving           the steps just before
    autoregression   the last eight steps of all sensors
    cross            the other sensors at the same moment
    short_memory     short stretches seen before
    memory           whole windows seen before
    shape            the form of windows of periodic sensors, at any level
    pca              the relations of all values of the window

On labelled recordings the best single one differs from plant to plant, and choosing one by injected faults was worse
than the PCA alone. Healthy data decide two weights of a member:

    stability    its mean evidence over the held-out time, as a share of that in its worst sixth. A member that drifts
                 has less say. With it the recording of drinking water has a VUS-PR of .645 in place of .552, and no
                 other set of recordings or kind of simulated plant loses more than .01.
    repetition   in a long repeating signal a memory predicts windows that were not seen better than the PCA
                 reconstructs them. Then members that know no past windows see the phase of the cycle, and have less
                 say. This takes the place of stability, which there is that of the cycle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from monitor.models.autoregression import Autoregression
from monitor.models.build import build
from monitor.models.calibrate import find_outliers
from monitor.models.cross import Cross
from monitor.models.member import Member, amplitude, imputer_of, sensor_errors
from monitor.models.memory import Memory
from monitor.models.pca import N_SOLVE, Pca
from monitor.models.residual import SensorErrors, TimeScales, impute
from monitor.models.rows import evenly_spaced
from monitor.models.shape import Shape
from monitor.models.short_memory import N_CELLS, ShortMemory
from monitor.models.spec import MAX_VALUES
from monitor.training.faults import KINDS, inject
from monitor.training.tensors import WindowTensors, chunks, window_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from monitor.models.network import Network
    from monitor.models.spec import ModelSpec
    from monitor.types import Bool, Float32, Int64

N_HISTORY = 16_384
"""Windows that the members are solved on, evenly spaced. More are not needed. Of many sensors they are fewer, at most
`MAX_VALUES` values: each member copies them."""
MEMORIES = ("short_memory", "memory", "shape", "level")
"""Members with full weight in a repeating signal: those of past windows, and the level, which has no phase over a
whole window."""
N_PARTS = 6
"""Parts of the held-out time whose evidence is compared."""
N_FAULTS = 84 * len(KINDS)
N_HEALTHY = 4096
"""Healthy held-out windows that give the level of normal scores, evenly spaced."""
FALSE_SHARE = 0.02
"""Share of healthy windows above the level at which a fault counts as found, the same for all members."""


class Timeline(NamedTuple):
    """Windows in two parts, early and held-out ones, each by asset and time."""

    early: WindowTensors
    early_us: Int64
    """[N], event time of the window's end."""
    held_out: WindowTensors
    held_us: Int64
    """[M]"""
    fold: Int64
    """[M], number of the forward fold, from 0: its windows are scored by members that know those of earlier folds."""
    learnable: Bool
    """[M], False = overlaps an alert: it is scored, and never learnt from."""
    reaches: Int64
    """[M], number of the first fold that the window does not reach into. Members of that fold may learn from it."""
    periodic: Bool
    """[C], sensors with a cycle of at most two windows (`period.periodic_sensors`)."""
    repeats: bool
    """Whether most sensors share a cycle."""
    event: Bool
    """[M], overlaps an alert that was no false alarm (`events`): it is no healthy window either."""
    trusted: Bool
    """[N] of the early windows, accepted as normal: never trimmed."""
    held_trusted: Bool
    """[M] of the held-out windows, accepted as normal: never outliers."""


class Ensemble(NamedTuple):
    """Calibrated members, and what they are calibrated on."""

    members: tuple[Member, ...]
    """The PCA is the last."""
    first_pca: Pca
    """The PCA of the early windows alone."""
    trimmed: Bool
    """[N] of the early windows, left out as suspected faults."""
    outlier: Bool
    """[M] of the held-out windows, suspected of a fault."""
    errors: tuple[SensorErrors, ...]
    """Of each member, its errors of the held-out windows before it learnt from them."""
    table: dict[str, Any]
    """For the card: injected faults that each member finds. Empty = there is one member."""


def fit_ensemble(
    timeline: Timeline, spec: ModelSpec, device: torch.device, on_progress: Callable[[float, str], None]
) -> Ensemble:
    """Solve the members for each forward fold, calibrate them, and solve them again on all windows."""
    early, held_out = timeline.early, timeline.held_out
    first_pca, trimmed = solve_pca(early, spec, timeline.trusted)
    periodic = torch.from_numpy(timeline.periodic).to(device)
    outlier = np.zeros(len(held_out), dtype=bool)
    found: dict[str, list[SensorErrors]] = {}
    networks: dict[str, Network] = {}
    n_folds = int(timeline.fold.max()) + 1

    def history(fold: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows (n, C, T) that members of a fold may learn from, and their times."""
        rows = np.flatnonzero(~trimmed)
        later = np.flatnonzero((timeline.reaches <= fold) & timeline.learnable & ~outlier)
        n_max = max(1, min(N_HISTORY, MAX_VALUES // early.x[0].numel()))
        n_early = min(len(rows), round(n_max * len(rows) / (len(rows) + len(later))))
        rows = rows[evenly_spaced(len(rows), n_early).numpy()]
        later = later[evenly_spaced(len(later), n_max - n_early).numpy()]
        x = torch.cat([early.x[torch.from_numpy(rows)], held_out.x[torch.from_numpy(later)]])
        return x, torch.from_numpy(np.concatenate([timeline.early_us[rows], timeline.held_us[later]]))

    for fold in range(n_folds):
        on_progress(fold / (n_folds + 1), f"fold {fold + 1} of {n_folds}")
        networks = _solve(*history(fold), periodic, spec, device)
        rows = np.flatnonzero(timeline.fold == fold)
        part = held_out.select(torch.from_numpy(rows))
        errors = window_errors(networks["pca"], part)
        outlier[rows] = suspected(
            errors, spec.max_trim, timeline.held_trusted[rows], timeline.event[rows], ~timeline.learnable[rows]
        )
        for name, network in networks.items():
            found.setdefault(name, []).append(errors_of(network, part, networks["pca"]))
    on_progress(n_folds / (n_folds + 1), "all windows")
    order = torch.from_numpy(np.argsort(np.argsort(timeline.fold, kind="stable"), kind="stable"))
    of_members = {name: SensorErrors.concatenated(parts).rows(order) for name, parts in found.items()}
    by_time = np.argsort(timeline.held_us, kind="stable")
    members = _calibrated(networks, of_members, by_time[~outlier[by_time]], repeats=timeline.repeats)
    last = held_out.select(torch.from_numpy(np.flatnonzero((timeline.fold == n_folds - 1) & ~outlier)))
    table = _FaultTrial(early, last, spec.seed).table(members) if len(members) > 1 else {}
    final = _solve(*history(n_folds), periodic, spec, device)
    members = tuple(replace(member, network=final[member.name]) for member in members)
    return Ensemble(members, first_pca, trimmed, outlier, tuple(of_members.values()), table)


def suspected(errors: Float32, max_share: float, trusted: Bool, event: Bool, alerted: Bool) -> Bool:
    """Return the mask [M] of held-out windows that count as faults: events and outliers, less those to be trusted.

    At most `max_share` of the windows are outliers by their errors alone. Outliers that raised an alert count beyond
    that: two things speak against them.
    """
    outlier = event.copy()
    rest = np.flatnonzero(~event & ~trusted)
    if len(rest) and max_share > 0:
        outlier[rest] = find_outliers(errors[rest], max_share) | (find_outliers(errors[rest], 1.0) & alerted[rest])
    return outlier


def solve_pca(training: WindowTensors, spec: ModelSpec, trusted: Bool) -> tuple[Pca, Bool]:
    """Solve the PCA, and solve it again without the outliers. Return it and the mask of the outliers.

    `trusted`: [N], windows that are never outliers.
    """
    pca = Pca.solve(training.x[evenly_spaced(len(training), N_SOLVE)], seed=spec.seed)
    outlier = find_outliers(window_errors(pca, training), spec.max_trim) & ~trusted
    if not outlier.any():
        return pca, outlier
    kept = np.flatnonzero(~outlier)
    kept = kept[evenly_spaced(len(kept), N_SOLVE).numpy()]
    return Pca.solve(training.x[torch.from_numpy(kept)], seed=spec.seed), outlier


def errors_of(network: Network, windows: WindowTensors, imputer: Network | None = None) -> SensorErrors:
    """Return the errors of a network for windows, before any calibration. `imputer`: fills gaps. None = itself."""
    scales, parts = TimeScales.of(network), []
    with torch.inference_mode():
        for part in chunks(windows):
            x = part.x if imputer is None else impute(imputer, part.x, part.present)
            parts.append(sensor_errors(network, scales, x, part.present, imputer=imputer))
    return SensorErrors.concatenated(parts)


def _solve(
    x: torch.Tensor, ends_us: torch.Tensor, periodic: torch.Tensor, spec: ModelSpec, device: torch.device
) -> dict[str, Network]:
    """Solve the members on healthy windows (N, C, T), by name."""
    _, n_sensors, length = x.shape
    pca = Pca.solve(x[evenly_spaced(len(x), N_SOLVE)], seed=spec.seed)
    if spec.architecture == "pca":
        return {"pca": pca}
    networks: dict[str, Network | None] = {
        "level": build("level", n_sensors, length),
        "moving": build("moving", n_sensors, length),
        "autoregression": Autoregression.solve(x),
        "cross": Cross.solve(x),
        # In a short window it would be the memory again, and both would have a say.
        "short_memory": ShortMemory.solve(x, ends_us, seed=spec.seed) if length > N_CELLS else None,
        "memory": Memory.solve(x, ends_us, seed=spec.seed),
        "shape": Shape.solve(x, ends_us, seed=spec.seed, periodic=periodic),
        "pca": pca,
    }
    return {name: network.to(device) for name, network in networks.items() if network is not None}


def _calibrated(
    networks: dict[str, Network], errors: dict[str, SensorErrors], healthy: Int64, *, repeats: bool
) -> tuple[Member, ...]:
    """Calibrate the members on their errors of healthy windows, and weigh them.

    `healthy`: rows of these windows, in order of time. `repeats`: most sensors share a cycle. Elsewhere a short memory
    fits slow readings well, and knows no more.
    """
    rows = torch.from_numpy(healthy)
    of_healthy = {name: found.rows(rows) for name, found in errors.items()}
    size = {name: float(found.error[..., -1].mean()) for name, found in of_healthy.items()}
    others = 1.0
    if repeats and "memory" in size:
        others = min(1.0, size.get("short_memory", size["memory"]) / max(size["pca"], 1e-12))
    members = [Member.fit(name, network, of_healthy[name]) for name, network in networks.items()]
    if len(members) == 1:
        return tuple(members)
    weights = [
        (1.0 if member.name in MEMORIES else others) * (1.0 if repeats else _stability(member, of_healthy[member.name]))
        for member in members
    ]
    return tuple(
        replace(member, weight=float(f"{each:.6g}"), imputes=member.name == "pca")
        for member, each in zip(members, weights, strict=True)
    )


def _stability(member: Member, healthy: SensorErrors) -> float:
    """Return the mean evidence of healthy windows, in order of time, as a share of that in their worst part.

    A member that drifts gives much evidence in some part of the healthy time, and has less say.
    """
    evidence = member.score_of(member.residual.in_units(healthy).of_all).sum(1)               # (N,)
    evidence = evidence[evidence.isfinite()]
    if not len(evidence):
        return 1.0
    parts = torch.stack([part.mean() for part in evidence.tensor_split(min(N_PARTS, len(evidence)))])
    return float(parts.mean() / parts.max().clamp(min=torch.finfo(parts.dtype).tiny))


class _FaultTrial:
    """The same healthy windows and the same injected faults for every member."""

    def __init__(self, training: WindowTensors, healthy: WindowTensors, seed: int) -> None:
        self._healthy = healthy.select(evenly_spaced(len(healthy), N_HEALTHY))
        rows = np.linspace(0, len(healthy) - 1, N_FAULTS).round().astype(np.int64)
        base = healthy.select(torch.from_numpy(rows))
        pool = training.x[evenly_spaced(len(training), N_HEALTHY)]
        x, self._kinds = inject(base.x, base.present, pool, seed)
        self._faulty = WindowTensors(x, base.present)

    def table(self, members: Sequence[Member]) -> dict[str, Any]:
        """Return the card's table: faults found by each member alone, and by the ensemble."""
        with torch.inference_mode():
            both = (self._healthy, self._faulty)
            scores = [[_scores(member, windows, imputer_of(members)) for windows in both] for member in members]
        rows = [self._row([member], [each]) for member, each in zip(members, scores, strict=True)]
        return {
            "chosen": members[-1].name,
            "objective": "plain",
            "n_faults": N_FAULTS,
            "false_share": FALSE_SHARE,
            "renewed": "every member",
            "failed": {},
            "rows": [*rows, self._row(members, scores)],
        }

    def _row(self, members: Sequence[Member], scores: Sequence[Sequence[torch.Tensor]]) -> dict[str, Any]:
        """Return the card's row of these members: the share of faults that they find together."""
        healthy, faulty = (amplitude(members, [each[which] for each in scores]).cpu().numpy() for which in (0, 1))
        # A member that knows few sensors may have no score at all in the last fold.
        level = np.nanquantile(healthy, 1 - FALSE_SHARE) if np.isfinite(healthy).any() else np.inf
        found: NDArray[np.bool_] = faulty > level
        by_kind = {kind: round(float(found[self._kinds == number].mean()), 3) for number, kind in enumerate(KINDS)}
        return {
            "members": [member.name for member in members],
            "found": round(float(found.mean()), 4),
            "by_kind": by_kind,
        }


def _scores(member: Member, windows: WindowTensors, imputer: Network | None) -> torch.Tensor:
    return member.score_of(member.residual.in_units(errors_of(member.network, windows, imputer)).of_all)
