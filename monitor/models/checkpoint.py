"""Tensors of a checkpoint. Its files, its version and the checks of both are in `checkpoint_files.py`.

Input: tensors and a card. Output: a folder, and the same read back. Invariant: only verified files become tensors.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError

from monitor.errors import CheckpointDamaged
from monitor.models import checkpoint_files

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def write(folder: Path, tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> str:
    """Write a checkpoint under `folder` and return its version. An intact one of that version is left as it is."""
    return checkpoint_files.write(folder, _pack(tensors), card)


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint's folder. On CheckpointDamaged or CheckpointUnavailable, keep the present model."""
    weights, card = checkpoint_files.read(path)
    try:
        return safetensors.torch.load(weights), card
    except (ValueError, KeyError, TypeError, SafetensorError) as cause:  # a type of numbers that torch does not have
        raise CheckpointDamaged(f"{path}: {cause}") from cause


def version_of(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> str:
    """Return the version of a model: its architecture and eight digits of its digest."""
    return checkpoint_files.name_of(_pack(tensors), card)


def pack(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> bytes:
    """Return tensors and card as bytes, for another process of this release."""
    text = json.dumps(card, allow_nan=False).encode()
    return len(text).to_bytes(8, "little") + text + _pack(tensors)


def unpack(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the bytes of `pack`."""
    end = 8 + int.from_bytes(content[:8], "little")
    return safetensors.torch.load(content[end:]), json.loads(content[8:end])


def _pack(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
