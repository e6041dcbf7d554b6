"""The chaos tests' webhook receiver: it records each request with the answer that it gave."""

from __future__ import annotations

import contextlib
import http.client
from contextlib import closing
from typing import TYPE_CHECKING

from tests.chaos import receiver
from tests.chaos.receiver import WebhookReceiver

if TYPE_CHECKING:
    import pytest


def post(receiver: WebhookReceiver, key: str) -> int | None:
    """Return the status of the answer. None = no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    with closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/alerts", b"{}", {"Idempotency-Key": key})
        return connection.getresponse().status
    return None


def test_the_receiver_records_the_answer_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PAUSE_S", (0.0, 0.0))
    monkeypatch.setattr(receiver, "SLOW_S", (0.0, 0.0))
    monkeypatch.setattr(receiver, "FAULTS", ("error", "busy", "hang_up", "slow"))
    with WebhookReceiver(1) as hook:
        answers = [post(hook, str(number)) for number in range(40)]
        hook.is_healthy = True
        assert post(hook, "last") == 204
    means = {204: "accepted", 500: "refused", 503: "refused", None: "unanswered"}
    assert [each.key for each in hook.arrivals] == [*map(str, range(40)), "last"]
    assert [each.answer for each in hook.arrivals] == [*map(means.__getitem__, answers), "accepted"]
    assert answers[0] == 500
    assert set(answers) == means.keys()
