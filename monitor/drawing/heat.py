"""A table whose cells are coloured by their level.

Input: names of rows and columns, texts and levels of cells. Output: SVG text. Invariant: each cell holds its text, and
the worst level is hatched, so that nothing is told by colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.drawing import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW_PX, HEAD_PX, KEY_PX, GAP_PX = 24, 26, 40, 2
NAME_SHARE = 0.2
"""Share of the width for the names of the rows."""
MAX_NAME = 22
"""Characters of a name. The rest is left out, and stands in the cell's title."""
N_LEVELS = 6


def heat_table(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[tuple[str, int]]],
    *,
    title: str,
    desc: str,
    key: tuple[str, str, str],
) -> str:
    """Return the table. `cells`: text and level 0..6 by row and column, 0 = empty, 6 = the worst.

    `key`: words for level 1, for level 5 and for level 6.
    """
    wide = (1 - NAME_SHARE) / max(1, len(columns))
    parts = [
        f'<text x="{svg.percent(NAME_SHARE + (number + 0.5) * wide)}" y="16" class="major">{svg.text(name)}</text>'
        for number, name in enumerate(columns)
    ]
    for row, name in enumerate(rows):
        top = HEAD_PX + row * ROW_PX
        shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
        parts.append(f'<text x="0" y="{top + 16}" text-anchor="start" class="major">{svg.text(shown)}'
                     f"<title>{svg.text(name)}</title></text>")  # fmt: skip
        for number, (words, level) in enumerate(cells[row]):
            about = f"{name}, {columns[number]}: {words}"
            parts.append(_cell(NAME_SHARE + number * wide, top, wide, words, level, about))
    bottom = HEAD_PX + len(rows) * ROW_PX
    return svg.frame("heat", bottom + KEY_PX, "".join(parts) + _key(bottom + 12, key), title=title, desc=desc)


def _cell(left: float, top: float, wide: float, words: str, level: int, about: str) -> str:
    x, width, height = svg.percent(left + 0.002), svg.percent(wide - 0.004), ROW_PX - GAP_PX
    body = f'<rect class="h{level}" x="{x}" y="{top}" width="{width}" height="{height}" rx="2"/>'
    if level == N_LEVELS:  # a frame, for readers who see no colours
        body += f'<rect class="h-frame" x="{x}" y="{top}" width="{width}" height="{height}" rx="2"/>'
    middle = svg.percent(left + wide / 2)
    body += f'<text class="h-text h{level}-text" x="{middle}" y="{top + 15}">{svg.text(words)}</text>'
    return f"<g>{body}<title>{svg.text(about)}</title></g>"


def _key(top: float, key: tuple[str, str, str]) -> str:
    first, last, worst = key
    parts = [f'<text x="0" y="{top + 13}" text-anchor="start">{svg.text(first)}</text>']
    for level in range(1, N_LEVELS):
        x = svg.percent(0.14 + (level - 1) * 0.035)
        parts.append(f'<rect class="h{level}" x="{x}" y="{top + 2}" width="3.2%" height="14" rx="2"/>')
    parts.append(f'<text x="33%" y="{top + 13}" text-anchor="start">{svg.text(last)}</text>')
    parts.append(f'<rect class="h6" x="54%" y="{top + 2}" width="3.2%" height="14" rx="2"/>')
    parts.append(f'<rect class="h-frame" x="54%" y="{top + 2}" width="3.2%" height="14" rx="2"/>')
    parts.append(f'<text x="58.5%" y="{top + 13}" text-anchor="start">{svg.text(worst)}</text>')
    return "".join(parts)
