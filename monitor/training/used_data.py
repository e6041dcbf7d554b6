"""The data of a training, time by time: used or left out, with the reason of each.

Input: the windows, the split, and the rows that were used of it. Output: the card's entry `training.receipt`, which
the database keeps, too. JSON:

    {"seed": 0,
     "data_digest": "6f0c…",      of the windows used: the same data give the same digest
     "config_digest": "91ab…",    of the model's settings and the fleet's
     "intervals": [{"asset": "pump-1", "from": "2026-01-01T00:00:00+00:00", "to": "…", "use": "trained",
                    "reason": "normal", "why": "nothing speaks against it", "n_windows": 840,
                    "source": "alert", "id": 12, "sensor": "speed", "n_joined": 3}, …],
     "totals": [{"use": "left_out", "reason": "unlabelled", "n_windows": 90, "n_intervals": 1, "hours": 15.0}, …],
     "warnings": ["alert 12 of pump-1 …"]}

`use` is trained, held_out (the threshold was measured on it, and members that are solved in closed form have learnt it
after that) or left_out. `reason` is a key of `words.REASONS`, `why` its sentence. `source` and `id` are the alert,
label, shelf or maintenance behind it, and missing where there is none. `sensor`: it alone was left out.
Invariant: the times of an asset, without those of single sensors, follow one another without gap and overlap, by the
ends of the windows. At most `MAX_INTERVALS` are listed. Beyond that the shortest are joined by use and reason, those
with an id last: such a row has no `id`, `n_joined` is their number, `from` and `to` are the first and the last of
them, and its asset is "*" where they are of several. `totals` counts all. No wall clock decides anything here.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import iso_seconds
from monitor.models.spec import UsedTime
from monitor.training.split import alerted
from monitor.training.words import REASONS, why

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
    from monitor.training.split import Split
    from monitor.types import Bool, Int64

MAX_INTERVALS = 300
"""Rows of a card: 60 kB at most."""
MAX_WARNINGS = 10
STALE_US = 7 * 86_400_000_000
"""Age at which an exclusion that nobody has settled is told: a week holds every shift that could have settled it."""
HOUR_US = 3_600_000_000
STALE = {
    "open": "has been open without a label",
    "unlabelled": "has had no label",
    "shelved": "has kept a time from being learnt",
    "ignore": "has kept a time from being learnt",
}
"""Reasons that a person can settle, and what to say of them."""
USES = ("left_out", "trained", "held_out")
LEFT_OUT, TRAINED, HELD_OUT = range(3)
WORDS = tuple(REASONS)


def used_data(
    windows: TrainingSet,
    split: Split,
    rows: Int64,
    held_rows: Int64,
    trimmed: Bool,
    outlier: Bool,
    spec: ModelSpec,
    fleet: FleetSpec,
) -> dict[str, Any]:
    """Return the card's entry. `rows`, `held_rows`: used of the split. `trimmed`, `outlier`: suspected among them."""
    step_us = round(fleet.budget.step_s * windows.stride_factor * 1e6)
    suspected = np.concatenate([rows[trimmed], held_rows[outlier]])
    times = _with_gaps([*_times(windows, split, rows, held_rows, suspected, step_us), *windows.skipped])
    settings = json.dumps([asdict(spec), asdict(fleet)], sort_keys=True, default=str)
    return {
        "seed": spec.seed,
        "data_digest": data_digest(windows, np.concatenate([rows[~trimmed], held_rows[~outlier]])),
        "config_digest": hashlib.blake2b(settings.encode(), digest_size=16).hexdigest(),
        "intervals": _rows(times),
        "totals": _totals(times),
        "warnings": warnings(windows, times, fleet.name),
    }


def data_digest(windows: TrainingSet, rows: Int64) -> str:
    """Return the digest of windows: assets, times and values. Their order and the assets' numbers do not count."""
    digest = hashlib.blake2b(digest_size=16)
    of_asset = windows.asset[rows]
    for name, number in sorted((str(windows.asset_name(int(one))), one) for one in np.unique(of_asset)):
        mine = rows[of_asset == number]
        mine = mine[np.argsort(windows.end_us[mine], kind="stable")]
        digest.update(f"{len(name)}:{name}:{len(mine)}".encode())
        digest.update(np.ascontiguousarray(windows.end_us[mine], dtype="<i8").tobytes())
        for part in np.array_split(mine, max(1, len(mine) // 2048)):
            values = np.ascontiguousarray(windows.values[part], dtype="<f4")
            # There are several NaNs, and two zeros.
            values = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))
            digest.update(values.tobytes())
    return digest.hexdigest()


