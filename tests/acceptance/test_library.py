"""The library decides as the pipeline: the alerts of a frame are those of `monitor replay` for the same readings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from click.testing import CliRunner

from monitor import Detector
from monitor.cli import main
from monitor.store.reader import open_reader
from tests import labelled_recording

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = 16
CONFIG = f"""
kafka = {{bootstrap = "b:9092", topics = ["plant"]}}
fleet = [{{name = "pumps", interval = "1m", window = {WINDOW}, model = {{architecture = "pca"}}}}]
"""


def test_a_frame_and_a_replay_raise_the_same_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "monitor.toml").write_text(CONFIG)
    file = labelled_recording.write_csv(tmp_path / "pump.csv", labelled=False)
    words = ["replay", str(file), "--train-rows", str(labelled_recording.N_TRAIN), "--into", "sqlite:///replay.db"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    with open_reader("sqlite:///replay.db") as reader:
        replayed: list[dict[str, Any]] = list(reversed(reader.alerts()))
    assert len(replayed) == json.loads(done.stdout)["alerts"] == len(labelled_recording.EVENTS)

    frame = pd.read_csv(file)
    detector = Detector(window=WINDOW, architecture="pca").fit(frame[: labelled_recording.N_TRAIN])
    found = detector.alerts(frame[labelled_recording.N_TRAIN - WINDOW + 1 :])
    assert [(a.start, a.end, str(a.severity)) for a in found] == [
        (as_time(a["opened_at"]), as_time(a["closed_at"]), a["severity"]) for a in replayed
    ]
    assert [a.peak for a in found] == pytest.approx([a["peak_score"] for a in replayed])
    assert [[s.name for s in a.sensors] for a in found] == [[s["name"] for s in a["sensors"]] for a in replayed]


def as_time(value: object) -> Any:
    return None if value is None else pd.Timestamp(str(value)).to_pydatetime()
