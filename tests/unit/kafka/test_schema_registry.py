"""The schemas that a batch names are requested once, and an outage or a refusal is told apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from monitor.config import parse
from monitor.decode.formats.framing import registered
from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka import schema_registry
from monitor.kafka.schema_registry import MAX_SCHEMA_BYTES, SchemaRegistry
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = "https://registry:8081/base"


def kafka(**settings):
    table = {"bootstrap": "broker:9093", "topics": ["t"], "registry_url": URL, **settings}
    return parse({"kafka": table, "fleet": [{"name": "x", "interval": "1m"}]}).kafka


def framed(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + b"..."


def batch_of(*values: bytes | None, key: bytes | None = None) -> RecordBatch:
    n = len(values)
    return RecordBatch(Partition("t", 0), np.arange(n), np.full(n, -1), [key] * n, list(values))


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


class FakeRegistry:
    """A registry in memory: path → answer. Remembers the requests."""

    def __init__(self, answers: dict[str, object], status: int = 200) -> None:
        self.answers = answers
        self.status = status
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.status != 200:
            return httpx.Response(self.status, content=chunks(b""))
        answer = self.answers.get(request.url.raw_path.decode().removeprefix("/base"))
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return httpx.Response(404, content=chunks(b'{"error_code": 40403, "message": "Schema not found"}'))
        return httpx.Response(200, content=chunks(answer if isinstance(answer, bytes) else json.dumps(answer).encode()))

    def client(self, **settings) -> SchemaRegistry:
        return SchemaRegistry(kafka(**settings), transport=httpx.MockTransport(self))


async def test_the_schemas_of_a_batch_are_requested_once():
    two = {"schema": "two", "schemaType": "JSON"}
    registry = FakeRegistry({"/schemas/ids/1": {"schema": "one"}, "/schemas/ids/2": two})
    async with registry.client() as client:
        first = await client.complete(batch_of(framed(1), framed(2), framed(1), b"{}", None, b"\0\0"))
        again = await client.complete(batch_of(framed(2)))
    assert len(registry.requests) == 2
    assert registered(first.schemas, 1).schema == "one"
    assert registered(again.schemas, 2).type == "JSON"


async def test_a_batch_without_frames_costs_no_request():
    registry = FakeRegistry({})
    async with registry.client() as client:
        batch = batch_of(b"{}", b"\x81")
        assert await client.complete(batch) is batch
    assert registry.requests == []


async def test_the_schemas_of_keys_are_requested_in_every_format():
    registry = FakeRegistry({"/schemas/ids/7": {"schema": "key"}})
    async with registry.client(format="json") as client:
        found = await client.complete(batch_of(framed(1), key=framed(7)))
    assert list(found.schemas) == [7]
    assert len(registry.requests) == 1


async def test_references_come_in_the_order_of_need():
    registry = FakeRegistry({
        "/schemas/ids/1": {
            "schema": "outer",
            "schemaType": "PROTOBUF",
            "references": [{"name": "b.proto", "subject": "b/x", "version": 2}],
        },
        "/subjects/b%2Fx/versions/2": {
            "schema": "b",
            "references": [{"name": "a.proto", "subject": "a", "version": 1}],
        },
        "/subjects/a/versions/1": {"schema": "a", "id": 5},
    })
    async with registry.client() as client:
        found = registered((await client.complete(batch_of(framed(1)))).schemas, 1)
    assert list(found.references.items()) == [("a.proto", "a"), ("b.proto", "b")]


async def test_an_unknown_id_is_left_out_and_asked_again_later(monkeypatch):
    registry = FakeRegistry({"/schemas/ids/1": {"schema": "one"}})
    async with registry.client() as client:
        for _ in range(3):
            assert list((await client.complete(batch_of(framed(1), framed(2), framed(2**31)))).schemas) == [1]
        assert len(registry.requests) == 2
        monkeypatch.setattr(schema_registry, "MISSING_FOR_S", -1.0)
        registry.answers["/schemas/ids/2"] = {"schema": "two"}
        assert sorted((await client.complete(batch_of(framed(2)))).schemas) == [1, 2]


@pytest.mark.parametrize(
    ("registry", "error", "wanted"),
    [
        (FakeRegistry({}, status=401), SourceRefused, "check kafka.registry_user"),
        (FakeRegistry({}, status=403), SourceRefused, "check kafka.registry_user"),
        (FakeRegistry({}, status=503), SourceUnavailable, "HTTP 503"),
        (FakeRegistry({}, status=301), SourceUnavailable, "correct kafka.registry_url"),
        (FakeRegistry({"/schemas/ids/1": httpx.ConnectError("refused")}), SourceUnavailable, "refused"),
        (FakeRegistry({"/schemas/ids/1": httpx.ReadTimeout("")}), SourceUnavailable, "no answer within"),
        (FakeRegistry({"/schemas/ids/1": b"<html>"}), SourceUnavailable, "no answer of a schema registry"),
        (FakeRegistry({"/schemas/ids/1": b"x" * (MAX_SCHEMA_BYTES + 1)}), SourceUnavailable, "larger than 1 MiB"),
    ],
)
async def test_an_outage_waits_and_a_refusal_stops(registry, error, wanted):
    async with registry.client() as client:
        with pytest.raises(error, match=wanted):
            await client.complete(batch_of(framed(1)))


async def test_the_schemas_before_an_outage_are_kept():
    registry = FakeRegistry({"/schemas/ids/1": {"schema": "one"}, "/schemas/ids/2": httpx.ConnectError("gone")})
    async with registry.client() as client:
        with pytest.raises(SourceUnavailable):
            await client.complete(batch_of(framed(1), framed(2)))
        registry.answers["/schemas/ids/2"] = {"schema": "two"}
        assert sorted((await client.complete(batch_of(framed(1), framed(2)))).schemas) == [1, 2]
    assert [request.url.path for request in registry.requests].count("/base/schemas/ids/1") == 1


async def test_the_login_is_sent():
    registry = FakeRegistry({"/schemas/types": ["AVRO"]})
    async with registry.client(registry_user="me", registry_password="secret") as client:
        await client.ping()
    assert registry.requests[0].headers["authorization"] == "Basic bWU6c2VjcmV0"


async def test_the_kept_schemas_are_bounded(monkeypatch):
    monkeypatch.setattr(schema_registry, "MAX_KEPT_BYTES", 100)
    registry = FakeRegistry({f"/schemas/ids/{i}": {"schema": "x" * 60} for i in range(1, 4)})
    async with registry.client() as client:
        for i in range(1, 4):
            assert list((await client.complete(batch_of(framed(i)))).schemas) == [i]
