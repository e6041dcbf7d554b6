"""The client of a schema registry: the schemas that the records of a batch name.

Input: a batch. Output: the same batch with the schemas of its frames, keys included. Invariant: a schema is requested
once, because a registry never changes the schema of an id. An id that the registry does not have is left out, so that
only the records with this id go to quarantine. The request never fails silently: while the registry is unreachable
the batch waits (SourceUnavailable), and a registry that refuses us stops the daemon (SourceRefused).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import httpx
import msgspec

from monitor.decode.formats import ids_of_frames
from monitor.decode.formats.framing import RegisteredSchema
from monitor.errors import MonitorError, SourceRefused, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from monitor.config import KafkaConfig
    from monitor.types import RecordBatch

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request

FRAMED_FORMATS: Final = frozenset(("auto", "avro", "json_schema", "protobuf"))
MAX_SCHEMA_BYTES: Final = 1024 * 1024
"""Bytes of one answer."""
MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Characters of all kept schemas. Beyond, all are requested again."""
MAX_REFERENCES: Final = 64
"""Schemas that one schema may refer to, directly and indirectly."""
MAX_ID: Final = 2**31 - 1
"""The largest id that a registry gives."""
MISSING_FOR_S: Final = 30.0
"""Time after which an unknown id is requested again: it may be registered late."""
MAX_MISSING: Final = 10_000
"""Unknown ids that are remembered."""
REQUEST_LIMIT_S: Final = 10.0
N_PARALLEL: Final = 8
"""Requests at a time."""
MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct):
    """The registry's answer about one schema."""

    schema: str
    schemaType: str = "AVRO"  # noqa: N815  # the registry's word
    references: list[_Reference] = []


class _NotThere(Exception):
    """The registry does not have the schema"""


