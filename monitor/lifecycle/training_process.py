"""Training in a process of its own: niced, on one core, and dead as soon as its parent is.

Measured: training in a thread of the daemon, with two torch threads on busy cores, ran twenty times slower and took
the river down with it. So the daemon starts `python -m monitor.training`, writes the order to its standard input, and
reads progress from its standard output, one JSON object a line. The child touches Kafka and the checkpoint folder and
nothing else: the database has one writer.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from monitor import errors
from monitor.errors import ConfigError, MonitorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Intervals = dict[str, list[tuple[int, int, str | None]]]
"""Asset → stretches of event time (from_us, to_us) and what an operator called them."""


class Order(msgspec.Struct, frozen=True):
    """What the child is asked for."""

    config: str
    """Path of monitor.toml; the environment is inherited."""
    fleet: str
    sensors: tuple[str, ...] | None
    """None: learn them."""
    alerts: Intervals
    """Not to learn from."""
    known: dict[str, list[str]] = {}
    """Names of the fleet's assets by their partition, as "topic/number"."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child says: progress, then either a version or an error."""

    progress: float = 0.0
    message: str = ""
    version: str = ""
    path: str = ""
    sensors: tuple[str, ...] = ()
    card: dict[str, Any] = {}
    error: str = ""
    """Name of an error class."""


class Trained(msgspec.Struct, frozen=True):
    """A checkpoint that was written."""

    version: str
    path: str
    sensors: tuple[str, ...]
    card: dict[str, Any]


async def retrain(order: Order, on_progress: Callable[[float, str], Awaitable[None]]) -> Trained:
    """Train in a child process; cancel to stop it. Raises NotEnoughData, TrainingDiverged, SourceUnavailable, …"""
    try:
        return await _in_child(order, on_progress)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise MonitorError(f"the training process could not be started or understood: {error!r}") from error


async def _in_child(order: Order, on_progress: Callable[[float, str], Awaitable[None]]) -> Trained:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "monitor.lifecycle", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )  # fmt: skip
    if child.stdin is None or child.stdout is None:
        raise MonitorError("the training process has no pipes")
    try:
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        await child.stdin.drain()
        async for raw in child.stdout:
            line = msgspec.json.decode(raw, type=Line)
            if line.error:
                raise _error(line)
            if line.version:
                return Trained(line.version, line.path, line.sensors, line.card)
            await on_progress(line.progress, line.message)
        raise MonitorError(f"the training process ended without a word, exit status {await child.wait()}")
    finally:
        child.stdin.close()  # the child ends when its standard input does
        with suppress(ProcessLookupError):
            if child.returncode is None:
                child.kill()
        await child.wait()


def _error(line: Line) -> MonitorError:
    kind = getattr(errors, line.error, MonitorError)
    return kind(line.message) if issubclass(kind, MonitorError) else ConfigError(line.message)
