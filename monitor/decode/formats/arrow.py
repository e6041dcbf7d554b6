"""Arrow IPC → documents: a row of a table is a document.

Input: the value of one record, an Arrow stream or file. Output: a document per row. Columns of numbers, booleans,
texts, times, decimals and dictionaries of them are read, nested structs as objects, other columns are left out.
Invariant: the data are validated before a value is read. Compressed buffers are refused above a limit, by the sizes
that their headers state, so that no record fills the memory.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from monitor.decode.formatting import describe_value
from monitor.decode.payload import MAX_DEPTH, MAX_FIELDS
from monitor.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.decode.formats import Documents, FormatOptions, RawRecord

try:
    import pyarrow as pa
except ImportError:  # the extra is not installed: `make_parser` says so
    pa = None

MAX_ROWS: Final = 20_000
"""Rows of one record."""
MAX_CELLS: Final = 500_000
"""Values of one record."""
MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters of all texts of a record."""
MAX_INFLATED: Final = 4 * 1024 * 1024
"""Bytes of a record's compressed buffers after decompression."""
_FILE_MAGIC: Final = b"ARROW1"
_MARKER: Final = b"\xff\xff\xff\xff"


@dataclass(slots=True)
class _Budget:
    """What the texts of one record may still take."""

    n_characters: int


class ArrowParser:
    """Parser of Arrow IPC."""

    def parse(self, record: RawRecord) -> Documents:
        """Return a document per row. Raises DecodeError: not_arrow, too_many_readings, too_many_fields, too_large."""
        value = record.value
        if not value.startswith((_FILE_MAGIC, _MARKER)):
            raise DecodeError(
                f"not_arrow: the record begins with {describe_value(value[:8])}, which is no Arrow stream; "
                "check kafka.format"
            )
        if value.startswith(_FILE_MAGIC):
            value = value[8:]  # a file holds a stream between its magic and its footer
        documents: Documents = []
        budget = _Budget(MAX_TEXT)
        try:
            _check_compression(value)
            with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
                for batch in reader:
                    _check_size(batch, MAX_ROWS - len(documents))
                    batch.validate(full=True)
                    documents += _rows(batch, budget)
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError, TypeError) as problem:
            raise DecodeError(f"not_arrow: {' '.join(str(problem).split())[:200]}; check the producer") from None
        return documents


def make_parser(options: FormatOptions) -> ArrowParser:  # noqa: ARG001  # every format's signature
    """Return the parser of Arrow IPC. Raises ConfigError where pyarrow is not installed."""
    if pa is None:
        raise ConfigError("Arrow records need pyarrow: pip install 'sensor-anomaly-monitor[files]'")
    return ArrowParser()


# ---------------------------------------------------------------- columns


def _check_size(batch: Any, n_left: int) -> None:
    """Raise DecodeError for more rows, columns or values than one record may have."""
    names, n = batch.schema.names, batch.num_rows
    if n > n_left:
        raise DecodeError(f"too_many_readings: the record has more than {MAX_ROWS} rows")
    if len(names) > MAX_FIELDS:
        raise DecodeError(f"too_many_fields: the record has {len(names)} columns; at most {MAX_FIELDS} are read")
    if n * len(names) > MAX_CELLS:
        raise DecodeError(f"too_many_fields: the record has {n * len(names)} values; at most {MAX_CELLS} are read")
    if len(set(names)) != len(names):
        raise DecodeError("not_arrow: two columns have the same name")


