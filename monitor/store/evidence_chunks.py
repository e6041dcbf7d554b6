"""Chunks of evidence: their bytes, and the evidence that they are together. Without SQL, so that readers start fast.

Input: chunks in order of time. Output: one `Evidence`. Invariant: the joined evidence is a function of the sequence of
cells and scores alone, not of how it was cut into chunks. A chunk that was joined before counts as what is left of its
cells.

A chunk is a byte with the number of this form, the length of a head (JSON, 4 bytes big-endian), the head, and the
arrays, compressed. Float32 are stored sensor by sensor with their bytes sorted by significance: such bytes repeat.
Measured on recordings, that is 0.5 of the raw size, where zlib alone leaves 0.8.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.explain import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from monitor.types import EvidencePart, Float32, Int64

FORM = 1
LEVEL = 6
"""Of zlib. 9 saves 1 % and takes twice as long."""
_LARGEST = float(np.finfo(np.float32).max)


class Chunk(NamedTuple):
    """A part of the evidence of one alert, and the bound of the whole."""

    evidence: Evidence
    limit: int
    """Cells, and scores, that are kept at most."""


def chunk_of(part: EvidencePart, earlier: Sequence[tuple[int, float]] = ()) -> Chunk:
    """Turn a part of the pipeline into a chunk. `earlier`: (end, score) of windows before it, oldest first."""
    ends, scores = zip(*earlier, strict=True) if earlier else ((), ())
    evidence = Evidence(
        sensors=part.sensors,
        cell_us=part.cell_us,
        values=part.values,
        expected=_rounded(part.expected),
        end_us=np.concatenate((np.array(ends, np.int64), part.end_us)),
        score=np.clip(np.concatenate((np.array(scores, np.float32), part.score)), -_LARGEST, _LARGEST),
    )
    return Chunk(evidence, part.limit)


def _rounded(values: Float32) -> Float32:
    """Round to 16 significant bits: the last 8 of a reconstruction are noise, and noise cannot be compressed."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x80)) & ~np.uint32(0xFF)).view(np.float32)
    return np.where(np.isfinite(values) & np.isfinite(rounded), rounded, values)


