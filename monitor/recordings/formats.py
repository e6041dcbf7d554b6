"""Delimited text (also .gz) and Parquet files → a header and chunks of columns. The cells are not interpreted here.

Input: the path of a file. Output: an `OpenFile`. Invariant: the memory is that of one chunk, for any size of the file.
"""

from __future__ import annotations

import csv
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monitor.errors import BadRecording
from monitor.recordings.cells import NumberStyle
from monitor.recordings.layout import MAX_COLUMNS, SAMPLE_LINES, find_layout
from monitor.recordings.lines import encoding_of, foreign_kind, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from monitor.recordings.layout import Layout
    from monitor.recordings.options import FileOptions

    Cells = Sequence[str | None] | NDArray[np.float64] | NDArray[np.datetime64]
    """A part of a column: texts from CSV, or numbers or times from Parquet."""

_ROWS_PER_CHUNK: Final = 50_000
_MAX_ODD_SHARE: Final = 0.02
"""Rows of another width that are left out. With more the file is not understood."""
_MAX_CELL_LINES: Final = 20
"""Line ends within a quoted cell. With more a quote is not closed, and the cell has swallowed rows."""
TEXT_ENDINGS: Final = ("csv", "txt", "tsv", "tab", "dat", "log", "asc", "lvm", "prn")


class Chunk(NamedTuple):
    """Some rows of a file."""

    cells: Mapping[str, Cells]
    rows: Sequence[int]
    """Number of each row in the file, as a spreadsheet counts."""


class OpenFile(NamedTuple):
    """The header of a file, and its rows."""

    names: list[str]
    """Names of the columns."""
    time_columns: list[str]
    """Columns that the file declares to be times."""
    chunks: Iterator[Chunk]
    style: NumberStyle
    """The way in which its texts write numbers."""
    sample: Mapping[str, Sequence[str]]
    """Some cells of each column of a text file."""
    notes: list[str]
    """What to tell of the file. Notes are added while the chunks are read."""
    local_times: frozenset[str] = frozenset()
    """Columns that the file declares to be times without a zone."""


