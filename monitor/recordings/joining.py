"""Several files → recordings: files that follow each other in time are one.

Input: paths, and options. Output: recordings with the path of their first file. Invariants: files are joined only where
they have the same columns, and the next begins within a few cells of the last one's end, or where the operator says so.
Files of one name whose times overlap are different machines, and get different names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import duration_text, quote
from monitor.errors import BadRecording
from monitor.recordings.reading import read_recording
from monitor.recordings.recording import read_meta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.recordings.options import FileOptions
    from monitor.recordings.recording import Recording

MAX_GAP: Final = 10
"""Cells between the last reading of a file and the first one of the next."""


def read_files(
    paths: Sequence[Path], options: FileOptions, *, join: bool | None = None
) -> list[tuple[Path, Recording]]:
    """Read files, and join those that follow each other. `join`: True = all, False = none, None = where they touch.

    A file that is named twice is read once. Raises BadRecording, NotFound.
    """
    paths = list({path.parent.resolve() / path.name: path for path in reversed(paths)}.values())[::-1]
    read = [(path, read_recording(path, options)) for path in paths]
    if join is False or len(read) < 2:
        return _named_apart(read)
    has_own_head = [read_meta(path).train_rows is not None for path in paths]
    order = sorted(range(len(read)), key=lambda number: int(read[number][1].ts_us.min()))
    groups: list[list[int]] = []
    for number in order:
        last = groups[-1][-1] if groups else None
        if last is not None and _follows(read[last][1], read[number][1], join=join, is_apart=has_own_head[number]):
            groups[-1].append(number)
        else:
            groups.append([number])
    if join and len(groups) > 1:
        first, second = read[groups[0][-1]], read[groups[1][0]]
        raise BadRecording(f"{second[0]} cannot be joined with {first[0]} (--join): {_difference(first[1], second[1])}")
    return _named_apart([_joined([read[number] for number in group]) for group in sorted(groups, key=min)])


def _named_apart(read: list[tuple[Path, Recording]]) -> list[tuple[Path, Recording]]:
    """Add the folder to the names of recordings that have one name and overlap in time, as one file a machine has."""
    taken = {recording.name for _, recording in read}
    found = []
    for path, recording in read:
        same = [other for _, other in read if other is not recording and other.name == recording.name]
        if any(_overlap(recording, other) for other in same):
            folder = path.parent.resolve().name
            names = (f"{recording.name}-{folder}{f'-{n}' if n > 1 else ''}" for n in range(1, len(read) + 2))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            own = recording.assets == (recording.asset_of_file,)
            note = f"{path} is called {quote(name)} here: another file is called {path.name}, too"
            recording = replace(recording, name=name).with_notes([note])
            recording = replace(recording, assets=(recording.asset_of_file,)) if own else recording
        found.append((path, recording))
    return found


def _overlap(one: Recording, other: Recording) -> bool:
    return bool(one.ts_us.min() <= other.ts_us.max() and other.ts_us.min() <= one.ts_us.max())


def _follows(before: Recording, after: Recording, *, join: bool | None, is_apart: bool) -> bool:
    if before.sensors != after.sensors or (before.label is None) != (after.label is None):
        return False
    gap_us = int(after.ts_us.min()) - int(before.ts_us.max())
    if join:
        return gap_us > 0
    step_us = before.interval_us
    is_alike = step_us > 0 and abs(after.interval_us - step_us) <= step_us // 10
    return not is_apart and is_alike and 0 < gap_us <= MAX_GAP * step_us


def _difference(before: Recording, after: Recording) -> str:
    if before.sensors != after.sensors:
        return "its columns are others"
    if (before.label is None) != (after.label is None):
        return "only one of them has labels"
    back_us = int(before.ts_us.max()) - int(after.ts_us.min())
    return f"it begins {duration_text(back_us)} before the other ends"


def _joined(files: Sequence[tuple[Path, Recording]]) -> tuple[Path, Recording]:
    if len(files) == 1:
        return files[0]
    path, first = files[0]
    recordings = [recording for _, recording in files]
    own_name = all(recording.assets == (recording.asset_of_file,) for recording in recordings)
    assets = first.assets if own_name else tuple(dict.fromkeys(name for each in recordings for name in each.assets))
    index = {name: number for number, name in enumerate(assets)}
    codes = [
        np.zeros_like(each.asset) if own_name else np.array([index[name] for name in each.assets], np.int32)[each.asset]
        for each in recordings
    ]
    labels = [each.label for each in recordings if each.label is not None]
    joined = replace(
        first.with_rows(
            np.concatenate([each.ts_us for each in recordings]),
            np.concatenate([each.values for each in recordings]),
            np.concatenate(codes).astype(np.int32),
            np.concatenate(labels) if labels else None,
        ),
        assets=assets,
        left_out=tuple(dict.fromkeys(name for each in recordings for name in each.left_out)),
        n_too_large=sum(each.n_too_large for each in recordings),
    ).with_notes(note for each in recordings[1:] for note in each.notes)
    names = " and ".join(file.name for file, _ in files) if len(files) < 4 else f"{path.name} to {files[-1][0].name}"
    return path, joined.with_notes(
        [f"{names} follow each other and are read as one recording of {len(joined):,} rows (--no-join: each alone)"]
    )
