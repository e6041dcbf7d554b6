"""Options that commands share: times, the configuration, `--json`.

Input: text from the command line. Output: typed values. Invariant: a time without an offset is UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from monitor.config.values import parse_duration, parse_time
from monitor.types import AlertClass, Label

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import Config
    from monitor.recordings.options import FileOptions
    from monitor.store.reader import Reader

T = TypeVar("T")

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


_ALERT_FILTERS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--class", "alert_class"), {"type": click.Choice([*map(str, AlertClass)]), "help":
      "Only alerts of assets (process), their sensors, or lost and refused records (data)."}),
    (("--asset",), {"help": "Only alerts of this asset; * and ? are wildcards."}),
    (("--fleet",), {"help": "Only alerts of this fleet."}),
    (("--state",), {"type": click.Choice(["open", "firing", "recovering", "closed"]), "help":
      "Only alerts in this state; open: not closed yet."}),
    (("--incident",), {"type": int, "metavar": "ID", "help": "Only alerts of this incident."}),
    (("--label",), {"type": click.Choice([*map(str, Label), "none"]), "help":
      "Only alerts with this label; none: not labelled yet."}),
    (("--acknowledged/--unacknowledged",), {"default": None, "help": "Only alerts that are, or are not."}),
)  # fmt: skip


def alert_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the filters that `Reader.alerts` takes."""
    command = range_options("alerts opened")(command)
    for names, settings in reversed(_ALERT_FILTERS):
        command = click.option(*names, **settings)(command)
    return command


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what a file cannot say of itself. `take_file_options` collects their values."""
    for names, settings in reversed(_FILE_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def parse_seconds(text: str, if_none: str = "is zero; write a time such as 10s or 15m") -> float:
    """Parse a duration above zero, like "60s" or "10m". `if_none`: what is said of zero. Raises ValueError."""
    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as problem:
        raise ValueError(f'"{text}" {problem}') from None
    if seconds <= 0:
        raise ValueError(f'"{text}" {if_none}')
    return seconds


def _codes(text: str) -> tuple[float | str, ...]:
    codes: list[float | str] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            codes.append(float(part))
        except ValueError:
            codes.append(part)
    return tuple(codes)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f'"{text}" is no list of different names; write time,temperature,pressure')
    return names


_FILE_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--time-column",), {"help": "Column of the times; DATE+TIME for two [default: by its name]."}),
    (("--time-format",), {"default": "auto", "show_default": True, "metavar": "FORMAT", "help":
      "iso, s, ms, us, ns, day-first, month-first, excel, compact, or a pattern like %d.%m.%Y."}),
    (("--timezone",), {"default": "UTC", "show_default": True, "metavar": "ZONE", "help":
      "Zone of times without one, like Europe/Berlin or +01:00."}),
    (("--interval",), {"type": Parsed("duration", parse_seconds), "metavar": "10s", "help":
      "Step of the grid, and the clock of a file without times [default: the median step]."}),
    (("--hold",), {"type": Parsed("duration", parse_seconds), "metavar": "15m", "help":
      "Let a value count until the next one, for this long: for data sent on change."}),
    (("--asset-column",), {"help": "Column of the asset names [default: by its name]."}),
    (("--sensor-column",), {"metavar": "NAME", "help": "Long format: column that names each row's sensor."}),
    (("--value-column",), {"metavar": "NAME", "help": "Long format: column of the values."}),
    (("--label-column",), {"default": "label", "show_default": True, "help":
      "Column of the labels, never used for training."}),
    (("--columns",), {"type": Parsed("names", _names), "metavar": "A,B,…", "help":
      "Names of the columns, for a file without a header."}),
    (("--missing",), {"type": Parsed("values", _codes), "metavar": "-200,n/v", "help":
      "More values that mean a missing reading; none: take only blank cells as missing [default: recognised]."}),
    (("--decimal",), {"type": click.Choice(["auto", "comma", "point"]), "default": "auto", "show_default": True,
      "help": "Sign before the decimals."}),
)  # fmt: skip


def take_file_options(arguments: dict[str, Any]) -> FileOptions:
    """Remove the file options from the arguments of a command and return them. Raises UsageError."""
    from monitor.recordings.options import FileOptions

    taken = {names[0]: arguments.pop(names[0].removeprefix("--").replace("-", "_")) for names, _ in _FILE_OPTIONS}
    codes = taken["--missing"] or ()
    return FileOptions(
        asset=taken["--asset-column"],
        timestamp=taken["--time-column"],
        label=taken["--label-column"],
        sensor=taken["--sensor-column"],
        value=taken["--value-column"],
        time_format=taken["--time-format"],
        timezone=taken["--timezone"],
        interval_s=taken["--interval"],
        hold_s=taken["--hold"],
        missing=tuple(code for code in codes if code != "none"),
        finds_missing="none" not in codes,
        columns=taken["--columns"],
        decimal=taken["--decimal"],
    )


def written_file_options(options: FileOptions) -> list[str]:
    """Return the arguments of the command line that mean these options."""
    codes = [f"{code:g}" if isinstance(code, float) else code for code in options.missing]
    texts = {
        "--asset-column": options.asset,
        "--time-column": options.timestamp,
        "--label-column": None if options.label == "label" else options.label,
        "--sensor-column": options.sensor,
        "--value-column": options.value,
        "--time-format": None if options.time_format == "auto" else options.time_format,
        "--timezone": None if options.timezone == "UTC" else options.timezone,
        "--interval": None if options.interval_s is None else f"{options.interval_s:g}s",
        "--hold": None if options.hold_s is None else f"{options.hold_s:g}s",
        "--missing": ",".join([*codes, *([] if options.finds_missing else ["none"])]) or None,
        "--columns": None if options.columns is None else ",".join(options.columns),
        "--decimal": None if options.decimal == "auto" else options.decimal,
    }
    return [part for option, text in texts.items() if text is not None for part in (option, text)]


def config_path() -> Path | None:
    """Return the file named by `-c`. None = the default."""
    path: Path | None = click.get_current_context().meta.get(_CONFIG)
    return path


def load_config() -> Config:
    """Read the whole configuration."""
    from monitor.config import load

    return load(config_path())


def chosen_fleet(config: Config, fleet: str | None) -> str:
    """Return the fleet that an argument names, or the only one. Raises UsageError."""
    names = [each.name for each in config.fleets]
    if fleet is None and len(names) == 1:
        return names[0]
    if fleet is None:
        raise click.UsageError(f"There are several fleets; name one of {', '.join(names)}.")
    if fleet not in names:
        from monitor.config.problems import nearest

        match = nearest(fleet, names)
        hint = f"Did you mean {match}?" if match else f"Its fleets are {', '.join(names)}."
        raise click.UsageError(f"{config.path} has no fleet {fleet}. {hint}")
    return fleet


def store_url() -> str:
    """Read only the address of the database from the configuration."""
    from monitor.config import store_url

    return store_url(config_path())


def open_store() -> Reader:
    """Open the database for reading, as a context manager."""
    from monitor.store.reader import open_reader

    return open_reader(store_url())
