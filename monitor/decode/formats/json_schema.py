"""JSON behind a schema registry's frame → documents. The schema is not needed to read it.

Input: the value of one record, framed or not. Output: one document. Invariant: the same as plain JSON behind the frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.decode.formats.framing import read_frame
from monitor.decode.payload import json_documents

if TYPE_CHECKING:
    from monitor.decode.formats import Documents, FormatOptions, RawRecord


class JsonSchemaParser:
    """Parser of framed JSON."""

    def parse(self, record: RawRecord) -> Documents:
        """Return the one document. Raises DecodeError."""
        frame = read_frame(record.value)
        return json_documents(record.value if frame is None else frame.body)


def make_parser(options: FormatOptions) -> JsonSchemaParser:  # noqa: ARG001  # every format's signature
    """Return the parser of framed JSON."""
    return JsonSchemaParser()
