"""Checkpoints: whole, or refused after any change of their files."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import torch

from monitor.errors import CheckpointDamaged, CheckpointUnavailable, ConfigError
from monitor.models import checkpoint, checkpoint_files
from monitor.models.detector import TrainedModel
from monitor.models.spec import ModelSpec
from monitor.training.fit import fit
from tests.unit.training.sine_windows import FLEET_SPEC, readings, windows

if TYPE_CHECKING:
    from collections.abc import Callable

CARD = {"architecture": "conv", "trained_at": "2026-11-23T00:00:00+00:00", "training": {"took_s": 3.2, "n_steps": 7}}
TENSORS = {"b": torch.arange(6, dtype=torch.float32).reshape(2, 3), "a": torch.ones(4)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / checkpoint.write(tmp_path, TENSORS, CARD)


def test_a_checkpoint_reads_back(saved: Path) -> None:
    tensors, card = checkpoint.read(saved)
    assert {name: t.tolist() for name, t in tensors.items()} == {name: t.tolist() for name, t in TENSORS.items()}
    assert card["training"] == CARD["training"]
    assert card["version"] == saved.name


def test_the_card_is_readable_text(saved: Path) -> None:
    lines = (saved / "card.json").read_text().splitlines()
    assert lines[1] == f'  "version": "{saved.name}",'


def test_the_version_ignores_the_time(tmp_path: Path) -> None:
    version = checkpoint.version_of(TENSORS, CARD)
    later = {**CARD, "trained_at": "2027-01-01T00:00:00+00:00", "training": {"took_s": 99.0, "n_steps": 7}}
    assert checkpoint.version_of(TENSORS, later) == version
    assert checkpoint.version_of(TENSORS, {**CARD, "length": 5}) != version
    assert checkpoint.version_of({**TENSORS, "a": torch.zeros(4)}, CARD) != version


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_bit_is_detected(saved: Path, name: str, where: float) -> None:
    content = bytearray((saved / name).read_bytes())
    content[int(where * len(content))] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=saved.name):
        checkpoint.read(saved)


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
@pytest.mark.parametrize("keep", [0, 1, 0.5])
def test_a_truncated_file_is_detected(saved: Path, name: str, keep: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * len(content)) - (keep == 1)])
    with pytest.raises(CheckpointDamaged):
        checkpoint.read(saved)


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_a_missing_file_is_detected(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointUnavailable, match="No such file"):
        checkpoint.read(saved)


def test_a_missing_folder_is_detected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnavailable):
        checkpoint.read(tmp_path / "conv-00000000")


def test_swapped_weights_are_detected(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / checkpoint.write(tmp_path, {**TENSORS, "a": torch.zeros(4)}, CARD)
    shutil.copy(other / "weights.safetensors", saved)
    with pytest.raises(CheckpointDamaged, match="digest"):
        checkpoint.read(saved)


def test_an_edited_card_is_detected(saved: Path) -> None:
    card = json.loads((saved / "card.json").read_text())
    card["training"]["n_steps"] = 8
    (saved / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    with pytest.raises(CheckpointDamaged, match="digest"):
        checkpoint.read(saved)


@pytest.mark.parametrize("text", ["[]", "null", '{"format": 1}', "{"])
def test_a_malformed_card_is_detected(saved: Path, text: str) -> None:
    (saved / "card.json").write_text(text)
    with pytest.raises(CheckpointDamaged):
        checkpoint.read(saved)


def test_a_folder_of_another_version_is_damaged(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / checkpoint.write(tmp_path, {**TENSORS, "a": torch.zeros(4)}, CARD)
    shutil.move(saved, tmp_path / "aside")
    shutil.move(other, saved)
    with pytest.raises(CheckpointDamaged, match=f"holds {other.name}, not {saved.name}"):
        checkpoint.read(saved)


@pytest.mark.parametrize("version", ["../../../tmp/evil", "conv-00000000", 7])
def test_a_card_with_a_wrong_version_is_damaged(saved: Path, version: object) -> None:
    forge(saved, version=version)
    with pytest.raises(CheckpointDamaged, match="holds conv-"):
        checkpoint.read(saved)


@pytest.mark.parametrize("architecture", ["../../evil", "", "a/b", ["conv"], None])
def test_an_architecture_with_path_parts_is_refused(saved: Path, tmp_path: Path, architecture: object) -> None:
    forge(saved, architecture=architecture)
    with pytest.raises(CheckpointDamaged):
        checkpoint.read(saved)
    with pytest.raises(ValueError, match="is no version"):
        checkpoint.write(tmp_path, TENSORS, {**CARD, "architecture": architecture})


@pytest.mark.parametrize(
    "insert",
    [
        '"x": NaN,',
        '"x": 1e999,',
        '"x": "\\ud800",',
        '"x": ' + 100_000 * "[" + 100_000 * "]" + ",",
        '"x": ' + 5_000 * "9" + ",",
    ],
    ids=["nan", "infinity", "surrogate", "deep", "digits"],
)
def test_a_hostile_card_is_damaged(saved: Path, insert: str) -> None:
    text = (saved / "card.json").read_text()
    (saved / "card.json").write_text("{" + insert + text[1:])
    with pytest.raises(CheckpointDamaged):
        checkpoint.read(saved)


def test_large_files_are_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, "MAX_CARD_BYTES", 10)
    with pytest.raises(CheckpointDamaged, match="10 are read at most"):
        checkpoint.read(saved)


def forge(folder: Path, **changes: object) -> None:
    """Change the card and give it a right digest, as somebody who may write there can."""
    card = json.loads((folder / "card.json").read_text())
    del card["digest"]
    text = checkpoint_files.render({**card, **changes}, (folder / "weights.safetensors").read_bytes())
    (folder / "card.json").write_text(text)


def test_writing_twice_changes_nothing(saved: Path, tmp_path: Path) -> None:
    before = (saved / "card.json").stat().st_mtime_ns
    assert checkpoint.write(tmp_path, TENSORS, CARD) == saved.name
    assert (saved / "card.json").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [saved.name]


def test_writing_replaces_a_damaged_one(saved: Path, tmp_path: Path) -> None:
    (saved / "weights.safetensors").write_bytes(b"")
    assert checkpoint.write(tmp_path, TENSORS, CARD) == saved.name
    checkpoint.read(saved)


def test_writing_replaces_an_incomplete_one(saved: Path, tmp_path: Path) -> None:
    (saved / "weights.safetensors").unlink()
    assert checkpoint.write(tmp_path, TENSORS, CARD) == saved.name
    checkpoint.read(saved)


def test_writing_keeps_an_unreadable_one(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(CheckpointUnavailable):
            checkpoint.write(tmp_path, TENSORS, CARD)
    checkpoint.read(saved)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(tmp_path, TENSORS, CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_no_model_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="not a model this version can build"):
        TrainedModel.load(saved)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return fit(windows(readings(400)), ModelSpec("conv", max_steps=5, n_tries=1), FLEET_SPEC)


def rewritten(model: TrainedModel, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Save a model with a changed card, under the version and the digest of its content."""
    card = json.loads(json.dumps(model._card_json()))
    change(card)
    return folder / checkpoint.write(folder, model._tensors(), card)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.update(length=10**9),
        lambda card: card.update(length=10**30),
        lambda card: card.update(length=0),
        lambda card: card.update(length=13),
        lambda card: card.update(sensors=card["sensors"] * 2),
        lambda card: card["members"][0]["hyper"].update(width=10**9),
        lambda card: card["members"][0]["hyper"].update(code=10**9),
        lambda card: card["members"][0]["hyper"].update(kernel=10**9),
        lambda card: card["members"][0]["hyper"].update(draws=10**9),
        lambda card: card["members"][0].update(name="level"),
        lambda card: card.update(members=card["members"] * 100),
        lambda card: card.update(members=[]),
        lambda card: card.update(members=[None]),
        lambda card: card.update(scaler=None),
        lambda card: card.update(scaler=[]),
        lambda card: card["scaler"][0].update(scale=0.0),
        lambda card: card["scaler"][0].update(scale="x"),
        lambda card: card["threshold"].update(raw=0.0),
        lambda card: card.pop("threshold"),
        lambda card: card.update(inputs={}),
        lambda card: card["inputs"]["speed"].update(kind="guess"),
        lambda card: card["inputs"]["speed"].update(missing=None),
    ],
)
def test_a_card_that_does_not_fit_is_damaged(
    model: TrainedModel, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path = rewritten(model, tmp_path, change)
    with pytest.raises(CheckpointDamaged, match="not a model this version can build"):
        TrainedModel.load(path)


def test_an_unchanged_card_loads(model: TrainedModel, tmp_path: Path) -> None:
    path = rewritten(model, tmp_path, lambda card: None)
    assert TrainedModel.load(path).version == path.name == model.version


def test_a_missing_device_is_a_config_error(saved: Path) -> None:
    with pytest.raises(ConfigError, match="here: auto, cpu"):
        TrainedModel.load(saved, device="cuda:99")
