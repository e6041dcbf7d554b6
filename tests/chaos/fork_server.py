"""A process that has imported all of monitor and forks daemons.

Input: one JSON object a line on stdin (`start`, `poll`). Output: one JSON object a line on stdout. Each daemon is a
process in a session of its own, and kill -9 ends it like any other. Only the four seconds of imports are saved. When
stdin closes, all remaining daemons are killed. Invariant: no thread and no event loop here, because a fork copies only
the thread that forks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMPORTED = (
    "monitor.cli",
    "monitor.cli.run",
    "monitor.service.daemon",
    "monitor.logs",
    "asyncpg",
    "sqlalchemy.dialects",
)


class ForkServer:
    """Client of that process. Context manager, safe to use from several threads."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._environment = environment

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            text=True,
        )
        assert self._ask({"do": "hello"})["code"] == 0
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(self, arguments: Sequence[str], log: Path, hooks: Sequence[str] = ()) -> int:
        """Fork `monitor ARGUMENTS` and return its pid. `hooks`: names from hooks.py, applied first."""
        return int(self._ask({"do": "start", "arguments": [*arguments], "log": str(log), "hooks": [*hooks]})["pid"])

    def poll(self, pid: int) -> int | None:
        """Return its exit code, or -9 if it was killed. None = it runs."""
        code = self._ask({"do": "poll", "pid": pid})["code"]
        return None if code is None else int(code)

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            return answer


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    ended: dict[int, int] = {}
    alive: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {"code": 0}
        if asked["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _run_daemon(asked)
            alive.add(pid)
            answer = {"pid": pid}
        elif asked["do"] == "poll":
            pid = asked["pid"]
            if pid in alive:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
                    alive.discard(pid)
            answer = {"code": ended.get(pid)}
        print(json.dumps(answer), flush=True)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _run_daemon(asked: dict[str, Any]) -> None:
    """Run the daemon in this process. Never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for the life of the process
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        from monitor.cli import main
        from tests.chaos import hooks

        for name in asked["hooks"]:
            hooks.apply(name)
        sys.argv = ["monitor", *asked["arguments"]]
        main(asked["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # the log is the only place to report it
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
