"""A complete but short benchmark run: real processes, records from memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from click.testing import CliRunner

from monitor.benchmark import bench
from monitor.cli import main

if TYPE_CHECKING:
    import pytest

NAMES = ("usual-script", "no-model-stride8", "conv-stride8")


def test_a_run_compares_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(bench.make_plan(NAMES), repeats=1, seconds=0.2, live_s=0, n_records=16_000, in_memory=True)
    monkeypatch.setattr(bench, "make_plan", lambda names, **_: short)

    run = CliRunner().invoke(main, ["bench", "--json"])

    assert run.exit_code == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["source"] == "memory"
    assert [case["name"] for case in found["cases"]] == list(NAMES)
    for case in found["cases"]:
        assert set(case) >= {"device", "readings_per_s", "windows_per_s", "cpu_s_per_million", "rss_mb", "p50_ms"}
        assert case["readings_per_s"] > case["windows_per_s"] * 0.9
        assert case["rss_mb"] > 50
    usual, _, conv = found["cases"]
    assert conv["cpu_ratio"] > 5 * usual["cpu_ratio"]
