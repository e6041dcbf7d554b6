"""What proves the broker to us and us to the broker: certificates, passwords, tokens.

Enters: `[kafka]`. Leaves: the settings of an aiokafka client that have to do with security. The host's name is always
checked against the certificate, and TLS is 1.2 or newer. Law: no secret stands in a log line, whatever the level.
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

from monitor.config.file_permissions import too_open
from monitor.errors import ConfigError, MonitorError, SourceRefused, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.config import KafkaConfig

TOKEN_LIMIT_S = 10.0
"""How long a program may take to print a token: a broker waits about that long for a login."""
MAX_TOKEN_BYTES = 64 * 1024
MACHINE_IS_FULL = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
WANTED = "a single word is wanted, or JSON with access_token and expires_in"
RENEW_AT = 0.8
"""The part of a token's life after which another is fetched, as Kafka's own client does."""
UNKNOWN_LIFE_S = 60.0
"""How long a token is used that does not say when it ends."""


def login_settings(config: KafkaConfig) -> dict[str, Any]:
    """Return the security settings of a client. Raises ConfigError when a certificate or key cannot be used."""
    settings: dict[str, Any] = {"security_protocol": config.security_protocol}
    if config.security_protocol.endswith("SSL"):
        settings["ssl_context"] = tls_context(config)
    if config.sasl_mechanism == "OAUTHBEARER":
        tokens = tokens_from(config.token_command, config.token_file)
        settings |= {"sasl_mechanism": config.sasl_mechanism, "sasl_oauth_token_provider": tokens}
    elif config.sasl_mechanism is not None:
        settings["sasl_mechanism"] = config.sasl_mechanism
        settings["sasl_plain_username"] = config.username
        settings["sasl_plain_password"] = config.password.get_secret_value() if config.password else None
    return settings


# ---------------------------------------------------------------- TLS


def tls_context(config: KafkaConfig) -> ssl.SSLContext:
    """Make the context of a client's connections; files are read anew each time, as certificates are renewed."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"kafka.ca_file: {config.ca_file} holds no certificate (PEM)") from error
    except OSError as error:
        raise ConfigError(f"kafka.ca_file: {config.ca_file} cannot be read: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file is not None:
        # Without a password OpenSSL would ask for one at the terminal; an empty one is simply wrong.
        password = config.key_password.get_secret_value() if config.key_password else ""
        try:
            context.load_cert_chain(config.cert_file, config.key_file, password=password)
        except ssl.SSLError as error:
            raise ConfigError(_bad_key(config, error)) from error
        except OSError as error:
            key = f" or {config.key_file}" if config.key_file else ""
            raise ConfigError(f"kafka.cert_file: {config.cert_file}{key} cannot be read: {error.strerror}") from error
    return context


def _bad_key(config: KafkaConfig, error: ssl.SSLError) -> str:
    key = config.key_file or config.cert_file
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"kafka.key_file: the key in {key} is not that of the certificate in {config.cert_file}"
    with contextlib.suppress(OSError):
        if key is not None and b"ENCRYPTED" in key.read_bytes():
            what = "does not open" if config.key_password else "is missing: it opens"
            return f"kafka.key_password: {what} {key}"
    return f"kafka.cert_file: {config.cert_file} and {key} must hold a certificate and its key (PEM)"


# ---------------------------------------------------------------- tokens (OAUTHBEARER)


class TokenMissing(kafka.KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """There is no token to log in with; `meaning` says why, and who must act.

    aiokafka's kind of error, so that its loops take it for a failed connection and try again.
    """

    def __init__(self, meaning: MonitorError) -> None:
        super().__init__(meaning.detail)
        self.meaning = meaning


@dataclass(frozen=True, slots=True)
class Token:
    """What is sent, and until when it is good (Unix time; None = it does not say)."""

    text: str = field(repr=False)
    ends_at: float | None


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Hands a good token to each login."""

    async def token(self) -> str:
        """Return a token. Raises TokenMissing."""
        try:
            return (await self.fetch()).text
        except MonitorError as error:
            raise TokenMissing(error) from error

    async def fetch(self) -> Token:
        """Get a token. Raises SourceUnavailable where waiting helps, else SourceRefused."""
        raise NotImplementedError

    def forget(self) -> None:
        """Take another at the next login: the broker did not like this one."""


class TokenFile(Tokens):
    """A file that something else renews (a sidecar, Kubernetes): read at each login."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now

    async def fetch(self) -> Token:
        """Read the file. It may come later, and be empty while it is written; what it must not be is open to others."""
        who = f"the token file {self._file}"
        try:
            exposure, raw = await asyncio.to_thread(self._look)
        except FileNotFoundError as error:
            raise SourceUnavailable(f"{who} is not there; does what writes it run?") from error
        except OSError as error:
            raise SourceRefused(f"{who} cannot be read: {error.strerror}") from error
        if exposure:
            raise SourceRefused(f"{who} {exposure}")
        if not raw.strip():
            raise SourceUnavailable(f"{who} is empty; does what writes it run?")
        token = read_token(raw, self._now())
        if token is None:
            raise SourceRefused(f"{who} holds no token; {WANTED}")
        if token.ends_at is not None and token.ends_at <= self._now():
            raise SourceUnavailable(f"the token in {self._file} has expired; does what renews it run?")
        return token

    def _look(self) -> tuple[str | None, bytes]:
        exposure = too_open(self._file)
        return exposure, b"" if exposure else self._file.read_bytes()


class TokenProgram(Tokens):
    """A program that prints a token: run again before that token ends."""

    def __init__(self, command: tuple[str, ...], now: Callable[[], float] = time.time) -> None:
        self._command = command
        self._now = now
        self._kept: Token | None = None
        self._renew_at = 0.0

    async def fetch(self) -> Token:
        """Return the token at hand, or a fresh one. A program that fails may mend itself; one that is not there not."""
        now, kept = self._now(), self._kept
        if kept is not None and now < self._renew_at:
            return kept
        try:
            token = await self._fresh(now)
        except SourceUnavailable:
            if kept is not None and kept.ends_at is not None and now < kept.ends_at:
                return kept  # the last fifth of its life is there for this
            raise
        life_s = UNKNOWN_LIFE_S if token.ends_at is None else RENEW_AT * (token.ends_at - now)
        self._kept, self._renew_at = token, now + life_s
        return token

    def forget(self) -> None:
        """Run the program at the next login."""
        self._kept = None

    async def _fresh(self, now: float) -> Token:
        who = f"the token program {self._command[0]}"
        token = read_token(await _printed(self._command, who), now)
        if token is None:
            raise SourceRefused(f"{who} printed no token; {WANTED}")
        if token.ends_at is not None and token.ends_at <= now:
            raise SourceUnavailable(f"{who} printed a token that has expired; is this machine's clock right?")
        return token


@functools.cache
def tokens_from(command: tuple[str, ...] | None, file: Path | None) -> Tokens:
    """Return the process's one holder of tokens from there: its clients share a token. One of the two is set."""
    if file is not None:
        return TokenFile(file)
    return TokenProgram(command or ())


class _Answer(msgspec.Struct):
    """What a token endpoint answers (RFC 6749, 5.1)."""

    access_token: str
    expires_in: float | None = None


class _Claims(msgspec.Struct):
    exp: float | None = None


def read_token(raw: bytes, now: float) -> Token | None:
    """Read a token, bare or in a token endpoint's JSON; None = there is none. A JWT tells its end itself."""
    try:
        text, ends_at = raw.decode("ascii").strip(), None
        if text.startswith("{"):
            answer = msgspec.json.decode(text, type=_Answer, strict=False)
            text = answer.access_token
            ends_at = None if answer.expires_in is None else now + answer.expires_in
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):  # RFC 6750, 2.1; anything else would break out of the message
        return None
    return Token(text, _end_of_jwt(text) if ends_at is None else ends_at)


def _end_of_jwt(text: str) -> float | None:
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(f"{parts[1]}==="), type=_Claims).exp
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


