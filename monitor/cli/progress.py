"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from monitor.cli.terminal import echo
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_EVERY_S = 5.0
"""Time between two lines where stderr is no terminal: a log needs signs of life, not every step."""
STEPS = 1000
"""Resolution of the bar."""


class Progress(Protocol):
    """Callback for the progress of the work."""

    def __call__(self, share: float | None, text: str) -> None:
        """Show the finished share, 0..1, and the current step. `share` None = unknown."""

    def clear(self) -> None:
        """Erase the bar before a line of output. The next call draws it again."""


@contextmanager
def progress(title: str, *, line_every_s: float = LINE_EVERY_S) -> Iterator[Progress]:
    """Yield the callback. `line_every_s`: 0 = a line for each new step where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _Lines(line_every_s)
        return
    with click.progressbar(
        length=STEPS,
        label=title,
        file=sys.stderr,
        width=30,
        update_min_steps=0,
        item_show_func=lambda text: text,
    ) as bar:
        yield _Bar(bar)


class _Lines:
    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._printed_at = -every_s
        self._printed = ""

    def __call__(self, share: float | None, text: str) -> None:
        if text != self._printed and time.monotonic() - self._printed_at >= self._every_s:
            self._printed, self._printed_at = text, time.monotonic()
            echo(text if share is None else f"{share:4.0%}  {text}", err=True)

    def clear(self) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar  # click does not export the class

    def __call__(self, share: float | None, text: str) -> None:
        steps = self._bar.pos if share is None else round(share * STEPS)
        self._bar.update(steps - self._bar.pos, escape_unprintable(text))

    def clear(self) -> None:
        click.echo("\r\x1b[K", nl=False, err=True)
