"""Tokens are fetched in time and checked before they are sent; what fails says who must act; no secret is logged."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslAuthenticateResponse_v1

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka import auth
from monitor.kafka.auth import Token, TokenFile, TokenMissing, TokenProgram, read_token, tokens_from
from monitor.kafka.client import HEARD_S, map_kafka_errors, meaning_of

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
SECRET = "s3cret"


def jwt(**claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'sub': SECRET, **claims})}.c2ln"


def token_file(folder: Path, text: str, mode: int = 0o640) -> Path:
    file = folder / "token"
    file.write_text(text)
    file.chmod(mode)
    return file


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- what a token is


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("opaque/Token+1==\n", Token("opaque/Token+1==", None)),
        (jwt(exp=NOW + 9), Token(jwt(exp=NOW + 9), NOW + 9)),
        (jwt(), Token(jwt(), None)),
        ("a.!.c", None),
        ("a.b.c", Token("a.b.c", None)),
        ('{"access_token": "abc", "expires_in": 300, "token_type": "Bearer"}', Token("abc", NOW + 300)),
        ('{"access_token": "abc", "expires_in": "300"}', Token("abc", NOW + 300)),
        ('{"access_token": "abc"}', Token("abc", None)),
        ('{"error": "invalid_client"}', None),
        ('{"a":' * 5000, None),
        ("", None),
        ("two words", None),
        ("a\x01auth=Bearer b", None),
        ("tök", None),
    ],
)
def test_a_token_is_one_word_or_a_token_endpoints_answer(raw: str, expected: Token | None) -> None:
    assert read_token(raw.encode(), NOW) == expected


def test_a_token_shows_nowhere() -> None:
    assert SECRET not in repr(Token(SECRET, None))


# ---------------------------------------------------------------- from a file


async def test_a_file_is_read_at_each_login(tmp_path: Path) -> None:
    tokens = TokenFile(token_file(tmp_path, "one"))
    assert await tokens.token() == "one"
    token_file(tmp_path, "two")
    assert await tokens.token() == "two"


@pytest.mark.parametrize(
    ("text", "mode", "kind", "expected"),
    [
        (None, 0o640, SourceUnavailable, "is not there; does what writes it run?"),
        (" \n", 0o640, SourceUnavailable, "is empty"),
        (jwt(exp=NOW - 1), 0o640, SourceUnavailable, "has expired; does what renews it run?"),
        ("two words", 0o640, SourceRefused, "holds no token; a single word is wanted"),
        (SECRET, 0o644, SourceRefused, "has mode 0644, so others can read or change it; chmod 640"),
    ],
)
async def test_a_file_without_a_token_says_whether_waiting_helps(
    tmp_path: Path, text: str | None, mode: int, kind: type[Exception], expected: str
) -> None:
    file = tmp_path / "token" if text is None else token_file(tmp_path, text, mode)
    with pytest.raises(TokenMissing) as caught:
        await TokenFile(file, lambda: NOW).token()
    assert type(caught.value.meaning) is kind
    assert expected in str(caught.value.meaning)
    assert SECRET not in f"{caught.value!r} {caught.value.meaning}"
    with pytest.raises(kind), map_kafka_errors("b:1"):
        raise caught.value


# ---------------------------------------------------------------- from a program


def counting(folder: Path, then: str) -> tuple[str, ...]:
    """A program that counts its runs in a file, and then does something."""
    return ("sh", "-c", f"echo run >> {folder}/runs; {then}")


def runs(folder: Path) -> int:
    return (folder / "runs").read_text().count("run")


async def test_a_program_runs_again_when_a_fifth_of_its_tokens_life_is_left(tmp_path: Path) -> None:
    clock = Clock()
    tokens = TokenProgram(counting(tmp_path, 'echo \'{"access_token": "abc", "expires_in": 100}\''), clock)
    for after_s, n_runs in ((0, 1), (79, 1), (80, 2), (159, 2), (160, 3)):
        clock.now = NOW + after_s
        assert await tokens.token() == "abc"
        assert runs(tmp_path) == n_runs
    tokens.forget()
    await tokens.token()
    assert runs(tmp_path) == 4


async def test_a_token_that_is_still_good_covers_for_a_program_that_fails(tmp_path: Path) -> None:
    clock = Clock()
    answer = tmp_path / "answer"
    answer.write_text('{"access_token": "abc", "expires_in": 100}')
    tokens = TokenProgram(("cat", str(answer)), clock)
    await tokens.token()
    answer.unlink()
    clock.now = NOW + 99
    assert await tokens.token() == "abc"
    clock.now = NOW + 100
    with pytest.raises(TokenMissing, match="ended with exit code 1"):
        await tokens.token()


@pytest.mark.parametrize(
    ("command", "kind", "expected"),
    [
        (("/no/such/program", SECRET), SourceRefused, "cannot be run: No such file"),
        (("sh", "-c", f"echo {SECRET} >&2; exit 3"), SourceUnavailable, "ended with exit code 3; run it by hand"),
        (("sh", "-c", f"echo two {SECRET}"), SourceRefused, "printed no token"),
        (("true", SECRET), SourceRefused, "printed no token"),
        (("sh", "-c", "head -c 100000 /dev/zero"), SourceRefused, "printed more than 65536 bytes"),
        (("yes", SECRET), SourceRefused, "printed more than 65536 bytes"),
        (("echo", jwt(exp=NOW - 1)), SourceUnavailable, "printed a token that has expired"),
    ],
)
async def test_a_program_without_a_token_says_whether_waiting_helps(
    capfd: pytest.CaptureFixture[str], command: tuple[str, ...], kind: type[Exception], expected: str
) -> None:
    with pytest.raises(TokenMissing) as caught:
        await TokenProgram(command, lambda: NOW).token()
    assert type(caught.value.meaning) is kind
    assert expected in str(caught.value.meaning)
    out, err = capfd.readouterr()
    assert SECRET not in f"{caught.value!r} {caught.value.meaning} {out} {err}"


async def test_a_program_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "TOKEN_LIMIT_S", 0.2)
    pid_file = tmp_path / "pid"
    with pytest.raises(TokenMissing, match="printed no token within"):
        await TokenProgram(("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait")).token()
    for _ in range(200):  # it is killed; whoever buries it may take a moment
        if is_dead(int(pid_file.read_text())):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the program's child lives on")


def is_dead(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] in ("", "Z")


def test_the_clients_of_a_process_share_their_tokens(tmp_path: Path) -> None:
    assert tokens_from(("a", "b"), None) is tokens_from(("a", "b"), None)
    assert isinstance(tokens_from(None, tmp_path), TokenFile)


async def test_a_refused_token_is_asked_about_and_not_used_again() -> None:
    """aiokafka alone would take the broker's refusal for a success, and meet a cluster without brokers."""
    from aiokafka import conn

    class Once(auth.Tokens):
        forgotten = False

        async def fetch(self) -> Token:
            return Token("abc", None)

        def forget(self) -> None:
            self.forgotten = True

    tokens = Once()
    exchange = conn.OAuthAuthenticator(sasl_oauth_token_provider=tokens)
    assert await exchange.step(None) == (b"n,,\x01auth=Bearer abc\x01\x01", True)
    assert await exchange.step(b'{"status":"invalid_token"}') == (b"\x01", True)
    assert tokens.forgotten
    with pytest.raises(kafka.AuthenticationFailedError):
        await exchange.step(b"and again")
    welcome = conn.OAuthAuthenticator(sasl_oauth_token_provider=tokens)
    await welcome.step(None)
    assert await welcome.step(b"") is None


