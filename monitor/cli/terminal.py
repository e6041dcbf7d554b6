"""Coloured text, and tables that fit the terminal.

Own, and small: rich costs 0.1 s to import and 5 s to lay out a table of 10,000 alerts. This takes 1 ms and 0.2 s.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

PIPE_WIDTH = 120
"""Columns of what no terminal shows."""
GAP = "  "
NARROW = 12
"""A column that takes what is left is never narrower."""
WIDE = 100
"""Columns from which there is room for what is only nice to have."""


class Styled(NamedTuple):
    """Text and how it looks: "red", "bold green", "dim"."""

    text: str
    look: str = ""

    def __str__(self) -> str:
        if not self.look:
            return self.text
        words = self.look.split()
        colour = next((word for word in words if word not in ("bold", "dim")), None)
        return click.style(self.text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def echo(*parts: str | Styled) -> None:
    """Print one line on stdout; in colour only where a person looks, and not if $NO_COLOR."""
    click.echo("".join(str(part) for part in parts), color=False if os.environ.get("NO_COLOR") else None)


def columns() -> int:
    """Say how wide a line may be."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Break prose into lines."""
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


class Table:
    """Rows under headings. "peak:right" aligns to the right; "reason:rest" shares the width that is left, and wraps."""

    def __init__(self, *headings: str) -> None:
        names = [heading.partition(":") for heading in headings]
        self._how = [how for _, _, how in names]
        self._rows: list[list[Styled]] = [[Styled(name, "dim") for name, _, _ in names]]

    def add(self, *cells: str | Styled) -> None:
        """Add a row, a cell per heading."""
        self._rows.append([Styled(cell) if type(cell) is str else cell for cell in cells])  # type: ignore[misc]  # an Styled is a tuple, no str

    def lines(self, width: int) -> Iterator[str]:
        """Lay the table out."""
        widths = [max(map(_length, (cell.text for cell in column))) for column in zip(*self._rows, strict=True)]
        rest = [x for x, how in enumerate(self._how) if how == "rest"]
        left = width - sum(widths) - len(GAP) * (len(widths) - 1) + sum(widths[x] for x in rest)
        for n, x in enumerate(sorted(rest, key=lambda x: widths[x])):  # the narrower ones leave more to the others
            widths[x] = min(widths[x], max(NARROW, left // (len(rest) - n)))
            left -= widths[x]
        for row in self._rows:
            cells = [
                _broken(cell, widths[x]) if self._how[x] == "rest" and _length(cell.text) > widths[x] else [cell]
                for x, cell in enumerate(row)
            ]
            for y in range(max(map(len, cells))):
                line = [cell[y] if y < len(cell) else Styled("") for cell in cells]
                yield GAP.join(self._padded(x, cell, widths[x]) for x, cell in enumerate(line)).rstrip()

    def _padded(self, x: int, cell: Styled, width: int) -> str:
        blank = " " * (width - _length(cell.text))
        return f"{blank}{cell}" if self._how[x] == "right" else f"{cell}{blank}"


def show(table: Table) -> None:
    """Print a table."""
    for line in table.lines(columns()):
        echo(line)


def _broken(cell: Styled, width: int) -> list[Styled]:
    return [Styled(line, cell.look) for line in textwrap.wrap(cell.text, width, break_on_hyphens=False)]


def _length(text: str) -> int:
    """Columns that a text takes: Chinese, Japanese and Korean signs take two."""
    return len(text) if text.isascii() else sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
