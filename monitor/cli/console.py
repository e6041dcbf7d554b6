"""`monitor console`: the pages and the API for operators, and tokens for other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.params import (
    Parsed,
    config_option,
    config_path,
    json_option,
    local_option,
    open_store,
    parse_seconds,
    store_url,
)
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from monitor.store.tokens import NewToken

SCOPES = ("read", "act", "admin")


@click.group(invoke_without_command=True)
@config_option
@click.option("--listen", metavar="HOST:PORT", help="Replace [console] listen.")
@click.pass_context
def console(ctx: click.Context, listen: str | None) -> None:
    """Serve pages and an API for operators.

    It is a process of its own, beside the daemon or on another machine with the same PostgreSQL. It stops within
    seconds of SIGTERM or Ctrl-C.
    """
    if ctx.invoked_subcommand is not None:
        return
    import os
    import signal

    # Until the console handles it, a stop during the imports ends nothing.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # pages have nothing to multiply, and each thread costs memory
    from monitor.config import load

    replaced = {} if listen is None else {"MONITOR_CONSOLE__LISTEN": listen}
    config = load(config_path(), {**os.environ, **replaced})

    import asyncio

    from monitor import logs
    from monitor.console.server import serve

    logs.configure(config.log.level, config.log.format)

    def show(address: str) -> None:
        echo(Styled(f"The console is on {address}", "bold"))

    asyncio.run(serve(config, on_ready=show))


@console.group()
@config_option
def token() -> None:
    """Make, list and revoke tokens for the console."""


@token.command("add")
@config_option
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), default="read", show_default=True,
              help="read: see. act: also answer alerts. admin: also train models.")  # fmt: skip
@click.option("--expires", "expires_s", type=Parsed("duration", parse_seconds), metavar="90d",
              help="Time until it ends by itself [default: never].")  # fmt: skip
@json_option
def add_token(name: str, scope: str, expires_s: float | None, as_json: bool) -> None:
    """Make a token for NAME and print it, once.

    NAME stands in the history of its holder's acts. The database keeps only a hash of the token.
    """
    import asyncio

    try:
        made = asyncio.run(_add(name, scope, expires_s))
    except ConfigError as problem:  # the name, which is no fault of the configuration
        raise click.UsageError(f"{problem.detail}.") from None
    expires_at = None if made.expires_us is None else output.as_datetime(made.expires_us)
    if as_json:
        output.print_json({"name": name, "scope": scope, "expires_at": expires_at, "token": made.token})
        return
    until = "" if expires_at is None else f", until {output.timestamp(expires_at)} UTC"
    echo(Styled(f"Token of {name}, scope {scope}{until}. It is not shown again:", "dim"), err=True)
    echo(made.token)


@token.command("list")
@config_option
@local_option
@json_option
def list_tokens(local: bool, as_json: bool) -> None:
    """List the tokens, the ended ones too."""
    with open_store() as store:
        found = store.console_tokens()
    if as_json:
        output.print_json_list(found)
    elif found:
        _table(found, local=local).print()
        echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))
    else:
        echo_prose("There are no tokens: only this machine may use the console. See: monitor console token add --help")


@token.command("revoke")
@config_option
@click.argument("name")
def revoke_token(name: str) -> None:
    """End the token of NAME, and its sessions, within seconds."""
    import asyncio

    asyncio.run(_revoke(name))
    echo(f"The token of {name} is revoked.")


def _table(found: list[dict[str, Any]], *, local: bool) -> Table:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    table = Table("name", "scope", "made", "expires", "state")
    for row in found:
        is_over = row["expires_at"] is not None and output.as_datetime(row["expires_at"]) <= now
        table.add(
            row["name"],
            row["scope"],
            output.timestamp(row["made_at"], local=local),
            output.timestamp(row["expires_at"], local=local),
            "revoked" if row["revoked_at"] else "expired" if is_over else "valid",
        )
    return table


async def _add(name: str, scope: str, expires_s: float | None) -> NewToken:
    from monitor.clock import SystemClock
    from monitor.store import tokens
    from monitor.store.engine import AsyncStore

    now_us = SystemClock().now_us()
    expires_us = None if expires_s is None else now_us + int(expires_s * 1e6)
    async with AsyncStore(store_url()) as store:
        return await store.run(tokens.add, name, scope, now_us, expires_us)


async def _revoke(name: str) -> None:
    from monitor.clock import SystemClock
    from monitor.store import tokens
    from monitor.store.engine import AsyncStore

    async with AsyncStore(store_url()) as store:
        await store.run(tokens.revoke, name, SystemClock().now_us())