def _rows(batch: Any, budget: _Budget) -> Documents:
    columns = {
        field.name: _values(batch.column(i), budget) for i, field in enumerate(batch.schema) if _is_read(field.type, 1)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_read(kind: Any, depth: int) -> bool:
    types = pa.types
    if types.is_struct(kind):
        if depth >= MAX_DEPTH:
            raise DecodeError(f"too_deep: the columns are nested deeper than {MAX_DEPTH} levels")
        return kind.num_fields <= MAX_FIELDS and all(_is_read(field.type, depth + 1) for field in kind)
    if types.is_dictionary(kind):
        return _is_read(kind.value_type, depth + 1) and not types.is_nested(kind.value_type)
    return _is_text(kind) or any(
        check(kind)
        for check in (
            types.is_integer, types.is_floating, types.is_boolean, types.is_timestamp, types.is_date, types.is_decimal,
            types.is_null, types.is_time,
        )
    )  # fmt: skip


def _values(column: Any, budget: _Budget) -> list[Any]:
    """Return the values of a column. Times are `datetime`, their nanoseconds are cut off."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        micros = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
        zone = UTC if kind.tz is not None else None
        epoch = datetime(1970, 1, 1, tzinfo=zone)
        return [None if us is None else epoch + timedelta(microseconds=us) for us in micros.to_pylist()]
    if pa.types.is_struct(kind):
        fields = [(kind.field(i).name, _values(column.field(i), budget)) for i in range(kind.num_fields)]
        valid = column.is_valid().to_pylist()
        return [{name: cells[row] for name, cells in fields} if valid[row] else None for row in range(len(column))]
    if pa.types.is_dictionary(kind):  # rows share the texts of the dictionary
        known = _values(column.dictionary, budget)
        return [None if number is None else known[number] for number in column.indices.to_pylist()]
    if _is_text(kind):
        return _texts(column, budget)
    return [_plain(value) for value in column.to_pylist()]


def _is_text(kind: Any) -> bool:
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _texts(column: Any, budget: _Budget) -> list[str | None]:
    """Return texts, within a limit: the rows of a view may share one long text, and would each have a copy of it."""
    texts = []
    for item in column:
        text: str | None = item.as_py()
        budget.n_characters -= len(text or "")
        if budget.n_characters < 0:
            raise DecodeError(f"too_large: the texts of the record have more than {MAX_TEXT >> 20} Mi characters")
        texts.append(text)
    return texts


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return value


# ---------------------------------------------------------------- compression

# An Arrow batch may be compressed, and pyarrow has no limit for what comes out. Each compressed buffer begins with its
# size after decompression, and the decompressor fills no more than that. So the sizes are added up before.

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2


def _check_compression(value: bytes) -> None:
    """Raise DecodeError if the compressed buffers of a stream would fill more than the limit."""
    total, at = 0, 0
    while at + 8 <= len(value):
        if value[at : at + 4] == _MARKER:
            at += 4
        n_meta = int.from_bytes(value[at : at + 4], "little", signed=True)
        at += 4
        if n_meta <= 0 or at + n_meta > len(value):
            return  # the end of the stream, or damage that pyarrow finds
        meta = _Table.root(value[at : at + n_meta])
        at += n_meta
        body_length = meta.int64(3)
        total += _inflated(meta, value[at : at + max(body_length, 0)])
        if total > MAX_INFLATED:
            raise DecodeError(
                f"too_large: the compressed batches have more than {MAX_INFLATED >> 20} MiB; write them "
                "uncompressed, and let Kafka compress"
            )
        if body_length < 0:
            return
        at += body_length


def _inflated(meta: _Table, body: bytes) -> int:
    """Return the bytes of one message's compressed buffers after decompression, as their headers state them."""
    kind, batch = meta.uint8(1), meta.table(2)
    if kind == _DICTIONARY_BATCH and batch is not None:
        batch = batch.table(1)
    if kind not in (_RECORD_BATCH, _DICTIONARY_BATCH) or batch is None or batch.table(3) is None:
        return 0
    total = 0
    for start, length in batch.pairs(2):
        if length >= 8 and 0 <= start <= len(body) - 8:
            total += max(0, int.from_bytes(body[start : start + 8], "little", signed=True))
    return total


class _Table:
    """A table of a FlatBuffer, in which Arrow writes its metadata. Only the reading of a few kinds of fields."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """Return the root table."""
        return cls(data, _int(data, 0, 4))

    def _field(self, number: int) -> int:
        """Return the position of a field, or 0 where it is absent."""
        table = self._at - _int(self._data, self._at, 4, signed=True)
        size = _int(self._data, table, 2)
        slot = 4 + 2 * number
        offset = _int(self._data, table + slot, 2) if slot + 2 <= size else 0
        return self._at + offset if offset else 0

    def uint8(self, number: int) -> int:
        """Return a field of one byte."""
        at = self._field(number)
        return _int(self._data, at, 1) if at else 0

    def int64(self, number: int) -> int:
        """Return a field of eight bytes."""
        at = self._field(number)
        return _int(self._data, at, 8, signed=True) if at else 0

    def table(self, number: int) -> _Table | None:
        """Return a table within this one."""
        at = self._field(number)
        return _Table(self._data, at + _int(self._data, at, 4)) if at else None

    def pairs(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the structs of two 64-bit numbers in a vector."""
        at = self._field(number)
        if not at:
            return
        at += _int(self._data, at, 4)
        n = min(_int(self._data, at, 4), len(self._data) // 16)
        for i in range(n):
            start = at + 4 + 16 * i
            yield _int(self._data, start, 8, signed=True), _int(self._data, start + 8, 8, signed=True)


def _int(data: bytes, at: int, size: int, *, signed: bool = False) -> int:
    if not 0 <= at <= len(data) - size:
        raise ValueError("the metadata are damaged")
    return int.from_bytes(data[at : at + size], "little", signed=signed)