# ---------------------------------------------------------------- joining


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Join all chunks of an alert, from its first on, and thin out the cells beyond the limit of the first."""
    return thinned(concatenated(chunks))


def concatenated(chunks: Sequence[Chunk]) -> Chunk:
    """Join chunks that follow each other, at least one, with all their cells."""
    parts = [chunk.evidence for chunk in chunks]
    sensors = tuple(dict.fromkeys(name for part in parts for name in part.sensors))
    whole = Evidence(
        sensors=sensors,
        cell_us=np.concatenate([part.cell_us for part in parts]),
        values=np.concatenate([_widened(part.values, part.sensors, sensors) for part in parts]),
        expected=np.concatenate([_widened(part.expected, part.sensors, sensors) for part in parts]),
        end_us=np.concatenate([part.end_us for part in parts]),
        score=np.concatenate([part.score for part in parts]),
    )
    return Chunk(whole, chunks[0].limit)


def thinned(chunk: Chunk) -> Chunk:
    """Thin out the whole evidence of an alert."""
    whole, limit = chunk
    cells, windows = kept_cells(len(whole.cell_us), limit), kept_scores(whole.score, limit)
    return Chunk(
        replace(
            whole,
            cell_us=whole.cell_us[cells],
            values=whole.values[cells],
            expected=whole.expected[cells],
            end_us=whole.end_us[windows],
            score=whole.score[windows],
        ),
        limit,
    )


def _widened(values: Float32, own: tuple[str, ...], sensors: tuple[str, ...]) -> Float32:
    """Return [N, C] with a column for each of the sensors. They may have become more during the alert."""
    if own == sensors:
        return values
    out = np.full((len(values), len(sensors)), np.nan, np.float32)
    out[:, [sensors.index(name) for name in own]] = values
    return out


def kept_cells(n: int, limit: int) -> Int64:
    """Return the numbers of the cells that are left of n, fewer than `limit`.

    Cell by cell: as soon as `limit` are there, every other one of the older half is dropped. So the newest half is
    whole, and what is older has ever fewer cells. The first cell stays.
    """
    kept = np.arange(min(n, limit), dtype=np.int64)
    while len(kept) == limit:
        kept = np.concatenate((kept[: limit // 2 : 2], kept[limit // 2 :]))
        at = int(kept[-1]) + 1
        kept = np.concatenate((kept, np.arange(at, min(n, at + limit - len(kept)), dtype=np.int64)))
    return kept


def kept_scores(score: Float32, limit: int) -> Int64:
    """Return the numbers of the scores that are left, like `kept_cells`: of two that become one, the higher."""
    n, half = len(score), limit // 4 * 2
    kept = np.arange(min(n, limit), dtype=np.int64)
    while len(kept) == limit:
        pairs = kept[:half].reshape(-1, 2)
        higher = np.take_along_axis(pairs, np.argmax(score[pairs], axis=1)[:, None], axis=1)[:, 0]
        at = int(kept[-1]) + 1
        kept = np.concatenate((higher, kept[half:]))
        kept = np.concatenate((kept, np.arange(at, min(n, at + limit - len(kept)), dtype=np.int64)))
    return kept


# ---------------------------------------------------------------- bytes


def encode(chunk: Chunk) -> bytes:
    """Return the bytes of a chunk."""
    part = chunk.evidence
    head = json.dumps(
        {"sensors": part.sensors, "cells": len(part.cell_us), "scores": len(part.score), "limit": chunk.limit}
    ).encode()
    arrays = (
        _shuffled(np.diff(part.cell_us, prepend=np.int64(0)).astype("<i8")),
        _shuffled(part.values.T.astype("<f4")),
        _shuffled(part.expected.T.astype("<f4")),
        _shuffled(np.diff(part.end_us, prepend=np.int64(0)).astype("<i8")),
        _shuffled(part.score.astype("<f4")),
    )
    return bytes([FORM]) + zlib.compress(len(head).to_bytes(4, "big") + head + b"".join(arrays), LEVEL)


def decode(body: bytes) -> Chunk:
    """Read the bytes of a chunk. Raises ValueError for a form of a later release."""
    if body[0] != FORM:
        raise ValueError(f"evidence in form {body[0]}; this release reads form {FORM}")
    data = zlib.decompress(body[1:])
    at = 4 + int.from_bytes(data[:4], "big")
    head = json.loads(data[4:at])
    n, m, sensors = head["cells"], head["scores"], tuple(head["sensors"])
    shapes = ((n, "<i8"), (n * len(sensors), "<f4"), (n * len(sensors), "<f4"), (m, "<i8"), (m, "<f4"))
    arrays = []
    for count, kind in shapes:
        end = at + count * int(kind[-1])
        arrays.append(_unshuffled(data[at:end], kind))
        at = end
    cell, values, expected, ends, score = arrays
    return Chunk(
        Evidence(
            sensors=sensors,
            cell_us=np.cumsum(cell, dtype=np.int64),
            values=values.reshape(len(sensors), n).T.astype(np.float32),
            expected=expected.reshape(len(sensors), n).T.astype(np.float32),
            end_us=np.cumsum(ends, dtype=np.int64),
            score=score.astype(np.float32),
        ),
        head["limit"],
    )


def joined(bodies: Iterable[bytes]) -> Evidence | None:
    """Return the evidence that stored chunks are together. None = there is none."""
    chunks = [decode(bytes(body)) for body in bodies]
    return join(chunks).evidence if chunks else None


def _shuffled(array: NDArray[Any]) -> bytes:
    size = array.dtype.itemsize
    return np.frombuffer(array.tobytes(), np.uint8).reshape(-1, size).T.tobytes()


def _unshuffled(data: bytes, kind: str) -> NDArray[Any]:
    size = int(kind[-1])
    return np.frombuffer(np.frombuffer(data, np.uint8).reshape(size, -1).T.tobytes(), kind)
