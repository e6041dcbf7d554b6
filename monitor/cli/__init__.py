"""The command line: parse, call one function, print.

Input: the arguments of the process. Output: one document or table on stdout, everything else on stderr, and an exit
code: 0 done, 1 failed, 2 usage or configuration, 3 refused, 4 schema, 130 interrupted.
Invariant: a command imports heavy modules when it runs, so `monitor --help` and `monitor alerts list` never import
torch.

One file for each command. They share params.py (options), output.py (formats), terminal.py (tables), progress.py and
plot.py. `models show` prints through card.py, `replay --diff` through diff.py.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

import monitor
from monitor.cli.params import config_option
from monitor.cli.streams import ReaderLeft, prepare_streams
from monitor.cli.terminal import Styled, echo
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""128 + SIGINT, as in shells."""

COMMANDS = (
    "demo",
    "init",
    "run",
    "check",
    "alerts",
    "maintenance",
    "console",
    "notify",
    "scores",
    "models",
    "retrain",
    "drill",
    "replay",
    "evaluate",
    "bench",
    "quarantine",
    "db",
)
"""In the order in which a new operator needs them. The command `x` is `monitor.cli.x:x`."""


class Main(click.Group):
    """A group that imports a subcommand only when it runs, and turns errors into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names of the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """Import a subcommand."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"monitor.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. The error for an unknown name suggests the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand, and flush stdout here, where a failure still becomes an exit code."""
        result = super().invoke(ctx)
        sys.stdout.flush()
        return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the program. Exit codes are decided here and nowhere else."""
        extra["standalone_mode"] = False
        prepare_streams()
        try:
            code = super().main(args, *rest, **extra)
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            shown = io.StringIO()
            error.show(shown)
            echo(shown.getvalue().removesuffix("\n"), err=True)
            code = error.exit_code
        except ReaderLeft:
            code = 0
        except MonitorError as error:
            print_error(str(error))
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def print_error(message: str) -> None:
    """Print an error on stderr, with the place that each further line names in bold."""
    headline, *lines = message.split("\n")
    echo(Styled("monitor:", "bold red"), f" {headline}", err=True)
    for line in lines:
        place, colon, sentence = line.partition(": ")
        echo(*([Styled(place, "bold"), colon, sentence] if colon else [line]), err=True)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(monitor.__version__, message="monitor %(version)s")
@config_option
def main() -> None:
    """Detect anomalies in sensor streams from Kafka.

    Times are ISO 8601 (UTC without an offset) or relative: now-30d, -2h.
    """