async def _printed(command: tuple[str, ...], who: str) -> bytes:
    """Run a program and return what it printed. What it complains of may quote a secret: nobody reads that."""
    reading, writing = os.pipe()  # our own: the loop's would stay open as long as a child of the program's lives
    pipe = os.fdopen(reading, "rb", buffering=0)
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        async with asyncio.timeout(TOKEN_LIMIT_S):
            code, printed = await _run(command, writing, stream)
    except TimeoutError as error:
        raise SourceUnavailable(f"{who} printed no token within {TOKEN_LIMIT_S:.0f} s") from error
    except OSError as error:
        kind = SourceUnavailable if error.errno in MACHINE_IS_FULL else SourceRefused
        raise kind(f"{who} cannot be run: {error.strerror}; correct [kafka] token_command") from error
    finally:
        transport.close()
    if printed is None:
        raise SourceRefused(f"{who} printed more than {MAX_TOKEN_BYTES} bytes, which is no token")
    if code != 0:
        raise SourceUnavailable(f"{who} ended with exit code {code}; run it by hand to see what it says")
    return printed


async def _run(command: tuple[str, ...], writing: int, stream: asyncio.StreamReader) -> tuple[int, bytes | None]:
    """Return exit code and output; None = more than a token can be, and the program was killed."""
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=writing, stderr=nothing, start_new_session=True
        )
    finally:
        os.close(writing)
    try:
        await stream.readexactly(MAX_TOKEN_BYTES + 1)
    except asyncio.IncompleteReadError as error:  # the usual end
        return await process.wait(), error.partial
    else:
        return 0, None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and what it started
            await process.wait()


# ---------------------------------------------------------------- aiokafka 0.14, mended


class _Authenticator(aiokafka.conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka ships no types
    """Hears a broker's "no": aiokafka takes every answer to a token for a "yes" and then meets an empty cluster."""

    _told = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Send the token; to a refusal the one byte that makes the broker say it plainly (RFC 7628, 3.2.3)."""
        if payload:
            forget = getattr(self._sasl_oauth_token_provider, "forget", None)
            if forget is not None:
                forget()
            if self._told:
                raise kafka.AuthenticationFailedError("the token was refused")
            self._told = True
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


class _NoSecrets(logging.Filter):
    """Hides what logins consist of: at level debug aiokafka writes every request out, passwords and tokens included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without the secret."""
        if isinstance(record.args, tuple):
            hidden = SaslAuthenticateRequest.API_KEY
            record.args = tuple("(login)" if getattr(a, "API_KEY", None) == hidden else a for a in record.args)
        return True


aiokafka.conn.OAuthAuthenticator = _Authenticator
logging.getLogger("aiokafka.conn").addFilter(_NoSecrets())
