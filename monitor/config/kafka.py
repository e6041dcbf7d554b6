"""`[kafka]`: the broker, what is read from it, and how we log in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path  # noqa: TC003 (pydantic reads annotations when the class is made)
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from monitor.config.base import Name, Names, Span, Table, folder, one_of, refuse
from monitor.config.file_permissions import insecure_mode
from monitor.config.values import parse_command

# What is offered today. These lists are the only place; `monitor check` and the errors read them.
FORMATS = ("auto", "json", "msgpack")
STARTS = ("earliest", "latest")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
LOGIN_KEYS = ("sasl_mechanism", "username", "password", "token_command", "token_file")
TLS_KEYS = ("ca_file", "cert_file", "key_file", "key_password")


class KafkaConfig(Table):
    """`[kafka]`: where the readings come from."""

    bootstrap: Annotated[str, Field(pattern=r"^\s*[^\s,:]+:\d{1,5}(\s*,\s*[^\s,:]+:\d{1,5})*\s*$")]
    """Broker addresses, "host:port,host:port"."""
    topics: Names
    group: Name = "monitor"
    """Consumer group; also the name under which offsets are kept in our database."""
    format: Annotated[str, one_of(FORMATS)] = "auto"
    """auto: the first byte of each record tells JSON from MessagePack."""
    start: Annotated[str, one_of(STARTS)] = "earliest"
    """Where a partition never seen before begins. Afterwards our database knows."""
    max_record_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    """A longer record goes to quarantine unread."""
    max_skew: Span = timedelta(days=1)
    """How far a reading's event time may lie ahead of its record's Kafka timestamp."""
    max_quarantine_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the last 10,000 records; above it the daemon stops (exit 3): the format setting is probably wrong."""
    session_timeout: Annotated[Span, Field(ge=timedelta(seconds=6), le=timedelta(minutes=30))] = timedelta(seconds=30)
    """Silence after which the group gives a daemon up and another takes its partitions."""
    security_protocol: Annotated[str, one_of(PROTOCOLS)] = "PLAINTEXT"
    sasl_mechanism: Annotated[str, one_of(MECHANISMS)] | None = None
    username: Name | None = None
    password: SecretStr | None = None
    """Better: MONITOR_KAFKA__PASSWORD or MONITOR_KAFKA__PASSWORD_FILE."""
    allow_plaintext_password: bool = False
    """Log in over SASL_PLAINTEXT, which everybody on the way can read."""
    token_command: Annotated[tuple[Name, ...] | None, BeforeValidator(parse_command), Field(repr=False)] = None
    """Prints the token of OAUTHBEARER, or a token endpoint's JSON; run again before that token expires."""
    token_file: Path | None = None
    """Holds the token of OAUTHBEARER, or that JSON; read at each login, as what renews it writes it anew."""
    ca_file: Path | None = None
    """Certificate authority of the broker, PEM."""
    cert_file: Path | None = None
    """Our own certificate and what it was signed with, PEM, where the broker asks for one (mutual TLS)."""
    key_file: Path | None = None
    """Its private key, PEM. Left out: it stands in `cert_file`."""
    key_password: SecretStr | None = None
    """Opens the key. Better: MONITOR_KAFKA__KEY_PASSWORD_FILE."""

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _file_is_there(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        path = folder(info) / value
        try:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
            exposure = insecure_mode(path) if info.field_name == "key_file" else None
        except OSError as error:
            raise ValueError(f"cannot be reached: {error.strerror}") from None
        if exposure:
            raise ValueError(exposure)
        return path

    @field_validator("token_file")
    @classmethod
    def _file_may_come_later(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Whoever renews the token may start after us; its mode is looked at when it is read."""
        return value and folder(info) / value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong: dict[str, str] = {}
        protocol = f'security_protocol = "{self.security_protocol}"'
        is_sasl, is_tls = self.security_protocol.startswith("SASL"), self.security_protocol.endswith("SSL")
        by_token = self.sasl_mechanism == "OAUTHBEARER"
        given = {key for key in LOGIN_KEYS + TLS_KEYS if getattr(self, key) is not None}
        if is_sasl:
            needed = ("sasl_mechanism",) if by_token else ("sasl_mechanism", "username", "password")
            wrong |= {key: f"missing; {protocol} needs it" for key in needed if key not in given}
            senseless = ("username", "password") if by_token else ("token_command", "token_file")
            mechanism = f'sasl_mechanism = "{self.sasl_mechanism}"'
            wrong |= {key: f"is never sent with {mechanism}; leave it out" for key in senseless if key in given}
            if by_token and len(given & {"token_command", "token_file"}) != 1:
                wrong["token_command"] = f"and token_file: {mechanism} needs one of the two"
        else:
            wrong |= {key: f'is never sent with {protocol}; use "SASL_SSL"' for key in LOGIN_KEYS if key in given}
        if is_tls:
            wrong |= self._key_problems(given)
        else:
            wrong |= {
                key: f'is never read with {protocol}; use "{"SASL_SSL" if is_sasl else "SSL"}"'
                for key in TLS_KEYS
                if key in given
            }
        # SCRAM sends no password, but enough of it to try a list of words against at home, and aiokafka lets whoever
        # poses as the broker choose how cheap each try is.
        if is_sasl and not is_tls and not self.allow_plaintext_password:
            wrong["security_protocol"] = (
                '"SASL_PLAINTEXT" lets everybody on the way learn the login; use "SASL_SSL", or set '
                "allow_plaintext_password = true"
            )
        if self.allow_plaintext_password and (is_tls or not is_sasl):
            wrong["allow_plaintext_password"] = f"true means nothing with {protocol}; leave it out"
        refuse(wrong)
        return self

    def _key_problems(self, given: set[str]) -> dict[str, str]:
        if self.cert_file is None:
            return dict.fromkeys(given & {"key_file", "key_password"}, "is never read without cert_file")
        exposure = insecure_mode(self.cert_file) if self.key_file is None else None
        return {"cert_file": f"without key_file holds the key, too, and {exposure}"} if exposure else {}

    @property
    def shown_security(self) -> str:
        """How we log in and what is encrypted, for people and logs; nothing of a secret."""
        parts = [self.security_protocol]
        if self.sasl_mechanism == "OAUTHBEARER":
            source = self.token_file or f"the program {(self.token_command or ('',))[0]}"
            parts[0] += f" with OAUTHBEARER, the token from {source}"
        elif self.sasl_mechanism:
            parts[0] += f" with {self.sasl_mechanism} as user {self.username}"
        elif self.cert_file is None:
            parts.append("no login")
        if self.cert_file is not None:
            parts.append(f"we show {self.cert_file}")
        if self.security_protocol.endswith("SSL"):
            authority = self.ca_file or "the system's authorities"
            parts.append(f"certificate and host name checked against {authority}")
        else:
            parts.append("nothing encrypted")
        return ", ".join(parts)
