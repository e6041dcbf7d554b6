"""The command line: parse, call one function, print.

Enters: what the operator typed. Leaves: one document or table on stdout, everything else on stderr, and an exit code:
0 done, 1 failed, 2 usage or configuration, 3 refused, 4 schema, 130 interrupted.
Law: a command imports what it needs when it runs, so `monitor --help` and `monitor alerts list` never wait for torch.

A file per noun; beside them params.py (what options share), output.py (how things are printed) and plot.py.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

import monitor
from monitor.cli.params import config_option
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

COMMANDS = (
    "demo",
    "run",
    "check",
    "alerts",
    "notify",
    "scores",
    "models",
    "retrain",
    "replay",
    "evaluate",
    "bench",
    "quarantine",
    "db",
)
"""In the order of a newcomer's days. The command `x` is `monitor.cli.x:x`."""


class Main(click.Group):
    """Loads a subcommand when it is named, and turns what went wrong into a sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Name the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """Load one subcommand."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"monitor.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; a mistyped one is told the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand, and print all of it while a broken pipe is still click's to quieten."""
        result = super().invoke(ctx)
        sys.stdout.flush()
        return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the program. The only place that knows exit codes."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except MonitorError as error:
            complain(str(error))
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def complain(message: str) -> None:
    """Print an error on stderr: the headline in red, the place in each line below it in bold."""
    headline, *lines = message.splitlines()
    click.echo(f"{click.style('monitor:', fg='red', bold=True)} {headline}", err=True)
    for line in lines:
        place, colon, sentence = line.partition(": ")
        click.echo(f"{click.style(place, bold=True)}{colon}{sentence}" if colon else line, err=True)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(monitor.__version__, message="monitor %(version)s")
@config_option
def main() -> None:
    """Watch sensor streams: Kafka in, calibrated alerts out.

    Times are ISO 8601 (UTC unless they say otherwise) or relative: now-30d, -2h.
    """
