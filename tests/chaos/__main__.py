"""Run scenarios in turn with seeds S, S+1, … until the time is over. Print a table. Exit 1 on any violation."""

from __future__ import annotations

import argparse
import itertools
import logging
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.chaos.environment import Servers, scratch, tree_commit
from tests.chaos.figures import Figures, table, write
from tests.chaos.mutant import MUTATIONS
from tests.chaos.scenarios import SCENARIOS, SHORT


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/chaos/run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="a started run is finished")
    parser.add_argument("--runs", type=int, help="end after so many runs")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--scenario", default=",".join(SCENARIOS), help="of " + ", ".join(SCENARIOS))
    parser.add_argument("--mutation", choices=MUTATIONS, help="give the daemons this defect, which must be found")
    parser.add_argument("--short", action="store_true", help="the sizes of CI")
    parser.add_argument("--report", type=Path, help="write the figures as JSON into this file, after every run")
    asked = parser.parse_args()
    chosen = asked.scenario.split(",")
    if unknown := set(chosen) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our own clients, which meet the same faults
    hooks = (asked.mutation,) if asked.mutation else ()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"tests/chaos/run --seed {asked.seed} --scenario {asked.scenario}  (tree {tree_commit()})", flush=True)
    runs: list[Figures] = []
    folder, until = scratch(), time.monotonic() + 60 * asked.minutes
    try:
        with Servers(folder) as servers:
            for number, (name, seed) in enumerate(zip(itertools.cycle(chosen), itertools.count(asked.seed))):
                if (time.monotonic() >= until and number) or number == asked.runs:
                    break
                print(f"{time.strftime('%H:%M:%S')} {name} with seed {seed} …", flush=True)
                try:
                    figures = SCENARIOS[name](servers, seed, hooks=hooks, **(SHORT[name] if asked.short else {}))
                except Exception:  # noqa: BLE001  # reported as a problem of this run
                    figures = Figures(name, seed, problems=[traceback.format_exc()])
                runs.append(figures)
                print(table([figures]).splitlines()[1], "ok" if figures.is_good else "NOT GOOD", flush=True)
                for text in figures.problems[:3] + figures.vacuous:
                    print(f"  {text[:1500]}", flush=True)
                if asked.report is not None:
                    write(asked.report, runs)
    finally:
        if runs:
            print("\n" + table(runs), flush=True)
        if all(run.is_good for run in runs):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")
    return 0 if runs and all(run.is_good for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
