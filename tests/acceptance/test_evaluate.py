"""`monitor evaluate` as a process over real recordings: figures, cached scores, the page, and its child processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from monitor.evaluation.methods import ALWAYS
from tests import labelled_recording as sample
from tests.needs import need

if TYPE_CHECKING:
    from pathlib import Path

RECORDINGS = ("skab/valve1_10", "nab/TravelTime_451")
TIMES = {"fit_s": None, "score_s": None}


def command(*args: object) -> list[str]:
    return [sys.executable, "-c", "from monitor.cli import main; main()", "evaluate", *map(str, args), "--json"]


def run(*args: object) -> dict[str, Any]:
    done = subprocess.run(command(*args), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_processes_and_cache_change_no_figure(data_dir: Path, tmp_path: Path) -> None:
    files = [data_dir / f"{name}.csv.gz" for name in RECORDINGS]
    for file in files:
        need(file.is_file(), f"the recording {file.name}")
    options = ("--methods", "pca,random", "--into", tmp_path / "cache")

    found = run(*files, *options, "--processes", 2, "--report", tmp_path / "out.html")

    rows = {(row["set"], row["name"], row["method"]): row for row in found["series"]}
    assert list(rows) == [
        (*name.split("/"), method) for name in RECORDINGS for method in ("pca", "random", *ALWAYS[1:])
    ]
    # The training part of skab has 400 rows, and a PCA finds its valve fault as well as any other method.
    assert rows["skab", "valve1_10", "pca"]["vus_pr"] > 0.9
    assert rows["skab", "valve1_10", "pca"]["vus_pr"] > rows["skab", "valve1_10", "random"]["vus_pr"] + 0.2
    for row in rows.values():
        assert row["error"] is None
        assert row["events"] == 1
        assert 0 < row["vus_pr"] <= 1
        assert row["false_alarms_per_week"] is not None
    both = [rows[*name.split("/"), "pca"]["vus_pr"] for name in RECORDINGS]
    assert abs(found["mean"]["pca"]["vus_pr"] - sum(both) / 2) < 1e-5
    assert "Missed event" in (tmp_path / "out.html").read_text("utf-8")

    assert run(*files, *options, "--processes", 1) == found, "cached scores give the same figures"

    alone = run(files[0], "--methods", "pca", "--processes", 1)
    scored = [row | TIMES for row in found["series"] if row["set"] == "skab" and row["method"] != "random"]
    assert [row | TIMES for row in alone["series"]] == scored, "another process that scores again gives them, too"


def test_a_kill_leaves_no_child_process(data_dir: Path) -> None:
    file = data_dir / "skab" / "valve1_10.csv.gz"
    need(file.is_file(), f"the recording {file.name}")
    args = command(file, "--methods", "lstm,conv,dense", "--processes", 2)
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "in 2 processes" in process.stderr.readline()
        time.sleep(4)  # the workers load their libraries or train
        process.kill()
        # The pipes are closed when the last process that inherited them has ended.
        process.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_workers(tmp_path: Path, number: int) -> None:
    files = [sample.write_csv(tmp_path / "plant" / f"pump{n}.csv", seed=n) for n in range(3)]
    args = command(*files, "--methods", "lstm,conv,dense", "--processes", 2)
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "in 2 processes" in process.stderr.readline()
        time.sleep(6)  # the workers train
        process.send_signal(number)
        # The pipes are closed when the last process that inherited them has ended.
        _, stderr = process.communicate(timeout=10)
    assert process.returncode in (130, 128 + number)
    assert "leaked" not in stderr
    assert "Traceback" not in stderr
