"""Fixtures of the integration tests."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.daemon_process import Deployment, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon_process import Message, Trickle


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A folder for a daemon, which ends with the test."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    yield deployment
    deployment.kill()


@pytest.fixture(scope="session")
def trickle() -> Trickle:
    """Send messages beside the body, slowly enough for events in between. All of them are sent at its end."""
    return _trickle


@contextmanager
def _trickle(bootstrap: str, topic: str, messages: list[Message]) -> Iterator[None]:
    def send() -> None:
        for begin in range(0, len(messages), 1_000):
            publish(bootstrap, topic, messages[begin : begin + 1_000])
            time.sleep(0.3)

    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send)
        yield
        sent.result(timeout=120)
