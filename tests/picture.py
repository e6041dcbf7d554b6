"""Picture of the demo in a terminal: runs `monitor demo` in one of 80 columns, and writes what it shows as SVG.

    python -m tests.picture [deploy/demo.svg]

Input: the screen of the run. Output: an SVG with one text element per line. Invariant: nothing is written by hand.
"""

from __future__ import annotations

import os
import pty
import re
import struct
import sys
import tempfile
from fcntl import ioctl
from html import escape
from pathlib import Path
from termios import TIOCSWINSZ

COLUMNS, ROWS = 80, 60
CELL, LINE, MARGIN = 9.05, 20, 16
"""Width of a character, height of a line, and margin, in pixels."""
COLOURS = {"31": "#f2777a", "32": "#99cc99", "33": "#ffcc66", "36": "#66cccc"}
_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER = re.compile(r"\x1b\[\??[0-9;]*[A-Za-ln-z]")


def screen(*command: str) -> list[str]:
    """Run a program in a terminal, without its stderr. Return the lines of its stdout, with their colours."""
    pid, terminal = pty.fork()
    if pid == 0:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
        os.environ.update(COLUMNS=str(COLUMNS), TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.execv(command[0], command)
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # the end of a terminal whose program has ended
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
    return _OTHER.sub("", b"".join(parts).decode()).replace("\r\n", "\n").rstrip("\n").split("\n")


def svg(lines: list[str], title: str) -> str:
    """Return the picture of lines with SGR colours."""
    width, height = round(COLUMNS * CELL + 2 * MARGIN), LINE * (len(lines) + 2) + MARGIN
    rows = [
        f'<text x="{MARGIN}" y="{LINE * (n + 2) + MARGIN}" xml:space="preserve">{_spans(line)}</text>'
        for n, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            f"<title>{escape(title)}</title>",
            '<style>text{font:15px "DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#d3d0c8}</style>',
            f'<rect width="{width}" height="{height}" rx="8" fill="#2d2d2d"/>',
            *(f'<circle cx="{MARGIN + 4 + 18 * n}" cy="{MARGIN}" r="5" fill="#515151"/>' for n in range(3)),
            *rows,
            "</svg>\n",
        ]
    )


def _spans(line: str) -> str:
    """Return a line as tspans, each at its column, so that any monospaced font keeps the table straight."""
    spans, style, column = [], "", 0
    for n, part in enumerate(_SGR.split(line)):
        if n % 2:
            codes = part.split(";")
            style = "" if codes in ([""], ["0"]) else style + "".join(map(_style, codes))
        elif part:
            spans.append(f'<tspan x="{MARGIN + column * CELL:g}"{style}>{escape(part)}</tspan>')
            column += len(part)
    return "".join(spans)


def _style(code: str) -> str:
    if code == "1":
        return ' font-weight="bold"'
    return ' fill="#999"' if code == "2" else f' fill="{COLOURS[code]}"' if code in COLOURS else ""


def main() -> None:
    """Run the demo in a temporary folder and write the picture."""
    target = Path(sys.argv[1] if sys.argv[1:] else "deploy/demo.svg").resolve()
    monitor = Path(sys.executable).with_name("monitor")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["PATH"] = f"{monitor.parent}{os.pathsep}{os.environ['PATH']}"
        lines = screen(str(monitor), "demo")
    target.write_text(svg(["$ deploy/demo", *lines], "monitor demo in a terminal"), "utf-8")


if __name__ == "__main__":
    main()
