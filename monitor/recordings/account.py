"""Facts about a recording to tell before it is learnt from: missing-value codes, counters, constants, the grid.

Input: a recording, and its healthy head. Output: sentences, and the recording without the codes. Invariant: only the
head decides which values mean "missing", so that a fault behind it cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.clock import from_us
from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording
from monitor.recordings.long_format import disorder_note
from monitor.signals import find_counter, find_sentinels, is_far_outside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.recordings.recording import Recording
    from monitor.types import Float32, Int64

    Codes = Mapping[str, tuple[float, ...]]
    """By sensor, the values that mean "missing"."""

MAX_CELLS: Final = 50_000_000
"""Of a grid that is filled by holding values, for all sensors."""
UNEVEN: Final = 3.0
"""Ratio of the 90th to the 10th percentile of the steps, above which readings come on change, not on a grid."""
_ROUND_S: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30),
    *(60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800),
)


# ---------------------------------------------------------------- missing-value codes


def find_missing_codes(head: Recording) -> dict[str, tuple[float, ...]]:
    """Return for each sensor the exact values far outside that recur in the head."""
    order = np.lexsort((head.ts_us, head.asset))
    columns = {name: head.values[order, at] for at, name in enumerate(head.sensors)}
    own = {name: find_sentinels(column) for name, column in columns.items()}
    shared = {code for codes in own.values() for code in codes}
    found = {}
    for name, column in columns.items():
        seen = column[np.isfinite(column) & ~np.isin(column, np.array(sorted(shared), np.float32))]
        # Where one sensor of a device writes -200 for "no reading", the others do.
        others = [code for code in shared if len(seen) and is_far_outside(code, float(seen.min()), float(seen.max()))]
        if codes := tuple(sorted({*own[name], *others})):
            found[name] = codes
    return found


def without_codes(recording: Recording, codes: Codes) -> Recording:
    """Return the recording with the codes taken as missing, and a note of how many there are."""
    values, notes = recording.values.copy(), []
    for at, name in enumerate(recording.sensors):
        for code in codes.get(name, ()):
            is_code = values[:, at] == np.float32(code)
            values[is_code, at] = np.nan
            if n := int(is_code.sum()):
                notes.append(f"{quote(name)}: {n:,} × {code:g}, far outside its range, is taken as missing")
    if notes:
        notes[-1] += " (--missing none keeps such values)"
    return recording.with_values(values).with_notes(notes)


# ---------------------------------------------------------------- sentences


def sensor_notes(head: Recording) -> list[str]:
    """Return what to tell of sensors that are no plain measurements, by the head."""
    number = int(np.argmax(np.bincount(head.asset, minlength=1)))
    rows = np.flatnonzero(head.asset == number)
    rows = rows[np.argsort(head.ts_us[rows], kind="stable")]
    notes, constant = [], []
    for at, name in enumerate(head.sensors):
        column = head.values[rows, at]
        seen = column[np.isfinite(column)]
        if len(seen) > 1 and (seen == seen[0]).all():
            constant.append(name)
        elif len(seen) and (counter := find_counter(column)) is not None:
            done = "it is left out of the model" if counter.is_useless else "its change is learnt instead"
            notes.append(f"{quote(name)} {counter.reason}: {done}")
    if constant:
        notes.append(f"constant in the part that is learnt from: {short_list(tuple(constant), 12)}")
    return notes


def grid_notes(recording: Recording, interval_us: int, source: str) -> list[str]:
    """Return what to tell of the grid, and of readings that share a cell of it. `source`: the origin of the step."""
    notes = [f"grid: one cell is {span_text(interval_us)} ({source})"]
    n_cells = count_cells(recording, interval_us)
    if n_shared := len(recording) - n_cells:
        notes[0] += (
            f"; {n_shared:,} of {len(recording):,} readings fall into a cell with an earlier one, which counts first"
        )
    if (uneven := _uneven_note(recording)) is not None:
        notes.append(uneven)
    if (disorder := disorder_note(recording)) is not None:
        notes.append(disorder)
    return notes


def count_cells(recording: Recording, interval_us: int) -> int:
    """Return the number of cells, of all assets together, that hold a reading."""
    cells = recording.ts_us // interval_us
    order = np.lexsort((cells, recording.asset))
    is_new = (np.diff(cells[order]) != 0) | (np.diff(recording.asset[order]) != 0)
    return int(is_new.sum()) + (len(cells) > 0)


def _uneven_note(recording: Recording) -> str | None:
    order = np.lexsort((recording.ts_us, recording.asset))
    steps = np.diff(recording.ts_us[order])[np.diff(recording.asset[order]) == 0]
    steps = steps[steps > 0]
    if len(steps) < 10:
        return None
    low, usual, high = (int(step) for step in np.quantile(steps, (0.1, 0.5, 0.9)))
    if high < UNEVEN * low:
        return None
    interval, hold = fitting_interval(usual), fitting_interval(int(np.quantile(steps, 0.99)) * 2)
    return (
        f"readings are {span_text(low)} to {span_text(high)} apart, half of them more than {span_text(usual)}: if "
        f"they are sent on change, use --interval {span_text(interval)} --hold {span_text(max(hold, interval))}"
    )


def fitting_interval(step_us: int) -> int:
    """Return the round interval in microseconds that is at least a step."""
    return next((round(step * 1e6) for step in _ROUND_S if step * 1e6 >= step_us), step_us)


def span_text(us: int) -> str:
    """Return a duration as the configuration writes it, rounded to two digits: 22s, 1.5h."""
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if us >= size and (us % size == 0 or us >= 10 * size or unit == "s"):
            return f"{us / size:.3g}{unit}"
    return f"{us / 1000:g}ms"


def span_note(recording: Recording) -> str:
    """Return the time that the readings of a recording span."""
    first, last = (f"{from_us(int(us)):%Y-%m-%d %H:%M}" for us in (recording.ts_us.min(), recording.ts_us.max()))
    return f"{len(recording):,} readings from {first} to {last} (UTC)"


# ---------------------------------------------------------------- last value hold


def hold_values(recording: Recording, interval_us: int, hold_us: int) -> Recording:
    """Return the recording on its grid. The last value of a cell counts until the next one, for at most `hold_us`.

    Raises BadRecording for a grid that would fill the memory.
    """
    parts = []
    n_hold = hold_us // interval_us
    for number in range(len(recording.assets)):
        rows = np.flatnonzero(recording.asset == number)
        rows = rows[np.argsort(recording.ts_us[rows], kind="stable")]
        if not len(rows):
            continue
        cells = recording.ts_us[rows] // interval_us
        n_cells = int(cells[-1] - cells[0]) + 1
        if n_cells * len(recording.sensors) > MAX_CELLS:
            raise BadRecording(
                f"{n_cells:,} cells of {span_text(interval_us)} are too many to hold values in; use a longer --interval"
            )
        at = cells - cells[0]
        values = np.full((n_cells, len(recording.sensors)), np.nan, np.float32)
        for column in range(len(recording.sensors)):
            mine = np.flatnonzero(np.isfinite(recording.values[rows, column]))
            values[at[mine], column] = recording.values[rows[mine], column]  # the last one wins
            values[:, column] = _held(values[:, column], n_hold)
        label = np.zeros(n_cells, np.int8)
        if recording.label is not None:
            np.maximum.at(label, at, recording.label[rows])
        kept = np.isfinite(values).any(axis=1)
        ts_us: Int64 = (np.arange(n_cells, dtype=np.int64) + cells[0]) * interval_us
        parts.append((ts_us[kept], values[kept], np.full(int(kept.sum()), number, np.int32), label[kept]))
    ts, matrices, assets, labels = zip(*parts, strict=True)
    held = recording.with_rows(
        np.concatenate(ts),
        np.concatenate(matrices),
        np.concatenate(assets),
        None if recording.label is None else np.concatenate(labels),
    )
    return held.with_notes([f"the last value of a sensor counts for {span_text(hold_us)} (--hold)"])


def _held(values: Float32, n_hold: int) -> Float32:
    """Return the values [N] with each gap filled by the value before it, for at most `n_hold` cells."""
    row = np.arange(len(values))
    last = np.maximum.accumulate(np.where(np.isfinite(values), row, -1))
    is_held = (last >= 0) & (row - last <= n_hold)
    return np.where(is_held, values[np.maximum(last, 0)], np.float32(np.nan)).astype(np.float32)
