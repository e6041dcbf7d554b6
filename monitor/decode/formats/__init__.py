"""Wire formats beyond plain JSON and MessagePack: a file each, from a record's bytes to plain documents.

    framing.py       schema registries: the frame before a value, and the schemas of a batch
    framed.py        framed records of any kind
    csv_lines.py     lines of CSV
    influx.py        InfluxDB's line protocol
    avro.py          Avro: framed, single objects, container files, or plain with a schema file
    avro_columns.py  many records of one flat Avro schema at once
    json_schema.py   JSON behind a registry's frame
    protobuf.py      Protobuf: framed, or with a descriptor file (proto_source.py: .proto text → descriptor)
    arrow.py         Arrow IPC streams
    sparkplug.py     Sparkplug B

Input: one `RawRecord`. Output: its documents, dicts of JSON-like values. A time may also be a `datetime`. Invariant: a
parser is pure and raises nothing but DecodeError. Depth, fields and documents of a record are bounded. Only Sparkplug
has a state, the aliases of births, which is plain JSON.

A parser's module, and the library behind it, is imported when its first record comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from monitor.decode.payload import json_documents, msgpack_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from monitor.decode.formats.avro_columns import Leaf
    from monitor.types import Headers

Documents = list[dict[str, Any]]

FORMATS: Final = ("json", "msgpack", "csv", "influx", "avro", "json_schema", "protobuf", "arrow", "sparkplug")
"""All wire formats, besides "auto"."""


class RawRecord(NamedTuple):
    """One record, as the parsers see it."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    stamp_us: int = -1
    """Kafka's timestamp. -1 = none."""
    schemas: Mapping[int, str] = {}
    """Schemas of a registry by id: see framing.py."""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """The settings of the wire formats."""

    columns: tuple[str, ...] | None = None
    """`[kafka.fields] columns`: names of the columns of CSV lines."""
    schema: bytes | None = None
    """Content of `kafka.schema_file`: an Avro schema, or a set of Protobuf descriptors."""
    message: str | None = None
    """`kafka.message`: full name of the Protobuf message."""
    has_registry: bool = False
    """Whether `kafka.registry_url` is set."""


class FormatParser(Protocol):
    """The parser of one wire format. One object serves one partition."""

    def parse(self, record: RawRecord) -> Documents:
        """Return the documents of a record. Raises DecodeError."""


@runtime_checkable
class StatefulParser(FormatParser, Protocol):
    """The parser of a format whose records need what earlier ones of the partition said."""

    def state(self, since: int) -> dict[str, Any]:
        """Return what reading again from the offset `since` on needs, as plain JSON. Older facts are dropped."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with a stored state."""


class Layout(NamedTuple):
    """A flat schema, whose records can be read in columns."""

    name: str
    """Unique within one decoder."""
    leaves: tuple[Leaf, ...]
    n_skipped: int
    """Bytes before each record."""


@runtime_checkable
class ColumnarParser(FormatParser, Protocol):
    """The parser of a format whose records of one schema can be read in columns."""

    def layouts(self, values: Sequence[bytes], schemas: Mapping[int, str]) -> tuple[list[Layout | None], list[int]]:
        """Return layouts, and the number [N] of each record's among them. None = it must be read alone."""


class _Plain:
    """A format that needs the value alone."""

    def __init__(self, parse: Callable[[bytes], Documents]) -> None:
        self._parse = parse

    def parse(self, record: RawRecord) -> Documents:
        """Return the documents."""
        return self._parse(record.value)


def make_parser(name: str, options: FormatOptions) -> FormatParser:
    """Return a new parser of a format. Raises ConfigError where a schema file cannot be used."""
    if name in ("json", "msgpack"):
        return _Plain(json_documents if name == "json" else msgpack_documents)
    module = import_module(f"monitor.decode.formats.{'csv_lines' if name == 'csv' else name}")
    parser: FormatParser = module.make_parser(options)
    return parser


# ---------------------------------------------------------------- format = "auto"

_JSON_STARTS: Final = frozenset(b'{["-0123456789 \t\r\n')
"""First bytes of JSON texts that are no line protocol."""
_BOM: Final = b"\xef\xbb\xbf"
"""Mark before a text in UTF-8."""
_JSON_WORDS: Final = frozenset((b"null", b"true", b"false", b"NaN"))


def recognise(value: bytes) -> str:
    """Return the format of a record by its bytes: only what is unambiguous is not JSON or MessagePack.

    `value`: not empty.
    """
    first = value[0]
    if first == 0 and len(value) >= FRAME_BYTES:
        return "framed"
    if first in _JSON_STARTS:
        return "json"
    if first >= 0x80:
        return "arrow" if value.startswith(_ARROW_STREAM) else "json" if value.startswith(_BOM) else "msgpack"
    if value.startswith(b"Obj\x01"):
        return "avro"
    if value.startswith(b"ARROW1"):
        return "arrow"
    return "influx" if _looks_like_line(value) else "json"


FRAME_BYTES: Final = 5
"""A registry's frame: a zero byte and the id of the schema."""
_ARROW_STREAM: Final = b"\xff\xff\xff\xff"
"""Continuation marker before the first message of a stream. As MessagePack it is the number -1."""


def _looks_like_line(value: bytes) -> bool:
    """Return whether the first line is measurement, fields and perhaps a time, as in line protocol."""
    if value in _JSON_WORDS:
        return False
    from monitor.decode.formats.influx import is_line  # its library is loaded where lines may come

    return is_line(value)


def ids_of_frames(records: Sequence[bytes | None]) -> set[int]:
    """Return the ids of schemas that the frames of these values or keys name."""
    return {
        int.from_bytes(value[1:FRAME_BYTES], "big")
        for value in records
        if value is not None and len(value) >= FRAME_BYTES and value[0] == 0
    }
