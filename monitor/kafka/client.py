"""aiokafka's corner: settings, and what its records and errors mean to us.

Credentials are next door, in login.py. Law: an error says whether waiting helps, and if not, which setting to mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import errors as kafka

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.auth import TokenMissing, login_settings
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from monitor.config import KafkaConfig
    from monitor.errors import MonitorError
    from monitor.types import Partition

HEARD_S = 30.0
"""How long ago a connection may have failed to be the cause of an error now: a request's time limit and some."""
MAX_WORDS = 300
"""Of what a broker says about a refusal."""
TLS_ALERT = 0x1503
"""How TLS begins when it complains; Kafka's own answers begin with their length, which is never so large."""
NOT_TLS = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
"""OpenSSL's words for an answer that is something else."""
STOP_LIMIT_S = 3.0
"""`AIOKafkaConsumer.stop` can hang; then the object is dropped."""


def as_batch(partition: Partition, records: Sequence[ConsumerRecord[bytes, bytes]]) -> RecordBatch:
    """Turn aiokafka's records into columns."""
    n = len(records)
    timestamps_ms = np.fromiter((-1 if r.timestamp is None else r.timestamp for r in records), np.int64, n)
    return RecordBatch(
        partition=partition,
        offsets=np.fromiter((record.offset for record in records), np.int64, n),
        timestamps_us=np.where(timestamps_ms < 0, -1, timestamps_ms * 1000),
        keys=[record.key for record in records],
        values=[record.value for record in records],
    )


def consumer_settings(config: KafkaConfig) -> dict[str, Any]:
    """Client settings that the group member, the history reader and the look-ups share."""
    return client_settings(config) | {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_bytes": 8 * 1024 * 1024,
        "max_partition_fetch_bytes": 1024 * 1024,
        "fetch_max_wait_ms": 250,
    }


def client_settings(config: KafkaConfig) -> dict[str, Any]:
    """Address and credentials, for consumers and producers alike."""
    return {
        "bootstrap_servers": [server.strip() for server in config.bootstrap.split(",")],
        # Longer than a rebalance may take (20 s): a join that waits for a dead member, and is given up at the moment
        # of its answer, begins again and again; measured on Kafka 4.4 with a member that has a lasting name.
        "request_timeout_ms": 30_000,
        **login_settings(config),
    }


@contextlib.contextmanager
def map_kafka_errors(bootstrap: str) -> Iterator[None]:
    """Turn aiokafka's errors into ours: will waiting help, or must somebody act?"""
    began_s = time.monotonic()
    try:
        yield
    except (kafka.KafkaError, OSError) as error:
        itself, heard = meaning_of(error, bootstrap), _ear.heard_since(began_s)
        if heard is not None and (itself is None or itself.retriable):
            itself = heard  # "Unable to bootstrap", or a timeout: the log knows more
        raise itself or SourceUnavailable(f"{bootstrap}: {error}") from error


def as_refusal(error: kafka.KafkaError) -> SourceRefused | None:
    """Return the refusal that an error stands for, with the fix; None = not a refusal."""
    login = "it does not accept our login; check [kafka] username and password, or the token"
    meaning = {
        kafka.TopicAuthorizationFailedError: "it does not let this user read the topic; grant READ and DESCRIBE on it",
        kafka.GroupAuthorizationFailedError: "it does not let this user join the group; grant READ on [kafka] group",
        kafka.SaslAuthenticationFailed: login,
        kafka.AuthenticationFailedError: login,
        kafka.IllegalSaslStateError: "it asks for no login on this port; check [kafka] security_protocol",
        kafka.UnsupportedSaslMechanismError: "it does not offer this SASL mechanism; check [kafka] sasl_mechanism",
        kafka.InvalidTopicError: "a topic's name is not valid; check [kafka] topics",
    }
    for kind, sentence in meaning.items():
        if isinstance(error, kind):
            words = [str(each)[:MAX_WORDS] for each in error.args if isinstance(each, str | set | frozenset)]
            return SourceRefused(f"{sentence} ({', '.join(words)})" if words else sentence)
    return None


