"""Checkpoint on disk: a folder named by its version, with `weights.safetensors` and `card.json`.

Input: tensors and a card. Output: a folder, written atomically, and the same read back.
Invariant: content-addressed. The version is a digest of everything that scores (weights and the card's essentials),
and the folder's name. A changed byte, or a folder with another version's files, raises CheckpointDamaged. Files that
cannot be read now raise CheckpointUnavailable, and a later try may succeed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError

from monitor.errors import CheckpointDamaged, CheckpointUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    import torch

WEIGHTS, CARD = "weights.safetensors", "card.json"
FORMAT = 2
KNOBS_FORMAT = 3
"""Format of a card with knobs. A release that knows none must refuse it: it would score without them."""
ASSETS_FORMAT = 4
"""Format of a card with scales or models of single assets, for the same reason."""
FORMATS = (FORMAT, KNOBS_FORMAT, ASSETS_FORMAT)
VERSION = re.compile(r"[a-z0-9_]+-[0-9a-f]{8}")
"""A version is a file name, without any part of a path."""
MAX_CARD_BYTES, MAX_WEIGHTS_BYTES = 32 << 20, 1 << 30
"""Sizes up to which files are read. The largest models here have a hundredth of that."""

INCIDENTAL = frozenset({"trained_at", "took_s"})
"""Card keys that may differ between two trainings of the same model. They are not part of the version."""


def write(folder: Path, tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> str:
    """Write a checkpoint under `folder` and return its version. An intact one of that version is left as it is."""
    weights = _pack(tensors)
    name = _name(weights, card)
    text = _render({"version": name, "format": _format_of(card), **card}, weights)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    if target.exists():
        try:
            read(target)
        except CheckpointDamaged:
            shutil.rmtree(target)
        except CheckpointUnavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise  # it may be intact and in use
            shutil.rmtree(target)
        else:
            return name

    # In the same folder, so that the rename stays within one file system and is atomic.
    draft = folder / f".{name}-{token_hex(4)}"
    draft.mkdir(mode=0o755)  # less the umask
    try:
        _write_through(draft / WEIGHTS, weights)
        _write_through(draft / CARD, text.encode())
        _sync_folder(draft)
        draft.rename(target)
        _sync_folder(folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return name


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint's folder. On CheckpointDamaged or CheckpointUnavailable, keep the present model."""
    try:
        weights = _read_bounded(path / WEIGHTS, MAX_WEIGHTS_BYTES)
        text = _read_bounded(path / CARD, MAX_CARD_BYTES).decode()
        card = json.loads(text)
        if not isinstance(card, dict) or card.get("format") not in FORMATS:
            raise CheckpointDamaged(f"{path}: {CARD} is not a card of format {', '.join(map(str, FORMATS))}")
        claimed = card.pop("digest", None)
        if _render(card, weights) != text:
            raise CheckpointDamaged(f"{path}: digest {str(claimed)[:12]}… does not match its files")
        version = _name(weights, {name: value for name, value in card.items() if name not in ("version", "format")})
        tensors = safetensors.torch.load(weights)
    except OSError as cause:
        raise CheckpointUnavailable(f"{path}: {cause}") from cause
    # A RecursionError: a card that is nested too deep. A KeyError or TypeError: one without an architecture.
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as cause:
        raise CheckpointDamaged(f"{path}: {cause}") from cause
    name = path.resolve().name
    if not version == card.get("version") == name:
        raise CheckpointDamaged(f"{path} holds {version}, not {name}")
    return tensors, card


def _read_bounded(path: Path, n_most: int) -> bytes:
    if (size := path.stat().st_size) > n_most:
        raise CheckpointDamaged(f"{path}: {size:,} bytes; {n_most:,} are read at most")
    return path.read_bytes()


def version_of(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> str:
    """Return the version of a model: its architecture and eight digits of its digest."""
    return _name(_pack(tensors), card)


def _format_of(card: dict[str, Any]) -> int:
    if card.get("asset_scales") or card.get("bundle"):
        return ASSETS_FORMAT
    return KNOBS_FORMAT if card.get("knobs") else FORMAT


def _pack(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def _name(weights: bytes, card: dict[str, Any]) -> str:
    essentials = json.dumps(_without_incidental(card), sort_keys=True, separators=(",", ":"))
    version = f"{card['architecture']}-{hashlib.sha256(weights + essentials.encode()).hexdigest()[:8]}"
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version[:100]!r} is no version")
    return version


def _render(card: dict[str, Any], weights: bytes) -> str:
    """Return the card's text. Its last key is the digest of the weights and of all other lines."""
    body = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    digest = hashlib.sha256(weights + body.encode()).hexdigest()
    return json.dumps({**card, "digest": digest}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _without_incidental(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_incidental(v) for k, v in value.items() if k not in INCIDENTAL}
    return value


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
