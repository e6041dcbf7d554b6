"""Plain aiokafka clients beside the daemons: members that join the group and leave it, and the partitions' leaders.

Nothing of monitor is used. A member reads its partitions and commits nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from tests.chaos.hooks import SESSION_S


class GroupMembers:
    """Members of the group that are not daemons. Their loop runs in a thread. Context manager."""

    def __init__(self, bootstrap: str, group: str, client_id: str) -> None:
        """`client_id`: that of the database's daemons. Any other member would be refused as foreign."""
        self._bootstrap, self._group, self._client_id = bootstrap, group, client_id
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._members: list[asyncio.Task[None]] = []

    def __enter__(self) -> GroupMembers:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        while self._members:
            self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def n_members(self) -> int:
        return len(self._members)

    def join(self) -> None:
        """Add a member."""

        async def begin() -> None:
            self._members.append(asyncio.create_task(self._consume()))

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    def leave(self) -> None:
        """Remove the oldest member."""

        async def end() -> None:
            member = self._members.pop(0)
            member.cancel()
            await asyncio.wait({member}, timeout=10)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(15)

    async def _consume(self) -> None:
        consumer = AIOKafkaConsumer(
            self._group,  # the topic has the group's name
            bootstrap_servers=self._bootstrap,
            group_id=self._group,
            client_id=self._client_id,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            session_timeout_ms=SESSION_S * 1000,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=20_000,
        )
        try:
            await consumer.start()
            while True:
                with contextlib.suppress(kafka.KafkaError):
                    await consumer.getmany(timeout_ms=200)
        finally:
            with contextlib.suppress(kafka.KafkaError, TimeoutError):
                async with asyncio.timeout(5):
                    await consumer.stop()


def leaders_of(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the leader of each partition. Empty if no broker answers."""

    async def ask() -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
        try:
            await admin.start()
            [found] = await admin.describe_topics([topic])
            return {each["partition"]: each["leader"] for each in found["partitions"]}
        finally:
            await admin.close()

    with contextlib.suppress(kafka.KafkaError, OSError, TimeoutError):
        return asyncio.run(ask())
    return {}