def open_file(path: Path, options: FileOptions) -> OpenFile:
    """Open a file by its ending. Raises BadRecording, at once or while the chunks are read."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in TEXT_ENDINGS:
        return _open_text(path, options)
    if kind in ("parquet", "pq"):
        return _open_parquet(path)
    raise BadRecording(
        f"recordings end in .csv, .csv.gz or .parquet (or {', '.join(TEXT_ENDINGS[1:])}); save a spreadsheet as CSV"
    )


# ---------------------------------------------------------------- text


def _open_text(path: Path, options: FileOptions) -> OpenFile:
    if (kind := foreign_kind(path)) is not None:
        raise BadRecording(f"its name is that of a text table, but it is {kind}")
    encoding, note = encoding_of(path)
    lines = lines_of(path, encoding)
    head = list(itertools.islice(lines, SAMPLE_LINES))
    notes = [note] if note else []
    if head and head[0].lower().startswith("sep=") and len(head[0].strip()) <= 5:  # a line for Excel
        del head[0]
    if not any(line.strip() for line in head):
        raise BadRecording("the file is empty")
    try:
        layout = find_layout(head, options.columns, options.decimal)
    except csv.Error as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem
    notes += layout.notes
    chunks = _text_chunks(layout, itertools.chain(head, lines), notes)
    return OpenFile(layout.names, [], chunks, layout.style, layout.sample, notes)


def _text_chunks(layout: Layout, lines: Iterator[str], notes: list[str]) -> Iterator[Chunk]:
    """Yield the rows of readings. Rows of another width and repeated headers are counted and left out."""
    reader = csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=layout.delimiter == " ")
    width = len(layout.names)
    n_rows = n_odd = n_headers = 0
    odd: tuple[int, int] | None = None
    try:
        readings = itertools.islice(reader, layout.first_row, None)
        n_lines = 0
        for first in itertools.count(layout.first_row + 1, _ROWS_PER_CHUNK):
            chunk = list(itertools.islice(readings, _ROWS_PER_CHUNK))
            if not chunk:
                break
            if reader.line_num - n_lines > len(chunk):
                _check_quotes(chunk, first)
            n_lines = reader.line_num
            rows: Sequence[int] = range(first, first + len(chunk))
            if set(map(len, chunk)) != {width} or _has_other_lines(chunk, layout.header):
                kept = []
                for row, cells in zip(rows, chunk, strict=True):
                    if len(cells) == width + 1 and not cells[-1].strip():
                        del cells[-1]
                    if not any(cells) or cells[0].startswith("#"):
                        continue
                    if [cell.strip() for cell in cells] == layout.header:
                        n_headers += 1
                    elif len(cells) == width:
                        kept.append((row, cells))
                    elif len(cells) == width - 1 and not layout.names[-1]:
                        kept.append((row, [*cells, ""]))
                    else:
                        n_odd += 1
                        odd = odd or (row, len(cells))
                rows, chunk = [row for row, _ in kept], [cells for _, cells in kept]
            n_rows += len(chunk)
            if odd is not None and n_odd > _MAX_ODD_SHARE * (n_rows + n_odd) and n_rows + n_odd < 2 * _ROWS_PER_CHUNK:
                raise BadRecording(_odd_rows(n_odd, n_rows, odd, width))
            if chunk:
                yield Chunk(dict(zip(layout.names, zip(*chunk, strict=True), strict=True)), rows)
    except csv.Error as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem
    if odd is not None:
        if n_odd > _MAX_ODD_SHARE * (n_rows + n_odd):
            raise BadRecording(_odd_rows(n_odd, n_rows, odd, width))
        rows_are = "1 row has" if n_odd == 1 else f"{n_odd:,} rows have"
        notes.append(f"{rows_are} another number of cells than {width} and are left out: the first is row {odd[0]}")
    if n_headers:
        notes.append(f"the header is repeated in {n_headers:,} rows, which are skipped")


def _check_quotes(chunk: Sequence[Sequence[str]], first: int) -> None:
    """Raise BadRecording for a quote that is not closed, or only in a far row. `first`: number of the first row."""
    for row, cells in enumerate(chunk, first):
        n_lines = max((cell.count("\n") or cell.count("\r") for cell in cells), default=0)
        is_open = row == first + len(chunk) - 1 and bool(cells) and cells[-1].endswith(("\n", "\r"))
        if n_lines > _MAX_CELL_LINES or is_open:
            raise BadRecording(
                f"a quote in row {row} is not closed in its row, and takes {n_lines:,} further lines into one cell; "
                "close or remove it"
            )


def _has_other_lines(chunk: Sequence[Sequence[str]], header: Sequence[str]) -> bool:
    """Return whether a row is a comment, or may be the header again."""
    first = header[0] if header else ""
    return any(cells[0][:1] == "#" or (cells[0] == first and first != "") for cells in chunk) or (
        bool(header) and not first and any([cell.strip() for cell in cells] == header for cells in chunk)
    )


def _odd_rows(n_odd: int, n_rows: int, odd: tuple[int, int], width: int) -> str:
    return (
        f"row {odd[0]} has {odd[1]} cells; the header has {width}"
        + (f", and {n_odd:,} of {n_odd + n_rows:,} rows have another number than it" if n_odd > 1 else "")
        + "; correct the file, or name its columns with --columns"
    )


# ---------------------------------------------------------------- Parquet


def _open_parquet(path: Path) -> OpenFile:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise BadRecording(
            'Parquet needs pyarrow; install it with pip install "sensor-anomaly-monitor[files]"'
        ) from None
    try:
        schema = (file := pq.ParquetFile(path)).schema_arrow
    except (pa.ArrowException, OSError) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem
    if len(schema.names) > MAX_COLUMNS:
        raise BadRecording(f"it has {len(schema.names):,} columns; at most {MAX_COLUMNS:,} can be read")
    is_time = pa.types.is_timestamp, pa.types.is_date
    times = [column.name for column in schema if any(test(column.type) for test in is_time)]
    local = frozenset(name for name in times if getattr(schema.field(name).type, "tz", None) is None)
    return OpenFile(list(schema.names), times, _parquet_chunks(pa, file, schema.names), NumberStyle(), {}, [], local)


def _parquet_chunks(pa: Any, file: Any, names: Sequence[str]) -> Iterator[Chunk]:
    first = 2  # as if it had a header
    try:
        for batch in file.iter_batches(_ROWS_PER_CHUNK):
            cells = {name: _arrow_cells(pa, batch.column(i)) for i, name in enumerate(names)}
            yield Chunk(cells, range(first, first + batch.num_rows))
            first += batch.num_rows
    except (pa.ArrowException, OSError) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem


def _arrow_cells(pa: Any, column: Any) -> Cells:
    kind, types = column.type, pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        us = pa.timestamp("us", getattr(kind, "tz", None))
        times: NDArray[np.datetime64] = column.cast(us, safe=False).to_numpy(zero_copy_only=False)
        return times.astype("datetime64[us]")
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    return [None if cell is None else str(cell) for cell in column.to_pylist()]
