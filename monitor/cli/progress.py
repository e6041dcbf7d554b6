"""How far long work is: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Show = Callable[[float | None, str], None]

LINE_EVERY_S = 5.0
"""Where nobody watches, a line for each new step is too much; one in so long will do."""


@contextmanager
def progress(title: str) -> Iterator[Show]:
    """Yield a function of a share 0..1 (None = unknown) and a sentence."""
    if not sys.stderr.isatty():
        yield _lines()
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (BarColumn(30), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(
        TextColumn(title, markup=False),
        *columns,
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # what is printed meanwhile stands above the bar, and a pipe stays a pipe
        transient=True,
    ) as bar:
        task = bar.add_task("", total=1.0)

        def show(share: float | None, text: str) -> None:
            bar.update(task, total=None if share is None else 1.0, completed=share or 0.0, description=text)

        yield show


def _lines() -> Show:
    said_at = -LINE_EVERY_S

    def show(share: float | None, text: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_S:
            said_at = time.monotonic()
            click.echo(text if share is None else f"{share:4.0%}  {text}", err=True)

    return show
