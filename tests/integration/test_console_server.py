"""The console's process: real sockets, slow and many clients, its document fuzzed, its memory and its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.store import tokens
from monitor.store.engine import AsyncStore
from tests import example_database

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CONFIG = """
kafka = {bootstrap = "127.0.0.1:1", topics = ["plant"]}
fleet = [{name = "turbines", interval = "10m"}]
"""
GROWTH_MB = 6
"""Of the memory over hundreds of streams and pages. A leak of one stream's objects would be 20 MB."""


class ConsoleProcess:
    """`monitor console` in a folder with the example database."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-P", "-m", "monitor", "console", "--listen", f"127.0.0.1:{self.port}"]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        """Wait until it answers."""
        for _ in range(300):
            assert self.process.poll() is None, self.process.communicate()[1]
            with suppress(OSError):
                self.get("/live")
                return
            time.sleep(0.1)
        raise AssertionError("the console does not answer")

    def get(self, path: str) -> str:
        """Return the body of a page."""
        request = urllib.request.Request(self.url + path, headers={"accept": "text/html"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def rss_mb(self) -> float:
        """Return the resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def stop(self) -> tuple[float, str, str]:
        """Send SIGTERM. Return the seconds it took, stdout and stderr."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        return time.monotonic() - started, out, err

    def change(self) -> None:
        """Change the open alert, as the daemon does."""
        with closing(sqlite3.connect(self.folder / "monitor.db", timeout=20)) as connection:
            connection.execute("UPDATE alert SET updated_us = updated_us + 1 WHERE id = 2")
            connection.commit()


@contextmanager
def running(folder: Path) -> Iterator[ConsoleProcess]:
    (folder / "monitor.toml").write_text(CONFIG)
    asyncio.run(example_database.fill(folder / "monitor.db"))
    console = ConsoleProcess(folder)
    try:
        console.wait()
        yield console
    finally:
        if console.process.poll() is None:
            console.process.kill()
        console.process.communicate()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleProcess]:
    """One console for the tests that leave it as it was."""
    with running(tmp_path_factory.mktemp("console")) as found:
        yield found


async def follow(console: ConsoleProcess, since: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream of events and read its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", console.port)
    writer.write(f"GET /events?since={since} HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.readuntil(b"retry: 3000")
    return reader, writer


async def next_event(reader: asyncio.StreamReader, word: bytes = b"alerts") -> bytes:
    """Return the next event that names a topic."""
    async with asyncio.timeout(20):
        while True:
            line = await reader.readline()
            assert line, "the stream ended"
            if line.startswith(b"data:") and word in line:
                return line


async def test_a_change_reaches_every_viewer(console: ConsoleProcess) -> None:
    streams = [await follow(console) for _ in range(5)]
    await asyncio.sleep(1.5)  # the watcher has looked once
    console.change()
    for reader, writer in streams:
        assert b"alerts" in await next_event(reader)
        writer.close()


async def test_a_viewer_that_was_away_learns_what_it_missed(console: ConsoleProcess) -> None:
    reader, writer = await follow(console, since="another-process-7")
    assert b"models" in await next_event(reader)
    writer.close()


async def test_passing_viewers_cost_no_memory(console: ConsoleProcess) -> None:
    async def round_of_viewers() -> None:
        streams = [await follow(console) for _ in range(50)]
        console.change()
        await asyncio.gather(*(next_event(reader) for reader, _ in streams))
        for number, (_, writer) in enumerate(streams):
            writer.transport.abort() if number % 2 else writer.close()

    for _ in range(2):
        await round_of_viewers()
    before = console.rss_mb()
    for _ in range(5):
        await round_of_viewers()
    assert console.rss_mb() - before < GROWTH_MB
    assert '"live":true' in console.get("/live")


def test_pages_cost_no_memory(console: ConsoleProcess) -> None:
    paths = ("/", "/alerts", "/alerts/1", "/assets/turbines/R80711", "/models", "/models/turbines", "/ingestion")
    for _ in range(3):
        for path in paths:
            assert "<title>" in console.get(path)
    before = console.rss_mb()
    for _ in range(12):
        for path in paths:
            console.get(path)
    assert console.rss_mb() - before < GROWTH_MB
    assert console.rss_mb() < 120


def test_slow_clients_keep_nobody_out(console: ConsoleProcess) -> None:
    idle = [socket.create_connection(("127.0.0.1", console.port)) for _ in range(100)]
    for each in idle:
        each.sendall(b"GET / HTTP/1.1\r\nHost: ")  # and never the rest
    started = time.monotonic()
    assert '"live":true' in console.get("/live")
    assert time.monotonic() - started < 5
    idle[0].settimeout(20)
    assert idle[0].recv(100) == b"", "closed after its time limit"
    for each in idle:
        each.close()


def test_a_signal_ends_it_with_viewers_connected(tmp_path: Path) -> None:
    with running(tmp_path) as console:
        viewers = [socket.create_connection(("127.0.0.1", console.port)) for _ in range(3)]
        for viewer in viewers:
            viewer.sendall(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\n\r\n".encode())
            viewer.recv(1000)
        seconds, out, err = console.stop()
        for viewer in viewers:
            viewer.close()
    assert console.process.returncode == 0
    assert seconds < 6
    assert f"http://127.0.0.1:{console.port}/" in out
    assert "console_stopped" in err
    assert "Traceback" not in err


def test_the_api_does_what_its_document_says(tmp_path: Path) -> None:
    with running(tmp_path) as console:
        async def add_token() -> str:
            async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db") as store:
                return (await store.run(tokens.add, "fuzz", "admin", 0, None)).token

        program = Path(sys.executable).with_name("schemathesis")
        command = [
            str(program), "--config-file", str(HERE / "schemathesis.toml"), "run", "--generation-deterministic",
            "--max-examples", "3", "--phases", "coverage,fuzzing", "--header",
            f"Authorization: Bearer {asyncio.run(add_token())}", f"{console.url}/api/v1/openapi.json",
        ]  # fmt: skip
        time.sleep(2.5)  # the console knows the token
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
        _, _, err = console.stop()
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.search(r"(\d+) generated, \1 passed", done.stdout)[1]) > 500, done.stdout[-2000:]  # type: ignore[index]
    assert "Traceback" not in err
    assert "request_failed" not in err
