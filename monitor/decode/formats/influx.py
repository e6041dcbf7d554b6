"""InfluxDB's line protocol → documents in the form of Telegraf's JSON.

    cpu,host=pump7 flow=3.5,heat=71i 1764399600000000000
    → {"name": "cpu", "tags": {"host": "pump7"}, "fields": {"flow": 3.5, "heat": 71}, "timestamp": 1764399600000000000}

Input: the value of one record, one or more lines in UTF-8. Output: a document per line, in their order. Comments and
empty lines are skipped. Invariant: one bad line refuses the whole record, so that no part of a text that spans lines is
taken for a line of its own. A line without a time has Kafka's timestamp.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from line_protocol_parser import LineFormatError, parse_line

from monitor.decode.formatting import quote
from monitor.decode.payload import MAX_FIELDS
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from monitor.decode.formats import Documents, FormatOptions, RawRecord

MAX_LINES: Final = 20_000
"""Lines of one record."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PEEK_BYTES: Final = 4_096
"""Bytes looked at to recognise a line."""


def make_parser(options: FormatOptions) -> InfluxParser:  # noqa: ARG001  # every format's signature
    """Return the parser of line protocol."""
    return InfluxParser()


class InfluxParser:
    """Parser of line protocol."""

    def parse(self, record: RawRecord) -> Documents:
        """Return a document per line."""
        return parse(record.value, record.stamp_us)


def parse(value: bytes, stamp_us: int = -1) -> Documents:
    """Return a document per line. Raises DecodeError: not_influx, too_many_fields, too_many_readings, missing_ts.

    `stamp_us`: Kafka's timestamp, for lines without a time. -1 = none.
    """
    try:
        lines = value.decode().split("\n")
    except UnicodeDecodeError as problem:
        raise DecodeError(f"not_influx: byte {problem.start} is not UTF-8; check kafka.format") from None
    if len(lines) > MAX_LINES:
        raise DecodeError(f"too_many_readings: the record has {len(lines)} lines; at most {MAX_LINES} are read")
    documents = []
    for line in lines:
        text = line.strip("\r \t")
        if text and not text.startswith("#"):
            documents.append(_document(text, stamp_us))
    if not documents:
        raise DecodeError("not_influx: the record has no line with values")
    return documents


def is_line(value: bytes) -> bool:
    """Return whether the first line of a record is line protocol, so that `format = "auto"` reads it as such."""
    line = value[:_PEEK_BYTES].partition(b"\n")[0].strip(b"\r \t")
    if b" " not in line or b"=" not in line or line.startswith(b"#"):
        return False
    if len(value) > _PEEK_BYTES and b"\n" not in value[:_PEEK_BYTES]:
        line = value.partition(b"\n")[0]
    try:
        return bool(_fields_of(line.decode()))
    except (UnicodeDecodeError, DecodeError):
        return False


def _document(line: str, stamp_us: int) -> dict[str, Any]:
    parsed = _fields_of(line)
    tags, fields, time = parsed["tags"], parsed["fields"], parsed["time"]
    if len(tags) + len(fields) > MAX_FIELDS:
        raise DecodeError(
            f"too_many_fields: a line has {len(tags) + len(fields)} tags and fields; at most {MAX_FIELDS} are read"
        )
    if time is None:
        if stamp_us < 0:
            raise DecodeError("missing_ts: the line has no time, and the record has no Kafka timestamp either")
        time = _EPOCH + timedelta(microseconds=stamp_us)
    return {"name": parsed["measurement"], "tags": tags, "fields": fields, "timestamp": time}


def _fields_of(line: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] | None = parse_line(line)
    except (LineFormatError, ValueError, OverflowError, MemoryError) as problem:
        raise DecodeError(
            f"not_influx: {str(problem).rstrip('.').lower()}; the line begins with {quote(line)}; "
            "check the producer and kafka.format"
        ) from None
    if parsed is None:
        raise DecodeError(f"not_influx: the line {quote(line)} has no fields")
    return parsed
