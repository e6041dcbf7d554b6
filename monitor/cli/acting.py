"""The common part of commands with which operators act: the operator's name, and one transaction for each thing.

Input: a coroutine function per thing. Output: lines or JSON. Invariant: an error of one thing does not stop the
others. All errors are reported together, and decide the exit code.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from monitor.cli.output import print_json
from monitor.cli.params import store_url
from monitor.cli.terminal import echo
from monitor.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from monitor.clock import Clock
    from monitor.control import Actor
    from monitor.errors import MonitorError
    from monitor.store.engine import AsyncStore

    Act = Callable[[AsyncStore, Clock, Actor, Any], Awaitable[Any]]

T = TypeVar("T")

by_option = click.option("--by", metavar="NAME", help="Who acts [default: your login name].")
note_option = click.option("--note", default="", metavar="TEXT", help="A note for the history.")
reason_option = click.option("--reason", required=True, metavar="TEXT", help="The reason, for those who come later.")


def user_name() -> str:
    """Return the operator's name, which is stored with the act."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # in a container the user may have only a number
        return f"uid {os.getuid()}"


def perform(things: Sequence[T], act: Act, by: str | None) -> tuple[list[tuple[T, Any]], list[MonitorError]]:
    """Do something with each thing, and return the finished ones with their results, and the errors of the rest."""
    import asyncio

    return asyncio.run(_perform(things, act, by))


async def _perform(things: Sequence[T], act: Act, by: str | None) -> tuple[list[tuple[T, Any]], list[MonitorError]]:
    from monitor.clock import SystemClock
    from monitor.control import Actor
    from monitor.store.engine import AsyncStore

    done: list[tuple[T, Any]] = []
    errors: list[MonitorError] = []
    actor, clock = Actor(by or user_name(), "cli"), SystemClock()
    async with AsyncStore(store_url()) as store:
        for thing in things:
            try:
                done.append((thing, await act(store, clock, actor, thing)))
            except (NotFound, Conflict, ConfigError) as error:
                errors.append(error)
    return done, errors


def report(
    rows: Sequence[dict[str, Any]], lines: Sequence[str], errors: Sequence[MonitorError], *, as_json: bool
) -> None:
    """Print the acts that succeeded. Raises the errors as one."""
    if as_json:
        print_json(list(rows))
    else:
        for line in lines:
            echo(line)
    if errors:
        raise _joined(errors)


def _joined(errors: Sequence[MonitorError]) -> Exception:
    """Return the errors as one. A wrong argument is no fault of the configuration."""
    detail = "; ".join(error.detail for error in errors)
    return click.UsageError(f"{detail}.") if isinstance(errors[0], ConfigError) else type(errors[0])(detail)


def once(act: Callable[[AsyncStore, Clock, Actor], Awaitable[Any]], by: str | None) -> Any:
    """Do one thing and return its result. Raises its error."""

    async def alone(store: AsyncStore, clock: Clock, actor: Actor, _thing: None) -> Any:
        return await act(store, clock, actor)

    done, errors = perform([None], alone, by)
    if errors:
        raise _joined(errors)
    return done[0][1]
