"""Avro with a schema registry, over HTTP and a broker: evolution, an outage, an unknown id, and `monitor check`."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

from monitor.errors import SourceRefused
from monitor.kafka.embedded_broker import create_topic
from monitor.kafka.log_reader import KafkaHistory
from monitor.kafka.record_format import check_format
from monitor.stream.partition import make_decoder, schemas_of
from tests.daemon_process import Deployment, publish
from tests.servers import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.kafka.embedded_broker import EmbeddedBroker

BEGIN_MS = 1_764_399_600_000
LOGIN = "Basic bWU6c2VjcmV0"


def schema_of(*sensors: str) -> dict[str, Any]:
    return {
        "type": "record",
        "name": "Reading",
        "fields": [
            {"name": "asset", "type": "string"},
            {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            *({"name": name, "type": ["null", "double"], "default": None} for name in sensors),
        ],
    }


SCHEMAS = {1: schema_of("power"), 2: schema_of("wind", "power")}
"""The second version of the producer also sends the wind, before the power."""


def message(minute: int, schema_id: int, **values: float) -> tuple[int, bytes, bytes, int]:
    at_ms = BEGIN_MS + 60_000 * minute
    buffer = io.BytesIO()
    record = {"asset": "R1", "ts": at_ms, **values}
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(SCHEMAS.get(schema_id, SCHEMAS[1])), record)
    return 0, b"R1", b"\0" + schema_id.to_bytes(4, "big") + buffer.getvalue(), at_ms


class FakeRegistry(LoopbackServer):
    """A registry that has SCHEMAS."""

    def __init__(self, login: str | None = None) -> None:
        super().__init__()
        self.login = login
        self.paths: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.paths.append(path)
        number = path.removeprefix("/schemas/ids/")
        if self.login is not None and f"authorization: {self.login}".lower() not in head.lower():
            status, body = "401 Unauthorized", b"{}"
        elif path == "/schemas/types":
            status, body = "200 OK", b'["AVRO"]'
        elif number.isdigit() and int(number) in SCHEMAS:
            status, body = "200 OK", json.dumps({"schema": json.dumps(SCHEMAS[int(number)])}).encode()
        else:
            status, body = "404 Not Found", b'{"error_code": 40403}'
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()


@pytest.fixture
def deployment(tmp_path: Any) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "deployment")
    yield deployment
    deployment.kill()


MESSAGES = [
    *(message(i, 1, power=float(i)) for i in range(5)),
    message(5, 77, power=5.0),
    *(message(i, 2, power=float(i), wind=-1.0) for i in range(6, 10)),
]


def test_history_is_read_with_the_schemas_of_its_writers(
    embedded_broker: EmbeddedBroker, deployment: Deployment
) -> None:
    bootstrap = embedded_broker.bootstrap
    asyncio.run(create_topic(bootstrap, "avro-history", 1))
    publish(bootstrap, "avro-history", MESSAGES)

    async def read() -> Any:
        decoder = make_decoder(config, schemas_of(config))
        return [decoder.decode(batch) async for batch in KafkaHistory(config.kafka, ["avro-history"])]

    with FakeRegistry(LOGIN) as registry:
        login = {"registry_url": f"http://127.0.0.1:{registry.port}", "registry_user": "me"}
        deployment.configure(bootstrap, "avro-history", kafka=login | {"registry_password": "secret"})
        deployment.path.chmod(0o600)
        config = deployment.config
        decoded = asyncio.run(read())
        assert sorted(registry.paths) == ["/schemas/ids/1", "/schemas/ids/2", "/schemas/ids/77"]
        deployment.configure(bootstrap, "avro-history", kafka=login | {"registry_password": "wrong"})
        config = deployment.config
        with pytest.raises(SourceRefused, match=r"check kafka\.registry_user"):
            asyncio.run(read())

    values = [row for each in decoded for row in each.readings[0].values[:, 0].tolist()]
    assert values == [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0]
    refused = [each.reason for one in decoded for each in one.quarantined]
    assert len(refused) == 1
    assert refused[0].startswith("unknown_schema: the record names schema 77")


def test_a_registry_outage_holds_the_records(embedded_broker: EmbeddedBroker, deployment: Deployment) -> None:
    bootstrap = embedded_broker.bootstrap
    asyncio.run(create_topic(bootstrap, "avro-live", 1))
    registry = FakeRegistry()
    deployment.configure(
        bootstrap, "avro-live", kafka={"registry_url": f"http://127.0.0.1:{registry.port}", "start": "latest"}
    )
    [found] = asyncio.run(check_format(deployment.config.kafka))
    assert (found.level, found.subject) == ("error", "schema registry")
    deployment.start()
    deployment.wait_event("watching")
    publish(bootstrap, "avro-live", MESSAGES)
    away = deployment.wait_event("broker_away")
    assert f"schema registry http://127.0.0.1:{registry.port}" in away["error"]
    assert deployment.records() == 0
    with registry:
        deployment.wait_event("broker_back")
        deployment.wait_records(len(MESSAGES))
        [found] = asyncio.run(check_format(deployment.config.kafka))
        assert found.level == "ok"
    with deployment.reader() as reader:
        [partition] = reader.partitions()
        assert partition["counters"]["accepted"] == len(MESSAGES) - 1
        assert partition["counters"]["reasons"] == {"unknown_schema": 1}
    deployment.terminate()
