"""Authentication between broker and client: certificates, passwords, tokens.

Input: `[kafka]`. Output: the security settings of an aiokafka client. TLS is 1.2 or newer, and the certificate must
have the broker's host name. Invariant: no log line contains a secret, at any level.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import functools
import logging
import os
import re
import signal
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiokafka.conn
import msgspec
from aiokafka import errors as kafka
from aiokafka.abc import AbstractTokenProvider
from aiokafka.protocol.admin import SaslAuthenticateRequest

from monitor.config.file_permissions import insecure_mode
from monitor.errors import ConfigError, MonitorError, SourceRefused, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.config import KafkaConfig

TOKEN_LIMIT_S = 10.0
"""Time for a program to print a token. A broker waits about as long for a login."""
MAX_TOKEN_BYTES = 64 * 1024
OUT_OF_RESOURCES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Errors of starting a program that pass by themselves."""
EXPECTED_FORMAT = "a single word is wanted, or JSON with access_token and expires_in"
RENEW_AT = 0.8
"""Share of a token's lifetime after which the next is fetched, as in Kafka's own client."""
DEFAULT_LIFETIME_S = 60.0
"""Lifetime assumed for a token that does not state its end."""


def auth_settings(config: KafkaConfig) -> dict[str, Any]:
    """Return the security settings of a client. Raises ConfigError if a certificate or key cannot be used."""
    settings: dict[str, Any] = {"security_protocol": config.security_protocol}
    if config.security_protocol.endswith("SSL"):
        settings["ssl_context"] = tls_context(config)
    if config.sasl_mechanism is None:
        return settings
    hide_logins()
    settings["sasl_mechanism"] = config.sasl_mechanism
    if config.sasl_mechanism == "OAUTHBEARER":
        detect_refused_tokens()
        settings["sasl_oauth_token_provider"] = token_provider(config.token_command, config.token_file)
    else:
        settings["sasl_plain_username"] = config.username
        settings["sasl_plain_password"] = config.password.get_secret_value() if config.password else None
    return settings


# ---------------------------------------------------------------- TLS


def tls_context(config: KafkaConfig) -> ssl.SSLContext:
    """Return the TLS context of a client. The files are read each time, because certificates are renewed."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"kafka.ca_file: {config.ca_file} holds no certificate (PEM)") from error
    except OSError as error:
        raise ConfigError(f"kafka.ca_file: {config.ca_file} cannot be read: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file is not None:
        # Without a password OpenSSL would ask for one on the terminal. An empty one is merely wrong.
        password = config.key_password.get_secret_value() if config.key_password else ""
        try:
            context.load_cert_chain(config.cert_file, config.key_file, password=password)
        except ssl.SSLError as error:
            raise ConfigError(_key_problem(config, error)) from error
        except OSError as error:
            key = f" or {config.key_file}" if config.key_file else ""
            raise ConfigError(f"kafka.cert_file: {config.cert_file}{key} cannot be read: {error.strerror}") from error
    return context


def _key_problem(config: KafkaConfig, error: ssl.SSLError) -> str:
    key = config.key_file or config.cert_file
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"kafka.key_file: the key in {key} is not that of the certificate in {config.cert_file}"
    with contextlib.suppress(OSError):
        if key is not None and b"ENCRYPTED" in key.read_bytes():
            problem = "does not open" if config.key_password else "is missing: it opens"
            return f"kafka.key_password: {problem} {key}"
    return f"kafka.cert_file: {config.cert_file} and {key} must hold a certificate and its key (PEM)"


# ---------------------------------------------------------------- tokens (OAUTHBEARER)


class TokenUnavailable(kafka.KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """There is no token to log in with. `cause` is the reason, and shows whether an operator must act.

    A subclass of aiokafka's errors, so that its loops treat it as a failed connection and try again.
    """

    def __init__(self, cause: MonitorError) -> None:
        super().__init__(cause.detail)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and its end (Unix time, None if it does not state one)."""

    text: str = field(repr=False)
    expires_at: float | None


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Provides a valid token for each login."""

    async def token(self) -> str:
        """Return a token. Raises TokenUnavailable."""
        try:
            return (await self.fetch()).text
        except MonitorError as error:
            raise TokenUnavailable(error) from error

    async def fetch(self) -> Token:
        """Return a token. Raises SourceUnavailable where waiting helps, else SourceRefused."""
        raise NotImplementedError

    def invalidate(self) -> None:
        """Provide another token at the next login: the broker has refused this one."""


class FileTokenProvider(TokenProvider):
    """A file that another program renews (a sidecar, Kubernetes). It is read at each login."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now

    async def fetch(self) -> Token:
        """Read the file. A missing or empty one may be written later. One that others can read is refused."""
        name = f"the token file {self._file}"
        try:
            insecure, raw = await asyncio.to_thread(self._read)
        except FileNotFoundError as error:
            raise SourceUnavailable(f"{name} is not there; does the program that writes it run?") from error
        except OSError as error:
            raise SourceRefused(f"{name} cannot be read: {error.strerror}") from error
        if insecure:
            raise SourceRefused(f"{name} {insecure}")
        if not raw.strip():
            raise SourceUnavailable(f"{name} is empty; does the program that writes it run?")
        token = parse_token(raw, self._now())
        if token is None:
            raise SourceRefused(f"{name} holds no token; {EXPECTED_FORMAT}")
        if token.expires_at is not None and token.expires_at <= self._now():
            raise SourceUnavailable(f"the token in {self._file} has expired; does the program that renews it run?")
        return token

    def _read(self) -> tuple[str | None, bytes]:
        insecure = insecure_mode(self._file)
        return insecure, b"" if insecure else self._file.read_bytes()


