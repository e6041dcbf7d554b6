"""`[kafka]`: the broker, the topics and the login.

Input: the table. Output: `KafkaConfig`. Invariant: settings that contradict each other, or that have no effect
together, are an error.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path  # noqa: TC003 (pydantic reads annotations when the class is made)
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationInfo, field_validator, model_validator

from monitor.config.base import ConfigTable, Name, Names, PositiveDuration, config_folder, one_of, raise_problems
from monitor.config.fields import FieldsConfig
from monitor.config.file_permissions import insecure_mode
from monitor.config.values import check_web_address, is_loopback, parse_command

# The valid values. `monitor check` and the error messages read these lists.
FORMATS = ("auto", "json", "msgpack", "csv", "influx", "avro", "json_schema", "protobuf", "arrow", "sparkplug")
STARTS = ("earliest", "latest")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
LOGIN_KEYS = ("sasl_mechanism", "username", "password", "token_command", "token_file")
REGISTRY_KEYS = ("registry_user", "registry_password", "registry_allow_http")
SCHEMA_FILE_FORMATS = ("avro", "protobuf")
MAX_SCHEMA_FILE_BYTES = 4 * 1024 * 1024
TLS_KEYS = ("ca_file", "cert_file", "key_file", "key_password")


class KafkaConfig(ConfigTable):
    """`[kafka]`: the source of the readings."""

    bootstrap: Annotated[str, Field(pattern=r"^\s*[^\s,:@/]+:\d{1,5}(\s*,\s*[^\s,:@/]+:\d{1,5})*\s*$")]
    """Broker addresses, "host:port,host:port"."""
    topics: Names
    group: str = ""
    """Consumer group. Our database keeps offsets under the same name. Default: derived from the database's identity, so
    that a trial with another database takes nothing away. `Config.with_default_group` fills it in."""
    format: Annotated[str, one_of(FORMATS)] = "auto"
    """auto: by the first bytes of each record. CSV, plain Avro, Protobuf and Sparkplug must be named."""
    registry_url: Annotated[str | None, Field(repr=False)] = None
    """Schema registry, for records that begin with the id of a schema."""
    registry_user: Name | None = None
    registry_password: SecretStr | None = None
    """Preferably in MONITOR_KAFKA__REGISTRY_PASSWORD_FILE."""
    registry_allow_http: bool = False
    """Read schemas, and send the login, unencrypted over a network."""
    schema_file: Path | None = None
    """Avro schema (.avsc), or Protobuf descriptors (protoc --include_imports --descriptor_set_out), without a
    registry."""
    message: Name | None = None
    """Full name of the Protobuf message in `schema_file`."""
    start: Annotated[str, one_of(STARTS)] = "earliest"
    """First offset of a partition that was never read. Afterwards our database has the offset."""
    max_record_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    """A longer record goes to quarantine without being parsed."""
    max_skew: PositiveDuration = timedelta(minutes=10)
    """Longest time by which an event time may be ahead of its record's Kafka timestamp."""
    max_quarantine_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the last 10,000 records. Above it the daemon stops (exit 3). 1: it stops if none of them can be read."""
    session_timeout: Annotated[PositiveDuration, Field(ge=timedelta(seconds=6), le=timedelta(minutes=30))] = timedelta(
        seconds=30
    )
    """Silence of a daemon after which the group assigns its partitions to others."""
    fields: FieldsConfig = FieldsConfig()
    security_protocol: Annotated[str, one_of(PROTOCOLS)] = "PLAINTEXT"
    sasl_mechanism: Annotated[str, one_of(MECHANISMS)] | None = None
    username: Name | None = None
    password: SecretStr | None = None
    """Preferably in MONITOR_KAFKA__PASSWORD or MONITOR_KAFKA__PASSWORD_FILE."""
    allow_plaintext_password: bool = False
    """Log in over SASL_PLAINTEXT, which can be read on the network."""
    token_command: Annotated[tuple[Name, ...] | None, BeforeValidator(parse_command), Field(repr=False)] = None
    """Program that prints a token for OAUTHBEARER, or a token endpoint's JSON. Run again before the token expires."""
    token_file: Path | None = None
    """File with a token, or a token endpoint's JSON. Read at each login, because another program renews it."""
    ca_file: Path | None = None
    """Certificate authority of the broker, and of the schema registry, PEM."""
    cert_file: Path | None = None
    """Client certificate and its chain, PEM, where the broker requires one (mutual TLS)."""
    key_file: Path | None = None
    """Private key of the client certificate, PEM. Default: in `cert_file`."""
    key_password: SecretStr | None = None
    """Password of the key. Preferably in MONITOR_KAFKA__KEY_PASSWORD_FILE."""

    _schema: bytes | None = PrivateAttr(None)

    @field_validator("registry_url")
    @classmethod
    def _check_registry_url(cls, value: str | None) -> str | None:
        return value and check_web_address(value, login_key="registry_password").rstrip("/")

    @field_validator("ca_file", "cert_file", "key_file", "schema_file")
    @classmethod
    def _file_is_there(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        path = config_folder(info) / value
        try:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
            insecure = insecure_mode(path) if info.field_name == "key_file" else None
        except OSError as error:
            raise ValueError(f"cannot be reached: {error.strerror}") from None
        if insecure:
            raise ValueError(insecure)
        return path

    @field_validator("token_file")
    @classmethod
    def _file_may_come_later(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """The program that writes the token may start later. The file's mode is checked when it is read."""
        return value and config_folder(info) / value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        given = {key for key in LOGIN_KEYS + TLS_KEYS if getattr(self, key) is not None}
        problems = self._login_problems(given) | self._tls_problems(given) | self._encryption_problems()
        problems |= self._registry_problems() | self._schema_file_problems()
        if self.fields.columns is not None and self.format != "csv":
            problems["fields.columns"] = f'is never used with format = "{self.format}"; set kafka.format = "csv"'
        raise_problems(problems)
        if self.schema_file is not None:
            self._schema = self.schema_file.read_bytes()
        return self

    @property
    def schema_bytes(self) -> bytes | None:
        """Content of `schema_file`, as it was when the configuration was read."""
        return self._schema

    @property
    def _is_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def _is_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def _protocol(self) -> str:
        return f'security_protocol = "{self.security_protocol}"'

    def _login_problems(self, given: set[str]) -> dict[str, str]:
        if not self._is_sasl:
            return {key: f'is never sent with {self._protocol}; use "SASL_SSL"' for key in LOGIN_KEYS if key in given}
        has_token = self.sasl_mechanism == "OAUTHBEARER"
        mechanism = f'sasl_mechanism = "{self.sasl_mechanism}"'
        needed = ("sasl_mechanism",) if has_token else ("sasl_mechanism", "username", "password")
        unused = ("username", "password") if has_token else ("token_command", "token_file")
        problems = {key: f"missing; {self._protocol} needs it" for key in needed if key not in given}
        problems |= {key: f"is never sent with {mechanism}; leave it out" for key in unused if key in given}
        if has_token and len(given & {"token_command", "token_file"}) != 1:
            problems["token_command"] = f"and token_file: {mechanism} needs one of the two"
        return problems

    def _registry_problems(self) -> dict[str, str]:
        if self.registry_url is None:
            unused = [key for key in REGISTRY_KEYS if getattr(self, key)]
            return dict.fromkeys(unused, "is never used without registry_url")
        problems = {}
        if (self.registry_user is None) != (self.registry_password is None):
            key, other = ("registry_user", "registry_password")[:: 1 if self.registry_user is None else -1]
            problems[key] = f"missing; {other} is never sent without it"
        parts = urlsplit(self.registry_url)
        if parts.scheme == "http" and not self.registry_allow_http and not is_loopback(parts.hostname or ""):
            problems["registry_url"] = "is http, which is not encrypted; use https, or set registry_allow_http = true"
        return problems

    def _schema_file_problems(self) -> dict[str, str]:
        if self.format == "protobuf" and self.registry_url is None:
            needed = ("schema_file", "message")
            why = 'missing; format = "protobuf" needs schema_file and message, or registry_url'
            return {key: why for key in needed if getattr(self, key) is None}
        if self.schema_file is None:
            return {"message": "is never used without schema_file"} if self.message is not None else {}
        if self.registry_url is not None:
            return {"schema_file": "and registry_url: only one of the two is read; leave one out"}
        if self.format not in SCHEMA_FILE_FORMATS:
            offered = " or ".join(f'"{name}"' for name in SCHEMA_FILE_FORMATS)
            return {"schema_file": f'is never read with format = "{self.format}"; set format = {offered}'}
        if self.message is not None and self.format != "protobuf":
            return {"message": f'is never used with format = "{self.format}"; leave it out'}
        if self.schema_file.stat().st_size > MAX_SCHEMA_FILE_BYTES:
            return {"schema_file": f"is larger than {MAX_SCHEMA_FILE_BYTES >> 20} MiB, so it is no schema"}
        return {}

    def _tls_problems(self, given: set[str]) -> dict[str, str]:
        if not self._is_tls:
            if (self.registry_url or "").startswith("https"):
                given = given - {"ca_file"}  # it also verifies the registry
            fix = "SASL_SSL" if self._is_sasl else "SSL"
            return {key: f'is never read with {self._protocol}; use "{fix}"' for key in TLS_KEYS if key in given}
        if self.cert_file is None:
            return dict.fromkeys(given & {"key_file", "key_password"}, "is never read without cert_file")
        insecure = insecure_mode(self.cert_file) if self.key_file is None else None
        return {"cert_file": f"without key_file holds the key, too, and {insecure}"} if insecure else {}

    def _encryption_problems(self) -> dict[str, str]:
        if not self._is_sasl or self._is_tls:
            if self.allow_plaintext_password:
                return {"allow_plaintext_password": f"true means nothing with {self._protocol}; leave it out"}
        elif not self.allow_plaintext_password:
            # SCRAM does not send the password, but enough for an offline dictionary attack. With aiokafka a false
            # broker even chooses the number of iterations, and so the cost of each guess.
            return {
                "security_protocol": '"SASL_PLAINTEXT" sends the login unencrypted; use "SASL_SSL", or set '
                "allow_plaintext_password = true"
            }
        return {}

    @property
    def shown_security(self) -> str:
        """Login and encryption in one sentence, for terminals and logs. It contains no secret."""
        parts = [self.security_protocol]
        if self.sasl_mechanism == "OAUTHBEARER":
            source = self.token_file or f"the program {(self.token_command or ('',))[0]}"
            parts[0] += f" with OAUTHBEARER, the token from {source}"
        elif self.sasl_mechanism:
            parts[0] += f" with {self.sasl_mechanism} as user {self.username}"
        elif self.cert_file is None:
            parts.append("no login")
        if self.cert_file is not None:
            parts.append(f"client certificate {self.cert_file}")
        if self._is_tls:
            authority = self.ca_file or "the system's authorities"
            parts.append(f"certificate and host name checked against {authority}")
        else:
            parts.append("nothing encrypted")
        return ", ".join(parts)
