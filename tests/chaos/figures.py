"""The results of a run, and the table of all runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass
class Figures:
    """One run of one scenario."""

    scenario: str
    seed: int
    records: int = 0
    """Compared by the oracle: the whole log."""
    windows: int = 0
    late: int = 0
    quarantined: int = 0
    duplicate: int = 0
    alerts: int = 0
    scores_checked: int = 0
    """Stored scores that were recomputed (I3)."""
    faults: Counter[str] = field(default_factory=Counter)
    claims: int = 0
    rebuilt: int = 0
    """Claims that read committed records again."""
    fenced: int = 0
    unknown_commits: int = 0
    """COMMITs that the database executed and whose answer was lost."""
    resolved: int = 0
    """Commits that a daemon found to be done already."""
    notifications: int = 0
    """Notifications that arrived."""
    retries: int = 0
    """Requests that the receiver refused or left unanswered."""
    repeated: int = 0
    """Arrivals of notifications that had been accepted before."""
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)
    """All differences and violations, lost and doubled windows included."""
    worst_recovery_s: float | None = None
    """From a fault until the last affected partition moved on. A server's fault affects all."""
    silence_s: float | None = None
    """From the end of the last fault to the next commit of each partition."""
    measured: dict[str, float] = field(default_factory=dict)
    """Figures of this scenario only."""
    vacuous: list[str] = field(default_factory=list)
    """Events that should have occurred and did not: the run proves nothing."""
    skipped: str = ""
    """Reason why this machine cannot run the scenario."""
    seconds: float = 0.0
    commit: str = ""
    """Of the tree."""

    @property
    def is_good(self) -> bool:
        return not self.problems and not self.vacuous


HEAD = (
    "scenario", "seed", "records", "windows", "faults", "claims", "rebuilt", "fenced", "unknown", "resolved",
    "late", "quarant.", "scores", "notified", "retries", "repeated", "lost", "doubled", "problems", "recovery",
    "silence", "seconds",
)  # fmt: skip


def table(runs: Iterable[Figures]) -> str:
    """Return one line per run, then one per scenario with the sums."""
    runs = list(runs)
    lines = [_cells(run, str(run.seed)) for run in runs]
    for scenario in dict.fromkeys(run.scenario for run in runs):
        of_it = [run for run in runs if run.scenario == scenario]
        lines.append(_cells(_sum(of_it), f"{len(of_it)} runs"))
    widths = [max(len(line[i]) for line in [HEAD, *lines]) for i in range(len(HEAD))]
    out = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [HEAD, *lines]]
    for run in runs:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(run.faults.items()))
        measured = ", ".join(f"{name} {value:g}" for name, value in run.measured.items())
        out.append(f"{run.scenario}/{run.seed}: {'; '.join(part for part in (kinds, measured, run.skipped) if part)}")
        out += [f"  VACUOUS: {event}" for event in run.vacuous]
        out += [f"  {problem}" for problem in run.problems[:12]]
    return "\n".join(out)


def _cells(run: Figures, seed: str) -> tuple[str, ...]:
    def s(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    numbers = (
        run.records, run.windows, run.faults.total(), run.claims, run.rebuilt, run.fenced, run.unknown_commits,
        run.resolved, run.late, run.quarantined, run.scores_checked, run.notifications, run.retries, run.repeated,
        run.lost, run.doubled, len(run.problems),
    )  # fmt: skip
    return run.scenario, seed, *map(str, numbers), s(run.worst_recovery_s), s(run.silence_s), f"{run.seconds:.0f}"


def _sum(runs: list[Figures]) -> Figures:
    total = Figures(runs[0].scenario, 0)
    for run in runs:
        for name, value in vars(run).items():
            is_sum = name not in {"seed", "worst_recovery_s", "silence_s"}
            if is_sum and isinstance(value, Counter | list | int | float):
                setattr(total, name, getattr(total, name) + value)
        for name in ("worst_recovery_s", "silence_s"):
            seen = [value for value in (getattr(total, name), getattr(run, name)) if value is not None]
            setattr(total, name, max(seen, default=None))
    return total


def write(path: Path, runs: Iterable[Figures]) -> None:
    """Write all figures as JSON."""
    path.write_text(json.dumps([vars(run) for run in runs], indent=1) + "\n")
