"""Input of a training: the model, the fleet and the windows. No torch, so that any command may import it.

Input: the operator's configuration, and windows of healthy data. Output: the same, checked.
Invariant: a name that this version cannot train is refused here, with the valid names.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, NamedTuple

from monitor.budget import Budget, weekly
from monitor.config.states import CalendarConfig, StatesConfig
from monitor.config.tree import ARCHITECTURES, INCOMPATIBLE_OPTIONS, OBJECTIVES
from monitor.errors import ConfigError
from monitor.models.terms import SensorKnob, knobs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.config import FleetConfig
    from monitor.config.fields import FieldsConfig
    from monitor.types import Bool, Float32, Int32, Int64, JudgedTime

MAX_VALUES = 60_000_000
"""Values of windows in memory, 240 MB. More are thinned evenly: neighbours at stride 1 share all but one step."""
MIN_WINDOWS = 100
"""Below this a fifth held out is under twenty windows: neither early stopping nor a threshold means anything."""


def refuse_unknown(kind: str, name: str, valid: tuple[str, ...]) -> None:
    """Raise ConfigError unless `name` is one of `valid`. The message names them and the nearest."""
    if name in valid:
        return
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise ConfigError(f'{kind} "{name}" is not one this version can train (valid: {", ".join(valid)}){hint}')


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model to train. Every default is the recommendation."""

    architecture: str = "auto"
    objective: str = "plain"
    """Training objective of the network. `plain`: reconstruct the window."""
    stacked: bool = False
    """Its layers are pretrained one by one, the outermost first, before all of them together (Bengio et al. 2007)."""
    seed: int = 0
    """Same seed, same data, same number of CPU threads: same version."""
    max_train_s: float = 120.0
    """Training time. At the limit the network keeps its best weights, and the card says `time budget`."""
    max_steps: int = 1000
    """Batches at most. More brought nothing on the recordings that were tried."""
    n_tries: int = 3
    """Seeds tried before TrainingDiverged."""
    min_windows: int = MIN_WINDOWS
    max_trim: float = 0.1
    """At most this share of the windows is left out as suspected faults. 0 = trust them all."""

    @classmethod
    def of(cls, fleet: FleetConfig) -> ModelSpec:
        """Read a fleet's configuration."""
        return cls(
            architecture=fleet.model.architecture,
            objective=fleet.model.objective,
            stacked=fleet.model.stacked,
            seed=fleet.model.seed,
            max_train_s=fleet.model.max_train_s,
            min_windows=fleet.retrain.min_windows,
            max_trim=fleet.model.max_trim,
        )

    def __post_init__(self) -> None:
        refuse_unknown("architecture", self.architecture, ARCHITECTURES)
        refuse_unknown("objective", self.objective, OBJECTIVES)
        not_with, why = INCOMPATIBLE_OPTIONS.get(self.architecture, ((), ""))
        if self.objective in not_with:
            raise ConfigError(f'objective "{self.objective}" does not go with {self.architecture}: {why}')
        if self.stacked and "stacked" in not_with:
            raise ConfigError(f"stacked does not go with {self.architecture}: {why}")
        if self.max_train_s <= 0:
            raise ConfigError(f"max_train_s must be above 0, not {self.max_train_s:g}")
        for name in ("max_steps", "n_tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.max_trim < 1:
            raise ConfigError(f"max_trim must be in [0, 1), not {self.max_trim:g}")


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Fleet that a model is trained for."""

    name: str
    sensors: tuple[str, ...]
    """In the order of the columns."""
    interval_s: float
    """Time between two steps of a window."""
    budget: Budget
    """False alarms allowed, and the alert policy: the threshold is calibrated to it."""
    circular: tuple[str, ...] = ()
    """Names or globs of the sensors that are angles in degrees."""
    missing: tuple[float, ...] = ()
    """Values that mean "no reading" in any sensor."""
    knobs: Mapping[str, SensorKnob] = field(default_factory=dict)
    """By sensor, the deviations that count."""
    window_reason: str = ""
    """The reason for the length of the windows, for the card, where the training chose it. Empty = it was given."""
    states: StatesConfig = field(default_factory=StatesConfig)
    """The way to operating states."""
    calendar: CalendarConfig = field(default_factory=lambda: CalendarConfig(use="never"))
    """The way to hours and days. Readings whose times are row numbers have none, so that a configuration asks for it.
    """

    @classmethod
    def of(cls, fleet: FleetConfig, sensors: tuple[str, ...], fields: FieldsConfig) -> FleetSpec:
        """Read a fleet's configuration. `sensors`: those of its readings. `fields`: `Config.fields_of(fleet)`."""
        missing = tuple(float(code) for code in fields.missing or () if not isinstance(code, str))
        interval_s, circular = fleet.interval.total_seconds(), fields.circular or ()
        return cls(
            fleet.name, sensors, interval_s, budget_of(fleet), circular, missing, knobs_of(fleet), states=fleet.states,
            calendar=fleet.calendar,
        )  # fmt: skip


def budget_of(fleet: FleetConfig) -> Budget:
    """Return a fleet's budget with its alert policy."""
    alerts = fleet.alerts
    return Budget(
        alarms_per_week=weekly(alerts.budget.count, alerts.budget.per),
        confirm=alerts.confirm.m,
        among=alerts.confirm.n,
        recover=alerts.recover,
        step_s=fleet.stride * fleet.interval.total_seconds(),
    )


class UsedTime(NamedTuple):
    """Windows of one asset that a training treated alike, by the times of their ends, (from_us, to_us].

    A window reaches back by its length: the first readings of a time are in the windows of the time before, too.
    """

    asset: str
    from_us: int
    to_us: int
    use: str
    """trained, held_out, left_out."""
    reason: str
    """A key of `training.words.REASONS`."""
    source: str = ""
    """The thing that `id` numbers: alert, label, shelf, maintenance. Empty = nothing stands behind it."""
    id: int | None = None
    n_windows: int = 0
    sensor: str = ""
    """Only this sensor was left out. Empty = the windows as a whole."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Windows of one fleet, made by the windower of the pipeline. N windows, T steps, C sensors."""

    values: Float32
    """[N, T, C], in the sensors' own units, NaN = missing. It may be a strided view."""
    asset: Int32
    """[N], number of the window's asset. Any numbers."""
    end_us: Int64
    """[N], event time of the window's end, rising within an asset."""
    alerted: Bool | None = None
    """[N], windows that overlap an unlabelled alert. They are not trained on, but held out like all others: if they
    were left out there as well, the threshold would follow the windows that never alarmed, and each retraining would
    alarm more than the last."""
    assets: tuple[str, ...] = ()
    """Names, by number. Empty = not known."""
    stride_factor: int = 1
    """Stride of these windows as a multiple of the fleet's: one in so many of the pipeline's windows is here."""
    n_labelled: int = 0
    """Windows left out because they overlap a time that is labelled fault or ignore, shelved or in maintenance."""
    accepted: Bool | None = None
    """[N], windows that end in a time that an operator accepted as normal. They are trained on although an alert
    overlaps them, and never trimmed as suspected faults. None = there are none."""
    event: Bool | None = None
    """[N], those of the alerted windows whose alert was no false alarm (`training/events.py`). The threshold is placed
    without them. None = there are none."""
    judged: tuple[JudgedTime, ...] = ()
    """Times on which an alert or a person has a say."""
    cause: Int32 | None = None
    """[N], the one of `judged` that marks a window as alerted or accepted, or labels it normal. -1 = there is none."""
    skipped: tuple[UsedTime, ...] = ()
    """Times of the windows, and of the sensors, that were left out before."""

    def __len__(self) -> int:
        return len(self.asset)

    def select(self, rows: Int64) -> TrainingSet:
        """Return some of the windows, copied."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if hasattr(array, "shape")})

    def asset_name(self, asset: int) -> int | str:
        """Return an asset's name, or its number where names are not known."""
        return self.assets[asset] if self.assets else asset
