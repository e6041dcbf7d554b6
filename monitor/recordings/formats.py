"""CSV, CSV.gz and Parquet files → a header and chunks of columns. The cells are not interpreted here.

Input: the path of a file. Output: an `OpenFile`. Invariant: the memory is that of one chunk, for any size of the file.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monitor.decode.formatting import quote
from monitor.errors import BadRecording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Cells = Sequence[str | None] | NDArray[np.float64] | NDArray[np.datetime64]
    """A part of a column: texts from CSV, or numbers or times from Parquet."""
    Chunks = Iterator[Mapping[str, Cells]]

_ROWS_PER_CHUNK: Final = 50_000


class OpenFile(NamedTuple):
    """The header of a file, and its rows."""

    names: list[str]
    """Names of the columns."""
    time_columns: list[str]
    """Columns that the file declares to be times."""
    chunks: Chunks


def open_file(path: Path) -> OpenFile:
    """Open a file by its ending. Raises BadRecording, at once or while the chunks are read."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "csv":
        return _open_csv(path)
    if kind in ("parquet", "pq"):
        return _open_parquet(path)
    raise BadRecording("recordings end in .csv, .csv.gz or .parquet")


def _open_csv(path: Path) -> OpenFile:
    rows = _csv_rows(path)
    header = next(rows, None)
    if not header:
        raise BadRecording("the file is empty")
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise BadRecording(f"the column {quote(repeated[0])} stands twice in the header; rename one")
    return OpenFile(header, [], _csv_chunks(header, rows))


def _csv_rows(path: Path) -> Iterator[list[str]]:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            yield [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            yield from csv.reader(file, delimiter=delimiter)
    except UnicodeDecodeError as problem:
        raise BadRecording(f"the file is not UTF-8 text: {problem}; save it as UTF-8") from problem
    except (OSError, EOFError, zlib.error, csv.Error) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem


def _csv_chunks(header: list[str], rows: Iterator[list[str]]) -> Chunks:
    width = len(header)
    for first in itertools.count(2, _ROWS_PER_CHUNK):
        chunk = list(itertools.islice(rows, _ROWS_PER_CHUNK))
        if not chunk:
            return
        if set(map(len, chunk)) != {width}:
            for row, cells in enumerate(chunk, first):
                if cells and len(cells) != width:
                    raise BadRecording(f"row {row} has {len(cells)} cells; the header has {width}")
            chunk = [cells for cells in chunk if cells]  # without blank lines, usually the last
        if chunk:
            yield dict(zip(header, zip(*chunk, strict=True), strict=True))


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
    is_time = pa.types.is_timestamp, pa.types.is_date
    times = [column.name for column in schema if any(test(column.type) for test in is_time)]
    return OpenFile(list(schema.names), times, _parquet_chunks(pa, file, schema.names))


def _parquet_chunks(pa: Any, file: Any, names: Sequence[str]) -> Chunks:
    try:
        for batch in file.iter_batches(_ROWS_PER_CHUNK):
            yield {name: _arrow_cells(pa, batch.column(i)) for i, name in enumerate(names)}
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
