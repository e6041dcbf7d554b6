"""Wire formats: from a record's bytes to plain documents.

Input: one `RawRecord`. Output: its documents, dicts of JSON-like values. Invariant: a parser is pure and raises nothing
but DecodeError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from monitor.decode.payload import parse_json, parse_msgpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monitor.types import Headers

Documents = list[dict[str, Any]]

FORMATS: Final = ("json", "msgpack")
"""All wire formats, besides "auto"."""


class RawRecord(NamedTuple):
    """One record, as the parsers see it."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    stamp_us: int = -1
    """Kafka's timestamp. -1 = none."""
    schemas: Mapping[int, str] = {}
    """Schemas of a registry by id."""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """The settings of the wire formats."""


class FormatParser(Protocol):
    """The parser of one wire format. One object serves one partition."""

    def parse(self, record: RawRecord) -> Documents:
        """Return the documents of a record. Raises DecodeError."""


class _Plain:
    """A format whose records are one document each."""

    def __init__(self, parse: Callable[[bytes], dict[str, Any]]) -> None:
        self._parse = parse

    def parse(self, record: RawRecord) -> Documents:
        """Return the one document."""
        return [self._parse(record.value)]


def make_parser(name: str, options: FormatOptions) -> FormatParser:  # noqa: ARG001  # the formats to come need them
    """Return a new parser of a format."""
    return _Plain(parse_json if name == "json" else parse_msgpack)


def recognise(value: bytes) -> str:
    """Return the format of a record by its bytes. `value`: not empty."""
    # JSON text begins with a byte below 0x80; a MessagePack map, like most of its values, at or above.
    return "msgpack" if value[0] >= 0x80 and value[:3] != b"\xef\xbb\xbf" else "json"
