"""Every setting, with its default and its limits. The tables of monitor.toml are the classes here, one for one.

Law: frozen, and complete on its own: what depends on two settings of one table is checked where the table is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence  # noqa: TC003 (pydantic reads annotations when the class is made)
from datetime import timedelta
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from monitor.config.private import too_open
from monitor.config.values import (
    Confirm,
    Rate,
    check_webhook,
    format_duration,
    is_this_machine,
    mask_url,
    parse_command,
    parse_duration,
    parse_names,
    resolve_url,
)

# What is offered today. These lists are the only place; `monitor check` and the errors read them.
FORMATS = ("auto", "json", "msgpack")
ARCHITECTURES = ("auto", "conv", "dense", "forecast", "lstm", "pca")
OBJECTIVES = ("plain", "sparse", "denoising", "variational", "adversarial")
SENSELESS = {
    "auto": (("sparse", "denoising", "variational", "adversarial", "stacked"), "auto chooses by itself"),
    "forecast": (("sparse", "variational", "adversarial", "stacked"), "forecast has no code to ask anything of"),
    "lstm": (("stacked",), "lstm has one layer each way, nothing to stack"),
    "pca": (("sparse", "denoising", "variational", "adversarial", "stacked"), "pca is solved at once, in no steps"),
}
"""Architecture → what it does not go with, and why."""
SCOPES = ("fleet",)
PROMOTIONS = ("auto",)
STARTS = ("earliest", "latest")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
LOGIN_KEYS = ("sasl_mechanism", "username", "password", "token_command", "token_file")
TLS_KEYS = ("ca_file", "cert_file", "key_file", "key_password")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")
SEVERITIES = ("warning", "critical")


def one_of(offered: Sequence[str]) -> AfterValidator:
    """A word from a list; the error carries the list, so that the nearest word can be named."""

    def check(value: str) -> str:
        if value not in offered:
            raise PydanticCustomError("not_offered", "is not offered", {"offered": list(offered)})
        return value

    return AfterValidator(check)


def _above_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be above zero")
    return value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(parse_names)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Span = Annotated[Duration, AfterValidator(_above_zero)]
"""A duration above zero."""


def _span_or(word: str) -> BeforeValidator:
    """A duration above zero, or a word that means None."""
    return BeforeValidator(lambda value: None if value in (word, None) else _above_zero(parse_duration(value)))


class Table(BaseModel):
    """A table of monitor.toml: immutable, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def refuse(problems: dict[str, str]) -> None:
    """Raise everything that is wrong between the settings of one table: key → sentence."""
    if problems:
        raise PydanticCustomError("several", "several", {"problems": problems})


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
        path = _folder(info) / value
        try:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
            exposure = too_open(path) if info.field_name == "key_file" else None
        except OSError as error:
            raise ValueError(f"cannot be reached: {error.strerror}") from None
        if exposure:
            raise ValueError(exposure)
        return path

    @field_validator("token_file")
    @classmethod
    def _file_may_come_later(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Whoever renews the token may start after us; its mode is looked at when it is read."""
        return value and _folder(info) / value

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
        exposure = too_open(self.cert_file) if self.key_file is None else None
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


class StoreConfig(Table):
    """`[store]`: where scores, alerts and offsets go."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///monitor.db"
    """sqlite:///file or postgresql://user@host/database. SQLite: one daemon only."""
    keep_scores: Annotated[timedelta | None, _span_or("forever")] = timedelta(days=90)
    """Older scores are pruned; alerts are kept. "forever" keeps all."""
    checkpoints: Path = Path("checkpoints")
    """Folder of the models. Relative to monitor.toml, as a SQLite path is."""

    @field_validator("url")
    @classmethod
    def _resolve_url(cls, value: str, info: ValidationInfo) -> str:
        return resolve_url(value, _folder(info))

    @field_validator("checkpoints")
    @classmethod
    def _resolve_folder(cls, value: Path, info: ValidationInfo) -> Path:
        return (_folder(info) / value).resolve()

    @property
    def shown_url(self) -> str:
        """The URL with its password hidden, for people and logs."""
        return mask_url(self.url)


class ModelConfig(Table):
    """`model = { … }` of a fleet."""

    architecture: Annotated[str, one_of(ARCHITECTURES)] = "auto"
    objective: Annotated[str, one_of(OBJECTIVES)] = "plain"
    stacked: bool = False
    """Layers learn one by one before they learn together."""
    scope: Annotated[str, one_of(SCOPES)] = "fleet"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_train: Span = timedelta(minutes=10)
    """Training stops here and keeps the best weights so far."""
    max_trim: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """At most this share of past windows is left out as suspected faults; 0: rare healthy states are all learnt."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong = {}
        not_with, why = SENSELESS.get(self.architecture, ((), ""))
        if self.objective in not_with:
            wrong["objective"] = f'"{self.objective}" does not go with "{self.architecture}": {why}; use "plain"'
        if self.stacked and "stacked" in not_with:
            wrong["stacked"] = f'true does not go with "{self.architecture}": {why}; use false'
        refuse(wrong)
        return self

    @property
    def max_train_s(self) -> float:
        """Training's time budget, seconds."""
        return self.max_train.total_seconds()


class AlertConfig(Table):
    """`alerts = { … }` of a fleet."""

    budget: Annotated[Rate, BeforeValidator(Rate.parse)] = Rate(1, timedelta(weeks=1))
    """False alarms allowed per asset: the threshold is calibrated to it."""
    confirm: Annotated[Confirm, BeforeValidator(Confirm.parse)] = Confirm(3, 5)
    """An alert fires when m of an asset's last n windows are anomalous."""
    recover: Annotated[int, Field(ge=1, le=1000)] = 6
    """Normal windows in a row that close it."""


class RetrainConfig(Table):
    """`retrain = { … }` of a fleet."""

    every: Annotated[timedelta | None, _span_or("never")] = timedelta(days=1)
    """"never": only when somebody asks."""
    history: Span = timedelta(days=30)
    """How far back training looks, in event time."""
    promote: Annotated[str, one_of(PROMOTIONS)] = "auto"
    min_windows: Annotated[int, Field(ge=16)] = 200
    """Fewer healthy windows than this train nothing."""


class FleetConfig(Table):
    """`[[fleet]]`: assets that share sensors and settings."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
    interval: Annotated[Span, Field(ge=timedelta(milliseconds=1))]
    """The sampling grid: each reading falls into the nearest cell."""
    topics: Names | None = None
    """Left out: all of [kafka] topics."""
    assets: Names = ("*",)
    """Names or globs. The first fleet that takes an asset has it."""
    sensors: Names | None = None
    """Left out: learnt from the first readings."""
    window: Annotated[int, Field(ge=4, le=4096)] = 64
    """Length in cells."""
    stride: Annotated[int, Field(ge=1)] = 1
    """Cells between the starts of two windows."""
    lateness: Annotated[Duration, Field(default_factory=lambda data: data["interval"])]
    """How long a window waits for missing readings, in event time. Left out: one interval."""
    max_gap: Annotated[Duration, Field(default_factory=lambda data: data["window"] // 8 * data["interval"])]
    """A window with a longer hole is not scored. Left out: an eighth of the window."""
    max_assets: Annotated[int, Field(ge=1)] = 10_000
    """Of this fleet in one partition; records of any other are refused. Each costs memory for a window and a half."""
    max_new_assets_per_min: Annotated[int, Field(ge=1)] = 1_000
    """The same for assets never seen before, by Kafka's timestamps: a producer that invents names is slowed down."""
    model: ModelConfig = ModelConfig()
    alerts: AlertConfig = AlertConfig()
    retrain: RetrainConfig = RetrainConfig()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong = {}
        span, gap, history = (
            format_duration(d) for d in (self.window * self.interval, self.max_gap, self.retrain.history)
        )
        if self.stride > self.window:
            wrong["stride"] = f"{self.stride} leaves readings out; use at most the window, {self.window}"
        if self.max_gap >= self.window * self.interval:
            wrong["max_gap"] = f'"{gap}" is as long as the window itself ({span}) or longer; use less'
        if self.alerts.budget.within(self.stride * self.interval) >= 1:
            wrong["alerts.budget"] = f'"{self.alerts.budget}" allows a false alarm in every window; use fewer'
        n_assets = len(self.assets) if not any(is_glob(name) for name in self.assets) else None
        needed = 1 if n_assets is None else -(-self.retrain.min_windows // n_assets)
        if self.windows_in_history < needed:
            enough = ((needed - 1) * self.stride + self.window) * self.interval
            has = f"{self.windows_in_history} windows of {self.window} × {format_duration(self.interval)} per asset"
            wrong["retrain.history"] = (
                f'"{history}" holds {has}, {needed} needed; use "{format_duration(enough)}" or more'
            )
        refuse(wrong)
        return self

    def takes(self, asset: str) -> bool:
        """Say whether the asset's name is one of this fleet's."""
        return any(fnmatchcase(asset, pattern) for pattern in self.assets)

    @property
    def interval_us(self) -> int:
        """Microseconds from cell to cell."""
        return self.interval // timedelta(microseconds=1)

    @property
    def length(self) -> int:
        """Cells of a window."""
        return self.window

    @property
    def lateness_cells(self) -> int:
        """Cells a window waits, rounded up."""
        return -(-self.lateness // self.interval)

    @property
    def max_gap_cells(self) -> int:
        """The longest hole a scored window may have, in cells."""
        return self.max_gap // self.interval

    @property
    def windows_in_history(self) -> int:
        """Windows that one asset without gaps has within `retrain.history`."""
        return max(0, (self.retrain.history // self.interval - self.window) // self.stride + 1)


class NotifyConfig(Table):
    """`[[notify]]`: somebody to tell of alerts, by a POST of JSON to one address."""

    url: Annotated[str, Field(repr=False)]
    """https; http to this machine, or with `allow_http`. Hidden: many services put their secret into it."""
    name: Annotated[
        str, Field(default_factory=lambda data: urlsplit(data["url"]).hostname, pattern=r"^[a-z0-9._-]{1,64}$")
    ]
    """What logs call it, and part of each letter's key. Left out: the URL's host."""
    min_severity: Annotated[str, one_of(SEVERITIES)] = "warning"
    """critical: an alert is news once its peak is critical."""
    fleets: Names = ("*",)
    """Names or globs."""
    max_age: Annotated[timedelta | None, _span_or("forever")] = timedelta(days=7)
    """Older events are history, as in a topic that is read from its beginning, and nobody is told."""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer …`. Better: MONITOR_NOTIFY__0__TOKEN_FILE."""
    allow_http: bool = False
    """Let the letters, and the token, cross a network unencrypted."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return check_webhook(value)

    @field_validator("token")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("must be one word of printable ASCII: it is sent in a header")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self.allow_http and not is_this_machine(parts.hostname or ""):
            refuse({"url": "is http, which everybody on the way can read; use https, or set allow_http = true"})
        return self

    @property
    def shown_url(self) -> str:
        """Scheme, host and port, for people and logs."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class LogConfig(Table):
    """`[log]`."""

    level: Annotated[str, one_of(LOG_LEVELS)] = "info"
    format: Annotated[str, one_of(LOG_FORMATS)] = "auto"
    """auto: coloured lines on a terminal, JSON elsewhere."""


class HttpConfig(Table):
    """`[http]`: the daemon's pages /live, /ready and /metrics."""

    listen: str = ""
    """"127.0.0.1:9464"; empty: no pages."""
    allow_remote: bool = False
    """Listen where other machines reach it. The pages show names of topics and fleets, and figures; no readings."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong = {}
        if self.listen and self.address is None:
            wrong["listen"] = f'"{self.listen}" is not an address; write "127.0.0.1:9464", or "[::1]:9464"'
        elif self.address is not None and not self.allow_remote and not ip_address(self.address[0]).is_loopback:
            wrong["listen"] = (
                f'"{self.listen}" can be reached from other machines; use "127.0.0.1:{self.address[1]}", or set '
                "allow_remote = true: whoever connects sees names of topics and fleets, and figures"
            )
        refuse(wrong)
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Where to listen; None = nowhere."""
        host, _, port = self.listen.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host
        if not port.isdecimal() or not 0 < int(port) < 65536:
            return None
        try:
            if host.startswith("[") and host.endswith("]"):
                return str(IPv6Address(host[1:-1])), int(port)
            return str(IPv4Address(host)), int(port)
        except ValueError:
            return None


class Config(Table):
    """The whole of monitor.toml."""

    kafka: KafkaConfig
    fleet: Annotated[tuple[FleetConfig, ...], Field(min_length=1)]
    store: StoreConfig = Field(default_factory=dict, validate_default=True)  # its paths depend on the folder
    notify: tuple[NotifyConfig, ...] = ()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """Where models are trained and scored: auto, cpu, cuda, cuda:0, mps."""

    _path: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        wrong = {}
        names = [channel.name for channel in self.notify]
        fleets = [fleet.name for fleet in self.fleet]
        for i, channel in enumerate(self.notify):
            if (first := names.index(channel.name)) != i:
                wrong[f"notify.{i}.name"] = f'"{channel.name}" is notify[{first}] already; give each a name of its own'
            idle = [glob for glob in channel.fleets if not any(fnmatchcase(fleet, glob) for fleet in fleets)]
            if idle:
                wrong[f"notify.{i}.fleets"] = f'"{idle[0]}" is none of the fleets {", ".join(fleets)}'
        refuse(wrong)
        return self

    @property
    def path(self) -> Path | None:
        """The file this came from; None when it was made in memory."""
        return self._path

    @property
    def fleets(self) -> tuple[FleetConfig, ...]:
        """The fleets, in the order in which they take assets."""
        return self.fleet

    def topics_of(self, fleet: FleetConfig) -> tuple[str, ...]:
        """Name the topics a fleet reads."""
        return fleet.topics or self.kafka.topics


def is_glob(name: str) -> bool:
    """Say whether a name is a pattern."""
    return any(sign in name for sign in "*?[")


def _folder(info: ValidationInfo) -> Path:
    context: dict[str, Any] = info.context or {}
    folder = context.get("folder")
    return folder if isinstance(folder, Path) else Path.cwd()
