"""CSV, CSV.gz, Parquet → a header and chunks of columns; nothing is interpreted here.

The law: memory is that of one chunk, whatever the size of the file.
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
    """A part of a column: texts as CSV has them, or what Parquet already knows to be numbers or times."""
    Chunks = Iterator[Mapping[str, Cells]]

_ROWS_AT_A_TIME: Final = 50_000


class Table(NamedTuple):
    """An opened file."""

    names: list[str]
    """Of the columns."""
    times: list[str]
    """Names of the columns that the file itself declares to be times."""
    chunks: Chunks


def open_table(path: Path) -> Table:
    """Open a file by its ending. Raises BadRecording, at once or while the chunks are read."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "csv":
        return _csv(path)
    if kind in ("parquet", "pq"):
        return _parquet(path)
    raise BadRecording("recordings end in .csv, .csv.gz or .parquet")


def _csv(path: Path) -> Table:
    rows = _csv_rows(path)
    header = next(rows, None)
    if not header:
        raise BadRecording("the file is empty")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise BadRecording(f"the column {quote(twice[0])} stands twice in the header; rename one")
    return Table(header, [], _csv_chunks(header, rows))


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
    for first in itertools.count(2, _ROWS_AT_A_TIME):
        chunk = list(itertools.islice(rows, _ROWS_AT_A_TIME))
        if not chunk:
            return
        if set(map(len, chunk)) != {width}:
            for row, cells in enumerate(chunk, first):
                if cells and len(cells) != width:
                    raise BadRecording(f"row {row} has {len(cells)} cells; the header has {width}")
            chunk = [cells for cells in chunk if cells]  # without blank lines, usually the last
        if chunk:
            yield dict(zip(header, zip(*chunk, strict=True), strict=True))


def _parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        msg = 'Parquet needs pyarrow; install it with pip install "sensor-anomaly-monitor[files]"'
        raise BadRecording(msg) from None
    try:
        schema = (file := pq.ParquetFile(path)).schema_arrow
    except (pa.ArrowException, OSError) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem
    times = [column.name for column in schema if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)]

    def chunks() -> Chunks:
        try:
            for batch in file.iter_batches(_ROWS_AT_A_TIME):
                yield {name: _arrow_cells(pa, batch.column(i)) for i, name in enumerate(schema.names)}
        except (pa.ArrowException, OSError) as problem:
            raise BadRecording(f"the file is damaged: {problem}") from problem

    return Table(list(schema.names), times, chunks())


def _arrow_cells(pa: Any, column: Any) -> Cells:
    kind, of = column.type, pa.types
    if of.is_timestamp(kind) or of.is_date(kind):
        us = pa.timestamp("us", getattr(kind, "tz", None))
        times: NDArray[np.datetime64] = column.cast(us, safe=False).to_numpy(zero_copy_only=False)
        return times.astype("datetime64[us]")
    if of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind) or of.is_null(kind):
        numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    return [None if cell is None else str(cell) for cell in column.to_pylist()]
