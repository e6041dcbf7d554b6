"""Framed records of any kind → documents, for `format = "auto"`: the registry knows the kind of each schema.

Input: the value of one record that begins with a frame. Output: the documents of the parser of its kind. Invariant: a
frame without a registry is refused with the setting that reads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from monitor.decode.formats import ColumnarParser
from monitor.decode.formats.framing import needs_registry, read_frame, registered
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.decode.formats import Documents, FormatOptions, FormatParser, Layout, RawRecord

_PARSER_OF: Final = {"AVRO": "avro", "JSON": "json_schema", "PROTOBUF": "protobuf"}


class FramedParser:
    """Parser of framed records. Makes the parser of a kind when its first record comes."""

    def __init__(self, options: FormatOptions) -> None:
        self._options = options
        self._parsers: dict[str, FormatParser] = {}

    def parse(self, record: RawRecord) -> Documents:
        """Return the documents of a record. Raises DecodeError."""
        frame = read_frame(record.value)
        if frame is None:
            raise DecodeError("not_json: the record begins with a zero byte; check kafka.format")
        if not self._options.has_registry:
            raise needs_registry(frame.schema_id)
        return self.parser_of(registered(record.schemas, frame.schema_id).type).parse(record)

    def layouts(self, values: Sequence[bytes], schemas: Mapping[int, str]) -> tuple[list[Layout | None], list[int]]:
        """Return layouts, and the number [N] of each record's among them. None = it must be read alone."""
        avro = self.parser_of("AVRO") if schemas else None
        return avro.layouts(values, schemas) if isinstance(avro, ColumnarParser) else ([None], [0] * len(values))

    def parser_of(self, kind: str) -> FormatParser:
        """Return the parser of a kind of schema."""
        if kind not in self._parsers:
            name = _PARSER_OF.get(kind)
            if name is None:
                raise DecodeError(f"bad_schema: schemas of type {kind} are not read; AVRO, JSON and PROTOBUF are")
            self._parsers[kind] = import_module(f"monitor.decode.formats.{name}").make_parser(self._options)
        return self._parsers[kind]


def make_parser(options: FormatOptions) -> FramedParser:
    """Return the parser of framed records."""
    return FramedParser(options)
