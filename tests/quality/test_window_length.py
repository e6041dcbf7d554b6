"""`window = "auto"` on the healthy heads of recordings: the cycle of repeating signals, and the default elsewhere.

The cycle of a heart, a walk and a pulse can be counted in a plot. No label is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.training.period import DEFAULT_LENGTH, suggested_length
from tests.quality.recordings import load

if TYPE_CHECKING:
    from pathlib import Path

REPEATING = {
    "ucr/109_1sddb40": (190, 225),
    "ucr/121_ECG3": (155, 180),
    "ucr/132_InternalBleeding10": (145, 165),
    "ucr/161_WalkingAceleration1": (105, 120),
}
"""Series → bounds of its cycle in cells."""
SHORT = {"ucr/146_Lab2Cmac011215EPG2": 34, "nab/nyc_taxi": 48}
"""Series → a cycle shorter than the default length."""
OTHERS = (
    "ucr/167_gait1",  # its steps take 313 cells, more than the longest window
    "nab/machine_temperature_system_failure",
    "nab/ambient_temperature_system_failure",
    "skab/valve1_10",
    "tep/fault07",
    "gecco/gecco2018_train",
)


@pytest.mark.parametrize("name", REPEATING)
def test_a_window_holds_one_cycle(name: str, data_dir: Path) -> None:
    recording = load(data_dir, name)
    low, high = REPEATING[name]
    assert low <= suggested_length(recording.values[: recording.train_rows], recording.interval_s).cells <= high


@pytest.mark.parametrize("name", SHORT)
def test_a_short_cycle_keeps_the_usual_one(name: str, data_dir: Path) -> None:
    recording = load(data_dir, name)
    found = suggested_length(recording.values[: recording.train_rows], recording.interval_s)
    assert found.cells == DEFAULT_LENGTH
    assert found.period == pytest.approx(SHORT[name], abs=2)


@pytest.mark.parametrize("name", OTHERS)
def test_other_signals_keep_the_default(name: str, data_dir: Path) -> None:
    recording = load(data_dir, name)
    found = suggested_length(recording.values[: recording.train_rows], recording.interval_s)
    assert (found.cells, found.period) == (DEFAULT_LENGTH, None)
