"""Failed connections become errors that say if waiting helps, and otherwise name the fix."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time

import pytest
from aiokafka import errors as kafka

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.error_mapping import CAUSE_MAX_AGE_S, classify_error, map_kafka_errors


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "words"
    return error


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def closed_by(cause: Exception) -> kafka.KafkaConnectionError:
    error = kafka.KafkaConnectionError("Connection at b:1 closed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (certificate_error(10), SourceRefused, "b:1: its certificate has expired"),
        (certificate_error(9), SourceRefused, "not valid yet; is this machine's clock right?"),
        (certificate_error(62), SourceRefused, "another host's (words); in [kafka] bootstrap"),
        (certificate_error(64), SourceRefused, "another host's (words)"),
        (certificate_error(19), SourceRefused, "authority that we do not know (words); name"),
        (ConnectionResetError(), SourceUnavailable, "it speaks no TLS on this port (then correct"),
        (tls_error("UNEXPECTED_EOF_WHILE_READING"), SourceUnavailable, "it speaks no TLS on this port (then correct"),
        (tls_error("WRONG_VERSION_NUMBER"), SourceRefused, "it speaks no TLS on this port (WRONG_VERSION"),
        (closed_by(tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")), SourceRefused, "requires a client certificate"),
        (closed_by(tls_error("TLSV1_ALERT_UNKNOWN_CA")), SourceRefused, "requires a client certificate"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), SourceRefused, "it must offer TLS 1.2 or 1.3"),
        (closed_by(tls_error("BAD_RECORD_MAC")), SourceUnavailable, "the TLS connection broke (BAD_RECORD_MAC)"),
        (closed_by(asyncio.IncompleteReadError(b"\x02\x02P", 0x15030300)), SourceRefused, "it speaks TLS on this port"),
        (closed_by(asyncio.IncompleteReadError(b"", 4)), SourceUnavailable, "it requires a login (then"),
        (kafka.SaslAuthenticationFailed("no"), SourceRefused, "check [kafka] username and password, or the token (no)"),
        (kafka.IllegalSaslStateError(object()), SourceRefused, "expects no login on this port; check"),
        (kafka.UnsupportedSaslMechanismError("only X"), SourceRefused, "does not offer this SASL mechanism"),
        (TimeoutError(), SourceUnavailable, "b:1: no answer; a firewall"),
        (ConnectionRefusedError(111, "Connection refused"), SourceUnavailable, "b:1: Connection refused"),
    ],
)
def test_a_failed_connection_names_the_fix(error: Exception, kind: type[Exception], expected: str) -> None:
    mapped = classify_error(error, "b:1")
    assert type(mapped) is kind
    assert expected in str(mapped)


def failed(host: str, error: Exception) -> None:
    logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', host, 9093, error)


def test_a_cause_that_aiokafka_only_logs_is_found() -> None:
    failed("before", kafka.SaslAuthenticationFailed("long ago"))

    def bootstrap() -> None:
        failed("b1", certificate_error(10))
        failed("b2", ConnectionRefusedError(111, "Connection refused"))
        raise kafka.KafkaConnectionError("Unable to bootstrap")

    with (
        pytest.raises(SourceRefused, match="b1:9093: its certificate has expired"),
        map_kafka_errors("b1:9093,b2:9093"),
    ):
        bootstrap()


def test_an_earlier_failure_is_not_the_cause() -> None:
    failed("before", kafka.SaslAuthenticationFailed("long ago"))
    with pytest.raises(SourceUnavailable, match="Unable to bootstrap"), map_kafka_errors("b:1"):
        raise kafka.KafkaConnectionError("Unable to bootstrap")


def test_an_old_failure_is_not_the_cause_of_a_late_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_work() -> None:
        failed("b", kafka.SaslAuthenticationFailed("at the start"))
        later_s = time.monotonic() + CAUSE_MAX_AGE_S + 1
        monkeypatch.setattr(time, "monotonic", lambda: later_s)
        raise kafka.KafkaConnectionError("something else")

    with pytest.raises(SourceUnavailable, match="something else"), map_kafka_errors("b:1"):
        long_work()


def test_aiokafkas_logger_is_left_as_it_was() -> None:
    before = list(logging.getLogger("aiokafka").filters)
    with map_kafka_errors("b:1"):
        assert len(logging.getLogger("aiokafka").filters) == len(before) + 1
    assert logging.getLogger("aiokafka").filters == before
