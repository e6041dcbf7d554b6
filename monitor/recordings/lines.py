"""Bytes of a text file → lines, for any encoding that loggers and spreadsheets write.

Input: a path. Output: an iterator of lines. Invariant: the memory is that of the longest line, and its length is
bounded.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Final

from monitor.errors import BadRecording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

MAX_LINE: Final = 1024 * 1024
"""Characters. A file without line ends would otherwise fill the memory."""
_SAMPLE: Final = 64 * 1024
_CP1252: Final = "monitor-cp1252"


def _as_cp1252(problem: UnicodeError) -> tuple[str, int]:
    """Decode the bytes that are not UTF-8 as Windows does."""
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    return problem.object[problem.start : problem.end].decode("cp1252", "replace"), problem.end


codecs.register_error(_CP1252, _as_cp1252)


def encoding_of(path: Path) -> tuple[str, str | None]:
    """Return the encoding of a file, and a note where it is not UTF-8. Raises BadRecording."""
    try:
        with _opened(path) as file:
            sample = file.read(_SAMPLE)
    except (OSError, EOFError, zlib.error) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "the text is UTF-16"
    n_nul = sample.count(0)
    if n_nul > len(sample) // 4:
        name = "utf-16-le" if sample[1::2].count(0) >= n_nul // 2 + n_nul % 2 else "utf-16-be"
        return name, "the text is UTF-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return "utf-8-sig", "the text is not UTF-8 and is read as Windows-1252"
    return "utf-8-sig", None


def foreign_kind(path: Path) -> str | None:
    """Return what a file is that is no delimited text, by its first bytes, with the fix. None = it may be text."""
    try:
        with _opened(path) as file:
            begin = file.read(256).removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError, zlib.error):  # told by `encoding_of`
        return None
    text = begin.lstrip().lower()
    return next((kind for starts, kind in _FOREIGN if begin.startswith(starts) or text.startswith(starts)), None)


_FOREIGN: Final = (
    ((b"PK\x03\x04",), "a ZIP archive, as .xlsx is one; save the spreadsheet as CSV, or unpack the archive"),
    ((b"\xd0\xcf\x11\xe0",), "an Excel workbook (.xls); save it as CSV"),
    ((b"PAR1",), "Parquet; rename it to .parquet"),
    ((b'{"', b"[{", b'["', b"{\n", b"{\r\n"), "JSON; write its records as rows of a CSV file, a column for each field"),
    ((b"<!doctype", b"<html"), "a web page (HTML), perhaps of a login; download the file again"),
    ((b"<?xml",), "XML; save it as CSV"),
)


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines with their ends. Raises BadRecording for a damaged file, and for a line without an end."""
    try:
        with _opened(path) as binary, io.TextIOWrapper(binary, encoding, _CP1252, newline="") as file:
            readline = file.readline
            while line := readline(MAX_LINE):
                if len(line) == MAX_LINE and not line.endswith("\n"):
                    raise BadRecording(f"a line is longer than {MAX_LINE:,} characters; this is no table of readings")
                yield line
    except (OSError, EOFError, zlib.error, UnicodeError) as problem:
        raise BadRecording(f"the file is damaged: {problem}") from problem


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if is_gzip(path) else path.open("rb")


def is_gzip(path: Path) -> bool:
    """Return whether a file is compressed, by its first bytes or by its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b" or path.name.lower().endswith(".gz")
