"""Every setting, with its default and its limits. The tables of monitor.toml are the classes here, one for one;
`[kafka]` has a file of its own.

Law: frozen, and complete on its own: what depends on two settings of one table is checked where the table is.
"""

from __future__ import annotations

import re
from datetime import timedelta
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monitor.config.base import Duration, Names, Span, Table, folder, one_of, refuse, span_or
from monitor.config.kafka import KafkaConfig  # noqa: TC001 (pydantic reads annotations when the class is made)
from monitor.config.values import (
    Confirm,
    Rate,
    check_webhook,
    format_duration,
    is_this_machine,
    mask_url,
    resolve_url,
)

# What is offered today. These lists are the only place; `monitor check` and the errors read them.
ARCHITECTURES = ("auto", "conv", "dense", "forecast", "lstm", "pca")
OBJECTIVES = ("plain", "sparse", "denoising", "variational", "adversarial")
INCOMPATIBLE_OPTIONS = {
    "auto": (("sparse", "denoising", "variational", "adversarial", "stacked"), "auto chooses by itself"),
    "forecast": (("sparse", "variational", "adversarial", "stacked"), "forecast has no code to ask anything of"),
    "lstm": (("stacked",), "lstm has one layer each way, nothing to stack"),
    "pca": (("sparse", "denoising", "variational", "adversarial", "stacked"), "pca is solved at once, in no steps"),
}
"""Architecture → what it does not go with, and why."""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")
SEVERITIES = ("warning", "critical")


class StoreConfig(Table):
    """`[store]`: where scores, alerts and offsets go."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///monitor.db"
    """sqlite:///file or postgresql://user@host/database. SQLite: one daemon only."""
    keep_scores: Annotated[timedelta | None, span_or("forever")] = timedelta(days=90)
    """Before the newest window of a fleet; older scores are pruned, alerts are kept. "forever" keeps all."""
    checkpoints: Path = Path("checkpoints")
    """Folder of the models. Relative to monitor.toml, as a SQLite path is."""

    @field_validator("url")
    @classmethod
    def _resolve_url(cls, value: str, info: ValidationInfo) -> str:
        return resolve_url(value, folder(info))

    @field_validator("checkpoints")
    @classmethod
    def _resolve_folder(cls, value: Path, info: ValidationInfo) -> Path:
        return (folder(info) / value).resolve()

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
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_train: Span = timedelta(minutes=10)
    """Training stops here and keeps the best weights so far."""
    max_trim: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """At most this share of past windows is left out as suspected faults; 0: rare healthy states are all learnt."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong = {}
        not_with, why = INCOMPATIBLE_OPTIONS.get(self.architecture, ((), ""))
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

    every: Annotated[timedelta | None, span_or("never")] = timedelta(days=1)
    """"never": only when somebody asks."""
    history: Span = timedelta(days=30)
    """How far back training looks, in event time."""
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
    """Of a fleet that has started there, by Kafka's timestamps: a producer that invents names is slowed down."""
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
    max_age: Annotated[timedelta | None, span_or("forever")] = timedelta(days=7)
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
