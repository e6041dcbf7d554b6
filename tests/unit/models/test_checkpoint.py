"""Checkpoints: whole, or refused after any change of their files."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from monitor.errors import CheckpointDamaged, CheckpointUnavailable, ConfigError
from monitor.models import checkpoint
from monitor.models.detector import TrainedModel

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

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(tmp_path, TENSORS, CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_no_model_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="not a model this version can build"):
        TrainedModel.load(saved)


def test_a_missing_device_is_a_config_error(saved: Path) -> None:
    with pytest.raises(ConfigError, match="here: auto, cpu"):
        TrainedModel.load(saved, device="cuda:99")