def warnings(windows: TrainingSet, times: Iterable[UsedTime], fleet: str) -> list[str]:
    """Return sentences on alerts taken as the new normal, and on exclusions that nobody has settled for a week."""
    if not len(windows):
        return []
    newest_us = max(int(windows.end_us.max()), *(each.to_us for each in times)) if times else 0
    found: dict[tuple[str, int | None], str] = {}
    since = {(each.source, each.id): each.begin_us for each in windows.judged}
    for each in times:
        key = (each.source, each.id)
        begin_us = since.get(key, each.from_us)
        days = (newest_us - begin_us) / (24 * HOUR_US)
        name = f"{each.source} {each.id} of {each.asset}"
        begin, end = iso_seconds(begin_us), iso_seconds(each.to_us)
        accept = f"monitor retrain {fleet} --accept-normal {begin} {end} --asset {each.asset}"
        if key in found or each.id is None:
            continue
        if each.reason == "new_normal":
            found[key] = (
                f"{name} has no label and lasted longer than new_normal, so it was taken as the new normal; if it is "
                f"a fault: monitor alerts label {each.id} fault"
            )
        elif each.reason in STALE and newest_us - begin_us > STALE_US:
            settle = {
                "alert": f"monitor alerts label {each.id} fault (or normal)",
                "shelf": f"monitor alerts unshelve {each.id}, and label its alerts",
            }.get(each.source, f"monitor alerts unlabel {each.id}")
            found[key] = f"{name} {STALE[each.reason]} for {days:.0f} days; if it is a fault: {settle}; if it is the "
            found[key] += f"new normal: {accept}"
    listed = list(found.values())
    more = [f"and {len(listed) - MAX_WARNINGS} more exclusions that nobody has settled"]
    return listed if len(listed) <= MAX_WARNINGS else listed[:MAX_WARNINGS] + more


# ---------------------------------------------------------------- the times


def _times(
    windows: TrainingSet, split: Split, rows: Int64, held_rows: Int64, suspected: Int64, step_us: int
) -> list[UsedTime]:
    """Return the times of all windows. A window that was thinned out counts as the used one before it."""
    n = len(windows)
    judged = np.full(n, -1, dtype=np.int32) if windows.cause is None else windows.cause.copy()
    reason = np.full(n, WORDS.index("gap"), dtype=np.int8)
    use = np.full(n, LEFT_OUT, dtype=np.int8)
    is_alerted, is_suspected = alerted(windows), np.zeros(n, dtype=bool)
    is_suspected[suspected] = True
    reason[split.usable] = WORDS.index("reaches_into_held_out")
    reason[split.held_out] = WORDS.index("too_old")
    reason[split.train] = reason[held_rows] = WORDS.index("normal")
    use[split.train], use[held_rows] = TRAINED, HELD_OUT
    use[is_suspected] = LEFT_OUT
    reason[is_suspected] = WORDS.index("suspected_fault")
    reason[is_alerted & (reason != WORDS.index("gap"))] = WORDS.index("unlabelled")
    # A window that was left out for no alert stands for itself.
    judged[~is_alerted & (use == LEFT_OUT)] = -1
    judged[reason == WORDS.index("gap")] = -1
    code = np.stack([use, reason, judged], axis=1)
    if len(rows) < len(split.train):
        order = np.sort(rows)
        at = np.clip(np.searchsorted(order, split.train, "right") - 1, 0, None)
        same = windows.asset[order[at]] == windows.asset[split.train]
        code[split.train[same]] = code[order[at[same]]]
    found: list[UsedTime] = []
    for number in np.unique(windows.asset):
        mine = np.flatnonzero(windows.asset == number)
        mine = mine[np.argsort(windows.end_us[mine], kind="stable")]
        ends_us = windows.end_us[mine]
        new = np.ones(len(mine), dtype=bool)
        new[1:] = (np.diff(code[mine], axis=0) != 0).any(1) | (np.diff(ends_us) > step_us)
        firsts = np.flatnonzero(new)
        for first, beyond in zip(firsts.tolist(), [*firsts[1:].tolist(), len(mine)], strict=True):
            how, word, cause = code[mine[first]].tolist()
            why_ = windows.judged[cause] if cause >= 0 else None
            found.append(
                UsedTime(
                    str(windows.asset_name(int(number))),
                    int(ends_us[first]) - step_us,
                    int(ends_us[beyond - 1]),
                    USES[how],
                    WORDS[word] if why_ is None else why_.reason,
                    "" if why_ is None else why_.source,
                    None if why_ is None else why_.id,
                    beyond - first,
                )
            )
    return found


