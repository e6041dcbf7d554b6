"""The records that are sent during the faults: a plant's readings in order of time, with its usual defects.

Input: a seed. Output: messages `(partition, key, value, Kafka's timestamp)`, and a thread that sends them in bursts.
Invariant: same seed, same messages. Only the times of sending depend on the machine.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from monitor.kafka.embedded_broker import producer_settings
from tests.acceptance.streams import MINUTE_US, NOW_US
from tests.daemon_process import SENSORS, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 5
"""Cells of a block."""
LONG, LISTS, AHEAD, AHEAD_WITH_STAMP = 12, 14, 16, 18
"""Assets with other messages than most."""
AHEAD_S = 8 * 3600
BAD = (
    b"hello",
    b'{"ts": 1437955200, "sensors": {"power": NaN}}',
    b'{"ts": 1437955200, "sensors": {"nobody": 1}}',
    b'{"sensors": {"power": 1}}',
)


def traffic(seed: int, n_records: int, n_partitions: int, *, n_assets: int = 40) -> Iterator[Message]:
    """Yield the messages. Most assets send JSON readings, every tenth MessagePack blocks.

    Asset i sends to partition i % n_partitions. Some records are missing, repeated, late (within the lateness or beyond
    it) or bad. Some cells have one sensor only. In every partition one asset is silent for hours. Every fourth asset is
    anomalous for a quarter of each hour, so that there are alerts, critical ones too. One asset sends each sensor in a
    record of its own, one sends lists that hold a reading of its neighbour, too, one has a clock that is for a while
    eight hours ahead, and one such a clock together with Kafka's timestamps.
    """
    rng, noise = random.Random(f"traffic/{seed}"), np.random.default_rng(seed)
    first_us = NOW_US + rng.randrange(60) * MINUTE_US
    names = [b"R%05d" % number for number in range(n_assets)]
    held: list[tuple[int, Message]] = []
    sent = step = 0
    while True:
        values = (noise.integers(-800, 800, (BLOCK, n_assets, len(SENSORS))) / 8).astype("<f4")
        block_us = first_us + step * MINUTE_US
        for asset in range(3, n_assets, 4):
            if (step + asset) % 60 < 15:
                values[:, asset] *= 8
        for cell in range(BLOCK):
            ts_us = first_us + step * MINUTE_US
            step += 1
            out: list[Message] = []
            for asset in range(n_assets):
                place = asset % n_partitions
                if asset // n_partitions == 1 and step % 2000 > 1200:
                    continue  # silent for hours
                if asset % 10 == 9:
                    if cell < BLOCK - 1:
                        continue
                    body = {"start": block_us / 1e6, "interval": 60, "sensors": SENSORS}
                    packed = msgspec.msgpack.encode(body | {"values": values[:, asset].tobytes()})
                    out.append((place, names[asset], packed, ts_us // 1000))
                    continue
                power, wind = values[cell, asset].tolist()
                if asset == LONG:
                    for sensor, value in zip(SENSORS, (power, wind), strict=True):
                        one = msgspec.json.encode({"ts": ts_us // 1_000_000, "sensors": {sensor: value}})
                        out.append((place, names[asset], one, ts_us // 1000))
                    continue
                if asset in (AHEAD, AHEAD_WITH_STAMP) and step % 1000 > 900:
                    one = msgspec.json.encode({"ts": ts_us // 1_000_000 + AHEAD_S, "power": power, "wind": wind})
                    stamp_ms = ts_us // 1000 + (AHEAD_S * 1000 if asset == AHEAD_WITH_STAMP else 0)
                    out.append((place, names[asset], one, stamp_ms))
                    continue
                if asset == LISTS:
                    both = [
                        {"ts": ts_us // 1_000_000, "asset": name, "sensors": {"power": power, "wind": wind}}
                        for name in (names[asset].decode(), f"{names[asset].decode()}b")
                    ]
                    out.append((place, names[asset], msgspec.json.encode(both), ts_us // 1000))
                    continue
                text = (
                    b'{"ts":%d,"sensors":{"power":%s}}' % (ts_us // 1_000_000, b"%r" % power)
                    if (asset + step) % 97 == 0
                    else b'{"ts":%d,"sensors":{"power":%s,"wind":%s}}'
                    % (ts_us // 1_000_000, b"%r" % power, b"%r" % wind)
                )
                out.append((place, names[asset], text, ts_us // 1000))
            for message in out:
                dice = rng.random()
                if dice < 0.003:
                    continue  # missing
                if dice < 0.010:
                    held.append((step + rng.choice((1, 2, 3, 4, 30)), message))
                    continue
                yield message
                sent += 1
                if dice > 0.994:
                    yield message
                    sent += 1
                elif dice > 0.991:
                    yield message[0], message[1], rng.choice(BAD), message[3]
                    sent += 1
                if sent >= n_records:
                    return
            due = [message for when, message in held if when <= step]
            held = [each for each in held if each[0] > step]
            for place, key, value, _ in due:
                yield place, key, value, ts_us // 1000
                sent += 1


class TrafficSender:
    """Sends messages in bursts, over about `seconds` or as fast as possible, in a thread."""

    def __init__(
        self, bootstrap: str, topic: str, messages: Iterator[Message], n_records: int, *, seconds: float, seed: int
    ) -> None:
        self._bootstrap, self._topic, self._messages = bootstrap, topic, messages
        self._rate = n_records / max(seconds, 0.1)
        self._rng = random.Random(f"pour/{seed}")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self.n_acknowledged = 0
        self.n_unknown = 0
        """Messages without an answer from the broker. `read_back` shows if they arrived."""
        self.is_done = False
        self.hurry = False
        """Send the rest without waiting."""
        self.failure: BaseException | None = None

    def start(self) -> TrafficSender:
        self._thread.start()
        return self

    def finish(self, limit_s: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until all messages are sent."""
        self.hurry = True
        deadline = time.monotonic() + limit_s
        while self._thread.is_alive():
            assert time.monotonic() < deadline, f"{self.n_acknowledged} records sent, and no end"
            meanwhile()
            self._thread.join(0.2)
        if self.failure is not None:
            raise self.failure

    async def _send(self) -> None:
        try:
            settings = producer_settings(self._bootstrap) | {"max_request_size": 4 * 1024 * 1024}
            async with AIOKafkaProducer(**settings) as producer:
                began, taken, is_over = time.monotonic(), 0, False
                while not is_over:
                    # Mostly a steady trickle, so that a suspended daemon has records in flight.
                    burst = 3000 if self._rng.random() < 0.02 else max(1, int(self._rate / 20))
                    waiting = []
                    for _ in range(burst):
                        message = next(self._messages, None)
                        if message is None:
                            is_over = True
                            break
                        place, key, value, at_ms = message
                        waiting.append(
                            await producer.send(self._topic, value, key=key, partition=place, timestamp_ms=at_ms)
                        )
                    taken += len(waiting)
                    for answer in await asyncio.gather(*waiting, return_exceptions=True):
                        if isinstance(answer, kafka.KafkaError):
                            self.n_unknown += 1
                        else:
                            self.n_acknowledged += 1
                    while not self.hurry and taken / self._rate > time.monotonic() - began:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        except BaseException as failure:  # noqa: BLE001  # handed to the caller's thread
            self.failure = failure
        finally:
            self.is_done = True
