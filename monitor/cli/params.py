"""What options share: times, the configuration, `--json`.

Enters: text from the command line. Leaves: typed values. Law: times are UTC unless they say otherwise.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import Config
    from monitor.store.reader import Reader

T = TypeVar("T")

_RELATIVE = re.compile(r"(?:now)?\s*(?:([+-])\s*(.+))?")
_CONFIG = "monitor.config_path"


class Parsed(click.ParamType[T]):
    """A value that `parse` reads from text. Its ValueError becomes a usage error that names the option."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Parse the text of an option; a default that is parsed already stays."""
        if not isinstance(value, str):
            parsed: T = value
            return parsed
        try:
            return self._parse(value.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_time(text: str, now: datetime) -> datetime:
    """Read "2015-07-27", "2015-07-27T10:00+02:00", "now", "now-30d", "-2h" as an aware UTC moment."""
    if text and (match := _RELATIVE.fullmatch(text)):
        from monitor.config.values import parse_duration

        try:
            distance = parse_duration(match[2]) if match[2] else timedelta()
        except ValueError as error:
            raise ValueError(f'"{text}": {match[2]} {error}') from None
        try:
            return now - distance if match[1] == "-" else now + distance
        except OverflowError:
            raise ValueError(f'"{text}" is outside the calendar') from None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time; write 2015-07-27, 2015-07-27T10:00Z, now-30d or -2h') from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


TIME = Parsed("time", lambda text: parse_time(text, datetime.now(UTC)))


def _remember_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.meta[_CONFIG] = value  # shared with the subcommands: -c may stand before or after their name


config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    expose_value=False,
    is_eager=True,
    callback=_remember_config,
    help="Configuration [default: $MONITOR_CONFIG or ./monitor.toml].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
local_option = click.option("--local", is_flag=True, help="Show local times instead of UTC.")


def range_options(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--from` and `--to`, half open."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name, argument, text in (
            ("--to", "until", f"Only {what} before this time."),
            ("--from", "since", f"Only {what} from this time on."),
        ):
            command = click.option(name, argument, type=TIME, metavar="TIME", help=text)(command)
        return command

    return decorate


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the names of a recording's columns."""
    label = "The column of labels; never learnt from."
    command = click.option("--label-column", default="label", show_default=True, help=label)(command)
    command = click.option("--time-column", help="The column of times.")(command)
    return click.option("--asset-column", help="The column that names the asset.")(command)


def config_path() -> Path | None:
    """Say which file `-c` named; None = the default."""
    path: Path | None = click.get_current_context().meta.get(_CONFIG)
    return path


def load_config() -> Config:
    """Read the whole configuration."""
    from monitor.config import load

    return load(config_path())


def store_url() -> str:
    """Read from the configuration only where the database is."""
    from monitor.config import store_url

    return store_url(config_path())


def open_store() -> Reader:
    """Open the database for reading; a context manager."""
    from monitor.store.reader import open_reader

    return open_reader(store_url())
