"""Decompression of Kafka batches within a limit of memory.

Input: the number of a codec and the compressed records of one batch. Output: the records' bytes.
Invariant: one batch decompresses to at most `MAX_BATCH_BYTES`, and the outcome depends on its bytes alone, so that a
replay reads the same records as the live run.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import cramjam
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""Limit of one decompressed batch: 64 times Kafka's default for a compressed one (`max.message.bytes`, 1 MiB).

Readings in JSON decompress to 4 to 6 times their size, and with gzip to 60 times where no value ever changes
(measured). Most producers limit a batch by its uncompressed size, to 1 MiB or less.
"""
MAX_HEADERS = 1_000_000
"""Limit for all records of a batch. A header takes 2 bytes there and 72 as a Python object."""
MIN_RECORD_BYTES = 6
"""The shortest record, after its length field: one byte for each of its fields."""
FIRST_RATIO = 16
"""Ratio of the first buffer for lz4 and zstd, whose frames need not state their decompressed size."""
XERIAL_MAGIC = b"\x82SNAPPY\x00"
"""Start of Java's framing of snappy. Two version numbers follow, then blocks, each after its length in 4 bytes."""
ADVICE = "though its checksum is right; check the producer that sends it"


class UnreadableBatch(Exception):
    """The records of a batch cannot be read. The argument is the reason for quarantine."""


def decompress(codec: int, compressed: bytes | memoryview) -> bytes | memoryview:
    """Decompress the records of one batch. `codec` is the number in its attributes. Raises UnreadableBatch."""
    if codec not in CODECS:
        raise UnreadableBatch(f"corrupt_batch: its batch has the unknown compression codec {codec}, {ADVICE}")
    name, function = CODECS[codec]
    try:
        return function(compressed)
    except (zlib.error, cramjam.DecompressionError, ValueError) as problem:
        raise UnreadableBatch(f"corrupt_batch: its batch is not valid {name} ({problem}), {ADVICE}") from problem


def gunzip(compressed: bytes | memoryview) -> bytes:
    """Decompress one or more gzip members. Zeros may follow each."""
    records, rest = b"", bytes(compressed)
    while rest:
        stream = zlib.decompressobj(wbits=31)
        records += stream.decompress(rest, MAX_BATCH_BYTES + 1 - len(records))
        if len(records) > MAX_BATCH_BYTES:
            raise _too_large()
        if not stream.eof:
            raise zlib.error("its stream is cut off")
        rest = stream.unused_data.lstrip(b"\0")
    return records


def unsnappy(compressed: bytes | memoryview) -> bytes:
    """Decompress snappy, raw or in Java's framing. Both state the decompressed size in advance."""
    view = memoryview(compressed)
    blocks = list(_xerial_blocks(view)) if view[: len(XERIAL_MAGIC)] == XERIAL_MAGIC else [view]
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > MAX_BATCH_BYTES:
        raise _too_large()
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _xerial_blocks(framed: memoryview) -> Iterator[memoryview]:
    at = len(XERIAL_MAGIC) + 8
    while at < len(framed):
        size = int.from_bytes(framed[at : at + 4], "big")
        at += 4 + size
        if at > len(framed):
            raise ValueError("a snappy block is cut off")
        yield framed[at - size : at]


def _into_buffer(decompress_into: Callable[[Any, Any], int], compressed: bytes | memoryview) -> memoryview:
    """Decompress frames of lz4 or zstd."""
    for size in (min(FIRST_RATIO * len(compressed), MAX_BATCH_BYTES), MAX_BATCH_BYTES):
        buffer = np.empty(size, np.uint8)  # pages that are never written cost no memory
        try:
            return buffer.data[: decompress_into(compressed, buffer)]
        except cramjam.DecompressionError as problem:
            error = problem
    if "whole buffer" in str(error):
        raise _too_large()
    raise error


CODECS: dict[int, tuple[str, Callable[[bytes | memoryview], bytes | memoryview]]] = {
    1: ("gzip", gunzip),
    2: ("snappy", unsnappy),
    3: ("lz4", partial(_into_buffer, cramjam.lz4.decompress_into)),
    4: ("zstd", partial(_into_buffer, cramjam.zstd.decompress_into)),
}
"""Number of a codec in a batch's attributes → its name and decompressor."""


def check_headers(records: bytes | memoryview) -> None:
    """Raise UnreadableBatch if the records of a version 2 batch have more than `MAX_HEADERS` headers.

    aiokafka makes a list of all headers before it compares anything with the record's length. Malformed records are
    left to its parser. The layout of a record: its length, attributes, time, offset, length and bytes of the key, the
    same of the value, and the number of its headers.
    """
    if len(records) <= 2 * MAX_HEADERS:
        return
    at, n_headers = 0, 0
    try:
        while at < len(records):
            size, at = _varint(records, at)
            if size < MIN_RECORD_BYTES:
                break
            field = at + 1
            for _ in range(2):
                _, field = _varint(records, field)
            for _ in range(2):
                length, field = _varint(records, field)
                field += max(length, 0)
            n_headers += max(_varint(records, field)[0], 0)
            at += size
    except IndexError:
        pass
    if n_headers > MAX_HEADERS:
        raise _too_large(f"holds more than {MAX_HEADERS:,} headers")


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read a zigzag varint and return it with the offset after it. Raises IndexError at the end of the data."""
    number = data[at] & 0x7F
    for shift in range(7, 70, 7):
        if data[at] < 0x80:
            break
        at += 1
        number |= (data[at] & 0x7F) << shift
    return (number >> 1) ^ -(number & 1), at + 1


def _too_large(problem: str | None = None) -> UnreadableBatch:
    problem = problem or f"decompresses to more than {MAX_BATCH_BYTES >> 20} MiB"
    return UnreadableBatch(
        f"too_large_batch: its batch {problem}, so no record of it was read; "
        "have the producer send smaller batches (batch.size, linger.ms) or smaller records"
    )
