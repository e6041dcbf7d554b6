"""Walks over the public entries: settings, commands, error classes.

Input: the configuration tree, the click root, the error tree. Output: their leaves, in the order of their declaration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click
from pydantic import BaseModel

from monitor import errors
from monitor.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo


def settings(
    model: type[BaseModel] = Config, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield each setting: its path in monitor.toml and its field."""
    for name, field in model.model_fields.items():
        options = (field.annotation, *get_args(field.annotation))
        table = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if table is None:
            yield (*path, name), field
        else:
            yield from settings(table, (*path, name))


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command that has no subcommands, with the words that name it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, (*path, name))
    else:
        yield path, command


def error_classes() -> list[type[errors.MonitorError]]:
    """Return the error tree, the root first."""
    found, queue = [], [errors.MonitorError]
    while queue:
        kind = queue.pop(0)
        found.append(kind)
        queue += [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    return found
