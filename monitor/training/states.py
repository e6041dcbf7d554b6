"""Recognition of operating states, and the calibration of each state on its own terms.

Input: windows to learn from, and the fleet's settings. Output: its states, or None where none are clear.
Invariant: no label is used. Where no state is found, nothing of a training changes.

States are clear where one sensor shows levels (`_gaps`) to which the asset comes back (`MIN_VISITS`), and stays at
for longer than a window (`MIN_STEADY`). A machine whose every window holds a whole duty cycle needs no states: its
windows show the cycle.

Levels of a sensor that the configuration does not name are states only if one of them, the lowest or the highest, is
quiet: hardly any sensor moves (`QUIET`). Without this rule 7 of 76 recordings of seven sets have states, levels of a
computer's load or of a coarse temperature among them, and the VUS-PR of two of them falls (`asd/omi-1` .27 to .22,
`smd/machine-2-7` .61 to .53).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from monitor.models.states import MISSING, OFF, States
from monitor.training.split import thin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.models.inputs import ModelInputs
    from monitor.models.member import Member
    from monitor.models.residual import SensorErrors
    from monitor.models.spec import FleetSpec, TrainingSet
    from monitor.types import Bool, Float32, Int8, Int64

    Float64 = NDArray[np.float64]

GAP_SHARE = 0.05
"""Most of the readings that lie between two levels. A ramp passes there, a sine or a random walk is there for long."""
EMPTY_SHARE = 0.01
"""The same of the emptiest part of the gap, where one level ends and the other begins."""
MIN_SHARE = 0.05
"""Least share of the readings at a level."""
MIN_GAP = 0.4
"""Least width of the gap, as a share of the wider of the levels beside it (5 % to 95 %)."""
MIN_RANGE = 0.1
"""Least width of the gap, as a share of the range of the sensor (1 % to 99 %). Two steps of a coarse reading are no two
states."""
MIN_VISITS = 3
"""Times that assets came to each level. A drift or a repair leaves one level for good."""
MIN_STEADY, MIN_STEADY_WINDOWS = 0.3, 60
"""Least share of windows in one state from end to end, and least number of them in each of two states."""
QUIET = 0.2
"""Movement of the sensors from reading to reading in a state that is called off, as a share of that in the liveliest
one."""
LEVELS: dict[int, tuple[str, ...]] = {2: ("low", "high"), 3: ("low", "middle", "high")}
"""Names where no state is quiet enough to be called off."""
N_READINGS = 40_000
"""Newest readings that levels are looked for in."""
EDGE = 0.2
"""Share of that part that belongs to the level beside it: a level is a little wider than what was seen of it."""


def find_states(windows: TrainingSet, rows: Int64, inputs: ModelInputs, fleet: FleetSpec) -> States | None:
    """Return the states of the assets in these windows. None = none are clear, or they are not wanted."""
    settings = fleet.states
    if settings.detect == "never":
        return None
    data = _Readings.of(windows, rows)
    if settings.sensor is not None:
        if settings.sensor not in fleet.sensors:
            return None
        column = fleet.sensors.index(settings.sensor)
        if settings.off_below is not None or settings.running_above is not None:
            return _named(_from_settings(fleet, column), data)
        columns = [column]
    else:
        columns = [number for number, each in enumerate(inputs.inputs) if each.kind == "plain"]
    found = [each for each in (_candidate(data, column, fleet) for column in columns) if each is not None]
    for best in sorted(found, key=lambda each: -each.clarity):
        states = _named(best.states, data)
        if settings.sensor is not None or OFF in (states.names[0], states.names[-1]):
            return states
    return None


def off_rows(states: States | None, windows: TrainingSet, rows: Int64) -> Bool:
    """Return the mask [n] of the rows in which the asset is off from the first reading to the last."""
    if states is None:
        return np.zeros(len(rows), dtype=bool)
    return states.is_off(classes_of_rows(states, windows, rows))


def keep_rows(states: States | None, windows: TrainingSet, rows: Int64) -> Int64:
    """Return the rows to learn from: those that are off are thinned to as many as all others."""
    off = off_rows(states, windows, rows)
    n_other = int((~off).sum())
    if not n_other or int(off.sum()) <= n_other:
        return rows
    kept = np.concatenate([rows[~off], thin(rows[off], n_other)])
    kept.sort()
    return kept


def with_states(
    members: tuple[Member, ...],
    errors: tuple[SensorErrors, ...],
    state: Int8 | None,
    states: States,
    *,
    healthy: Bool,
    length: int,
) -> tuple[Member, ...]:
    """Return the members with a calibration of each state, from their errors of held-out windows [M] in `state` [M]."""
    if state is None:
        return members
    rows = [torch.from_numpy(np.flatnonzero(healthy & (state == number))) for number in range(len(states.classes))]
    out = []
    for member, each in zip(members, errors, strict=True):
        by_state = tuple(
            member.residual.of_state(each.rows(mine), length) if len(mine) >= MIN_STEADY_WINDOWS
            else member.residual.copy()
            for mine in rows[:-1]
        )  # fmt: skip
        out.append(replace(member, by_state=by_state))
    return tuple(out)


def classes_of_rows(states: States, windows: TrainingSet, rows: Int64) -> Int8:
    """Return the class of each of these windows."""
    parts = np.array_split(rows, max(1, len(rows) // 4096))
    return np.concatenate([states.classify(windows.values[part]) for part in parts])


# ---------------------------------------------------------------- one sensor


@dataclass(frozen=True, slots=True)
class _Readings:
    """The newest readings of windows, by asset and time: as a series where windows follow one another."""

    windows: TrainingSet
    rows: Int64
    values: Float32
    """[N, C]"""
    begins: Bool
    """[N], first reading of an asset."""

    @classmethod
    def of(cls, windows: TrainingSet, rows: Int64) -> _Readings:
        order = rows[np.lexsort((windows.end_us[rows], windows.asset[rows]))]
        if len(order) > N_READINGS:  # whole stretches of the latest time: visits are counted
            order = order[-N_READINGS:]
        asset = windows.asset[order]
        begins = np.concatenate([[True], asset[1:] != asset[:-1]])
        return cls(windows, order, windows.values[order, -1], begins)


class _Candidate(NamedTuple):
    states: States
    clarity: float
    """Width of the narrowest gap in units of the levels beside it."""


def _candidate(data: _Readings, column: int, fleet: FleetSpec) -> _Candidate | None:
    x = data.values[:, column].astype(np.float64)
    seen = np.sort(x[np.isfinite(x)])
    if len(seen) < MIN_STEADY_WINDOWS:
        return None
    reach = float(np.subtract(*np.quantile(seen, [0.99, 0.01])))
    gaps = [gap for gap in _gaps(seen) if gap.width >= MIN_RANGE * reach]
    while gaps:
        states = _with_edges(fleet, column, [(gap.low, gap.high) for gap in gaps])
        if _is_visited(states, x, data.begins) and _is_steady(states, data):
            return _Candidate(states, min(gap.clarity for gap in gaps))
        # A second gap may be noise beside a first one that is real.
        gaps = sorted(sorted(gaps, key=lambda gap: -gap.clarity)[:-1])
    return None


class _Gap(NamedTuple):
    low: float
    high: float
    width: float
    """Of the whole gap, of which low and high are the emptiest part."""
    clarity: float


def _gaps(seen: Float64) -> list[_Gap]:
    """Return up to two gaps between levels of the sorted readings, by rising level."""
    first = _widest_gap(seen)
    if first is None:
        return []
    sides = (seen[seen <= first.low], seen[seen >= first.high])
    others = [gap for gap in map(_widest_gap, sides) if gap is not None]
    if not others:
        return [first]
    return sorted([first, max(others, key=lambda gap: gap.clarity)])


def _widest_gap(seen: Float64) -> _Gap | None:
    """Return the widest interval that holds `GAP_SHARE` of the sorted readings at most. None = it is no gap.

    Its emptiest part is returned: readings of a level reach into the rest.
    """
    n = len(seen)
    inside, least = max(1, int(GAP_SHARE * n)), max(1, int(MIN_SHARE * n))
    if n < 2 * least + inside + 2:
        return None
    at = least + _widest(seen[least : n - least], inside)
    below, above = seen[: at + 1], seen[at + inside :]
    width = float(above[0] - below[-1])
    beside = max(float(np.subtract(*np.quantile(side, [0.95, 0.05]))) for side in (below, above))
    floor = 1e-6 * max(abs(float(seen[0])), abs(float(seen[-1])))
    clarity = width / max(beside, floor, 1e-12)
    if clarity < MIN_GAP or width <= floor:
        return None
    part, few = seen[at : at + inside + 1], max(1, int(EMPTY_SHARE * n))
    inner = _widest(part, few)
    return _Gap(float(part[inner]), float(part[inner + few]), width, clarity)


def _widest(seen: Float64, inside: int) -> int:
    """Return the first of `inside` + 1 sorted readings that are the farthest apart."""
    return int((seen[inside:] - seen[:-inside]).argmax())


def _with_edges(fleet: FleetSpec, column: int, gaps: list[tuple[float, float]]) -> States:
    low, high = [-np.inf], []
    for below, above in gaps:
        edge = EDGE * (above - below)
        high.append(float(f"{below + edge:.6g}"))
        low.append(float(f"{above - edge:.6g}"))
    high.append(np.inf)
    names = tuple(str(number) for number in range(len(low)))
    return States(fleet.sensors[column], column, names, tuple(low), tuple(high), 0, 0,
                  left_out=fleet.states.transitions == "left_out")  # fmt: skip


def _from_settings(fleet: FleetSpec, column: int) -> States:
    """Return the states of the configured levels: each reading is in one of them."""
    settings = fleet.states
    edges = [(name, edge) for name, edge in (("off", settings.off_below), ("running", settings.running_above))
             if edge is not None]  # fmt: skip
    names: tuple[str, ...] = ("off", "idle", "running")
    if len(edges) == 1:
        names = ("off", "running") if edges[0][0] == "off" else ("idle", "running")
    cuts = [float(np.float32(edge)) for _, edge in edges]  # readings are float32, too
    below = [float(np.nextafter(np.float32(cut), np.float32(-np.inf))) for cut in cuts]
    return States(fleet.sensors[column], column, names, (-np.inf, *cuts), (*below, np.inf), 0, 0,
                  left_out=settings.transitions == "left_out", from_settings=True)  # fmt: skip


def _is_visited(states: States, x: Float64, begins: Bool) -> bool:
    """Return whether assets came to each level `MIN_VISITS` times."""
    of_step = states.steps(x[None].astype(np.float32))[0][0]
    known = np.flatnonzero(of_step >= 0)
    owner = np.cumsum(begins)[known]
    state = of_step[known]
    enters = np.concatenate([[False], (state[1:] != state[:-1]) & (owner[1:] == owner[:-1])])
    visits = np.bincount(state[enters], minlength=len(states.names))
    return bool((visits >= MIN_VISITS).all())


def _is_steady(states: States, data: _Readings) -> bool:
    counts = np.bincount(classes_of_rows(states, data.windows, data.rows), minlength=len(states.classes))
    steady = counts[: len(states.names)]
    return bool(steady.sum() >= MIN_STEADY * len(data.rows) and (steady >= MIN_STEADY_WINDOWS).sum() >= 2)


# ---------------------------------------------------------------- names and healthy changes


def _named(states: States, data: _Readings) -> States:
    """Return the states with their names, their shares, and the changes that healthy windows have."""
    x = data.windows.values[:, :, states.column]
    parts = np.array_split(data.rows, max(1, len(data.rows) // 4096))
    most = np.zeros(2, dtype=np.int64)
    for part in parts:
        of_step, n_between, n_changes = states.steps(x[part])
        known = (of_step >= 0).any(1) & (of_step != MISSING).all(1)
        if known.any():
            most = np.maximum(most, [n_between[known].max(), n_changes[known].max()])
    # One more: the longest and the busiest of so few healthy windows are not the limit.
    states = replace(states, max_between=int(most[0]) + 1, max_changes=int(most[1]) + 1)
    if not states.from_settings:
        states = replace(states, names=_names(states, data))
    counts = np.bincount(classes_of_rows(states, data.windows, data.rows), minlength=len(states.classes))
    return replace(states, shares=tuple(round(each, 4) for each in (counts / max(1, counts.sum())).tolist()))


def _names(states: States, data: _Readings) -> tuple[str, ...]:
    """Return the names by rising level: off is a state in which hardly anything moves."""
    n = len(states.names)
    of_step = states.steps(data.values[None, :, states.column])[0][0]
    steps = np.abs(np.diff(data.values.astype(np.float64), axis=0))
    within = (of_step[1:] == of_step[:-1]) & (of_step[1:] >= 0) & ~data.begins[1:]
    of_state = [within & (of_step[1:] == state) for state in range(n)]
    if not all(mine.any() for mine in of_state):
        return LEVELS[n]
    # A sensor that is missing does not move.
    of_sensor = np.array([np.median(np.nan_to_num(steps[mine]), axis=0) for mine in of_state])     # (n, C)
    liveliest = of_sensor.max(0)
    if not (liveliest > 0).any():
        return LEVELS[n]
    # The median sensor: a temperature goes on when the machine rests.
    moves = np.median(of_sensor[:, liveliest > 0] / liveliest[liveliest > 0], axis=1)
    quiet = int(moves.argmin())
    if moves[quiet] <= QUIET * moves.max():
        rest = ["running"] if n == 2 else ["idle", "running"]
        # By how much they move: a level may be high at rest, like a pressure that a pump lowers.
        order = [state for state in np.argsort(moves).tolist() if state != quiet]
        named = {quiet: OFF} | dict(zip(order, rest, strict=True))
        return tuple(named[state] for state in range(n))
    return LEVELS[n]
