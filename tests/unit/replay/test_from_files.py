"""The configuration of a recording that is replayed without a registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monitor.config import parse
from monitor.recordings import FileOptions
from monitor.recordings.recording import Recording
from monitor.replay.from_files import config_for_recording

KAFKA = {"bootstrap": "localhost:9092", "topics": ["t"]}
PATH = Path("nowhere/pump.csv")


def recording(*sensors: str) -> Recording:
    ts_us = np.arange(10, dtype=np.int64) * 60_000_000
    values = np.zeros((10, len(sensors)), np.float32)
    return Recording("pump", sensors, ts_us, values, ("pump",), np.zeros(10, np.int32), None)


def fleet(name: str, *sensors: str) -> dict[str, object]:
    return {"name": name, "interval": "10m", "window": 36, "sensors": list(sensors)} if sensors else {
        "name": name, "interval": "10m", "window": 36}  # fmt: skip


def test_a_fleet_of_other_sensors_is_not_used_and_told() -> None:
    config = parse({"kafka": KAFKA, "fleet": [fleet("mill", "torque", "speed")]})
    _, made, source, notes = config_for_recording(recording("flow"), PATH, config)
    assert (made.sensors, made.interval_us, made.length) == (("flow",), 60_000_000, 64)
    assert source.startswith("the median step")
    expected = "fleet mill of the configuration is not used: the file lacks torque, speed, which it lists"
    assert notes == [expected]


def test_sensors_that_the_file_lacks_are_told() -> None:
    config = parse({"kafka": KAFKA, "fleet": [fleet("mill", "flow", "speed")]})
    _, made, source, notes = config_for_recording(recording("flow", "heat"), PATH, config)
    assert (made.sensors, made.length, source) == (("flow",), 36, "fleet mill")
    expected = "window, model and alerts are those of fleet mill of the configuration"
    assert notes == [f"{expected}, but the file lacks speed, which it lists"]


def test_another_interval_keeps_the_gap_in_cells() -> None:
    config = parse({"kafka": KAFKA, "fleet": [fleet("all")]})
    _, made, _, notes = config_for_recording(recording("flow"), PATH, config, options=FileOptions(interval_s=60))
    assert (made.interval_us, made.max_gap_cells) == (60_000_000, config.fleets[0].max_gap_cells)
    assert notes == ["window, model and alerts are those of fleet all of the configuration"]
