"""The configuration of a recording that is replayed without a registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monitor.config import parse
from monitor.recordings import FileOptions
from monitor.recordings.recording import Recording
from monitor.replay.from_files import config_for_recording
from monitor.replay.versions import train_on_head

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


def test_the_head_chooses_the_windows(tmp_path: Path) -> None:
    at = np.arange(1500, dtype=np.int64)
    values = np.sin(2 * np.pi * at / 90)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((1500, 1))
    head = Recording(
        "pump", ("flow",), at * 60_000_000, values.astype(np.float32), ("pump",), np.zeros(1500, np.int32), None
    )
    config = parse({"kafka": KAFKA, "fleet": [fleet("all") | {"window": "auto", "model": {"architecture": "pca"}}]})
    made, of_file, _, _ = config_for_recording(head, PATH, config, options=FileOptions(interval_s=60))
    assert (of_file.window, of_file.length, of_file.max_gap_cells) == (None, 64, 8)
    version = train_on_head(made, of_file, head, tmp_path, lambda _share, _text: None)
    assert version.length == 90
    assert version.notes[-1] == "windows of 90 cells: one cycle of the sensors (90 cells, 1h30m)"
    assert made.with_lengths({of_file.name: 90}).fleets[0].max_gap_cells == 11
