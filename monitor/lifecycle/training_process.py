"""The daemon's side of the training process, which runs `python -m monitor.lifecycle`.

Input: a training order. Output: a saved checkpoint, or the error that the training raised.
Invariant: the training process never outlives the daemon. It reads Kafka and writes into the checkpoint folder. It
never opens the database: the daemon is the only writer there.

Training in a thread of the daemon, with two torch threads on busy cores, was measured twenty times slower, and slowed
the pipeline down with it. So training runs in a process with a low priority and one thread. The daemon writes the order
to its standard input and reads messages from its standard output, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from monitor import errors, logs
from monitor.errors import ConfigError, MonitorError
from monitor.types import ConfirmedFault, JudgedTime  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logs.get("training")

MAX_RESTARTS = 3
"""Of one job whose training process was killed. A job that is always killed, for lack of memory, must not go on."""
MAX_LINE_BYTES = 64 << 20
"""Of a message. The card of a large fleet has every interval that its training left out."""

Intervals = dict[str, list[tuple[int, int, str | None]]]
"""By asset, stretches of event time (from_us, to_us) and the label that an operator gave them."""


class TrainingOrder(msgspec.Struct, frozen=True):
    """The task of one training process."""

    config: str
    """Path of monitor.toml. The process inherits the environment."""
    fleet: str
    sensors: tuple[str, ...] | None
    """None: learn them from the records."""
    judged: dict[str, list[JudgedTime]] = {}
    """By asset, times on which an alert or a person has a say (`store/training_times.py`)."""
    faulty_sensors: dict[str, list[tuple[int, int, str]]] = {}
    """By asset, stretches of event time (from_us, to_us] in which a sensor of it is not trained on."""
    known: dict[str, list[str]] = {}
    """Names of the fleet's assets by their partition, as "topic/number"."""
    length: int | None = None
    """Length of the champion's windows, where the training chooses it. None: there is no champion."""
    kind: str = "retrain"
    """retrain, drill, judge: as the job's."""
    champion: str | None = None
    """Folder of the champion's checkpoint. None: the fleet has none, or it cannot be read."""
    challenger: str | None = None
    """Folder of the checkpoint that `judge` compares with the champion's."""
    faults: list[ConfirmedFault] = []
    """Last confirmed faults with their kept evidence, last labelled first (`lifecycle/fault_memory.py`)."""
    detail: dict[str, Any] = {}
    """Further facts of the job."""


class TrainingMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from the training process: its progress, or as the last line a version or an error."""

    progress: float = 0.0
    """0..1."""
    message: str = ""
    version: str = ""
    path: str = ""
    sensors: tuple[str, ...] = ()
    card: dict[str, Any] = {}
    error: str = ""
    """Name of a class in `monitor.errors`."""
    verdict: dict[str, Any] | None = None
    """The gate's, of a training. None: the version was not judged."""
    result: dict[str, Any] | None = None
    """Of a job that makes no version: a drill, a comparison."""
    input_drift: dict[str, Any] | None = None
    """Of a drill: the test of the same readings (`input_drift.InputDrift`). None: too few days."""


class Trained(msgspec.Struct, frozen=True):
    """A saved checkpoint, or the result of a job that makes none."""

    version: str = ""
    path: str = ""
    sensors: tuple[str, ...] = ()
    card: dict[str, Any] = {}
    trained_us: int | None = None
    """Processing time. None = now."""
    verdict: dict[str, Any] | None = None
    """The gate's. None: it was not judged, and is promoted."""
    result: dict[str, Any] | None = None
    """Of a job that makes no version: a drill, a comparison."""
    input_drift: dict[str, Any] | None = None
    """See `TrainingMessage`."""


class _Killed(MonitorError):
    """The training process was killed"""


async def run_training_process(order: TrainingOrder, on_progress: Callable[[float, str], Awaitable[None]]) -> Trained:
    """Train in a child process, and start it again if a signal ends it. Cancelling the call stops the process.

    Raises the error of the training: NotEnoughData, TrainingDiverged, SourceUnavailable and others. Raises MonitorError
    when the process cannot be started or understood, or was killed `MAX_RESTARTS` times and once more.
    """
    for n_restarts in range(MAX_RESTARTS + 1):
        try:
            return await _run(order, on_progress)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise MonitorError(f"the training process could not be started or understood: {error!r}") from error
        except _Killed as error:
            if n_restarts == MAX_RESTARTS:
                raise MonitorError(f"{error.detail}; it was started {MAX_RESTARTS + 1} times") from error
            doing = f"starting it again, {n_restarts + 1} of {MAX_RESTARTS}"
            log.warning("training_killed", fleet=order.fleet, kind=order.kind, why=error.detail, doing=doing)
            await on_progress(0.0, f"killed; {doing}")
    raise AssertionError("the last round returns or raises")


async def _run(order: TrainingOrder, on_progress: Callable[[float, str], Awaitable[None]]) -> Trained:
    child = await asyncio.create_subprocess_exec(
        # -P: a monitor.py or torch.py in the daemon's working directory must not be imported instead of the real one.
        sys.executable, "-P", "-m", "monitor.lifecycle",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE_BYTES,
        start_new_session=True,  # of its own autogroup (`child_limits.py`). It still ends with the daemon
    )  # fmt: skip
    if child.stdin is None or child.stdout is None:
        raise MonitorError("the training process has no pipes")
    try:
        with suppress(ConnectionError):  # it was killed meanwhile: its exit status says so
            child.stdin.write(msgspec.json.encode(order) + b"\n")
            await child.stdin.drain()
        async for raw in child.stdout:
            if not raw.endswith(b"\n"):  # it was killed in the middle of a message
                break
            line = msgspec.json.decode(raw, type=TrainingMessage)
            if line.error:
                raise _error(line)
            if line.version:
                return Trained(line.version, line.path, line.sensors, line.card, verdict=line.verdict)
            if line.result is not None:
                return Trained(result=line.result, input_drift=line.input_drift)
            await on_progress(line.progress, line.message)
        status = await child.wait()
        if status == -signal.SIGKILL:
            raise _Killed("the training process was killed, by a person or by the system for lack of memory"
                          " ([fleet.retrain] memory_limit)")  # fmt: skip
        if status < 0:
            raise _Killed(f"the training process was ended by {_name_of(-status)}")
        raise MonitorError(f"the training process ended without a word, exit status {status}")
    finally:
        child.stdin.close()  # the child exits when its standard input ends
        with suppress(ProcessLookupError):
            if child.returncode is None:
                child.kill()
        await child.wait()


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _error(line: TrainingMessage) -> MonitorError:
    kind = getattr(errors, line.error, MonitorError)
    return kind(line.message) if issubclass(kind, MonitorError) else ConfigError(line.message)
