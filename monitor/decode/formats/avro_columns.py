"""Many Avro records of one flat schema → columns, with NumPy: under a microsecond a record.

A schema is flat if a record is a fixed sequence of scalars, each perhaps in a union with null, also within nested
records. All records are read together, field by field, each with its own position.

Input: the bytes of N records of one schema. Output: a column per field, and a mask of the records that were read.
Invariant: a record is read only if fastavro reads the same values from it. Every other one is left to fastavro, which
gives the reason: other encodings of the same number, texts that are not UTF-8, values out of range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from monitor.decode.timestamps import MAX_US, MIN_US

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.types import Bool, Int64

Path = tuple[str, ...]
_NUMBERS: Final = {"int": "long", "long": "long", "float": "float", "double": "double", "boolean": "boolean"}
_TIMESTAMPS: Final = {"timestamp-millis": 1_000, "timestamp-micros": 1}
"""Logical type → microseconds of its unit."""
_VARINT_BYTES: Final = 9
"""Longest number that is read here: 63 bits."""
_SHIFTS = (7 * np.arange(_VARINT_BYTES)).astype(np.uint64)
_PADDING: Final = bytes(16)
"""Behind the last record, so that a field may be read at any position."""


class Leaf(NamedTuple):
    """A scalar of a flat schema."""

    path: Path
    kind: str
    """long, float, double, boolean, string or time."""
    null_tag: int | None
    """Byte before a null. None = the field is never null."""
    value_tag: int
    """Byte before a value, in a union."""
    unit_us: int = 0
    """Of a time."""


class Columns(NamedTuple):
    """The fields of N records."""

    of: dict[Path, Any]
    """Numbers: float64 [N], NaN = null. Whole numbers: int64 [N]. Texts: list [N], None = null."""
    is_null: dict[Path, Bool]
    """[N], of the fields that may be null."""
    is_good: Bool
    """[N], False = left to fastavro."""


def flat_leaves(schema: Any, resolve: Callable[[str, str], tuple[Any, str] | None]) -> tuple[Leaf, ...] | None:
    """Return the scalars of a checked schema in their order. None = it is not flat.

    `resolve`: from the name of a type and the namespace to its definition and namespace.
    """
    leaves: list[Leaf] = []
    return tuple(leaves) if _collect(schema, "", (), leaves, resolve) and leaves else None


def _collect(
    schema: Any, space: str, path: Path, leaves: list[Leaf], resolve: Callable[[str, str], tuple[Any, str] | None]
) -> bool:
    tags: tuple[int | None, int] = (None, 0)
    if isinstance(schema, list):
        if len(schema) != 2 or "null" not in schema:
            return False
        null = schema.index("null")
        tags, schema = (2 * null, 2 * (1 - null)), schema[1 - null]
    while True:
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if isinstance(kind, dict):
            schema = kind
        elif isinstance(kind, str) and kind not in (*_NUMBERS, "string", "record") and (found := resolve(kind, space)):
            schema, space = found
        else:
            break
    if kind == "record" and tags[0] is None:
        name = str(schema.get("name"))
        space = schema.get("namespace") or (name.rpartition(".")[0] if "." in name else space)
        return all(_collect(each["type"], space, (*path, each["name"]), leaves, resolve) for each in schema["fields"])
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if kind == "long" and logical in _TIMESTAMPS:
        leaves.append(Leaf(path, "time", *tags, _TIMESTAMPS[logical]))
    elif logical is None and isinstance(kind, str) and (kind in _NUMBERS or kind == "string"):
        leaves.append(Leaf(path, _NUMBERS.get(kind, kind), *tags))
    else:
        return False
    return bool(path)


def read_columns(leaves: Sequence[Leaf], values: Sequence[bytes], n_skipped: int) -> Columns:
    """Read all records. `n_skipped`: bytes before each record."""
    reader = _Reader(values, n_skipped)
    of: dict[Path, Any] = {}
    is_null: dict[Path, Bool] = {}
    with np.errstate(invalid="ignore"):  # a signalling NaN
        for leaf in leaves:
            absent = None
            if leaf.null_tag is not None:
                absent = is_null[leaf.path] = reader.tag(leaf.null_tag, leaf.value_tag)
            of[leaf.path] = reader.read(leaf, absent)
    return Columns(of, is_null, reader.finish())


class _Reader:
    """The bytes of all records, and the position in each. A record that cannot be read goes on as garbage."""

    def __init__(self, values: Sequence[bytes], n_skipped: int) -> None:
        n = len(values)
        self._values = values
        self._data = np.frombuffer(b"".join([*values, _PADDING]), np.uint8)
        sizes = np.fromiter(map(len, values), np.int64, n)
        self._end = np.cumsum(sizes)
        self._begin = self._end - sizes
        self._last = len(self._data) - len(_PADDING) + 1  # behind the end, so that a cut record does not fit
        self._is_good = self._begin + n_skipped <= self._end
        self._at = np.minimum(self._begin + n_skipped, self._last)

    def finish(self) -> Bool:
        """Return whether each record [N] was read to its very end."""
        is_whole: Bool = self._is_good & (self._at == self._end)
        return is_whole

    def tag(self, null: int, value: int) -> Bool:
        """Read the bytes before values that may be null. Return whether each [N] is null."""
        byte = self._data[self._at]
        absent: Bool = byte == null
        self._is_good &= absent | (byte == value)
        self._move(1)
        return absent

    def read(self, leaf: Leaf, absent: Bool | None) -> Any:
        """Read a field of all records."""
        if leaf.kind in ("double", "float"):
            n_bytes = 8 if leaf.kind == "double" else 4
            column = self._fixed(n_bytes).view("<f8" if n_bytes == 8 else "<f4").ravel().astype(np.float64)
            if absent is None:
                self._move(n_bytes)
                return column
            self._move(np.where(absent, 0, n_bytes))
            return np.where(absent, np.nan, column)
        if leaf.kind == "boolean":
            byte = self._data[self._at]
            present = np.ones(len(byte), np.bool_) if absent is None else ~absent
            self._is_good &= (byte <= 1) | ~present
            self._move(present.astype(np.int64))
            return np.where(present, byte, np.nan)
        if leaf.kind == "string":
            return self._texts(absent)
        number = self._long(absent)
        if leaf.kind != "time":
            return number
        in_range = (number >= MIN_US // leaf.unit_us) & (number <= MAX_US // leaf.unit_us)
        self._is_good &= in_range
        return np.where(in_range, number, 0) * leaf.unit_us

    def _move(self, n_bytes: Any) -> None:
        self._at = np.minimum(self._at + n_bytes, self._last)

    def _fixed(self, n_bytes: int) -> Any:
        """Return the next bytes [N, n_bytes] of each record."""
        return self._data[self._at[:, None] + np.arange(n_bytes)]

    def _long(self, absent: Bool | None) -> Int64:
        raw = self._fixed(_VARINT_BYTES)
        is_last = raw < 0x80
        width = is_last.argmax(axis=1) + 1
        is_read = is_last.any(axis=1)
        longest = int(width.max(initial=1))
        parts = (raw[:, :longest] & 0x7F).astype(np.uint64) << _SHIFTS[:longest]
        parts[np.arange(longest) >= width[:, None]] = 0
        zigzag = parts.sum(axis=1, dtype=np.uint64)
        number: Int64 = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
        if absent is None:
            self._is_good &= is_read
            self._move(width)
            return number
        self._is_good &= is_read | absent
        self._move(np.where(absent, 0, width))
        number[absent] = 0
        return number

    def _texts(self, absent: Bool | None) -> list[str | None]:
        size = self._long(absent)
        self._is_good &= (size >= 0) & (size <= self._end - self._at)
        size = np.where(self._is_good, size, 0)
        first = (self._at - self._begin).tolist()
        last = (self._at - self._begin + size).tolist()
        known: dict[bytes, str | None] = {}
        texts: list[str | None] = []
        for value, begin, end in zip(self._values, first, last, strict=True):
            raw = value[begin:end]
            if raw not in known:
                known[raw] = _decoded(raw)
            texts.append(known[raw])
        if None in known.values():
            self._is_good &= np.array([text is not None for text in texts], np.bool_)
        if absent is not None and absent.any():
            texts = [None if is_absent else text for text, is_absent in zip(texts, absent.tolist(), strict=True)]
        self._move(size)
        return texts


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
