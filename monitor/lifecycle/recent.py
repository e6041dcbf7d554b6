"""Recent readings of a fleet, and the alerts that a version would raise on them.

Input: windows of a fleet, made by the windower of the pipeline. Output: for any version, its scores of the same windows
and the alerts that `stream/alerting.py` decides by them.
Invariant: versions with windows of other lengths or with other sensors are compared at the same ends of windows, in
order of time. The number of windows is bounded, and the newest are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from monitor.budget import WEEK_S, lower_bound, upper_bound
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import Scores, Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.budget import Budget
    from monitor.models.card import Card
    from monitor.models.detector import WindowScores
    from monitor.models.inputs import ModelInputs
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool, Float32, Int32, Int64

MAX_WINDOWS = 8192
"""Windows that are scored: two months of one asset at ten minutes."""
MAX_SCORED_VALUES = 24_000_000
"""Values of the windows that are scored, about 3 s on one core."""
MIN_PER_ASSET = 512
"""Windows of an asset at least, where it has them. Of a large fleet only some assets are looked at: alerts need
windows that follow one another."""
MAX_ANOMALOUS_SHARE = 0.1
"""Largest share of anomalous recent windows. With more, few alerts mean that they do not end. A budget that allows as
many alerts allows their windows, too (`allowed_share`)."""
NORMAL_QUANTILE = 0.995
"""Quantile of the scores of normal windows from which the headroom of a threshold is measured."""
CHUNK = 2048
"""Windows in memory at a time."""


class Version(Protocol):
    """The part of `models.TrainedModel` that is judged."""

    @property
    def version(self) -> str:
        """Digest of everything that scores."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors, in the order of the columns."""

    @property
    def card(self) -> Card:
        """Everything known about it, apart from its weights."""

    @property
    def inputs(self) -> ModelInputs:
        """The way in which it takes the sensors."""

    def score(
        self,
        values: Float32,
        assets: Sequence[str] | None = None,
        *,
        end_us: Int64 | None,
        share_normal: bool = True,
    ) -> WindowScores:
        """Score windows [N, T, C] in the sensors' own units, by the event times of their ends [N].

        `end_us` has no default: a caller that forgets it would score by another threshold than the pipeline does.
        """

    def threshold_ratio(self) -> float | None:
        """Return its threshold as a multiple of the one that its held-out scores give. None = they were not kept."""


class Series(NamedTuple):
    """Readings of one asset on the grid, R rows of C sensors, and the ends of its n windows."""

    asset: str | int
    """Its name, or its number where names are not known."""
    values: Float32
    """[R, C], in the sensors' own units, NaN = missing or not in any window."""
    end: Int64
    """[n], rising: the row after the last one of each window."""
    end_us: Int64
    """[n], event time of these ends."""
    counted: Bool
    """[n], False = the window overlaps an alert that nobody labelled as normal."""
    accepted: Bool
    """[n], the window ends in a time that was accepted as normal."""
    event: Bool
    """[n], the window overlaps an alert without a label that was no false alarm (`training/events.py`)."""
    cause: Int64
    """[n], number of that alert. -1 = there is none, or it is not known."""
    from_us: int
    """Event time of the first row."""


class ProjectedAlert(NamedTuple):
    """An alert that a version would raise."""

    asset: int
    """Number of the series."""
    opened_us: int
    """End of its first anomalous window."""
    fired_us: int
    """End of the window that fires it."""
    until_us: int
    """End of its last window so far."""
    peak_score: float


