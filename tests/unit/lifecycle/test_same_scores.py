"""Every part that judges a version scores a window as the pipeline does: with its asset and its time."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.explain import Evidence
from monitor.lifecycle.drills import drill
from monitor.lifecycle.fault_memory import remember
from monitor.lifecycle.gate import Limits, judge
from monitor.models.calendar import N_HOURS, Calendar, Days
from monitor.models.detector import TrainedModel
from monitor.store.evidence_chunks import Chunk, encode
from monitor.types import ConfirmedFault
from tests.drilled import FLEET, INTERVAL_US, LENGTH, NAMES, STRIDE, model, readings, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.detector import WindowScores
    from monitor.types import Float32, Int64

ROOT = Path(__file__).resolve().parents[3]
BUDGET = Budget(7.0, 3, 5, 6, STRIDE * 60.0)


@cache
def with_calendar() -> TrainedModel:
    """Return a version whose threshold differs from hour to hour."""
    factors = tuple(1 + 0.5 * (hour % 2) for hour in range(3 * N_HOURS))
    card = replace(model().card, calendar=Calendar(Days(), factors).to_json())
    return TrainedModel(card, model().members, model().scaler, model().device, held_out=model().held_out)


class Recorder:
    """A version that records the windows that it scores, with their assets and the ends they are said to have."""

    def __init__(self, version: TrainedModel) -> None:
        self._version = version
        self.calls: list[tuple[Float32, Sequence[str] | None, Int64 | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._version, name)

    def score(
        self, values: Float32, assets: Sequence[str] | None = None, *, end_us: Int64 | None = None, **options: Any
    ) -> WindowScores:
        self.calls.append((values, assets, end_us))
        return self._version.score(values, assets, end_us=end_us, **options)

    def check(self) -> int:
        """Check that windows without a fault have the ends that they have in the recording. Return their number."""
        recorded = windows(readings())
        end_of = {each.tobytes(): int(end) for each, end in zip(recorded.values, recorded.end_us, strict=True)}
        n = 0
        assert self.calls
        for values, assets, end_us in self.calls:
            assert end_us is not None
            assert assets == ["p1"] * len(values)
            assert len(end_us) == len(values)
            for each, end in zip(values, end_us.tolist(), strict=True):
                known = end_of.get(np.ascontiguousarray(each).tobytes())
                if known is not None:
                    assert end == known
                    n += 1
        return n


def test_a_drill_scores_windows_at_their_times() -> None:
    recorder: Any = Recorder(with_calendar())
    drill(recorder, windows(readings()), FLEET, NAMES, only=("load",))
    assert recorder.check() > 50


def test_the_gate_scores_windows_at_their_times() -> None:
    challenger: Any = Recorder(with_calendar())
    champion: Any = Recorder(model())
    limits = Limits(NAMES, 60.0, BUDGET, LENGTH, STRIDE)
    judge(challenger, champion, windows(readings()), (), limits)
    assert challenger.check() > 500
    assert champion.check() > 500


def test_fault_memory_scores_windows_at_their_times() -> None:
    first = 4 * STRIDE
    values = readings()[first : first + 4 * LENGTH]
    cells = (first + np.arange(len(values), dtype=np.int64)) * INTERVAL_US
    evidence = Evidence(NAMES, cells, values, values * 0, cells[-1:], np.ones(1, np.float32))
    fault = ConfirmedFault(7, "p1", int(cells[0]), ("load",), "", (encode(Chunk(evidence, 10_000)),))
    recorder: Any = Recorder(with_calendar())
    remember([fault], recorder, None, interval_us=INTERVAL_US, stride=STRIDE)
    assert recorder.check() == (3 * LENGTH) // STRIDE + 1


WITHOUT_TIMES = {"monitor/evaluation/methods.py", "monitor/evaluation/explained.py"}
"""Recordings of `monitor evaluate` have row numbers in place of times, and their versions no calendar."""


ROOMS = ("api.py", "benchmark", "cli", "evaluation", "lifecycle", "replay", "service", "stream")


@pytest.mark.parametrize("room", ROOMS)
def test_each_caller_of_a_version_passes_assets_and_times(room: str) -> None:
    where = ROOT / "monitor" / room
    for path in [where] if where.is_file() else sorted(where.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name in WITHOUT_TIMES:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "score"):
                continue
            owner = node.func.value
            if getattr(owner, "id", getattr(owner, "attr", "")) in ("model", "_model", "version", "detector"):
                passed = {each.arg for each in node.keywords}
                assert "end_us" in passed, f"{name}:{node.lineno}"
                assert len(node.args) == 2 or "assets" in passed, f"{name}:{node.lineno}"