def meaning_of(error: BaseException, where: str) -> MonitorError | None:
    """Say what a failed connection to `where` means, and what to mend; None = the error says all there is."""
    if isinstance(error, TokenMissing):
        return error.meaning
    if isinstance(error, kafka.KafkaError) and (refusal := as_refusal(error)):
        return SourceRefused(f"{where}: {refusal.detail}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceRefused(f"{where}: {_bad_certificate(error)}")
    reason = _tls_reason(error) or _tls_reason(error.__cause__)
    if isinstance(error, ConnectionResetError) or "EOF" in reason:
        # Kafka's answer to a TLS greeting on a port without TLS; a proxy whose broker is away does the same.
        doubt = "it speaks no TLS on this port (then mend [kafka] security_protocol), or it is just being restarted"
        return SourceUnavailable(f"{where}: it hung up during the TLS handshake: {doubt}")
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        fix = "check [kafka] cert_file and key_file"
        return SourceRefused(f"{where}: it wants a certificate of ours that it trusts ({reason}); {fix}")
    if "ALERT" in reason:
        return SourceRefused(f"{where}: it broke off the TLS handshake ({reason}); it must offer TLS 1.2 or 1.3")
    if reason in NOT_TLS:
        return SourceRefused(f"{where}: it speaks no TLS on this port ({reason}); check [kafka] security_protocol")
    if reason:
        return SourceUnavailable(f"{where}: the TLS connection broke ({reason})")
    if isinstance(read := error.__cause__, asyncio.IncompleteReadError):
        if read.expected is not None and read.expected >> 16 == TLS_ALERT:
            fix = 'set [kafka] security_protocol to "SSL", or to "SASL_SSL" with a login'
            return SourceRefused(f"{where}: it speaks TLS on this port; {fix}")
        doubt = 'it wants a login (then [kafka] security_protocol begins with "SASL"), or it is just being restarted'
        return SourceUnavailable(f"{where}: it hung up on us: {doubt}")
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{where}: no answer; a firewall, or [kafka] security_protocol is not this port's")
    if isinstance(error, OSError) and error.strerror:
        return SourceUnavailable(f"{where}: {error.strerror}")
    return None


def _tls_reason(error: BaseException | None) -> str:
    """OpenSSL's word for what went wrong, such as TLSV13_ALERT_CERTIFICATE_REQUIRED; empty = not TLS."""
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""


def _bad_certificate(error: ssl.SSLCertVerificationError) -> str:
    """X.509's codes, as OpenSSL numbers them: 10 expired, 9 not yet valid, 62 and 64 another host or address."""
    if error.verify_code == 10:
        return "its certificate has expired; whoever runs it must renew it"
    if error.verify_code == 9:
        return "its certificate is not valid yet; is this machine's clock right?"
    if error.verify_code in (62, 64):
        fix = "in [kafka] bootstrap, and in the broker's advertised.listeners, use a name that the certificate has"
        return f"its certificate is another host's ({error.verify_message.rstrip('.')}); {fix}"
    fix = "name its authority's certificate in [kafka] ca_file"
    return f"its certificate is of an authority that we do not know ({error.verify_message}); {fix}"


class _Ear(logging.Filter):
    """Hears why connections fail: aiokafka 0.14 says it to its log alone and raises "Unable to bootstrap"."""

    def __init__(self) -> None:
        super().__init__()
        # Meanings, not errors: those would keep connections and what they were opened with alive.
        self._heard: deque[tuple[float, MonitorError]] = deque(maxlen=16)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, and what it means."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        error = next((each for each in arguments if isinstance(each, Exception)), None)
        if error is not None and not isinstance(error, kafka.StaleMetadata):
            where = ":".join(map(str, arguments[:2])) if len(arguments) == 3 else f"node {arguments[0]}"
            if meaning := meaning_of(error, where):
                self._heard.append((time.monotonic(), meaning))
        return True

    def heard_since(self, began_s: float) -> MonitorError | None:
        """Return what was heard last, or rather, where one broker of several refused, that."""
        lately_s = max(began_s, time.monotonic() - HEARD_S)
        heard = [meaning for at_s, meaning in self._heard if at_s >= lately_s]
        refusals = [meaning for meaning in heard if not meaning.retriable]
        return next(reversed(refusals or heard), None)


_ear = _Ear()
logging.getLogger("aiokafka").addFilter(_ear)


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, or give it up."""
    with contextlib.suppress(kafka.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(STOP_LIMIT_S):
            if await _ends_cancelled(consumer.stop()):
                await consumer._client.close()


async def _ends_cancelled(work: Coroutine[Any, Any, None]) -> bool:
    """Await work in a task of its own; say whether it ended as if it had been cancelled, though nobody did.

    aiokafka 0.14: where a fetch waits to try again, because the broker is away, `stop` cancels it and lets that
    CancelledError out, with the connections still open. Taken for ours, it would end the river.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()
    return task.cancelled()
