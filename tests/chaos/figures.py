"""What a run showed, and the table of all runs."""

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
    """Judged by the oracle: all of the log."""
    windows: int = 0
    late: int = 0
    quarantined: int = 0
    duplicate: int = 0
    alerts: int = 0
    scores_checked: int = 0
    """Stored scores computed again in one batch (I3)."""
    faults: Counter[str] = field(default_factory=Counter)
    claims: int = 0
    rebuilt: int = 0
    """Claims that read records again which were saved before."""
    fenced: int = 0
    unknown_commits: int = 0
    """COMMITs whose answer was lost on the way, after the database had done it."""
    resolved: int = 0
    """Those that the daemon found to be done."""
    letters: int = 0
    """Of alerts' steps, that arrived at the webhook."""
    retries: int = 0
    """Tries that the receiver refused or left unanswered."""
    twice: int = 0
    """Letters that arrived again although they had been answered well."""
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)
    """Every difference and violation, these two kinds included."""
    worst_recovery_s: float | None = None
    """From a fault until the last of the partitions concerned moved on; of a server's fault all are."""
    silence_s: float | None = None
    """From the last fault healed to the next save."""
    measured: dict[str, float] = field(default_factory=dict)
    """What only this scenario measures."""
    vacuous: list[str] = field(default_factory=list)
    """What was meant to happen and did not: the run proves nothing."""
    skipped: str = ""
    """Why it could not be tried on this machine."""
    seconds: float = 0.0
    commit: str = ""
    """Of the tree."""

    @property
    def is_good(self) -> bool:
        return not self.problems and not self.vacuous


HEAD = (
    "scenario", "seed", "records", "windows", "faults", "claims", "rebuilt", "fenced", "unknown", "resolved",
    "late", "quarant.", "scores", "letters", "retries", "twice", "lost", "doubled", "problems", "recovery", "silence",
    "seconds",
)  # fmt: skip


def table(runs: Iterable[Figures]) -> str:
    """One line per run, then one per scenario with the sums."""
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
        out += [f"  VACUOUS: {what}" for what in run.vacuous]
        out += [f"  {problem}" for problem in run.problems[:12]]
    return "\n".join(out)


def _cells(run: Figures, seed: str) -> tuple[str, ...]:
    def s(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    numbers = (
        run.records, run.windows, run.faults.total(), run.claims, run.rebuilt, run.fenced, run.unknown_commits,
        run.resolved, run.late, run.quarantined, run.scores_checked, run.letters, run.retries, run.twice, run.lost,
        run.doubled, len(run.problems),
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
    """Write all of it as JSON."""
    path.write_text(json.dumps([vars(run) for run in runs], indent=1) + "\n")
