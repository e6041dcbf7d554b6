"""Chunks of columns → a recording: the values of the cells.

Input: an opened file, and options for what it cannot say. Output: a `Recording` with notes, or BadRecording with file,
column and row, and the option that helps. Invariants: a column is a sensor if its cells are numbers, or states of two,
or blank. It is left out, and listed in `left_out`, if none of its cells is a number. One bad cell among numbers is an
error. Only a number too large for float32 is counted and taken as missing: a dead gauge of an oil well reports -1.2e42.
Rows of several series never become one sensor.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording, NotFound
from monitor.printable import name_problem, normal_name
from monitor.recordings.cells import BAD, BLANK, NUMBER, STATE, NumberStyle, parse_cells
from monitor.recordings.clock import LOCAL_TIMES, bad_time, choose_parser, parser_of_local_times
from monitor.recordings.formats import open_file
from monitor.recordings.long_format import pivot, refuse_mixed_series
from monitor.recordings.options import FileOptions
from monitor.recordings.recording import Recording, asset_of_file, read_meta, stem
from monitor.recordings.roles import find_roles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.decode.timestamps import TimeParser
    from monitor.recordings.formats import Cells, Chunk, OpenFile
    from monitor.recordings.roles import Roles
    from monitor.types import Bool, Float32, Int32, Int64

NO_CLOCK_START_US: Final = 946_684_800_000_000
"""2000-01-01, from which the rows of a file without times are counted."""
_YES, _NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))


def read_recording(path: Path, options: FileOptions | None = None, **named: Any) -> Recording:
    """Read a file. `named`: fields of FileOptions.

    Raises NotFound, and BadRecording with the file, the column, the row and the fix.
    """
    options = FileOptions(**named) if options is None else options
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    try:
        file, roles, interval_s = _open(path, options)
        builder = _Builder(stem(path), file, roles, options, interval_s)
        return builder.build(file.chunks)
    except BadRecording as problem:
        raise _at(path, problem) from problem


def check_header(path: Path, options: FileOptions) -> None:
    """Check the first lines of a file, and that its columns have roles. Raises like `read_recording`."""
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    try:
        _open(path, options)
    except BadRecording as problem:
        raise _at(path, problem) from problem


def _open(path: Path, options: FileOptions) -> tuple[OpenFile, Roles, float | None]:
    file = open_file(path, options)
    interval_s = options.interval_s or read_meta(path).interval_s
    return file, find_roles(file, options, interval_s), interval_s


def _at(path: Path, problem: BadRecording) -> BadRecording:
    detail = str(problem.detail)
    return BadRecording(detail if detail.startswith(str(path.parent / "meta.json")) else f"{path}: {detail}")


# ---------------------------------------------------------------- chunks of columns → a recording


@dataclass(slots=True)
class _Candidate:
    """A column that may be a sensor."""

    parts: list[Float32] = field(default_factory=list)
    kinds: list[NDArray[np.int8]] = field(default_factory=list)
    """Long format only: what each cell is."""
    n_numbers: int = 0
    n_states: int = 0
    words: Counter[str] = field(default_factory=Counter)
    units: set[str] = field(default_factory=set)
    points: dict[str, str] = field(default_factory=dict)
    """As in `Parsed`."""
    bad: tuple[int, str] | None = None
    """Row and text of the first cell that is not a number."""
    codes: dict[str, int] = field(default_factory=dict)
    """Texts of a column without numbers, and their numbers in `coded`. Too many texts = empty."""
    coded: list[Int32] = field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """True if no cell so far is a number."""
        return self.bad is not None and not self.n_numbers

    def check_points(self, name: str) -> None:
        """Raise BadRecording for a column with points in two meanings."""
        if len(self.points) > 1 and not self.is_text:
            raise BadRecording(
                f"column {quote(name)}: {quote(self.points['group'])} has a point between thousands, and "
                f"{quote(self.points['decimals'])} one before decimals, beside numbers with a decimal comma; write all "
                "of them alike, and say which with --decimal comma or --decimal point"
            )


MAX_CODES: Final = 1000
"""Distinct texts of a column that can name series."""


MAX_WITHOUT_TIME: Final = 0.02
"""Share of the rows that may have no readable time. With more the column is not understood."""


class _Builder:
    """Builds a recording from chunks. The memory is that of the numbers, not of the texts."""

    def __init__(
        self, name: str, file: OpenFile, roles: Roles, options: FileOptions, interval_s: float | None
    ) -> None:
        self._name = name
        self._style: NumberStyle = file.style
        self._local_times = file.local_times
        self._roles = roles
        self._options = options
        self._interval_s = interval_s
        self._notes = file.notes
        self._missing = frozenset(text.casefold() for text in options.missing if isinstance(text, str))
        self._rows: Sequence[int] = ()
        self._parser: TimeParser | None = None
        self._time_notes: list[str] = []
        self._times: list[Int64] = []
        self._has_time: list[Bool] = []
        self._bad_time: BadRecording | None = None
        self._n_rows = 0
        self._assets: dict[str, int] = {}
        self._asset: list[Int32] = []
        self._series: dict[str, int] = {}
        self._sensor: list[Int32] = []
        self._n_too_large = 0
        self._label: list[NDArray[np.int8]] = []
        self._candidates = {name: _Candidate() for name in roles.sensors}

    def build(self, chunks: Iterator[Chunk]) -> Recording:
        for chunk in chunks:
            self._add(chunk)
        if not self._n_rows:
            raise BadRecording("there is a header, but no row")
        if self._bad_time is not None:
            self._leave_out_rows_without_time(self._bad_time)
        asset = np.concatenate(self._asset) if self._asset else np.zeros(self._n_rows, np.int32)
        assets = tuple(self._assets) or (asset_of_file(self._name),)
        ts_us = self._clock(asset)
        label = np.concatenate(self._label) if self._roles.label else None
        if self._roles.sensor is not None:
            return self._long(ts_us, assets, asset, label)
        names = self._sensors()
        recording = Recording(
            self._name,
            names,
            ts_us,
            np.stack([np.concatenate(self._candidates[name].parts) for name in names], axis=1),
            assets,
            asset,
            label,
            tuple(name for name in self._candidates if name not in names),
            self._n_too_large,
        )
        texts = {
            name: (tuple(candidate.codes), np.concatenate(candidate.coded))
            for name, candidate in self._candidates.items()
            if candidate.is_text and candidate.codes
        }
        mixed = refuse_mixed_series(recording, texts, is_asset_named=self._roles.asset is not None)
        if mixed is not None:
            return self._told(mixed)
        return self._told(recording)

    def _told(self, recording: Recording) -> Recording:
        """Return the recording with what was found while it was read."""
        options, notes = self._options, [*self._notes, *self._roles.notes, *self._time_notes]
        for name, candidate in self._candidates.items():
            where = "" if self._roles.sensor else f"column {quote(name)}: "
            if candidate.n_states and not candidate.is_text:
                notes.append(f"{where}on/off, true/false and the like are read as 1 and 0")
            notes += [f"{where}{n:,} × {quote(word)} means missing" for word, n in candidate.words.most_common(3)]
            if "group" in candidate.points and not candidate.is_text:
                notes.append(f"{where}points separate thousands: {quote(candidate.points['group'])}")
            if candidate.units and not candidate.is_text:
                notes.append(f"{where}the unit {min(candidate.units)} behind the numbers is cut off")
        recording = recording.with_missing([code for code in options.missing if not isinstance(code, str)])
        return recording.with_notes(notes)

    def _leave_out_rows_without_time(self, first: BadRecording) -> None:
        """Drop the rows whose time cannot be read, if they are few, like the last line of a report."""
        has_time = np.concatenate(self._has_time)
        n_without = int((~has_time).sum())
        if n_without > MAX_WITHOUT_TIME * len(has_time):
            raise first
        columns: list[list[Any]] = [self._times, self._asset, self._label, self._sensor]
        columns += [part for each in self._candidates.values() for part in (each.parts, each.kinds, each.coded)]
        for parts in columns:
            if parts:
                parts[:] = [np.concatenate(parts)[has_time]]
        self._n_rows -= n_without
        rows = "1 row without a time is" if n_without == 1 else f"{n_without:,} rows without a time are"
        self._time_notes.append(f"{rows} left out: {first.detail}")

    # ------------------------------------------------------------ long format

    def _long(self, ts_us: Int64, assets: tuple[str, ...], asset: Int32, label: NDArray[np.int8] | None) -> Recording:
        [value] = self._candidates.values()
        value.check_points(self._roles.sensors[0])
        kinds, sensor = np.concatenate(value.kinds), np.concatenate(self._sensor)
        names = tuple(self._series)
        kept, left_out = [], []
        for number, name in enumerate(names):
            mine = kinds[sensor == number]
            n_bad, n_numbers, n_states = (int((mine == kind).sum()) for kind in (BAD, NUMBER, STATE))
            if n_bad and not n_numbers:
                left_out.append(name)
            elif n_bad or (n_numbers and n_states):
                raise BadRecording(
                    f"{quote(name)} has numbers, and {n_bad + n_states:,} cells that are none"
                    + (f", like {quote(value.bad[1])} in row {value.bad[0]}" if value.bad else "")
                    + "; --missing TEXT takes them as missing"
                )
            else:
                kept.append(number)
        if not kept:
            raise BadRecording(f"no cell of {quote(self._roles.sensors[0])} is a number")
        recording, n_double = pivot(
            self._name, ts_us, assets, asset, names, sensor, np.concatenate(value.parts), label, kept
        )
        notes = self._roles.notes
        notes.append(f"{len(kept)} sensors: {short_list(recording.sensors, 12)}")
        if n_double:
            notes.append(f"{n_double:,} values of a sensor at the same time as another one of it: the last one counts")
        if self._roles.others:
            notes.append(f"columns that are not used: {short_list(self._roles.others, 12)}")
        return self._told(recording.with_left_out(tuple(left_out), self._n_too_large))

    # ------------------------------------------------------------ columns

    def _sensors(self) -> tuple[str, ...]:
        """Return the names of the columns that are sensors."""
        for name, candidate in self._candidates.items():
            if candidate.bad and candidate.n_numbers:
                row, text = candidate.bad
                raise BadRecording(
                    f"column {quote(name)}, row {row}: {quote(text)} is not a finite number; "
                    f"leave the cell blank where the value is missing, or use --missing {shlex.quote(text)}"
                )
            candidate.check_points(name)
            if len(candidate.units) > 1 and candidate.bad is None:
                raise BadRecording(
                    f"column {quote(name)} mixes the units {short_list(tuple(sorted(candidate.units)))}; give all of "
                    "its cells one unit"
                )
            if candidate.n_states and candidate.n_numbers and candidate.bad is None and not candidate.is_text:
                values = np.concatenate(candidate.parts)
                if not np.isin(values[np.isfinite(values)], (0, 1)).all():
                    raise BadRecording(f"column {quote(name)} mixes numbers with on/off or true/false")
        names = tuple(name for name, candidate in self._candidates.items() if candidate.bad is None)
        if not names:
            times = " and ".join(quote(name) for name in self._roles.time) or "none"
            raise BadRecording(f"no column beside {times} holds numbers")
        return names

    def _add(self, chunk: Chunk) -> None:
        roles, self._rows = self._roles, chunk.rows
        n = len(chunk.rows)
        if roles.time:
            self._times.append(self._read_times([chunk.cells[name] for name in roles.time]))
        if roles.asset:
            self._asset.append(self._read_assets(roles.asset, _texts(chunk.cells[roles.asset])))
        if roles.label:
            self._label.append(self._read_labels(roles.label, _texts(chunk.cells[roles.label])))
        if roles.sensor:
            self._sensor.append(self._read_series(roles.sensor, _texts(chunk.cells[roles.sensor])))
        for name, candidate in self._candidates.items():
            self._read_numbers(candidate, chunk.cells[name])
        self._n_rows += n

    def _clock(self, asset: Int32) -> Int64:
        """Return the times of all rows."""
        if not self._roles.time:
            assert self._interval_s is not None  # noqa: S101  # without times and an interval, no role was found
            row = np.zeros(self._n_rows, np.int64)
            for number in np.unique(asset):
                mine = np.flatnonzero(asset == number)
                row[mine] = np.arange(len(mine))
            self._time_notes.append(
                f"no column holds times: rows are {self._interval_s:g} s apart, counted from 2000-01-01T00:00:00Z"
            )
            return NO_CLOCK_START_US + row * max(1, round(self._interval_s * 1e6))
        ts_us = np.concatenate(self._times)
        zone = self._parser.zone if self._parser is not None else None
        if zone is not None and any(note.startswith(LOCAL_TIMES) for note in self._time_notes):
            ts_us, n_moved = zone.repeated_in_order(ts_us, asset)
            if n_moved:
                self._time_notes.append(
                    f"{n_moved:,} times are of the second pass of an hour that the clock change repeats"
                )
        return ts_us

    def _read_times(self, columns: list[Cells]) -> Int64:
        [cells, *clocks] = columns
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            us, is_valid = cells.astype("datetime64[us]").astype(np.int64), ~np.isnat(cells)
            texts: Sequence[str] = [str(cell) for cell in cells[:1]]
            if self._parser is None and self._roles.time[0] in self._local_times:
                self._parser, self._time_notes = parser_of_local_times(self._options)
            if self._parser is not None and self._parser.zone is not None:
                us, exists = self._parser.zone.utc_column_us(us)
                is_valid &= exists
        else:
            texts = _texts(cells)
            for clock in clocks:
                texts = [f"{day} {moment}" for day, moment in zip(texts, _texts(clock), strict=True)]
            if self._parser is None:
                self._parser, self._time_notes = choose_parser(texts, "+".join(self._roles.time), self._options)
            us, is_valid = self._parser.parse_column_us(self._as_written(texts))
        for at in np.flatnonzero(~is_valid)[:100].tolist():
            text = texts[at] if len(texts) > at else str(cells[at])
            reason = bad_time(text, self._parser, self._options) if self._parser is not None else "is no time"
            problem = self._bad_cell("+".join(self._roles.time), at, text, reason)
            self._bad_time = self._bad_time or problem
            if text in self._roles.time:
                raise BadRecording(f"in row {self._rows[at]} another header begins; split the file there")
            if "is skipped by a clock change" in reason:  # the clock of all rows is another one
                raise problem
        self._has_time.append(is_valid)
        return us

    def _as_written(self, texts: Sequence[str]) -> Sequence[object]:
        """Turn times that are written as numbers into numbers, where the format reads numbers."""
        assert self._parser is not None  # noqa: S101  # the caller has made it
        if self._parser.time_format in ("s", "ms", "us", "ns", "excel", "auto"):
            return _numbers_where_possible(texts)
        return texts

    def _read_assets(self, column: str, texts: list[str]) -> Int32:
        for text in set(texts):
            if (problem := name_problem(normal_name(text))) is not None:
                raise self._bad_cell(column, texts.index(text), text, f"names no asset: it {problem}")
        return np.array([self._assets.setdefault(normal_name(text), len(self._assets)) for text in texts], np.int32)

    def _read_series(self, column: str, texts: list[str]) -> Int32:
        for text in set(texts):
            if (problem := name_problem(normal_name(text))) is not None:
                raise self._bad_cell(column, texts.index(text), text, f"names no sensor: it {problem}")
        found = np.array([self._series.setdefault(text, len(self._series)) for text in texts], np.int32)
        if len(self._series) > MAX_CODES:
            raise BadRecording(
                f"column {quote(column)} names more than {MAX_CODES:,} sensors; name another one with --sensor-column, "
                "or split the file"
            )
        return found

    def _read_labels(self, column: str, texts: list[str]) -> NDArray[np.int8]:
        labels = np.zeros(len(texts), np.int8)
        for at, text in enumerate(texts):
            plain = text.casefold().removesuffix(".0")
            if plain in _YES:
                labels[at] = 1
            elif plain not in _NO and plain not in BLANK:
                raise self._bad_cell(column, at, text, "is no label; write 1 for a fault, 0 for normal")
        return labels

    def _read_numbers(self, candidate: _Candidate, cells: Cells) -> None:
        n = len(cells)
        kinds: NDArray[np.int8] | None = None
        if isinstance(cells, np.ndarray):
            is_number = cells.dtype.kind == "f"
            numbers = cells if is_number else np.full(n, np.nan)
            bad = np.flatnonzero(np.isinf(numbers)) if is_number else np.arange(n)
        else:
            parsed = parse_cells(cells, self._style, self._missing)
            numbers, kinds = parsed.values, parsed.kinds
            candidate.words += parsed.words
            candidate.units |= parsed.units
            candidate.points = parsed.points | candidate.points
            bad = np.flatnonzero(np.isinf(numbers) if kinds is None else (kinds == BAD) | np.isinf(numbers))
            candidate.n_states += 0 if kinds is None else int((kinds == STATE).sum())
        with np.errstate(over="ignore"):
            column = numbers.astype(np.float32)
        too_large: Bool = np.isinf(column) & np.isfinite(numbers)
        column[too_large] = np.nan
        self._n_too_large += int(too_large.sum())
        candidate.n_numbers += int(np.isfinite(column).sum() if kinds is None else (kinds == NUMBER).sum())
        if len(bad) and candidate.bad is None:
            candidate.bad = (self._rows[int(bad[0])], str(cells[int(bad[0])]))
        candidate.parts.append(column)
        if self._roles.sensor is not None:
            if kinds is None:
                kinds = np.where(np.isfinite(numbers), NUMBER, 0).astype(np.int8)
                kinds[bad] = BAD
            candidate.kinds.append(kinds)
        elif candidate.is_text and not isinstance(cells, np.ndarray):
            self._code(candidate, cells)

    def _code(self, candidate: _Candidate, cells: Sequence[str | None]) -> None:
        """Number the texts of a column without numbers: they may name series."""
        if self._n_rows and not candidate.codes:
            return
        codes = candidate.codes
        texts = _texts(cells)
        if len(set(texts)) + len(codes) > MAX_CODES:
            codes.clear()
            candidate.coded.clear()
            return
        candidate.coded.append(np.array([codes.setdefault(text, len(codes)) for text in texts], np.int32))

    def _bad_cell(self, column: str, at: int, text: str, problem: str) -> BadRecording:
        return BadRecording(f"column {quote(column)}, row {self._rows[at]}: {quote(text)} {problem}")


def _texts(cells: Cells) -> list[str]:
    if isinstance(cells, np.ndarray):
        return [_text_of_number(cell) for cell in cells.tolist()]
    return ["" if cell is None else cell.strip() for cell in cells]


def _text_of_number(number: float) -> str:
    if number != number:
        return ""
    return str(int(number)) if float(number).is_integer() else str(number)


def _numbers_where_possible(texts: Sequence[str]) -> Sequence[object]:
    """Turn the times that are written as numbers into numbers, and leave the others as they are."""
    for number in (int, float):
        try:
            return list(map(number, texts))
        except ValueError:
            continue
    return texts
