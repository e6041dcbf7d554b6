"""Options that commands share: times, the configuration, `--json`.

Input: text from the command line. Output: typed values. Invariant: a time without an offset is UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from monitor.config.values import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import Config
    from monitor.store.reader import Reader

T = TypeVar("T")

_RELATIVE = re.compile(r"(?:now)?\s*(?:([+-])\s*(.+))?")
_CONFIG = "monitor.config_path"
DEFAULT_LIMIT = 50
"""Rows of a table without `--limit`."""


class Parsed(click.ParamType[T]):
    """A type that `parse` reads from text. Its ValueError becomes a usage error that names the option."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Parse the text of an option. A default that is already parsed is returned as it is."""
        if not isinstance(value, str):
            parsed: T = value
            return parsed
        try:
            return self._parse(value.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_time(text: str, now: datetime) -> datetime:
    """Read "2015-07-27", "2015-07-27T10:00+02:00", "now", "now-30d" or "-2h" as an aware UTC time."""
    if text and (match := _RELATIVE.fullmatch(text)):
        try:
            distance = parse_duration(match[2]) if match[2] else timedelta()
        except ValueError as error:
            raise ValueError(f'"{text}": {match[2]} {error}') from None
        try:
            return now - distance if match[1] == "-" else now + distance
        except OverflowError:
            raise ValueError(f'"{text}" is outside the calendar') from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time; write 2015-07-27, 2015-07-27T10:00Z, now-30d or -2h') from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


TIME = Parsed("time", lambda text: parse_time(text, datetime.now(UTC)))


def _remember_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.meta[_CONFIG] = value  # subcommands share it, so -c may come before or after their name


config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    expose_value=False,
    is_eager=True,
    callback=_remember_config,
    help="Configuration file [default: $MONITOR_CONFIG or ./monitor.toml].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
local_option = click.option("--local", is_flag=True, help="Show local times instead of UTC.")
limit_option = click.option(
    "--limit",
    type=click.IntRange(0),
    help=f"Only the newest N, 0 for all [default: {DEFAULT_LIMIT}; with --json: all].",
)


def row_limit(limit: int | None, *, as_json: bool) -> int | None:
    """Return the number of rows that `--limit` asks for. None = all."""
    if limit is None:
        return None if as_json else DEFAULT_LIMIT
    return limit or None


def range_options(noun: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--from` (inclusive) and `--to` (exclusive)."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name, argument, text in (
            ("--to", "until", f"Only {noun} before this time."),
            ("--from", "since", f"Only {noun} from this time on."),
        ):
            command = click.option(name, argument, type=TIME, metavar="TIME", help=text)(command)
        return command

    return decorate


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the column names of a recording."""
    label = "Column of the labels, never used for training."
    command = click.option("--label-column", default="label", show_default=True, help=label)(command)
    command = click.option("--time-column", help="Column of the times [default: by its name].")(command)
    return click.option("--asset-column", help="Column of the asset names [default: by its name].")(command)


def config_path() -> Path | None:
    """Return the file named by `-c`. None = the default."""
    path: Path | None = click.get_current_context().meta.get(_CONFIG)
    return path


def load_config() -> Config:
    """Read the whole configuration."""
    from monitor.config import load

    return load(config_path())


def store_url() -> str:
    """Read only the address of the database from the configuration."""
    from monitor.config import store_url

    return store_url(config_path())


def open_store() -> Reader:
    """Open the database for reading, as a context manager."""
    from monitor.store.reader import open_reader

    return open_reader(store_url())