@dataclass(frozen=True, slots=True)
class Recent:
    """The newest windows of some or all assets."""

    sensors: tuple[str, ...]
    """Of the columns."""
    interval_us: int
    series: tuple[Series, ...]
    n_assets: int
    """Assets of the fleet, also those that are not among the series."""
    stride_factor: int
    """See `spec.TrainingSet`."""
    length: int
    """Cells of the windows that it was made of."""

    @classmethod
    def of(
        cls, windows: TrainingSet, sensors: Sequence[str], interval_s: float, *, n_max: int = MAX_WINDOWS
    ) -> Recent:
        """Take the newest windows of a training set.

        An asset's time reaches as far back as is needed for its share of windows without an alert, but at most twice
        its share in all.
        """
        _, length, n_sensors = windows.values.shape
        interval_us = round(interval_s * 1e6)
        n_max = max(MIN_PER_ASSET, min(n_max, MAX_SCORED_VALUES // (length * max(1, n_sensors))))
        assets = np.unique(windows.asset)
        n_taken = max(1, min(len(assets), n_max // MIN_PER_ASSET))
        taken = assets[np.linspace(0, len(assets) - 1, n_taken).round().astype(np.int64)] if len(assets) else assets
        share = n_max // n_taken
        series = tuple(_series(windows, int(asset), share, interval_us) for asset in taken)
        return cls(tuple(sensors), interval_us, series, len(assets), windows.stride_factor, length)

    @property
    def n_windows(self) -> int:
        """Windows of all series."""
        return sum(len(each.end) for each in self.series)

    @property
    def n_counted(self) -> int:
        """Those that overlap no alert."""
        return sum(int(each.counted.sum()) for each in self.series)

    def weeks(self, step_s: float) -> float:
        """Return the asset-weeks of the counted windows. `step_s`: between two windows of the pipeline."""
        return self.n_counted * self.stride_factor * step_s / WEEK_S

    def fitting(self, versions: Sequence[Version]) -> Recent:
        """Return the windows that are long enough for all these versions."""
        longest = max(version.card.length for version in versions)
        if longest <= self.length:
            return self
        series = tuple(_from_row(each, longest) for each in self.series)
        kept = tuple(each for each in series if len(each.end))
        return Recent(self.sensors, self.interval_us, kept, self.n_assets, self.stride_factor, longest)

    def scores(self, version: Version) -> list[Float32]:
        """Return the scores [n] of each series by a version, 1.0 = its threshold, NaN = not scored."""
        return [_scores(version, self.sensors, each) for each in self.series]

    def alerts(self, scores: Sequence[Float32], budget: Budget) -> list[ProjectedAlert]:
        """Return the alerts that the pipeline would raise by these scores, with the policy of the budget.

        Where the windows are one in `stride_factor` of the pipeline's, the policy's numbers are divided by it, as the
        calibration does.
        """
        n = [len(each) for each in scores]
        if not sum(n):
            return []
        asset = np.repeat(np.arange(len(n), dtype=np.int32), n)
        ends = np.concatenate([each.end_us for each in self.series])
        return decide(np.concatenate(scores), asset, ends, policy_of(budget, self.stride_factor))

    def is_counted(self, alert: ProjectedAlert) -> bool:
        """Return whether an alert fires in a window that overlaps no alert of the pipeline."""
        series = self.series[alert.asset]
        return bool(series.counted[np.searchsorted(series.end_us, alert.fired_us)])


@dataclass(frozen=True, slots=True)
class Projection:
    """The alerts that one version would raise on recent windows."""

    scores: tuple[Float32, ...]
    """[n] of each series."""
    alerts: tuple[ProjectedAlert, ...]
    n_alerts: int
    """Those that fire in windows without an alert."""
    weeks: float
    """Asset-weeks of these windows."""
    anomalous_share: float
    """Share of them that the version calls anomalous. 0 = none is scored."""
    accepted_share: float
    """The same share of those in a time that was accepted as normal."""
    normal_score: float
    """Score that all but a few of them stay below."""
    per_week: float
    """Budget."""
    allowed_share: float = MAX_ANOMALOUS_SHARE
    """Largest share of anomalous windows."""

    @classmethod
    def of(cls, recent: Recent, version: Version, budget: Budget) -> Projection:
        """Score the windows by a version, and decide the alerts."""
        scores = recent.scores(version)
        alerts = recent.alerts(scores, budget)
        normal = _scored([own[each.counted] for own, each in zip(scores, recent.series, strict=True)])
        accepted = _scored([own[each.accepted] for own, each in zip(scores, recent.series, strict=True)])
        return cls(
            scores=tuple(scores),
            alerts=tuple(alerts),
            n_alerts=sum(recent.is_counted(alert) for alert in alerts),
            weeks=recent.weeks(budget.step_s),
            anomalous_share=float((normal >= 1.0).mean()) if len(normal) else 0.0,
            accepted_share=float((accepted >= 1.0).mean()) if len(accepted) else 0.0,
            normal_score=float(np.quantile(normal, NORMAL_QUANTILE)) if len(normal) else 0.0,
            per_week=budget.alarms_per_week,
            allowed_share=allowed_share(budget),
        )

    @property
    def low_per_week(self) -> float:
        """Lower bound of the alerts per asset and week (95 %, Poisson)."""
        return lower_bound(self.n_alerts, self.weeks)

    @property
    def high_per_week(self) -> float:
        """Upper bound of the same."""
        return upper_bound(self.n_alerts, self.weeks)

    @property
    def alarms_all_the_time(self) -> bool:
        """Whether so many windows are anomalous that few alerts mean that they do not end."""
        return self.anomalous_share > self.allowed_share

    @property
    def breaks_budget(self) -> bool:
        """Whether the windows prove that the version breaks the budget. Of a short time only many alerts do."""
        return self.alarms_all_the_time or self.low_per_week > self.per_week

    @property
    def is_refuted(self) -> bool:
        """Whether the version breaks the budget, or alarms in a time that was accepted as normal."""
        return self.breaks_budget or self.accepted_share > self.allowed_share


def allowed_share(budget: Budget) -> float:
    """Return the largest share of anomalous windows: a tenth, or that of as many alerts as the budget allows.

    The shortest alert lasts for the windows that confirm it, and is open until as many as `recover` are normal.
    """
    windows_per_week = WEEK_S / budget.step_s
    return max(MAX_ANOMALOUS_SHARE, budget.alarms_per_week * (budget.confirm + budget.recover) / windows_per_week)


def policy_of(budget: Budget, stride_factor: int) -> AlertPolicy:
    """Return the alert policy for windows of which only one in `stride_factor` is there."""
    return AlertPolicy(
        max(1, budget.confirm // stride_factor),
        max(1, (budget.among + stride_factor - 1) // stride_factor),
        max(1, budget.recover // stride_factor),
    )


def decide(score: Float32, asset: Int32 | Int64, end_us: Int64, policy: AlertPolicy) -> list[ProjectedAlert]:
    """Return the alerts by scores [N], which are in order of assets and time."""
    nothing = np.zeros(len(score), np.int64)
    windows = Windows(
        "", asset.astype(np.int32), nothing, np.zeros((len(score), 1, 1), np.float32), np.ones(len(score), np.int32),
        nothing, nothing,
    )  # fmt: skip
    found: dict[tuple[int, int], ProjectedAlert] = {}
    for change in Decider("", policy).decide(Scores(windows, score, [""] * len(score), {}), end_us):
        key = change.asset, change.opened_us
        first = found.get(key)
        fired_us = change.at_us if first is None else first.fired_us
        found[key] = ProjectedAlert(*key, fired_us, change.at_us, change.peak_score)
    return list(found.values())


def windows_at(version: Version, sensors: Sequence[str], values: Float32, end: Int64) -> Float32:
    """Return the windows [n, T, C] of readings [R, C'] for a version that end before the rows `end`.

    Each end is at least as many rows from the first as the version's windows have.
    """
    length = version.card.length
    columns = version.inputs.select(values[None], sensors)[0]
    cut = np.lib.stride_tricks.sliding_window_view(columns, length, axis=0)                  # (R - T + 1, C, T)
    return np.ascontiguousarray(cut[end - length].transpose(0, 2, 1))


def _scores(version: Version, sensors: Sequence[str], series: Series) -> Float32:
    out = np.empty(len(series.end), dtype=np.float32)
    for first in range(0, len(series.end), CHUNK):
        part = windows_at(version, sensors, series.values, series.end[first : first + CHUNK])
        names = [series.asset] * len(part) if isinstance(series.asset, str) else None
        ends_us = series.end_us[first : first + CHUNK]
        out[first : first + CHUNK] = version.score(part, names, end_us=ends_us, share_normal=False).score
    return out


def _scored(parts: Sequence[Float32]) -> Float32:
    every = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return every[np.isfinite(every)]


def _series(windows: TrainingSet, asset: int, share: int, interval_us: int) -> Series:
    """Lay the newest windows of an asset on the grid."""
    mine = np.flatnonzero(windows.asset == asset)
    mine = mine[np.argsort(windows.end_us[mine], kind="stable")][-2 * share :]
    counted = np.ones(len(mine), np.bool_) if windows.alerted is None else ~windows.alerted[mine]
    n_later = counted[::-1].cumsum()[::-1]
    first = int(np.searchsorted(-n_later, -share))   # the last row with as many counted windows from it on
    mine, counted = mine[first:], counted[first:]
    accepted = np.zeros(len(mine), np.bool_) if windows.accepted is None else windows.accepted[mine]
    event = np.zeros(len(mine), np.bool_) if windows.event is None else windows.event[mine]
    length, n_sensors = windows.values.shape[1:]
    ends_us = windows.end_us[mine]
    end = ((ends_us - ends_us[0]) // interval_us + length).astype(np.int64)
    values = np.full((int(end[-1]), n_sensors), np.nan, dtype=np.float32)
    for row, at in zip(mine.tolist(), end.tolist(), strict=True):
        values[at - length : at] = windows.values[row]
    from_us = int(ends_us[0]) - length * interval_us
    alert = _alerts_of(windows, mine)
    return Series(windows.asset_name(asset), values, end, ends_us, counted, accepted, event, alert, from_us)


def _alerts_of(windows: TrainingSet, rows: Int64) -> Int64:
    """Return the numbers of the alerts without a label that these windows overlap, -1 = none."""
    if windows.cause is None or not windows.judged:
        return np.full(len(rows), -1, dtype=np.int64)
    numbers = [-1 if each.id is None or each.source != "alert" else each.id for each in windows.judged]
    cause = windows.cause[rows]
    return np.where(cause >= 0, np.array(numbers, dtype=np.int64)[cause], -1)


def _from_row(series: Series, length: int) -> Series:
    long_enough = series.end >= length
    return series._replace(
        end=series.end[long_enough],
        end_us=series.end_us[long_enough],
        counted=series.counted[long_enough],
        accepted=series.accepted[long_enough],
        event=series.event[long_enough],
        cause=series.cause[long_enough],
    )
