"""The settings with their defaults and limits: one class for each table of monitor.toml. `[kafka]` is in kafka.py.

Input: plain values. Output: frozen objects. Invariant: each table checks the combinations of its own settings.
"""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monitor.config.base import (
    ConfigTable,
    Duration,
    Name,
    Names,
    PositiveDuration,
    auto_or_value,
    config_folder,
    duration_or,
    one_of,
    raise_problems,
)
from monitor.config.console import ConsoleConfig
from monitor.config.database_url import mask_url, resolve_url
from monitor.config.drill import DrillConfig
from monitor.config.fields import FieldsConfig
from monitor.config.kafka import KafkaConfig  # noqa: TC001 (pydantic reads annotations when the class is made)
from monitor.config.notify import NotifyConfig  # noqa: TC001
from monitor.config.retrain import RetrainConfig
from monitor.config.sensors import SENSOR_TESTS, SensorConfig, SensorTest
from monitor.config.states import CalendarConfig, StatesConfig
from monitor.config.values import (
    Confirm,
    Multiple,
    Rate,
    format_duration,
    listen_address,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# The valid values. `monitor check` and the error messages read these lists.
ARCHITECTURES = ("auto", "conv", "dense", "forecast", "lstm", "pca")
SCOPES = ("fleet", "asset")
OBJECTIVES = ("plain", "sparse", "denoising", "variational", "adversarial")
INCOMPATIBLE_OPTIONS = {
    "auto": (("sparse", "denoising", "variational", "adversarial", "stacked"), "auto trains no network"),
    "forecast": (("sparse", "variational", "adversarial", "stacked"), "forecast has no latent code to constrain"),
    "lstm": (("stacked",), "lstm has one layer in each direction, nothing to stack"),
    "pca": (
        ("sparse", "denoising", "variational", "adversarial", "stacked"),
        "pca is solved directly, without training steps",
    ),
}
"""Architecture → the options it excludes, and the reason."""
USUAL_WINDOW = 64
"""Cells."""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")


class StoreConfig(ConfigTable):
    """`[store]`: the database and the folder of the models."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///monitor.db"
    """sqlite:///file or postgresql://user@host/database. SQLite: one daemon only."""
    keep_scores: Annotated[timedelta | None, duration_or("forever")] = timedelta(days=90)
    """Age at which a score is deleted, counted from the newest window of its fleet. Alerts are kept."""
    checkpoints: Path = Path("checkpoints")
    """Folder of the models, relative to monitor.toml like a SQLite path."""

    @field_validator("url")
    @classmethod
    def _resolve_url(cls, value: str, info: ValidationInfo) -> str:
        return resolve_url(value, config_folder(info))

    @field_validator("checkpoints")
    @classmethod
    def _resolve_folder(cls, value: Path, info: ValidationInfo) -> Path:
        return (config_folder(info) / value).resolve()

    @property
    def shown_url(self) -> str:
        """The URL with its password hidden, for terminals and logs."""
        return mask_url(self.url)


class ModelConfig(ConfigTable):
    """`[fleet.model]`."""

    scope: Annotated[str, one_of(SCOPES)] = "fleet"
    """fleet: one model, with a scale and a threshold per asset. asset: a model for each asset with enough windows, and
    the fleet's for the others."""
    architecture: Annotated[str, one_of(ARCHITECTURES)] = "auto"
    objective: Annotated[str, one_of(OBJECTIVES)] = "plain"
    stacked: bool = False
    """Layer-by-layer pretraining."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_train: PositiveDuration = timedelta(minutes=10)
    """Time limit of a training, which then keeps the best weights so far."""
    max_trim: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest share of past windows left out as suspected faults. 0: none, so that rare normal states are learnt."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems = {}
        not_with, why = INCOMPATIBLE_OPTIONS.get(self.architecture, ((), ""))
        if self.objective in not_with:
            problems["objective"] = f'"{self.objective}" does not go with "{self.architecture}": {why}; use "plain"'
        if self.stacked and "stacked" in not_with:
            problems["stacked"] = f'true does not go with "{self.architecture}": {why}; use false'
        raise_problems(problems)
        return self

    @property
    def max_train_s(self) -> float:
        """Time limit of a training in seconds."""
        return self.max_train.total_seconds()


class AlertConfig(ConfigTable):
    """`[fleet.alerts]`."""

    budget: Annotated[Rate, BeforeValidator(Rate.parse)] = Rate(1, timedelta(weeks=1))
    """False alarms allowed per asset. The threshold is calibrated to it."""
    confirm: Annotated[Confirm, BeforeValidator(Confirm.parse)] = Confirm(3, 5)
    """An alert fires once m of an asset's last n windows are anomalous."""
    recover: Annotated[int, Field(ge=1, le=1000)] = 6
    """Consecutive normal windows that close an alert."""
    worse: Annotated[Multiple, BeforeValidator(Multiple.parse)] = Multiple(2.0)
    """Peak score, as a multiple of that at the acknowledgement, at which an alert is unacknowledged again."""
    learn_from_labels: bool = False
    """Move the threshold by labels of alerts, between 0.5 and 3 times the calibrated one: `normal` raises it, `fault`
    lowers it. Never above a labelled fault, and undone by removing the label."""
    sensor_tests: tuple[SensorTest, ...] = SENSOR_TESTS
    """Tests of the sensors themselves. A sensor that fails one is not scored, and has an alert of class `sensor`."""


class FleetConfig(ConfigTable):
    """`[[fleet]]`: assets that share sensors and settings."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
    interval: Annotated[PositiveDuration, Field(ge=timedelta(milliseconds=1))]
    """The sampling grid. Each reading belongs to the nearest cell."""
    topics: Names | None = None
    """Default: all of [kafka] topics."""
    assets: Names = ("*",)
    """Names or globs. An asset belongs to the first fleet that matches."""
    sensors: Names | None = None
    """Default: learnt from the first readings."""
    window: Annotated[int | None, Field(ge=4, le=4096), auto_or_value] = USUAL_WINDOW
    """Length in cells. "auto": None, decided by each training from the period of the sensors (`training/period.py`)."""
    stride: Annotated[int, Field(ge=1)] = 1
    """Cells between the starts of two windows."""
    lateness: Annotated[Duration, Field(default_factory=lambda data: data["interval"])]
    """Time that a window waits for missing readings, in event time. Default: one interval."""
    max_gap: Annotated[Duration, Field(default_factory=lambda data: _eighth(data["window"]) * data["interval"])]
    """A window with a longer hole is not scored. Default: an eighth of the window."""
    max_assets: Annotated[int, Field(ge=1)] = 10_000
    """Assets of this fleet in one partition. Others go to quarantine. Each needs memory for a window and a half."""
    fields: FieldsConfig = FieldsConfig()
    """Over those of [kafka.fields]: `Config.fields_of` joins them."""
    sensor: dict[Name, SensorConfig] = Field(default_factory=dict)
    """By name: what an operator knows about a sensor. It counts at once, without training."""
    model: ModelConfig = ModelConfig()
    alerts: AlertConfig = AlertConfig()
    retrain: RetrainConfig = RetrainConfig()
    drill: DrillConfig = DrillConfig()
    states: StatesConfig = StatesConfig()
    calendar: CalendarConfig = CalendarConfig()

    _auto_length: int = PrivateAttr(USUAL_WINDOW)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems = {}
        span, gap, history = (
            format_duration(d) for d in (self.length * self.interval, self.max_gap, self.retrain.history)
        )
        if self.stride > self.length:
            problems["stride"] = f"{self.stride} leaves readings out; use at most the window, {self.length}"
        if self.max_gap >= self.length * self.interval:
            problems["max_gap"] = f'"{gap}" is as long as the window itself ({span}) or longer; use less'
        if self.alerts.budget.within(self.stride * self.interval) >= 1:
            problems["alerts.budget"] = f'"{self.alerts.budget}" allows a false alarm in every window; use fewer'
        if self.sensors:
            unknown = [name for name in self.sensor if name not in self.sensors]
            problems |= {f"sensor.{name}": _not_listed(name, self.sensors) for name in unknown}
            if self.states.sensor is not None and self.states.sensor not in self.sensors:
                problems["states.sensor"] = f'"{self.states.sensor}" {_not_listed(self.states.sensor, self.sensors)}'
        n_assets = len(self.assets) if not any(is_glob(name) for name in self.assets) else None
        needed = 1 if n_assets is None else -(-self.retrain.min_windows // n_assets)
        if self.windows_in_history < needed:
            enough = ((needed - 1) * self.stride + self.length) * self.interval
            has = f"{self.windows_in_history} windows of {self.length} × {format_duration(self.interval)} per asset"
            problems["retrain.history"] = (
                f'"{history}" holds {has}, {needed} needed; use "{format_duration(enough)}" or more'
            )
        raise_problems(problems)
        return self

    def matches(self, asset: str) -> bool:
        """Return True if the asset's name matches one of the fleet's names or globs."""
        return any(fnmatchcase(asset, pattern) for pattern in self.assets)

    @property
    def interval_us(self) -> int:
        """The interval in microseconds."""
        return self.interval // timedelta(microseconds=1)

    @property
    def length(self) -> int:
        """Length of a window in cells. Of "auto", the usual one until a version was trained: see `with_length`."""
        return self._auto_length if self.window is None else self.window

    def with_length(self, cells: int) -> FleetConfig:
        """Return the fleet with windows of this length, if its window is "auto"."""
        if self.window is not None or cells == self._auto_length:
            return self
        made = self.model_copy()
        made._auto_length = cells
        return made

    @property
    def lateness_cells(self) -> int:
        """The lateness in cells, rounded up."""
        return -(-self.lateness // self.interval)

    @property
    def max_gap_cells(self) -> int:
        """Longest hole of a scored window in cells."""
        if self.window is None and "max_gap" not in self.model_fields_set:
            return self.length // 8
        return self.max_gap // self.interval

    @property
    def windows_in_history(self) -> int:
        """Windows of one asset without gaps within `retrain.history`."""
        return max(0, (self.retrain.history // self.interval - self.length) // self.stride + 1)


def _eighth(window: int | None) -> int:
    return (USUAL_WINDOW if window is None else window) // 8


def _not_listed(name: str, listed: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, listed, n=1, cutoff=0.6)
    meant = f'did you mean "{near[0]}"?' if near else f"it has {', '.join(listed)}"
    return f"is no sensor of the fleet; {meant}"


class LogConfig(ConfigTable):
    """`[log]`."""

    level: Annotated[str, one_of(LOG_LEVELS)] = "info"
    format: Annotated[str, one_of(LOG_FORMATS)] = "auto"
    """auto: coloured lines on a terminal, otherwise JSON."""


class HttpConfig(ConfigTable):
    """`[http]`: the daemon's pages /live, /ready and /metrics."""

    listen: str = ""
    """Address such as "127.0.0.1:9464". Default: no pages."""
    allow_remote: bool = False
    """Listen on addresses that other machines reach. The pages show names of topics and fleets, and numbers."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems = {}
        if self.listen and self.address is None:
            problems["listen"] = f'"{self.listen}" is not an address; write "127.0.0.1:9464", or "[::1]:9464"'
        elif self.address is not None and not self.allow_remote and not ip_address(self.address[0]).is_loopback:
            problems["listen"] = (
                f'"{self.listen}" can be reached from other machines; use "127.0.0.1:{self.address[1]}", or set '
                "allow_remote = true: the pages show names of topics and fleets, and numbers"
            )
        raise_problems(problems)
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on, or None."""
        return listen_address(self.listen)


class Config(ConfigTable):
    """All of monitor.toml."""

    kafka: KafkaConfig
    fleet: Annotated[tuple[FleetConfig, ...], Field(min_length=1)]
    store: StoreConfig = Field(default_factory=dict, validate_default=True)  # its paths depend on the folder
    notify: tuple[NotifyConfig, ...] = ()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    console: ConsoleConfig = ConsoleConfig()
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """Device of training and scoring: auto, cpu, cuda, cuda:0, mps."""

    _path: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        why = "is never used: lines are read before their fleet is known; set it in [kafka.fields]"
        own = [i for i, fleet in enumerate(self.fleet) if fleet.fields.columns is not None]
        raise_problems({f"fleet.{i}.fields.columns": why for i in own})
        return self

    @model_validator(mode="after")
    def _check_angles(self) -> Self:
        """Refuse settings of sensors that have no meaning for an angle."""
        problems = {}
        for i, fleet in enumerate(self.fleet):
            circular = self.fields_of(fleet).circular or ()
            for name, sensor in fleet.sensor.items():
                if not any(fnmatchcase(name, glob) for glob in circular):
                    continue
                if sensor.direction != "both":
                    problems[f"fleet.{i}.sensor.{name}.direction"] = (
                        f'"{sensor.direction}" has no meaning for an angle (fields.circular); use "both"'
                    )
                if sensor.min_deviation.relative:
                    problems[f"fleet.{i}.sensor.{name}.min_deviation"] = (
                        f'"{sensor.min_deviation}" of an angle (fields.circular) has no meaning; write degrees, "10"'
                    )
        raise_problems(problems)
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        problems = {}
        names = [channel.name for channel in self.notify]
        fleets = [fleet.name for fleet in self.fleet]
        for i, channel in enumerate(self.notify):
            if (first := names.index(channel.name)) != i:
                problems[f"notify.{i}.name"] = (
                    f'"{channel.name}" is notify[{first}] already; give each a name of its own'
                )
            idle = [glob for glob in channel.fleets if not any(fnmatchcase(fleet, glob) for fleet in fleets)]
            if channel.topic in self.topics:
                problems[f"notify.{i}.topic"] = f'"{channel.topic}" is read for readings; notifications need their own'
            if idle:
                problems[f"notify.{i}.fleets"] = f'"{idle[0]}" is none of the fleets {", ".join(fleets)}'
        raise_problems(problems)
        return self

    @property
    def path(self) -> Path | None:
        """The file that was read, or None."""
        return self._path

    @property
    def fleets(self) -> tuple[FleetConfig, ...]:
        """The fleets in the order in which they are matched with an asset."""
        return self.fleet

    def fields_of(self, fleet: FleetConfig) -> FieldsConfig:
        """Return the places of a fleet's fields: its own settings over those of [kafka.fields]."""
        return fleet.fields.over(self.kafka.fields)

    def topics_of(self, fleet: FleetConfig) -> tuple[str, ...]:
        """Return the topics that a fleet reads."""
        return fleet.topics or self.kafka.topics

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the fleets read, sorted."""
        return tuple(sorted({topic for fleet in self.fleet for topic in self.topics_of(fleet)}))

    def with_lengths(self, cells: Mapping[str, int]) -> Config:
        """Return the configuration with windows of these lengths, by fleet, where `window = "auto"`."""
        fleets = tuple(fleet.with_length(cells.get(fleet.name, fleet.length)) for fleet in self.fleet)
        return self.model_copy(update={"fleet": fleets})

    def with_default_group(self, group: str) -> Config:
        """Return the configuration with a consumer group: this one if it has none of its own."""
        if self.kafka.group:
            return self
        return self.model_copy(update={"kafka": self.kafka.model_copy(update={"group": group})})


def is_glob(name: str) -> bool:
    """Return True if a name is a glob."""
    return any(sign in name for sign in "*?[")
