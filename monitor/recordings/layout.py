"""The first lines of a delimited text → its layout: delimiter, header, where the rows of readings begin.

Input: some lines of a file. Output: a `Layout`. Invariants: the layout is found in the rows, not in the names. Every
line that is taken for something else than readings is told in a note.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording
from monitor.printable import normal_name
from monitor.recordings.cells import LOOSE_NUMBER, MISSING_WORDS, STATES, NumberStyle, style_of
from monitor.recordings.names import is_time_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = list[str]

SAMPLE_LINES: Final = 200
MAX_COLUMNS: Final = 10_000
_DELIMITERS: Final = "\t;|, "
"""In the order in which they are preferred: a comma also stands within numbers, and a blank within anything."""
_TIME: Final = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,_].*)?|\d{1,2}:\d\d(:\d\d.*)?( ?[ap]m)?"
    r"|([a-z]{2,9}\.?,? )?\d{1,2}[-. /][a-zä]{3,9}\.?[-. /,]+\d{2,4}.*|[a-z]{3,9}\.? \d{1,2},? \d{4}.*|\d{8}T\d{4,6}Z?",
    re.ASCII | re.IGNORECASE,
)


class Layout(NamedTuple):
    """How the rows of a file are laid out."""

    names: list[str]
    """Of the columns, unique. "" = a column without a name that comes first, usually row numbers."""
    delimiter: str
    style: NumberStyle
    first_row: int
    """Rows (as the CSV reader counts them) before the first row of readings."""
    header: Row
    """Cells of the header, which some files repeat. Empty = there is none."""
    sample: dict[str, Row]
    """Some cells of each column."""
    notes: tuple[str, ...]


def kind_of(cell: str) -> str:
    """Return what a cell holds: b (blank or a word for missing), n (number), t (date or clock), x (text)."""
    text = cell.strip()
    if text.casefold() in MISSING_WORDS:
        return "b"
    if LOOSE_NUMBER.fullmatch(text) and any(map(str.isdigit, text)) and not _TIME.fullmatch(text):
        return "n"
    return "t" if _TIME.fullmatch(text) else "x"


def find_layout(lines: Sequence[str], columns: Sequence[str] | None, decimal: str) -> Layout:
    """Find the layout of a file by its first lines. Raises BadRecording."""
    delimiter, width, rows = _split(lines)
    if width > MAX_COLUMNS:
        raise BadRecording(f"it has {width:,} columns; at most {MAX_COLUMNS:,} can be read")
    first = _first_data(rows, width)
    notes: list[str] = []
    at = _header_row(rows[:first], width)
    header = [] if at is None else [cell.strip() for cell in rows[at]]
    data = [[*row, *[""] * (width - len(row))] for row in rows[first:] if width - 1 <= len(row) <= width]
    if at is None and not data:
        raise BadRecording("the file is empty")
    if columns is not None:
        if len(columns) != width:
            raise BadRecording(f"--columns names {len(columns)} columns, but the rows have {width}")
        names = list(columns)
        notes.append("columns are named by --columns" + ("" if at is None else f", not by the header in row {at + 1}"))
    elif at is None:
        names = [f"column{n}" for n in range(1, width + 1)]
        notes.append(f"it has no header: its columns are called {names[0]} to {names[-1]} (--columns A,B,… names them)")
    else:
        names = [cell.lstrip("#").strip() if n == 0 else cell for n, cell in enumerate(header)]
        names = _fitting(names, data, width)
        notes += _notes_about_rows(rows, at, first, width)
    names, renamed = _unique([_printable(name) for name in names], data)
    notes += renamed
    cells = [[cell.strip() for cell in column] for column in zip(*data, strict=True)]
    style = style_of(cells, decimal, is_comma_free=delimiter in ";\t")
    if style.decimal_comma:
        notes.append("numbers have a decimal comma")
    elif style.has_groups:
        notes.append("commas within numbers separate thousands")
    sample = dict(zip(names, cells or [[] for _ in names], strict=True))
    return Layout(names, delimiter, style, first, header, sample, tuple(notes))


def _split(lines: Sequence[str]) -> tuple[str, int, list[Row]]:
    """Return the delimiter, the usual number of columns, and the rows."""
    best: tuple[tuple[bool, float, int, int], str, int, list[Row]] | None = None
    for place, delimiter in enumerate(_DELIMITERS):
        try:
            rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " "))
        except csv.Error:  # a field that is too long: another delimiter cuts it
            continue
        tail = [row for row in rows[len(rows) // 4 :] if any(row) and not row[0].startswith("#")]
        if not tail:
            continue
        width, n = Counter(map(len, tail)).most_common(1)[0]
        if width < 2 or n < len(tail) / 2:
            continue
        first = next(i for i, row in enumerate(rows) if len(row) == width)
        # A delimiter that the header has too is better than one that stands within its names or in numbers only. A
        # blank is one only where nothing else is.
        key = (delimiter != " ", round(n / len(tail), 1), -first, -place)
        if best is None or key > best[0]:
            best = key, delimiter, width, rows
    if best is None:
        rows = list(csv.reader(lines))
        return ",", max((len(row) for row in rows[len(rows) // 4 :]), default=1) or 1, rows
    return best[1:]


def _first_data(rows: Sequence[Row], width: int) -> int:
    """Return the index of the first row of readings."""
    tail = [row for row in rows[len(rows) // 4 :] if len(row) == width and not row[0].startswith("#")]
    kinds = []
    for column in zip(*tail, strict=True):
        counts = Counter(kind_of(cell) for cell in column if cell.strip())
        counts.pop("b", None)
        kinds.append(counts.most_common(1)[0][0] if counts else "b")
    times = [n for n, kind in enumerate(kinds) if kind == "t"]
    typed = [n for n, kind in enumerate(kinds) if kind in "nt"]
    for at, row in enumerate(rows):
        if not row or not width - 1 <= len(row) <= width or row[0].startswith("#"):
            continue
        cells = [kind_of(cell) for cell in (*row, *[""] * (width - len(row)))]
        n_alike = sum(cells[n] == kinds[n] for n in typed)
        n_other = sum(cells[n] == "x" and row[n].strip().casefold() not in STATES for n in typed if n < len(row))
        if times and all(cells[n] == "t" for n in times):
            return at
        if n_alike > n_other and all(cells[n] in "tb" for n in times):
            return at
    return len(rows) if typed else min(1, len(rows))


def _header_row(rows: Sequence[Row], width: int) -> int | None:
    """Return the index of the header among the rows above the readings. None = there is none."""
    best: tuple[tuple[bool, int, bool], int] | None = None
    for at, row in enumerate(rows):
        filled = [cell.strip() for cell in row if cell.strip()]
        fits = width - 1 <= len(row) <= width or (len(row) == width + 1 and not row[-1].strip())
        if not fits or len(filled) * 2 < width or (width > 1 and len(filled) < 2 and not is_time_name(filled[0])):
            continue
        is_comment = row[0].startswith("#")
        key = (not is_comment, len(filled), any(is_time_name(cell.lstrip("# ")) for cell in filled))
        if best is None or key > best[0]:
            best = key, at
    return None if best is None else best[1]


def _notes_about_rows(rows: Sequence[Row], at: int, first: int, width: int) -> list[str]:
    notes = []
    if at > 0:
        notes.append(f"the header is row {at + 1}; what stands above it is skipped")
    below = [n for n in range(at + 1, first) if any(cell.strip() for cell in rows[n])]
    if below:
        texts = tuple(cell.strip() for cell in rows[below[0]] if cell.strip())
        which = f"row {below[0] + 1} below the header is" if len(below) == 1 else f"{len(below)} rows below it are"
        notes.append(f"{which} no reading and is skipped ({short_list(texts, min(5, width))})")
    return notes


def _fitting(names: Row, data: Sequence[Row], width: int) -> Row:
    """Return the names for the width of the rows: a delimiter at the end of lines makes one blank column."""
    if len(names) == width + 1:
        return names[:width]
    if len(names) == width - 1:
        if any(row[-1].strip() for row in data):
            raise BadRecording(
                f"the header has {len(names)} columns, but the rows have {width}; "
                "correct it, or name them with --columns"
            )
        return [*names, ""]
    return names


def _printable(name: str) -> str:
    """Return a name that is safe to show: without control characters."""
    return "".join(sign if sign.isprintable() else "_" for sign in normal_name(name))


def _unique(names: Row, data: Sequence[Row]) -> tuple[Row, list[str]]:
    """Name the columns without a name that hold something, and number the repeated names."""
    seen: Counter[str] = Counter()
    unique, renamed = [], []
    for n, name in enumerate(names):
        holds = {kind_of(row[n]) for row in data} - {"b"}
        if not name and holds and (n > 0 or "t" in holds):
            name = f"column{n + 1}"
        seen[name] += 1
        if name and seen[name] > 1:
            number = seen[name]
            while f"{name} ({number})" in names:
                number += 1
            renamed.append(name)
            name = f"{name} ({number})"
        unique.append(name)
    if not renamed:
        return unique, []
    shown = ", ".join(quote(name) for name in dict.fromkeys(renamed[:5]))
    return unique, [f"columns of the same name are numbered: {shown}"]
