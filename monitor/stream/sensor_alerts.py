"""Alerts of class `sensor` of one shard: sensors that are dead, out of range, stuck or noisy.

Input: the findings of scored windows (`sensor_health.py`). Output: changes of alerts, for the same transaction.
Invariant: driven by event time alone. An asset, sensor and kind has at most one open alert. The state is a function of
the windows so far, and is stored with the partition, so a restart decides alike.

An alert opens once the finding is in m of the asset's last n tested windows (`confirm`), dated back to the first of
them, and closes after `recover` windows without it. Beyond `MAX_OPEN` of one kind, one alert counts all further
sensors: a gateway that fails must not open ten thousand.

The alerts of an asset that sends nothing any more stay open: no window says that the sensor is well. No other asset's
event time may close them, because its clock may be wrong by years. An operator closes them by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from monitor.printable import escape_unprintable
from monitor.stream.sensor_health import FINDINGS, HEALTHY, NOT_TESTED
from monitor.types import AlertClass, AlertState, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from monitor.stream.alerting import AlertPolicy
    from monitor.types import Float32, Int64, Partition, Scores, UInt8

MAX_OPEN = 50
"""Open alerts of one kind in a partition and fleet that name their sensor."""
FIXES = {
    "dead": "{sensor} sends no value any more, while other sensors of {asset} do. Look at the sensor, its wiring and "
    "its gateway; if it is gone for good, take it off the fleet's sensors or train again",
    "out_of_range": "{sensor} reads {values}, which is impossible. Look at the sensor and its wiring; if it is "
    "possible, correct [fleet.sensor.{sensor}] range, or train again with it",
    "stuck": "{sensor} stays at {values}, while other sensors of {asset} go on. Look at the sensor, its converter and "
    'its gateway; if it is healthy, leave "stuck" out of [fleet.sensor.{sensor}] tests',
    "noisy": "{sensor} jumps from {values}, many times as much as ever. Look at its wiring, its shield and its supply; "
    'if it is healthy, leave "noisy" out of [fleet.sensor.{sensor}] tests',
}
"""By kind, the event and its fix, for operators."""

Key = tuple[str, str, str]
"""(asset, sensor, kind). Asset and sensor are empty for the alert that counts all further sensors."""


class OpenSensorAlert(msgspec.Struct):
    """An open alert, as it is stored."""

    opened_us: int
    """End of the first window with the finding."""
    from_offset: int
    """Largest offset in that window."""
    last_us: int
    """End of the latest window with the finding."""
    n_windows: int
    message: str


class Track(msgspec.Struct, omit_defaults=True):
    """The latest tested windows of one sensor and kind. There is none while all of them are healthy."""

    asset: str
    sensor: str
    kind: str
    first_us: int
    """End of the first window with the finding since the last healthy time."""
    first_offset: int
    bits: int = 0
    """The latest windows, the newest in the lowest bit: 1 = with the finding."""
    is_confirmed: bool = False


class SensorAlerts:
    """The alerts about the sensors of one fleet in one partition."""

    def __init__(self, partition: Partition, fleet: str, policy: AlertPolicy) -> None:
        self._partition = partition
        self._fleet = fleet
        self._policy = policy
        self._mask = (1 << policy.memory) - 1
        self._tracks: dict[str, dict[tuple[str, str], Track]] = {}
        """Asset → (sensor, kind) → its latest windows."""
        self.open: dict[Key, OpenSensorAlert] = {}

    @property
    def stored_state(self) -> dict[str, Any]:
        """The state that a restart needs. Plain JSON. Empty = none."""
        if not self._tracks and not self.open:
            return {}
        tracks = [msgspec.to_builtins(track) for of_asset in self._tracks.values() for track in of_asset.values()]
        return {"tracks": tracks, "open": [[*key, msgspec.to_builtins(alert)] for key, alert in self.open.items()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state that a former owner stored."""
        for track in msgspec.convert(state.get("tracks", []), list[Track]):
            self._tracks.setdefault(track.asset, {})[track.sensor, track.kind] = track
        for asset, sensor, kind, alert in state.get("open", []):
            self.open[asset, sensor, kind] = msgspec.convert(alert, OpenSensorAlert)

    def end(self) -> list[DataAlertChange]:
        """Close all alerts: the configuration has the fleet no more."""
        self._tracks.clear()
        return [self._close(key, self.open[key].last_us) for key in list(self.open)]

    def decide(
        self, scores: Scores, end_us: Int64, assets: Sequence[str], sensors: Sequence[str]
    ) -> list[DataAlertChange]:
        """Return the changes of these windows, per asset in order of time. `end_us`: [N]. `assets`: names, by index."""
        findings = scores.findings
        if findings is None or not len(findings):
            return []
        has_finding = ((findings != HEALTHY) & (findings != NOT_TESTED)).any(axis=1)
        if not self._tracks and not has_finding.any():
            return []
        windows, changes = scores.windows, list[DataAlertChange]()
        tracked = np.array([assets[each] in self._tracks for each in windows.asset.tolist()], dtype=np.bool_)
        known = set(windows.asset[has_finding].tolist())
        rows = np.flatnonzero(tracked | np.isin(windows.asset, list(known)))
        numbers = {name: number for number, name in enumerate(sensors)}
        for row in rows.tolist():
            asset, at_us, offset = assets[windows.asset[row]], int(end_us[row]), int(windows.last_offset[row])
            changes += self._advance(asset, numbers, findings[row], at_us, offset, windows.values[row])
        return changes + list(self._close_counted(int(end_us[-1])))

    def _advance(
        self, asset: str, numbers: Mapping[str, int], found: UInt8, at_us: int, offset: int, values: Float32
    ) -> Iterator[DataAlertChange]:
        """Add one window of an asset. `numbers`: of the sensors, by name. `found`: [C]. `values`: [T, C]."""
        tracks = self._tracks.setdefault(asset, {})
        if ((found != HEALTHY) & (found != NOT_TESTED)).any():
            for name, number in numbers.items():
                finding = int(found[number])
                if finding in (HEALTHY, NOT_TESTED):
                    continue
                key = (name, FINDINGS[finding - 1])
                if key not in tracks:
                    tracks[key] = Track(asset, *key, at_us, offset)
        for (sensor, kind), track in list(tracks.items()):
            place = numbers.get(sensor)
            finding = HEALTHY if place is None else int(found[place])
            if finding == NOT_TESTED:
                continue
            is_found = finding != HEALTHY and FINDINGS[finding - 1] == kind
            track.bits = (track.bits << 1 | is_found) & self._mask
            if not track.is_confirmed:
                recent = track.bits & ((1 << self._policy.among) - 1)
                if is_found and recent.bit_count() >= self._policy.confirm:
                    track.is_confirmed = True
                    yield from self._count(track, at_us, values[:, numbers[sensor]])
            elif is_found:
                yield from self._count(track, at_us, None)
            elif not track.bits & ((1 << self._policy.recover) - 1):
                track.bits, track.is_confirmed = 0, False
                if (asset, sensor, kind) in self.open:
                    yield self._close((asset, sensor, kind), at_us)
            if not track.bits:
                del tracks[sensor, kind]
        if not tracks:
            del self._tracks[asset]

    def _count(self, track: Track, at_us: int, values: Float32 | None) -> Iterator[DataAlertChange]:
        """Open the alert of a track, or count one more window. `values`: [T] of the sensor, if confirmed just now."""
        key = (track.asset, track.sensor, track.kind)
        is_full = sum(kind == track.kind for asset, _, kind in self.open if asset) >= MAX_OPEN
        if key not in self.open and (values is None or is_full):
            key = ("", "", track.kind)
        alert, n = self.open.get(key), track.bits.bit_count()
        if alert is None:
            opened_us, message = track.first_us, _message(track, values)
            if not key[0]:
                kind = track.kind.replace("_", " ")
                message = f"More than {MAX_OPEN} sensors of {self._fleet} are {kind}: look for a common cause"
                opened_us = at_us
            self.open[key] = alert = OpenSensorAlert(opened_us, track.first_offset, at_us, n, message)
            yield self._change(key, alert, is_transition=True)
            return
        alert.n_windows += 1
        alert.last_us = max(alert.last_us, at_us)
        # The number of windows is for people: to write each of them would double the writes of a long fault.
        if not alert.n_windows & (alert.n_windows - 1):
            yield self._change(key, alert, is_transition=False)

    def _close_counted(self, at_us: int) -> Iterator[DataAlertChange]:
        """Close the alerts that count further sensors, once the last of these is healthy."""
        for key in [key for key in self.open if not key[0]]:
            tracks = (track for of_asset in self._tracks.values() for track in of_asset.values())
            if not any(
                each.is_confirmed and each.kind == key[2] and (each.asset, each.sensor, each.kind) not in self.open
                for each in tracks
            ):
                yield self._close(key, at_us)

    def _close(self, key: Key, at_us: int) -> DataAlertChange:
        alert = self.open.pop(key)
        return self._change(key, alert, is_transition=True, closed_us=max(at_us, alert.opened_us))

    def _change(
        self, key: Key, alert: OpenSensorAlert, *, is_transition: bool, closed_us: int | None = None
    ) -> DataAlertChange:
        asset, sensor, kind = key
        return DataAlertChange(
            kind=kind,
            partition=self._partition,
            fleet=self._fleet,
            from_offset=alert.from_offset,
            opened_us=alert.opened_us,
            at_us=alert.last_us if closed_us is None else closed_us,
            state=AlertState.FIRING if closed_us is None else AlertState.CLOSED,
            severity=Severity.WARNING,
            n_records=alert.n_windows,
            message=alert.message,
            is_transition=is_transition,
            subject=f"{asset}/{sensor}" if asset else "",
            alert_class=AlertClass.SENSOR,
            asset=asset or None,
            sensor=sensor or None,
        )


def _message(track: Track, values: Float32 | None) -> str:
    seen = values[np.isfinite(values)] if values is not None else np.empty(0, np.float32)
    low, high = (f"{seen.min():g}", f"{seen.max():g}") if len(seen) else ("", "")
    if track.kind == "stuck":
        low = high = f"{seen[-1]:g}" if len(seen) else ""
    shown = low if low == high else f"{low} to {high}"
    sensor, asset = escape_unprintable(track.sensor), escape_unprintable(track.asset)
    return f"{FIXES[track.kind].format(sensor=sensor, asset=asset, values=shown)}. Until then its values are not scored"
