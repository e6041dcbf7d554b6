"""`monitor models encode`, `reconstruct` and `sample` over small files."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from monitor.cli import main
from monitor.models.spec import ModelSpec
from monitor.training.fit import fit
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, readings, windows

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner

N = 300


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    specs = {"pca": ModelSpec("pca"), "forecast": ModelSpec("forecast", max_steps=20)}
    specs["vae"] = ModelSpec("dense", "variational", max_steps=20)
    return {name: folder / fit(windows(readings(400)), spec, FLEET_SPEC).save(folder) for name, spec in specs.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording of one machine, one reading a minute, with a gap of five cells in `power`."""
    values = readings(N, 5)
    path = tmp_path / "pump.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["timestamp", "speed", "power"])
        for n, (speed, power) in enumerate(values.tolist()):
            gap = 100 <= n < 105
            table.writerow([f"2026-01-01T{n // 60:02}:{n % 60:02}:00Z", speed, "" if gap else power])
    return path


def run(runner: CliRunner, *words: object) -> dict[str, Any]:
    result = runner.invoke(main, ["models", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_encode_writes_latents_of_windows(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    out, drawing = tmp_path / "latents.parquet", tmp_path / "map.svg"
    found = run(runner, "encode", file, "--checkpoint", checkpoints["pca"], "-o", out, "--map", drawing)
    table = pq.read_table(out)
    assert len(table) == found["windows"] == N - LENGTH + 1
    assert table.column_names[:5] == ["asset", "start", "end", "score", "label"]
    assert len(table.column_names) == 5 + found["latent"]
    assert 0 < sum(found["explained"]) <= 1
    shown = ElementTree.parse(drawing).getroot()
    assert shown.find("{http://www.w3.org/2000/svg}title") is not None
    assert len(shown.findall("{http://www.w3.org/2000/svg}circle")) > N / 2


def test_encode_takes_another_stride(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    found = run(runner, "encode", file, "--checkpoint", checkpoints["vae"], "--stride", 12, "-o", tmp_path / "l.csv")
    assert found["windows"] == 25
    assert found["stride"] == 12


def test_reconstruct_removes_noise_and_fills_gaps(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "clean.csv"
    found = run(runner, "reconstruct", file, "--checkpoint", checkpoints["pca"], "-o", out)
    assert (found["rows"], found["filled"]) == (N, 5)
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    truth = np.cos(np.arange(N) / 3)
    raw = np.array([float(row["power"] or "nan") for row in rows])
    clean = np.array([float(row["power_denoised"]) for row in rows])
    filled = np.array([row["power_filled"] == "true" for row in rows])
    assert np.flatnonzero(filled).tolist() == [100, 101, 102, 103, 104]
    assert np.nanstd(clean - truth) < 0.7 * np.nanstd(raw - truth)
    assert np.abs(clean - truth)[filled].max() < 0.4


def test_samples_are_readable_recordings_near_to_real_ones(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "synthetic.csv"
    found = run(runner, "sample", file, "--checkpoint", checkpoints["vae"], "--n", 50, "--seed", 3, "-o", out)
    by_measure = {each["measure"]: each for each in found["closeness"]}
    assert set(by_measure) == {"ks", "wasserstein", "autocorrelation", "cross_correlation"}
    assert all(value is not None for value in by_measure["ks"]["real"].values())
    first = out.read_bytes()
    run(runner, "sample", "--checkpoint", checkpoints["vae"], "--n", 50, "--seed", 3, "-o", out, "--force")
    assert out.read_bytes() == first, "the same seed gives the same recordings"
    again = run(runner, "encode", out, "--checkpoint", checkpoints["vae"], "-o", tmp_path / "l.csv")
    assert again["windows"] == 50


def test_a_network_without_a_latent_names_those_with_one(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    for command in (["encode", str(file)], ["sample"]):
        words = [*command, "--checkpoint", str(checkpoints["forecast"]), "-o", str(tmp_path / "x.csv")]
        result = runner.invoke(main, ["models", *words])
        assert result.exit_code == 1
        assert "conv, dense, lstm" in result.stderr
    assert not (tmp_path / "x.csv").exists()


def test_foreign_sensors_and_existing_files_are_refused(
    runner: CliRunner, checkpoints: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("timestamp,flow\n" + "\n".join(f"2026-01-01T00:{n:02}:00Z,{n}" for n in range(30)) + "\n")
    words = ["models", "encode", str(other), "--checkpoint", str(checkpoints["pca"]), "-o", str(tmp_path / "x.csv")]
    result = runner.invoke(main, words)
    assert result.exit_code != 0
    assert "knows 0 of the sensors flow" in " ".join(result.stderr.split())
    result = runner.invoke(main, ["models", "encode", str(file), "--checkpoint", str(checkpoints["pca"]),
                                  "-o", str(other)])  # fmt: skip
    assert "is there already" in result.stderr
