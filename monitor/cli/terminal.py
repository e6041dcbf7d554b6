"""Styled text, and tables that fit the terminal.

rich is not used: it takes 0.1 s to import and 5 s to lay out a table of 10,000 alerts. This takes 1 ms and 0.2 s.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import click

from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PIPE_WIDTH = 120
"""Width of a line where stdout is no terminal."""
PROSE_WIDTH = 100
"""Largest width of prose."""
WIDE = 100
"""Terminal width from which tables show their optional columns."""
GAP = "  "
MIN_WIDTH = 12
"""Smallest width of a column that shares the remaining width."""
LABEL_WIDTH = 13


class Styled(NamedTuple):
    """Text with a style: "red", "bold green", "dim"."""

    text: str
    style: str = ""

    def __str__(self) -> str:
        text = escape_unprintable(self.text, keep="\n")
        if not self.style:
            return text
        words = self.style.split()
        colour = next((word for word in words if word not in ("bold", "dim")), None)
        return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def columns() -> int:
    """Return the width of a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def is_wide() -> bool:
    """Return whether there is room for the optional columns of a table."""
    return columns() >= WIDE


def echo(*parts: str | Styled, err: bool = False) -> None:
    """Print one line, in colour only on a terminal and without $NO_COLOR. No part commands the terminal.

    `err`: on stderr, where everything belongs that is not the answer.
    """
    _echo_rendered("".join(str(Styled(part) if isinstance(part, str) else part) for part in parts), err=err)


def _echo_rendered(line: str, *, err: bool = False) -> None:
    click.echo(line, err=err, color=False if os.environ.get("NO_COLOR") else None)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Break prose into lines that fit the terminal."""
    width = min(PROSE_WIDTH, columns())
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def echo_prose(text: str, style: str = "", indent: str = "") -> None:
    """Print prose, broken into lines."""
    for line in wrapped(text, indent):
        echo(Styled(line, style))


def echo_facts(facts: Mapping[str, str | None]) -> None:
    """Print each value behind its label. A value of None is left out."""
    indent = " " * (len(GAP) + LABEL_WIDTH)
    for label, value in facts.items():
        if value is not None:
            first, *rest = wrapped(value, indent) or [indent]
            echo(Styled(f"{GAP}{label:<{LABEL_WIDTH}}", "dim"), first.removeprefix(indent))
            for line in rest:
                echo(line)


class Table:
    """Rows under headings. "peak:right" aligns to the right. "reason:rest" shares the remaining width, and wraps."""

    def __init__(self, *headings: str) -> None:
        names = [heading.partition(":") for heading in headings]
        self._layouts = [layout for _, _, layout in names]
        self._rows: list[list[Styled]] = [[Styled(name, "dim") for name, _, _ in names]]

    def add(self, *cells: str | Styled) -> None:
        """Add a row with a cell for each heading."""
        styled = [cell if isinstance(cell, Styled) else Styled(cell) for cell in cells]
        self._rows.append([Styled(escape_unprintable(cell.text), cell.style) for cell in styled])

    def print(
        self, groups: Sequence[tuple[str | Styled, ...]] = (), below: Sequence[Sequence[Styled]] = ()
    ) -> None:
        """Print the table.

        `groups`: for each row the line above it, printed where it differs from the last one. `below`: for each row the
        lines under it.
        """
        headings, *rows = self.lines_by_row(columns())
        above: tuple[str | Styled, ...] = ()
        all_groups, all_below = [(), *(groups or [()] * len(rows))], [(), *(below or [()] * len(rows))]
        for lines, group, under in zip([headings, *rows], all_groups, all_below, strict=True):
            if group != above:
                echo(*group)
            above = group
            for line in lines:
                _echo_rendered(line)
            for remark in under:
                echo(remark)

    def lines_by_row(self, width: int) -> Iterator[list[str]]:
        """Yield the lines of the headings and then of each row."""
        widths = self._widths(width)
        for row in self._rows:
            cells = [
                _broken(cell, most) if layout == "rest" and _display_width(cell.text) > most else [cell]
                for cell, most, layout in zip(row, widths, self._layouts, strict=True)
            ]
            lines = zip_longest(*cells, fillvalue=Styled(""))
            yield [GAP.join(map(_padded, line, widths, self._layouts)).rstrip() for line in lines]

    def _widths(self, width: int) -> list[int]:
        """Return the width of each column. The columns of layout "rest" share the width that the others leave."""
        widths = [max(_display_width(cell.text) for cell in column) for column in zip(*self._rows, strict=True)]
        rest = [x for x, layout in enumerate(self._layouts) if layout == "rest"]
        left = width - sum(widths) - len(GAP) * (len(widths) - 1) + sum(widths[x] for x in rest)
        for n, x in enumerate(sorted(rest, key=lambda x: widths[x])):  # narrow ones leave more to the others
            widths[x] = min(widths[x], max(MIN_WIDTH, left // (len(rest) - n)))
            left -= widths[x]
        return widths


def _padded(cell: Styled, width: int, layout: str) -> str:
    blank = " " * (width - _display_width(cell.text))
    return f"{blank}{cell}" if layout == "right" else f"{cell}{blank}"


def _broken(cell: Styled, width: int) -> list[Styled]:
    if _display_width(cell.text) > len(cell.text):
        width = max(1, width // 2)  # characters of two columns
    return [Styled(line, cell.style) for line in textwrap.wrap(cell.text, width, break_on_hyphens=False)]


def _display_width(text: str) -> int:
    """Return the terminal columns of a text. Chinese, Japanese and Korean characters take two."""
    return len(text) if text.isascii() else sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
