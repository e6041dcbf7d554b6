"""The conversion of the public recordings, on small files in the form of each source."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.recordings import read_meta, read_recording
from tests.quality.get_recordings import SOURCES, how_to_get, main, ranges

if TYPE_CHECKING:
    from pathlib import Path


def write_skab(folder: Path) -> None:
    text = "datetime;Pressure;Volume Flow RateRMS;anomaly;changepoint\n"
    rows = [f"2020-03-09 10:{i // 60:02}:{i % 60:02};0.5;{i}.25;{float(i > 450)};0.0" for i in range(500)]
    (folder / "data" / "valve1").mkdir(parents=True)
    (folder / "data" / "valve1" / "10.csv").write_text(text + "\n".join(rows) + "\n")


def write_nab(folder: Path) -> None:
    (folder / "labels").mkdir()
    (folder / "data" / "realTraffic").mkdir(parents=True)
    rows = [f"2015-07-{1 + i // 24:02} {i % 24:02}:00:00,{i}" for i in range(480)]
    (folder / "data" / "realTraffic" / "speed.csv").write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    window = ["2015-07-10 00:00:00.000000", "2015-07-11 00:00:00.000000"]
    (folder / "labels" / "combined_windows.json").write_text(json.dumps({"realTraffic/speed.csv": [window]}))


def write_tep(folder: Path) -> None:
    np.savetxt(folder / "d00.dat", np.ones((52, 500)))
    np.savetxt(folder / "d07_te.dat", np.full((960, 52), 2.0))


def write_smd(folder: Path) -> None:
    (folder / "data" / "processed").mkdir(parents=True)
    parts = {"train": np.zeros((30, 3)), "test": np.ones((20, 3)), "test_label": np.arange(20) >= 15}
    for part, array in parts.items():
        (folder / "data" / "processed" / f"machine-1-6_{part}.pkl").write_bytes(pickle.dumps(array.astype("f4")))


def write_ucr(folder: Path) -> None:
    (folder / "167_UCR_Anomaly_gait1_40_61_70.txt").write_text("\n".join(str(i % 7) for i in range(100)))
    (folder / "059_UCR_Anomaly_DISTORTEDgait1_40_61_70.txt").write_text("1\n2\n")


@pytest.mark.parametrize(
    ("name", "write", "series", "n_sensors", "train_rows", "anomalies"),
    [
        ("skab", write_skab, "valve1_10", 2, 400, [[451, 499]]),
        ("nab", write_nab, "speed", 1, 116, [[216, 240]]),
        ("tep", write_tep, "fault07", 52, 500, [[660, 1459]]),
        ("smd", write_smd, "machine-1-6", 3, 30, [[45, 49]]),
        ("ucr", write_ucr, "167_gait1", 1, 40, [[60, 69]]),
    ],
)
def test_public_files_become_recordings(
    name: str, write, series: str, n_sensors: int, train_rows: int, anomalies: list[list[int]], tmp_path: Path
) -> None:
    files, folder = tmp_path / "files", tmp_path / "data"
    files.mkdir()
    write(files)
    assert main([str(folder), name, "--files", str(files)]) == 0
    [path] = (folder / name).glob("*.csv.gz")
    recording, meta = read_recording(path), read_meta(path)
    assert path.name == f"{series}.csv.gz"
    assert recording.label is not None
    assert recording.values.shape == (len(recording.label), n_sensors)
    assert (meta.set, meta.train_rows, meta.interval_s) == (name, train_rows, SOURCES[name].interval_s)
    assert ranges(recording.label.astype(int).tolist()) == anomalies


def test_a_pickle_with_a_call_is_refused(tmp_path: Path) -> None:
    class ExecutedCall:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("executed",))

    (tmp_path / "data" / "processed").mkdir(parents=True)
    for part in ("train", "test", "test_label"):
        (tmp_path / "data" / "processed" / f"machine-1-6_{part}.pkl").write_bytes(pickle.dumps(ExecutedCall()))
    with pytest.raises(pickle.UnpicklingError, match="print"):
        main([str(tmp_path / "out"), "smd", "--files", str(tmp_path)])


def test_the_reason_of_a_skip_names_source_and_licence() -> None:
    reason = how_to_get("skab", "oil3w")
    assert "skab (github.com/waico/SKAB, GPL-3.0), oil3w (github.com/petrobras/3W, CC BY 4.0)" in reason
    assert "`python -m tests.quality.get_recordings FOLDER skab`" in reason
