"""Run thousands of seeds and report the faults, the comparisons and the violations.

    python -m tests.simulation --seeds 10000 --jobs 2
    python -m tests.simulation --start 53 --seeds 1 --trace     all events, line by line
    python -m tests.simulation --mutation rewind --seeds 200    must fail

Exit code 1 if there was a violation, or if a fault or comparison of MUST_HAPPEN never occurred.
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
    "compared evidence",
    "compared thinned evidence",
    "compared notifications",
    "compared records_lost alerts",
    "compared asset_limit alerts",
    "closed data alerts",
    "gaps",
    "snapshots",
    "activations",
    "modelschanged",
    "promotions",
    "roll-backs",
    "refused promotions",
    "compared with reference",
)
"""Without one of these a run proves nothing."""
CHUNK = 25
REPORT_EVERY = 1000
SHOWN = 20


def report(counts: Counter[str], failed: Sequence[Outcome], n_seeds: int, took_s: float, cpu_s: float) -> Iterator[str]:
    """Yield the lines of the report."""
    compared = {name.removeprefix("compared "): n for name, n in sorted(counts.items()) if name.startswith("compared ")}
    happened = {name: n for name, n in sorted(counts.items()) if not name.startswith("compared ")}
    yield f"seeds        {n_seeds} in {took_s:.0f} s; {cpu_s / max(n_seeds, 1) * 1000:.0f} ms of CPU a seed"
    yield "happened     " + ", ".join(f"{name} {n}" for name, n in happened.items())
    yield "compared     " + ", ".join(f"{name} {n}" for name, n in compared.items())
    yield f"violations   {sum(len(each.violations) for each in failed)} in {len(failed)} seeds"
    for outcome in failed[:SHOWN]:
        yield f"  seed {outcome.seed}: {len(outcome.violations)}, first {outcome.violations[0][:300]}"
    if missing := vacuous(counts):
        yield "vacuous      never occurred: " + ", ".join(missing)


def vacuous(counts: Counter[str]) -> list[str]:
    """Return the names in MUST_HAPPEN that never occurred."""
    return [name for name in MUST_HAPPEN if not counts[name]]


def _chunk(work: tuple[range, str | None]) -> tuple[list[Outcome], float]:
    seeds, mutation = work
    began_s = time.process_time()
    return [run(seed, MUTATIONS[mutation] if mutation else None) for seed in seeds], time.process_time() - began_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds. Return 0 if there is no violation and the run is not vacuous."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mutation", choices=MUTATIONS, help="remove a rule of the protocol")
    parser.add_argument("--trace", action="store_true", help="print all events")
    wanted = parser.parse_args(arguments)
    began_s = time.monotonic()
    end = wanted.start + wanted.seeds
    if wanted.trace:
        for seed in range(wanted.start, end):
            simulation = Simulation(seed, MUTATIONS[wanted.mutation] if wanted.mutation else None)
            simulation.run(print)
            print(*simulation.outcome.violations, sep="\n")
        return 0
    chunks = [(range(first, min(first + CHUNK, end)), wanted.mutation) for first in range(wanted.start, end, CHUNK)]
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
                if n_done % REPORT_EVERY == 0:
                    print(f"{n_done} of {wanted.seeds}, {len(failed)} with violations", file=sys.stderr, flush=True)
    failed.sort(key=lambda outcome: outcome.seed)
    print(*report(counts, failed, wanted.seeds, time.monotonic() - began_s, cpu_s), sep="\n")
    return 1 if failed or vacuous(counts) else 0


if __name__ == "__main__":
    sys.exit(main())
