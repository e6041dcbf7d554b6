"""Explanations of injected faults on labelled recordings: the faulty sensors are among the first two blamed ones.

The floor is below what was measured, for another machine's arithmetic and the few faults of one recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.evaluation.explained import ExplainedFaults
from monitor.evaluation.methods import ScoreSettings, parse_method, score
from monitor.evaluation.series import UnlabelledSeries
from tests.quality.recordings import load

if TYPE_CHECKING:
    from pathlib import Path

RECORDINGS = ("skab/valve1_10", "tep/fault07")


@pytest.mark.parametrize("method", ["pca", "conv"])
def test_faulty_sensors_are_blamed_first(method: str, data_dir: Path) -> None:
    settings = ScoreSettings(max_train_s=5.0)
    found = []
    for name in RECORDINGS:
        one = load(data_dir, name)
        data = UnlabelledSeries(one.sensors, one.values, one.train_rows, one.interval_s)
        scores = score(parse_method(method, settings), data, settings, lambda _share, _text: None)
        assert scores.explained is not None
        found.append(scores.explained.row())
    row: dict[str, Any] = ExplainedFaults.of_rows(found).row()
    print(method, row)
    assert row["top2_n"] >= 40
    assert row["top2_hit_rate"] >= 0.8