class SchemaRegistry:
    """The schemas of one registry. Used in the event loop, by one task at a time. Close it at the end."""

    def __init__(self, config: KafkaConfig, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport`: the connection, for tests."""
        self._transport = transport
        self._url = config.registry_url or ""
        self._is_framed = config.format in FRAMED_FORMATS
        login = None
        if config.registry_user is not None and config.registry_password is not None:
            login = httpx.BasicAuth(config.registry_user, config.registry_password.get_secret_value())
        self._login = login
        self._ca_file = config.ca_file
        self._client: httpx.AsyncClient | None = None
        self._schemas: Mapping[int, str] = {}
        self._missing: dict[int, float] = {}
        """Id that the registry does not have → monotonic seconds of the answer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def complete(self, batch: RecordBatch) -> RecordBatch:
        """Return the batch with the schemas that its records name. Raises SourceUnavailable, SourceRefused."""
        ids = ids_of_frames(batch.keys)
        if self._is_framed:
            ids |= ids_of_frames(batch.values)
        if not ids:
            return batch
        now_s = time.monotonic()
        wanted = [
            each
            for each in sorted(ids - self._schemas.keys())
            if each <= MAX_ID and now_s - self._missing.get(each, -1e9) > MISSING_FOR_S
        ]
        for first in range(0, len(wanted), N_PARALLEL):
            await self._request_all(wanted[first : first + N_PARALLEL])
        return batch.with_schemas(self._schemas)

    async def ping(self) -> None:
        """Request something small. Raises SourceUnavailable, SourceRefused."""
        try:
            await self._get("/schemas/types")
        except _NotThere:  # an old registry: it answers, and the login was accepted
            return

    # ------------------------------------------------------------ requests

    async def _request_all(self, ids: list[int]) -> None:
        results = await asyncio.gather(*map(self._request, ids), return_exceptions=True)
        found = {}
        for schema_id, result in zip(ids, results, strict=True):
            if isinstance(result, str):
                found[schema_id] = result
            elif isinstance(result, _NotThere):
                if len(self._missing) >= MAX_MISSING:
                    self._missing.clear()
                self._missing[schema_id] = time.monotonic()
        if found:
            is_full = sum(map(len, self._schemas.values())) + sum(map(len, found.values())) > MAX_KEPT_BYTES
            # A new dict: batches that were handed on share the former one.
            self._schemas = found if is_full else {**self._schemas, **found}
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, _NotThere):
                raise result

    async def _request(self, schema_id: int) -> str:
        """Return a schema with all schemas that it refers to, in the form of `RecordBatch.schemas`."""
        answer = await self._get_schema(f"/schemas/ids/{schema_id}")
        references: dict[str, str] = {}
        await self._add_references(answer, references, {})
        return RegisteredSchema(answer.schema, answer.schemaType, references).dump()

    async def _add_references(self, answer: _Answer, found: dict[str, str], seen: dict[tuple[str, int], None]) -> None:
        """Add the schemas that an answer refers to, each behind those that it needs itself."""
        for each in answer.references:
            if (each.subject, each.version) in seen:
                continue
            seen[each.subject, each.version] = None
            if len(seen) > MAX_REFERENCES:
                raise SourceRefused(f"{self._url}: a schema refers to more than {MAX_REFERENCES} others")
            inner = await self._get_schema(f"/subjects/{quote(each.subject, safe='')}/versions/{each.version}")
            await self._add_references(inner, found, seen)
            found[each.name] = inner.schema

    async def _get_schema(self, path: str) -> _Answer:
        body = await self._get(path)
        try:
            return msgspec.json.decode(body, type=_Answer)
        except msgspec.MsgspecError as error:
            raise SourceUnavailable(
                f"{self._url}{path} is no answer of a schema registry ({error}); check kafka.registry_url"
            ) from None

    async def _get(self, path: str) -> bytes:
        if self._client is None:
            self._client = self._make_client()
        try:
            async with asyncio.timeout(REQUEST_LIMIT_S), self._client.stream("GET", self._url + path) as response:
                body = await _bounded(response.aiter_raw(), f"{self._url}{path}")
        except (TimeoutError, httpx.TimeoutException):
            raise SourceUnavailable(f"schema registry {self._url}: no answer within {REQUEST_LIMIT_S:g} s") from None
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise _connection_error(self._url, error) from error
        return self._checked(response.status_code, path, body)

    def _checked(self, status: int, path: str, body: bytes) -> bytes:
        """Return the body of a success. Raises _NotThere, SourceUnavailable, SourceRefused."""
        if status == httpx.codes.OK:
            return body
        if status == httpx.codes.NOT_FOUND:
            raise _NotThere
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise SourceRefused(
                f"the schema registry {self._url} does not accept our login (HTTP {status}); check kafka.registry_user "
                "and registry_password, and the right to read schemas"
            )
        hint = "; redirects are not followed, correct kafka.registry_url" if 300 <= status < 400 else ""
        raise SourceUnavailable(f"schema registry {self._url}{path}: HTTP {status}{hint}")

    def _make_client(self) -> httpx.AsyncClient:
        verify = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        headers = {"Accept": f"{MEDIA_TYPE}, application/json", "Accept-Encoding": "identity"}
        return httpx.AsyncClient(
            auth=self._login,
            verify=verify,
            headers=headers,
            trust_env=False,
            follow_redirects=False,
            transport=self._transport,
        )


async def _bounded(chunks: AsyncIterator[bytes], what: str) -> bytes:
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_SCHEMA_BYTES:
            raise SourceUnavailable(f"{what}: the answer is larger than {MAX_SCHEMA_BYTES >> 20} MiB")
    return body


def _connection_error(url: str, error: Exception) -> MonitorError:
    """Return the error of ours for a connection that failed. A certificate that is not trusted needs an operator."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SourceRefused(
            f"the schema registry {url} has a certificate that is not trusted ({cause.verify_message}); "
            "name its authority in kafka.ca_file"
        )
    return SourceUnavailable(f"schema registry {url}: {str(error) or type(error).__name__}")
