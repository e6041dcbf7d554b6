"""aiokafka's errors as errors of ours.

Input: an error of aiokafka, or of the TLS connection below it. Output: `SourceUnavailable` where waiting helps,
`SourceRefused` where an operator must act. Invariant: the sentence names the setting to correct.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING

from aiokafka import errors as kafka

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.auth import TokenUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.errors import MonitorError

CAUSE_MAX_AGE_S = 30.0
"""Age up to which a failed connection may be the cause of an error: a request's time limit."""
MAX_DETAIL = 300
"""Characters of a broker's own words about a refusal."""
TLS_ALERT = 0x1503
"""First bytes of a TLS alert. Kafka's answers begin with their length, which is never so large."""
NOT_TLS = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
"""OpenSSL's reasons for an answer in another protocol."""
CREDENTIALS_REJECTED = "it does not accept our login; check [kafka] username and password, or the token"
REFUSALS = {
    kafka.TopicAuthorizationFailedError: "it does not let this user read the topic; grant READ and DESCRIBE on it",
    kafka.GroupAuthorizationFailedError: "it does not let this user join the group; grant READ on [kafka] group",
    kafka.SaslAuthenticationFailed: CREDENTIALS_REJECTED,
    kafka.AuthenticationFailedError: CREDENTIALS_REJECTED,
    kafka.IllegalSaslStateError: "it expects no login on this port; check [kafka] security_protocol",
    kafka.UnsupportedSaslMechanismError: "it does not offer this SASL mechanism; check [kafka] sasl_mechanism",
    kafka.InvalidTopicError: "a topic's name is not valid; check [kafka] topics",
}
"""Errors that no waiting ends, each with its fix."""


@contextlib.contextmanager
def map_kafka_errors(bootstrap: str) -> Iterator[None]:
    """Turn aiokafka's errors into SourceUnavailable, SourceRefused or another MonitorError."""
    logged = _LoggedErrors()
    log = logging.getLogger("aiokafka")
    log.addFilter(logged)
    try:
        yield
    except (kafka.KafkaError, OSError) as error:
        own, cause = classify_error(error, bootstrap), logged.latest()
        if cause is not None and (own is None or own.retriable):
            raise cause from error  # the error is "Unable to bootstrap" or a timeout
        raise own or SourceUnavailable(f"{bootstrap}: {error}") from error
    finally:
        log.removeFilter(logged)


class _LoggedErrors(logging.Filter):
    """A log filter that collects the causes of failed connections.

    aiokafka 0.14 writes the cause to its log and raises only "Unable to bootstrap".
    """

    def __init__(self) -> None:
        super().__init__()
        # Mapped errors: the original ones would keep their connections and credentials in memory.
        self._errors: deque[tuple[float, MonitorError]] = deque(maxlen=16)

    def filter(self, record: logging.LogRecord) -> bool:
        """Remember the cause and let the line pass."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        error = next((each for each in arguments if isinstance(each, Exception)), None)
        if error is not None and not isinstance(error, kafka.StaleMetadata):
            where = ":".join(map(str, arguments[:2])) if len(arguments) == 3 else f"node {arguments[0]}"
            if mapped := classify_error(error, where):
                self._errors.append((time.monotonic(), mapped))
        return True

    def latest(self) -> MonitorError | None:
        """Return the latest cause that is not too old. A refusal by one of several brokers comes first."""
        since_s = time.monotonic() - CAUSE_MAX_AGE_S
        recent = [error for at_s, error in self._errors if at_s >= since_s]
        refusals = [error for error in recent if not error.retriable]
        return next(reversed(refusals or recent), None)


def refusal_for(error: kafka.KafkaError) -> SourceRefused | None:
    """Return the refusal with its fix if waiting does not help, else None."""
    for kind, sentence in REFUSALS.items():
        if isinstance(error, kind):
            details = [str(each)[:MAX_DETAIL] for each in error.args if isinstance(each, str | set | frozenset)]
            return SourceRefused(f"{sentence} ({', '.join(details)})" if details else sentence)
    return None


def classify_error(error: BaseException, where: str) -> MonitorError | None:
    """Return the error of ours for a failed connection to `where`, or None if the error's own text suffices."""
    if isinstance(error, TokenUnavailable):
        return error.cause
    if isinstance(error, kafka.KafkaError) and (refusal := refusal_for(error)):
        return SourceRefused(f"{where}: {refusal.detail}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceRefused(f"{where}: {_certificate_problem(error)}")
    if tls := _tls_problem(error, where):
        return tls
    if isinstance(read := error.__cause__, asyncio.IncompleteReadError):
        return _closed_connection(read, where)
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{where}: no answer; a firewall, or [kafka] security_protocol is not this port's")
    if isinstance(error, OSError) and error.strerror:
        return SourceUnavailable(f"{where}: {error.strerror}")
    return None


def _tls_problem(error: BaseException, where: str) -> MonitorError | None:
    reason = _openssl_reason(error) or _openssl_reason(error.__cause__)
    if isinstance(error, ConnectionResetError) or "EOF" in reason:
        # Kafka does so on a port without TLS, and a proxy does so while its broker is down.
        doubt = "it speaks no TLS on this port (then correct [kafka] security_protocol), or it is just being restarted"
        return SourceUnavailable(f"{where}: it closed the connection during the TLS handshake: {doubt}")
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        fix = "check [kafka] cert_file and key_file"
        return SourceRefused(f"{where}: it requires a client certificate that it trusts ({reason}); {fix}")
    if "ALERT" in reason:
        return SourceRefused(f"{where}: it broke off the TLS handshake ({reason}); it must offer TLS 1.2 or 1.3")
    if reason in NOT_TLS:
        return SourceRefused(f"{where}: it speaks no TLS on this port ({reason}); check [kafka] security_protocol")
    if reason:
        return SourceUnavailable(f"{where}: the TLS connection broke ({reason})")
    return None


def _openssl_reason(error: BaseException | None) -> str:
    """Return OpenSSL's name of the problem, such as TLSV13_ALERT_CERTIFICATE_REQUIRED, or ""."""
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""


def _certificate_problem(error: ssl.SSLCertVerificationError) -> str:
    """Return the problem of the broker's certificate, by X.509's codes as OpenSSL numbers them."""
    expired, not_yet_valid, other_host, other_address = 10, 9, 62, 64
    if error.verify_code == expired:
        return "its certificate has expired; the broker's operator must renew it"
    if error.verify_code == not_yet_valid:
        return "its certificate is not valid yet; is this machine's clock right?"
    if error.verify_code in (other_host, other_address):
        fix = "in [kafka] bootstrap, and in the broker's advertised.listeners, use a name that the certificate has"
        return f"its certificate is another host's ({error.verify_message.rstrip('.')}); {fix}"
    fix = "name its authority's certificate in [kafka] ca_file"
    return f"its certificate is of an authority that we do not know ({error.verify_message}); {fix}"


def _closed_connection(read: asyncio.IncompleteReadError, where: str) -> MonitorError:
    if read.expected is not None and read.expected >> 16 == TLS_ALERT:
        fix = 'set [kafka] security_protocol to "SSL", or to "SASL_SSL" with a login'
        return SourceRefused(f"{where}: it speaks TLS on this port; {fix}")
    doubt = 'it requires a login (then [kafka] security_protocol begins with "SASL"), or it is just being restarted'
    return SourceUnavailable(f"{where}: it closed the connection: {doubt}")