def _with_gaps(times: Sequence[UsedTime]) -> list[UsedTime]:
    """Return the times in order, those without windows between them included. Those of sensors come last."""
    ordered = sorted((each for each in times if not each.sensor), key=lambda each: (each.asset, each.from_us))
    found: list[UsedTime] = []
    for each in ordered:
        last = found[-1] if found else None
        if last is not None and last.asset == each.asset and each.from_us > last.to_us:
            if last.reason == "gap":
                found[-1] = last._replace(to_us=each.from_us)
            else:
                found.append(UsedTime(each.asset, last.to_us, each.from_us, "left_out", "gap"))
            last = found[-1]
        if last is not None and last[:1] + last[3:7] == each[:1] + each[3:7] and last.to_us >= each.from_us:
            found[-1] = last._replace(to_us=each.to_us, n_windows=last.n_windows + each.n_windows)
        else:
            found.append(each)
    return [*found, *(each for each in times if each.sensor)]


def _rows(times: Sequence[UsedTime]) -> list[dict[str, Any]]:
    """Return at most `MAX_INTERVALS` rows, by asset and time, joined ones last."""
    if len(times) <= MAX_INTERVALS:
        return [_row(each) for each in times]
    groups = len({(each.use, each.reason) for each in times})
    by_weight = sorted(range(len(times)), key=lambda number: _weight(times[number]))
    listed = set(by_weight[: MAX_INTERVALS - groups])
    joined: dict[tuple[str, str], list[UsedTime]] = defaultdict(list)
    for number, each in enumerate(times):
        if number not in listed:
            joined[each.use, each.reason].append(each)
    rows = [_row(times[number]) for number in sorted(listed)]
    for (use, reason), some in joined.items():
        assets = {each.asset for each in some}
        first_us, last_us = min(each.from_us for each in some), max(each.to_us for each in some)
        row = UsedTime(
            assets.pop() if len(assets) == 1 else "*", first_us, last_us, use, reason,
            n_windows=sum(each.n_windows for each in some),
        )  # fmt: skip
        rows.append(_row(row) | {"n_joined": len(some)})
    return rows


def _weight(time: UsedTime) -> tuple[bool, int]:
    """Return the order in which times are listed: those that a person can act on first, then the longest."""
    return time.id is None, time.from_us - time.to_us


def _row(time: UsedTime) -> dict[str, Any]:
    row: dict[str, Any] = {
        "asset": time.asset,
        "from": iso_seconds(time.from_us),
        "to": iso_seconds(time.to_us),
        "use": time.use,
        "reason": time.reason,
        "why": why(time.reason, time.source, time.id),
        "n_windows": time.n_windows,
    }
    if time.id is not None:
        row |= {"source": time.source, "id": time.id}
    return row | ({"sensor": time.sensor} if time.sensor else {})


def _totals(times: Iterable[UsedTime]) -> list[dict[str, Any]]:
    """Return the sums by use and reason, the largest first. Those of sensors count by their windows alone."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for each in times:
        own = sums[each.use, each.reason]
        own[0] += each.n_windows
        own[1] += 1
        own[2] += each.to_us - each.from_us
    return [
        {"use": use, "reason": reason, "n_windows": n, "n_intervals": m, "hours": round(us / HOUR_US, 2)}
        for (use, reason), (n, m, us) in sorted(sums.items(), key=lambda pair: (-pair[1][2], pair[0]))
    ]