# ---------------------------------------------------------------- what is logged


def test_at_level_debug_logins_are_hidden_and_other_requests_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="aiokafka.conn")  # whatever a test before this one configured
    log = logging.getLogger("aiokafka.conn")
    request = SaslAuthenticateRequest(SECRET.encode()).prepare({36: (0, 1)})
    assert SECRET in repr(request), "aiokafka hides it itself now: our filter may go"
    log.debug("Request to %s:%d %d: %s", "b", 1, 7, request)
    log.debug("Response from %s:%d %d: %s", "b", 1, 7, SaslAuthenticateResponse_v1(0, None, SECRET.encode(), 0))
    log.debug("Request to %s:%d %d: %s", "b", 1, 8, "MetadataRequest")
    assert SECRET not in caplog.text
    assert "Request to b:1 7: (login)" in caplog.text
    assert "MetadataRequest" in caplog.text


# ---------------------------------------------------------------- why a connection failed


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
        (ConnectionResetError(), SourceUnavailable, "it speaks no TLS on this port (then mend"),
        (tls_error("UNEXPECTED_EOF_WHILE_READING"), SourceUnavailable, "it speaks no TLS on this port (then mend"),
        (tls_error("WRONG_VERSION_NUMBER"), SourceRefused, "it speaks no TLS on this port (WRONG_VERSION"),
        (closed_by(tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")), SourceRefused, "wants a certificate of ours"),
        (closed_by(tls_error("TLSV1_ALERT_UNKNOWN_CA")), SourceRefused, "wants a certificate of ours"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), SourceRefused, "it must offer TLS 1.2 or 1.3"),
        (closed_by(tls_error("BAD_RECORD_MAC")), SourceUnavailable, "the TLS connection broke (BAD_RECORD_MAC)"),
        (closed_by(asyncio.IncompleteReadError(b"\x02\x02P", 0x15030300)), SourceRefused, "it speaks TLS on this port"),
        (closed_by(asyncio.IncompleteReadError(b"", 4)), SourceUnavailable, "it wants a login (then"),
        (kafka.SaslAuthenticationFailed("no"), SourceRefused, "check [kafka] username and password, or the token (no)"),
        (kafka.IllegalSaslStateError(object()), SourceRefused, "asks for no login on this port; check"),
        (kafka.UnsupportedSaslMechanismError("only X"), SourceRefused, "does not offer this SASL mechanism"),
        (TimeoutError(), SourceUnavailable, "b:1: no answer; a firewall"),
        (ConnectionRefusedError(111, "Connection refused"), SourceUnavailable, "b:1: Connection refused"),
    ],
)
def test_why_a_connection_failed_is_said_with_the_fix(error: Exception, kind: type[Exception], expected: str) -> None:
    meaning = meaning_of(error, "b:1")
    assert type(meaning) is kind
    assert expected in str(meaning)


def failed(host: str, error: Exception) -> None:
    logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', host, 9093, error)


def test_the_cause_that_aiokafka_only_logs_is_found() -> None:
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


def test_a_cause_from_before_is_no_cause() -> None:
    failed("before", kafka.SaslAuthenticationFailed("long ago"))
    with pytest.raises(SourceUnavailable, match="Unable to bootstrap"), map_kafka_errors("b:1"):
        raise kafka.KafkaConnectionError("Unable to bootstrap")


def test_an_old_cause_is_no_cause_of_a_late_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_work() -> None:
        failed("b", kafka.SaslAuthenticationFailed("at the start"))
        later_s = time.monotonic() + HEARD_S + 1
        monkeypatch.setattr(time, "monotonic", lambda: later_s)
        raise kafka.KafkaConnectionError("something else")

    with pytest.raises(SourceUnavailable, match="something else"), map_kafka_errors("b:1"):
        long_work()
