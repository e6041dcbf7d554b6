"""Tokens are renewed in time and checked before they are sent. Errors name the fix. No secret is logged."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import conn
from aiokafka import errors as kafka
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslAuthenticateResponse_v1

from monitor.config import KafkaConfig
from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka import auth
from monitor.kafka.auth import (
    FileTokenProvider,
    Token,
    TokenAuthenticator,
    TokenUnavailable,
    auth_settings,
    hide_logins,
    parse_token,
    token_provider,
)
from monitor.kafka.error_mapping import map_kafka_errors

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


# ---------------------------------------------------------------- the format of a token


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
    assert parse_token(raw.encode(), NOW) == expected


def test_a_token_is_not_in_its_repr() -> None:
    assert SECRET not in repr(Token(SECRET, None))


# ---------------------------------------------------------------- from a file


async def test_a_file_is_read_at_each_login(tmp_path: Path) -> None:
    tokens = FileTokenProvider(token_file(tmp_path, "one"))
    assert await tokens.token() == "one"
    token_file(tmp_path, "two")
    assert await tokens.token() == "two"


@pytest.mark.parametrize(
    ("text", "mode", "kind", "expected"),
    [
        (None, 0o640, SourceUnavailable, "is not there; does the program that writes it run?"),
        (" \n", 0o640, SourceUnavailable, "is empty"),
        (jwt(exp=NOW - 1), 0o640, SourceUnavailable, "has expired; does the program that renews it run?"),
        ("two words", 0o640, SourceRefused, "holds no token; a single word is wanted"),
        (SECRET, 0o644, SourceRefused, "has mode 0644, so others can read or change it; chmod 640"),
    ],
)
async def test_a_file_without_a_token_is_classified(
    tmp_path: Path, text: str | None, mode: int, kind: type[Exception], expected: str
) -> None:
    file = tmp_path / "token" if text is None else token_file(tmp_path, text, mode)
    with pytest.raises(TokenUnavailable) as caught:
        await FileTokenProvider(file, lambda: NOW).token()
    assert type(caught.value.cause) is kind
    assert expected in str(caught.value.cause)
    assert SECRET not in f"{caught.value!r} {caught.value.cause}"
    with pytest.raises(kind), map_kafka_errors("b:1"):
        raise caught.value


# ---------------------------------------------------------------- logins


def test_clients_of_a_process_share_a_token(tmp_path: Path) -> None:
    assert token_provider(("a", "b"), None) is token_provider(("a", "b"), None)
    assert isinstance(token_provider(None, tmp_path), FileTokenProvider)


class OneToken(auth.TokenProvider):
    is_valid = True

    async def fetch(self) -> Token:
        return Token("abc", None)

    def invalidate(self) -> None:
        self.is_valid = False


async def test_a_refused_token_is_an_error_and_is_not_used_again() -> None:
    """aiokafka alone would take the broker's refusal for a success, and then find a cluster without brokers."""
    tokens = OneToken()
    exchange = TokenAuthenticator(sasl_oauth_token_provider=tokens)
    assert await exchange.step(None) == (b"n,,\x01auth=Bearer abc\x01\x01", True)
    assert await exchange.step(b'{"status":"invalid_token"}') == (b"\x01", True)
    assert not tokens.is_valid
    with pytest.raises(kafka.AuthenticationFailedError):
        await exchange.step(b"and again")
    accepted = TokenAuthenticator(sasl_oauth_token_provider=tokens)
    await accepted.step(None)
    assert await accepted.step(b"") is None


@pytest.mark.parametrize(("mechanism", "is_replaced"), [("SCRAM-SHA-256", False), ("OAUTHBEARER", True)])
def test_only_a_login_with_tokens_replaces_the_authenticator(
    mechanism: str, is_replaced: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = TokenAuthenticator.__base__
    monkeypatch.setattr(conn, "OAuthAuthenticator", own)
    login = {"token_file": tmp_path / "token"} if is_replaced else {"username": "u", "password": SECRET}
    config = KafkaConfig(
        bootstrap="b:1",
        topics=("t",),
        security_protocol="SASL_PLAINTEXT",
        allow_plaintext_password=True,
        sasl_mechanism=mechanism,
        **login,
    )
    assert auth_settings(config)["sasl_mechanism"] == mechanism
    assert conn.OAuthAuthenticator is (TokenAuthenticator if is_replaced else own)


# ---------------------------------------------------------------- the log


def test_only_logins_are_hidden_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="aiokafka.conn")  # a test before this one may have changed it
    log = logging.getLogger("aiokafka.conn")
    hide_logins()
    request = SaslAuthenticateRequest(SECRET.encode()).prepare({36: (0, 1)})
    assert SECRET in repr(request), "aiokafka hides it itself now: hide_logins can go"
    log.debug("Request to %s:%d %d: %s", "b", 1, 7, request)
    log.debug("Response from %s:%d %d: %s", "b", 1, 7, SaslAuthenticateResponse_v1(0, None, SECRET.encode(), 0))
    log.debug("Request to %s:%d %d: %s", "b", 1, 8, "MetadataRequest")
    assert SECRET not in caplog.text
    assert "Request to b:1 7: (login)" in caplog.text
    assert "MetadataRequest" in caplog.text
