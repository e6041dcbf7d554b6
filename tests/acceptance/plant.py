"""A plant of two machines. A test makes its readings normal or faulty, minute by minute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.acceptance.streams import MINUTE_US, NOW_US
from tests.daemon_process import publish

if TYPE_CHECKING:
    from tests.daemon_process import Message


class Plant:
    """Two machines, R0 and R1, with normal or faulty readings as a test says."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._minute = 0
        self.n_records = 0

    def send(self, n_minutes: int, *faulty: str) -> None:
        """Send so many minutes of readings of both machines."""
        messages: list[Message] = []
        for minute in range(self._minute, self._minute + n_minutes):
            at_us = NOW_US + minute * MINUTE_US
            for number, asset in enumerate(("R0", "R1")):
                size = 300.0 if asset in faulty else 1.0
                values = {"power": size * (minute % 3 - 1), "wind": size * (minute % 2)}
                value = json.dumps({"ts": at_us / 1e6, "sensors": values}).encode()
                messages.append((0, asset.encode(), value, at_us // 1000 + number))
        self._minute += n_minutes
        self.n_records += len(messages)
        publish(self._bootstrap, self._topic, messages)
