"""Files of a checkpoint: a folder named by its version, with `weights.safetensors` and `card.json`. No torch.

Input: the bytes of the weights and a card. Output: a folder, written atomically, and the same read back and verified.
Invariant: content-addressed. The version is a digest of everything that scores (weights and the card's essentials),
and the folder's name. A changed byte, or a folder with another version's files, raises CheckpointDamaged. Files that
cannot be read now raise CheckpointUnavailable, and a later try may succeed. Nothing is ever unpickled.

An operator's command verifies a checkpoint by this module alone, in milliseconds. `checkpoint.py` makes tensors of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

import safetensors
from safetensors import SafetensorError

from monitor.errors import CheckpointDamaged, CheckpointUnavailable

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS, CARD = "weights.safetensors", "card.json"
FORMAT = 2
_NEWER_FORMATS = {3: ("knobs",), 4: ("asset_scales", "bundle"), 5: ("states", "calendar")}
"""Format of a card with one of these parts. A release that does not know the part must refuse the card: it would score
without it."""
FORMATS = (FORMAT, *_NEWER_FORMATS)
VERSION = re.compile(r"[a-z0-9_]+-[0-9a-f]{8}")
"""A version is a file name, without any part of a path."""
MAX_CARD_BYTES, MAX_WEIGHTS_BYTES = 32 << 20, 1 << 30
"""Sizes up to which files are read. The largest models here have a hundredth of that."""

INCIDENTAL = frozenset({"trained_at", "took_s"})
"""Card keys that may differ between two trainings of the same model. They are not part of the version."""
_DRAFT = re.compile(rf"\.{VERSION.pattern}-[0-9a-f]{{8}}")
"""Name of a folder that is not complete yet, or that is being removed."""
DRAFT_KEPT_S = 86_400.0
"""Age at which a draft is a leftover of a process that was killed. Writing one takes a second."""


class Files(NamedTuple):
    """The verified content of a checkpoint."""

    weights: bytes
    card: dict[str, Any]
    """Without its digest."""


def write(folder: Path, weights: bytes, card: dict[str, Any]) -> str:
    """Write a checkpoint under `folder` and return its version. An intact one of that version is left as it is."""
    name = name_of(weights, card)
    text = render({"version": name, "format": format_of(card), **card}, weights)
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
            os.utime(target)  # it is in use again: see `age_s`
            return name

    # In the same folder, so that the rename stays within one file system and is atomic.
    draft = _draft_of(target)
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


def read(path: Path) -> Files:
    """Read and verify a checkpoint's folder. On CheckpointDamaged or CheckpointUnavailable, keep the present model."""
    try:
        weights = _read_bounded(path / WEIGHTS, MAX_WEIGHTS_BYTES)
        text = _read_bounded(path / CARD, MAX_CARD_BYTES).decode()
        card = json.loads(text)
        if not isinstance(card, dict) or card.get("format") not in FORMATS:
            raise CheckpointDamaged(f"{path}: {CARD} is not a card of a format from {FORMAT} to {FORMATS[-1]}")
        claimed = card.pop("digest", None)
        if render(card, weights) != text:
            raise CheckpointDamaged(f"{path}: digest {str(claimed)[:12]}… does not match its files")
        version = name_of(weights, {name: value for name, value in card.items() if name not in ("version", "format")})
        safetensors.deserialize(weights)  # type: ignore[no-untyped-call]  # compiled, without annotations
    except OSError as cause:
        raise CheckpointUnavailable(f"{path}: {cause}") from cause
    # A RecursionError: a card that is nested too deep. A KeyError or TypeError: one without an architecture.
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as cause:
        raise CheckpointDamaged(f"{path}: {cause}") from cause
    name = path.resolve().name
    if not version == card.get("version") == name:
        raise CheckpointDamaged(f"{path} holds {version}, not {name}")
    return Files(weights, card)


def format_of(card: dict[str, Any]) -> int:
    """Return the oldest format that knows all parts of this card."""
    return max((number for number, parts in _NEWER_FORMATS.items() if any(map(card.get, parts))), default=FORMAT)


def name_of(weights: bytes, card: dict[str, Any]) -> str:
    """Return the version of a model: its architecture and eight digits of its digest."""
    essentials = json.dumps(_without_incidental(card), sort_keys=True, separators=(",", ":"))
    version = f"{card['architecture']}-{hashlib.sha256(weights + essentials.encode()).hexdigest()[:8]}"
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version[:100]!r} is no version")
    return version


def render(card: dict[str, Any], weights: bytes) -> str:
    """Return the card's text. Its last key is the digest of the weights and of all other lines."""
    body = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    digest = hashlib.sha256(weights + body.encode()).hexdigest()
    return json.dumps({**card, "digest": digest}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


# ---------------------------------------------------------------- removal


def age_s(path: Path) -> float | None:
    """Return the time since a checkpoint was written, or found intact by a training. None = it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return None


def remove(path: Path) -> bool:
    """Remove a checkpoint, at no moment half of it. Return whether it was there. Raises OSError, ValueError.

    The name is freed at once by a rename. A kill after it leaves a draft, which `remove_drafts` removes.
    """
    if not VERSION.fullmatch(path.name):
        raise ValueError(f"{path} is not the folder of a checkpoint")
    draft = _draft_of(path)
    try:
        path.rename(draft)
    except FileNotFoundError:
        return False
    shutil.rmtree(draft, ignore_errors=True)
    return True


def remove_drafts(folder: Path, older_than_s: float = DRAFT_KEPT_S) -> list[str]:
    """Remove the leftovers of processes that were killed while they wrote or removed. Return their names."""
    try:
        found = [path for path in folder.iterdir() if _DRAFT.fullmatch(path.name)]
    except OSError:  # the folder is made by the first training
        return []
    old = [path for path in found if (age := age_s(path)) is not None and age > older_than_s]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in old)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}-{token_hex(4)}")


def _read_bounded(path: Path, n_most: int) -> bytes:
    if (size := path.stat().st_size) > n_most:
        raise CheckpointDamaged(f"{path}: {size:,} bytes; {n_most:,} are read at most")
    return path.read_bytes()


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
