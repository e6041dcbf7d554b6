"""Lines of CSV → documents: a field per column.

    2026-11-29T06:00:00Z,R80711,101.5,3.2          [kafka.fields] columns = ["time", "asset", "power", "pitch"]
    time;asset;power                               or a header in the record itself
    2026-11-29T06:00:00Z;R80711;101,5              with semicolons a comma is the decimal sign

Input: the value of one record, one or more lines in UTF-8. Output: a document per line. Invariant: the result depends
on the record and the settings alone. The delimiter is the one of semicolon, tab and comma that splits the first line.
A number is one by its characters, an empty cell is null, and every other cell stays a text.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any, Final

from monitor.decode.formatting import quote, short_list
from monitor.decode.payload import MAX_FIELDS
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.decode.formats import Documents, FormatOptions, RawRecord

MAX_LINES: Final = 20_000
"""Lines of one record."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_MAX_DIGITS: Final = 300
"""Characters of a number. A longer one is a text."""
_BOM: Final = "\ufeff"


def make_parser(options: FormatOptions) -> CsvParser:
    """Return the parser of CSV lines."""
    return CsvParser(options.columns)


class CsvParser:
    """Parser of CSV lines, whose columns have these names. None = each record has a header."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        self._columns = columns

    def parse(self, record: RawRecord) -> Documents:
        """Return a document per line."""
        return parse(record.value, self._columns)


def parse(value: bytes, columns: Sequence[str] | None = None) -> Documents:
    """Return a document per line. Raises DecodeError: not_csv, too_many_fields, too_many_readings."""
    lines = _lines(value)
    delimiter = _delimiter(lines[0], len(columns) if columns else None)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as problem:
        raise DecodeError(f"not_csv: {problem}; check the quotes of the lines") from None
    names = [name.strip() for name in columns] if columns else None
    if _is_header(rows[0], names):
        names, rows = [cell.strip() for cell in rows[0]], rows[1:]
        _check_header(names)
        if not rows:
            raise DecodeError(_no_names(names) if columns is None else "empty: the record holds only a header")
    if names is None:
        raise DecodeError(_no_names(rows[0]))
    if len(names) > MAX_FIELDS:
        raise DecodeError(f"too_many_fields: the lines have {len(names)} columns; at most {MAX_FIELDS} are read")
    decimal_comma = delimiter == ";"
    documents = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise DecodeError(
                f"not_csv: line {number} has {len(row)} cells for the {len(names)} columns "
                f"({short_list(tuple(names))}); correct columns under [kafka.fields], or the producer"
            )
        documents.append({
            name: _cell(cell, decimal_comma=decimal_comma) for name, cell in zip(names, row, strict=True)
        })
    return documents


def _lines(value: bytes) -> list[str]:
    try:
        text = value.decode().removeprefix(_BOM)
    except UnicodeDecodeError as problem:
        raise DecodeError(
            f"not_csv: byte {problem.start} is not UTF-8; write the lines in UTF-8, or check kafka.format"
        ) from None
    if "\0" in text:
        raise DecodeError("not_csv: the record has NUL characters; check kafka.format")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if not lines:
        raise DecodeError("not_csv: the record is empty")
    if len(lines) > MAX_LINES:
        raise DecodeError(f"too_many_readings: the record has {len(lines)} lines; at most {MAX_LINES} are read")
    return lines


def _delimiter(line: str, n_columns: int | None) -> str:
    """Return the delimiter that gives the wanted number of cells, else the first one that the line has."""
    present = [each for each in (";", "\t", ",") if each in line]
    if n_columns is not None:
        fitting = [each for each in present if line.count(each) == n_columns - 1]
        present = fitting or present
    return present[0] if present else ","


def _is_header(row: list[str], names: Sequence[str] | None) -> bool:
    """Return whether the row has names instead of values: no numbers and no times, or exactly the configured names."""
    cells = [cell.strip() for cell in row]
    if names is not None:
        return [cell.lower() for cell in cells] == [name.lower() for name in names]
    return not any(_looks_like_value(cell) for cell in cells)


def _looks_like_value(cell: str) -> bool:
    return not cell or cell[0].isdigit() or _NUMBER.fullmatch(cell.replace(",", ".")) is not None


def _check_header(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DecodeError(f"not_csv: the header names {quote(twice[0])} twice; give each column its own name")


def _no_names(row: list[str]) -> str:
    proposed = ", ".join(['"time"', '"…"'][: max(len(row), 1)])
    return (
        f"not_csv: no header names the {len(row)} columns of the lines; name them in order under [kafka.fields]: "
        f"columns = [{proposed}]"
    )


def _cell(cell: str, *, decimal_comma: bool) -> Any:
    text = cell.strip()
    if not text:
        return None
    written = text.replace(",", ".") if decimal_comma and text.count(",") == 1 and "." not in text else text
    if len(written) > _MAX_DIGITS or _NUMBER.fullmatch(written) is None:
        return text
    if written.lstrip("+-").isdigit():
        return int(written)
    return float(written)