class CommandTokenProvider(TokenProvider):
    """A program that prints a token. It is run again before that token expires."""

    def __init__(self, command: tuple[str, ...], now: Callable[[], float] = time.time) -> None:
        self._command = command
        self._now = now
        self._token: Token | None = None
        self._renew_at = 0.0

    async def fetch(self) -> Token:
        """Return the present token or a new one.

        Raises SourceUnavailable where the program fails, SourceRefused where it does not exist or prints no token.
        """
        now, present = self._now(), self._token
        if present is not None and now < self._renew_at:
            return present
        try:
            token = await self._run(now)
        except SourceUnavailable:
            if present is not None and present.expires_at is not None and now < present.expires_at:
                return present  # tokens are renewed early, so a failed renewal does no harm yet
            raise
        lifetime_s = DEFAULT_LIFETIME_S if token.expires_at is None else RENEW_AT * (token.expires_at - now)
        self._token, self._renew_at = token, now + lifetime_s
        return token

    def invalidate(self) -> None:
        """Run the program at the next login."""
        self._token = None

    async def _run(self, now: float) -> Token:
        name = f"the token program {self._command[0]}"
        token = parse_token(await _output_of(self._command, name), now)
        if token is None:
            raise SourceRefused(f"{name} printed no token; {EXPECTED_FORMAT}")
        if token.expires_at is not None and token.expires_at <= now:
            raise SourceUnavailable(f"{name} printed a token that has expired; is this machine's clock right?")
        return token


@functools.cache
def token_provider(command: tuple[str, ...] | None, file: Path | None) -> TokenProvider:
    """Return the provider of this process, so that its clients share a token. One of the arguments is set."""
    if file is not None:
        return FileTokenProvider(file)
    return CommandTokenProvider(command or ())


class _TokenResponse(msgspec.Struct):
    """A token endpoint's answer (RFC 6749, 5.1)."""

    access_token: str
    expires_in: float | None = None


class _Claims(msgspec.Struct):
    exp: float | None = None


def parse_token(raw: bytes, now: float) -> Token | None:
    """Parse a token, bare or in a token endpoint's JSON. Return None if there is none. A JWT states its own end."""
    try:
        text, expires_at = raw.decode("ascii").strip(), None
        if text.startswith("{"):
            answer = msgspec.json.decode(text, type=_TokenResponse, strict=False)
            text = answer.access_token
            expires_at = None if answer.expires_in is None else now + answer.expires_in
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):  # RFC 6750, 2.1; another character could end the message
        return None
    return Token(text, _jwt_expiry(text) if expires_at is None else expires_at)


def _jwt_expiry(text: str) -> float | None:
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(f"{parts[1]}==="), type=_Claims).exp
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


async def _output_of(command: tuple[str, ...], name: str) -> bytes:
    """Run a program and return its output. Its error messages may quote a secret and are not read."""
    # A pipe of our own. The event loop's would stay open as long as a child of the program lives.
    reading, writing = os.pipe()
    pipe = os.fdopen(reading, "rb", buffering=0)
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        async with asyncio.timeout(TOKEN_LIMIT_S):
            code, output = await _run(command, writing, stream)
    except TimeoutError as error:
        raise SourceUnavailable(f"{name} printed no token within {TOKEN_LIMIT_S:.0f} s") from error
    except OSError as error:
        kind = SourceUnavailable if error.errno in OUT_OF_RESOURCES else SourceRefused
        raise kind(f"{name} cannot be run: {error.strerror}; correct [kafka] token_command") from error
    finally:
        transport.close()
    if output is None:
        raise SourceRefused(f"{name} printed more than {MAX_TOKEN_BYTES} bytes, which is no token")
    if code != 0:
        raise SourceUnavailable(f"{name} ended with exit code {code}; run it by hand to see its error")
    return output


async def _run(command: tuple[str, ...], writing: int, stream: asyncio.StreamReader) -> tuple[int, bytes | None]:
    """Return exit code and output. If the output is too long, it is None and the program is killed."""
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=writing, stderr=nothing, start_new_session=True
        )
    finally:
        os.close(writing)
    try:
        await stream.readexactly(MAX_TOKEN_BYTES + 1)
    except asyncio.IncompleteReadError as error:  # the normal end
        return await process.wait(), error.partial
    else:
        return 0, None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the program and its children
            await process.wait()


# ---------------------------------------------------------------- two defects of aiokafka 0.14


def detect_refused_tokens() -> None:
    """Let aiokafka's connections notice a refused token, for the rest of the process.

    A connection of aiokafka 0.14 makes its authenticator from a class name in its module, without a parameter for
    another class. So the name is rebound when the first client that logs in with a token is made. Other mechanisms do
    not use it.
    """
    aiokafka.conn.OAuthAuthenticator = TokenAuthenticator


class TokenAuthenticator(aiokafka.conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka ships no types
    """A SASL exchange with OAUTHBEARER that notices a refusal.

    aiokafka's own class treats any answer to a token as success, and then finds a cluster without brokers.
    """

    _is_refused = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Send the token. Answer a refusal with the one byte that makes the broker end the login (RFC 7628, 3.2.3)."""
        if payload:
            self._sasl_oauth_token_provider.invalidate()
            if self._is_refused:
                raise kafka.AuthenticationFailedError("the token was refused")
            self._is_refused = True
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


def hide_logins() -> None:
    """Keep logins out of aiokafka's log, for the rest of the process. A second call changes nothing.

    At level debug aiokafka 0.14 logs all requests, passwords and tokens included.
    """
    logging.getLogger("aiokafka.conn").addFilter(_hide_login)


def _hide_login(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        login = SaslAuthenticateRequest.API_KEY
        record.args = tuple("(login)" if getattr(each, "API_KEY", None) == login else each for each in record.args)
    return True
