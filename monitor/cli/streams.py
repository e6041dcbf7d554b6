"""The standard streams of the process, so that writing to them ends in an exit code and never in a traceback.

Input: the streams as the shell left them: a closed pipe, a full disk, a closed descriptor, an encoding without our
signs. Output: `sys.stdout` whose failed write raises OutputFailed, and `sys.stderr` whose failed write is ignored.
Invariant: the descriptors 0 to 2 are open, because a database that got number 1 would contain whatever is printed.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

class OutputFailed(MonitorError):
    """The output could not be written"""


class ReaderLeft(OutputFailed):
    """The reader of the pipe has all it wanted, as `head` does: no failure"""


def prepare_streams() -> None:
    """Open missing descriptors and replace the streams of a process. The streams of a test stay as they are."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # a write to 1 fails, as it should
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number: this one
    if sys.stdout is None or _is_original(sys.stdout):
        sys.stdout = _replaced(sys.stdout, 1, _Output)
    if sys.stderr is None or _is_original(sys.stderr):
        sys.stderr = _replaced(sys.stderr, 2, _Messages)


def has_unicode(stream: TextIO) -> bool:
    """Return True if the stream can carry every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def discard_output() -> None:
    """Let what is still buffered go nowhere: Python's exit would try to write it once more."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def _is_original(stream: object) -> bool:
    return type(stream) is io.TextIOWrapper  # pytest and click's runner use subclasses


def _replaced(stream: TextIO | None, number: int, kind: type[io.TextIOWrapper]) -> TextIO:
    if stream is None:
        return kind(os.fdopen(number, "wb", closefd=False), encoding="utf-8")
    encoding = stream.encoding
    if codecs.lookup(encoding).name == "ascii":  # click, too, writes UTF-8 there
        encoding = "utf-8"
    errors = "backslashreplace" if number == 2 else "replace"
    is_line_buffered = number == 2 or stream.isatty()
    return kind(stream.detach(), encoding=encoding, errors=errors, line_buffering=is_line_buffered)  # type: ignore[attr-defined]


class _Output(io.TextIOWrapper):
    """Standard output. Its errors say that the output was lost, and no other error of the system is taken for that."""

    def write(self, text: str) -> int:
        return self._checked(lambda: io.TextIOWrapper.write(self, text))

    def flush(self) -> None:
        self._checked(lambda: io.TextIOWrapper.flush(self))

    def _checked(self, action: Callable[[], int | None]) -> int:
        try:
            return action() or 0
        except OSError as error:
            discard_output()
            if error.errno == errno.EPIPE:
                raise ReaderLeft from error
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OutputFailed(f"standard output: {reason}") from error


class _Messages(io.TextIOWrapper):
    """Standard error. A message that cannot be written must not end the work."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            return
