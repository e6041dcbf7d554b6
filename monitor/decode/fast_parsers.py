"""The fast parsers of one fleet: which exist, and the order in which they are tried.

Input: records that `mapping.py` has read. Output: parsers for records like these. Invariant: a parser more or less
changes the time that decoding takes, never its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.decode.blocks import BlockParser
from monitor.decode.column_readings import ColumnParser
from monitor.decode.readings import Plan, ReadingParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.decode.formats import Layout
    from monitor.decode.mapping import Row

_MAX_PARSERS = 6
"""Fast parsers of one fleet and format: structures of records that are met at the same time."""

Parser = ReadingParser | BlockParser


class FastParsers:
    """The fast parsers of one fleet's records, beginning with the one that accepted most records last."""

    __slots__ = ("_parsers",)

    def __init__(self) -> None:
        self._parsers: dict[str, list[Parser]] = {"json": [], "msgpack": [BlockParser()], "documents": []}

    def has_any(self, read: str) -> bool:
        """Return whether a parser of single readings is known."""
        return any(isinstance(parser, ReadingParser) for parser in self._parsers.get(read, ()))

    def in_order(self, read: str) -> tuple[Parser, ...]:
        """Return the parsers of a format in the order in which they are tried."""
        return tuple(self._parsers.get(read, ()))

    def prefer(self, read: str, parser: Parser) -> None:
        """Try this parser first from now on."""
        self._parsers[read].remove(parser)
        self._parsers[read].insert(0, parser)

    def expect(
        self,
        plan: Plan,
        read: str,
        row: Row,
        document: Mapping[str, Any],
        sensors: Mapping[str, int],
        watched: Iterable[str],
        layout: Layout | None,
    ) -> None:
        """Let the parser of this plan accept records like this one. `layout`: of their schema."""
        parsers = self._parsers.setdefault(read, [])
        known = next((each for each in parsers if isinstance(each, ReadingParser) and each.plan == plan), None)
        if known is None:
            if len(parsers) >= _MAX_PARSERS:
                return
            known = ReadingParser(plan, read) if layout is None else ColumnParser(plan, layout)
            parsers.append(known)
        known.expect(row, document, sensors, watched)
