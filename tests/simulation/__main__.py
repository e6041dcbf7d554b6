"""Thousands of seeds, and a report: what befell them, what was compared, what was violated.

    python -m tests.simulation --seeds 10000 --jobs 2
    python -m tests.simulation --start 53 --seeds 1 --tell      everything that happened, line by line
    python -m tests.simulation --mutation rewind --seeds 200    must fail

Ends with 1 when anything was violated, or when a trouble that a run is for never came.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.mutations import MUTATIONS
from tests.simulation.simulation import Outcome, Simulation, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MUST_HAPPEN = (
    "fenced",
    "rebuilt",
    "unknown",
    "resolved",
    "overdue",
    "deaths",
    "zombies",
    "compared late",
    "compared quarantined",
    "compared duplicate",
    "compared alerts",
    "compared letters",
    "compared records_lost alerts",
    "compared asset_limit alerts",
    "data alerts over",
    "gaps",
    "snapshots",
    "activations",
    "modelschanged",
    "compared with peace",
)
"""A run in which one of these never happened proves nothing."""
AT_A_TIME = 25
SAY_EVERY = 1000
SHOWN = 20


def report(counts: Counter[str], failed: Sequence[Outcome], n_seeds: int, took_s: float, cpu_s: float) -> Iterator[str]:
    """Say what came of it, in lines."""
    compared = {name.removeprefix("compared "): n for name, n in sorted(counts.items()) if name.startswith("compared ")}
    happened = {name: n for name, n in sorted(counts.items()) if not name.startswith("compared ")}
    yield f"seeds        {n_seeds} in {took_s:.0f} s; {cpu_s / max(n_seeds, 1) * 1000:.0f} ms of CPU a seed"
    yield "happened     " + ", ".join(f"{name} {n}" for name, n in happened.items())
    yield "compared     " + ", ".join(f"{name} {n}" for name, n in compared.items())
    yield f"violations   {sum(len(each.violations) for each in failed)} in {len(failed)} seeds"
    for outcome in failed[:SHOWN]:
        yield f"  seed {outcome.seed}: {len(outcome.violations)}, first {outcome.violations[0][:300]}"
    if missing := vacuous(counts):
        yield "vacuous      never happened: " + ", ".join(missing)


def vacuous(counts: Counter[str]) -> list[str]:
    """Name what should have happened and did not."""
    return [name for name in MUST_HAPPEN if not counts[name]]


def _chunk(work: tuple[range, str | None]) -> tuple[list[Outcome], float]:
    seeds, mutation = work
    began_s = time.process_time()
    return [run(seed, MUTATIONS[mutation] if mutation else None) for seed in seeds], time.process_time() - began_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds; 0 = no violation, and nothing was missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mutation", choices=MUTATIONS, help="take a rule out of the protocol")
    parser.add_argument("--tell", action="store_true", help="print all that happens")
    wanted = parser.parse_args(arguments)
    began_s = time.monotonic()
    end = wanted.start + wanted.seeds
    if wanted.tell:
        for seed in range(wanted.start, end):
            simulation = Simulation(seed, MUTATIONS[wanted.mutation] if wanted.mutation else None)
            simulation.live(print)
            print(*simulation.outcome.violations, sep="\n")
        return 0
    chunks = [
        (range(first, min(first + AT_A_TIME, end)), wanted.mutation) for first in range(wanted.start, end, AT_A_TIME)
    ]
    counts: Counter[str] = Counter()
    failed: list[Outcome] = []
    cpu_s, n_done = 0.0, 0
    with multiprocessing.Pool(wanted.jobs) as pool:
        for outcomes, chunk_s in pool.imap_unordered(_chunk, chunks):
            cpu_s += chunk_s
            for outcome in outcomes:
                counts += outcome.counts
                n_done += 1
                if outcome.violations:
                    failed.append(outcome)
                    print(f"seed {outcome.seed}: {outcome.violations[0][:300]}", file=sys.stderr, flush=True)
                if n_done % SAY_EVERY == 0:
                    print(f"{n_done} of {wanted.seeds}, {len(failed)} with violations", file=sys.stderr, flush=True)
    failed.sort(key=lambda outcome: outcome.seed)
    print(*report(counts, failed, wanted.seeds, time.monotonic() - began_s, cpu_s), sep="\n")
    return 1 if failed or vacuous(counts) else 0


if __name__ == "__main__":
    sys.exit(main())
