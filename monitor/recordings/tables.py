"""Rows of a query as a CSV or Parquet file, written as they come: memory stays constant.

Input: rows and the kinds of their columns. Output: a file, complete or not there at all; CSV also as a stream.
Invariant: a spreadsheet takes no text of a CSV file for a formula. A text that begins like one gets an apostrophe.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Kind = Literal["text", "time", "number", "integer", "flag", "json"]

ROWS_AT_ONCE = 10_000
"""Rows of a Parquet row group."""
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def write_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Kind], path: Path) -> int:
    """Write rows into a new file, `.csv` or `.parquet` by its name, and return their number. Replaces an old file.

    `columns`: name → kind, in order. A time is ISO 8601. Other keys of a row are left out. Raises MonitorError for
    another suffix or without pyarrow, OSError.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise MonitorError(f"{path.name} names no format; call it .csv or .parquet")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    made = Path(name)
    try:
        os.fchmod(handle, 0o666 & ~_umask())
        if suffix == ".csv":
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
                n = write_csv(rows, columns, stream)
        else:
            os.close(handle)
            n = _write_parquet(rows, columns, made)
        made.replace(path)
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise
    return n


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Kind], stream: TextIO) -> int:
    """Write a header and the rows, and return their number. None is an empty cell."""
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(columns)
    n = 0
    for row in rows:
        table.writerow([_cell(row[name], kind) for name, kind in columns.items()])
        n += 1
    return n


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return ""
    if kind == "flag":
        return "true" if value else "false"
    if kind == "json":
        value = json.dumps(value, ensure_ascii=False)
    if kind in ("text", "json") and value.startswith(FORMULA_SIGNS):
        return f"'{value}"
    return value


def _write_parquet(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Kind], path: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        missing = 'Parquet needs pyarrow; install it with pip install "sensor-anomaly-monitor[files]"'
        raise MonitorError(missing) from None
    types = {
        "text": pa.string(),
        "json": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "number": pa.float64(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    n = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            arrays = []
            for name, kind in columns.items():
                values = [row[name] for row in batch]
                if kind == "json":
                    values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
                texts = pa.array(values, pa.string() if kind == "time" else types[kind])
                arrays.append(texts.cast(types[kind]))
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            n += len(batch)
    return n


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch
