"""Hard streams from a seed: partition logs with all the disorder of real plants.

Input: a kind of `KINDS` and a seed. Output: `make(kind, seed)`, a partition's log with the rules it obeys. Invariant:
the same kind and seed give the same bytes. Values are multiples of 1/8, which float32 holds exactly.

A stream begins as samples in order of time. Each disorder is a function from samples to samples in order of arrival,
or is added when samples become records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from tests.acceptance.records import EPOCH, Sample, encode
from tests.oracle.log import FleetRule, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.oracle.log import RawRecord

NOW_US = 1_437_955_200_000_000  # 2015-07-27T00:00Z
MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    kind: str
    seed: int
    rules: Rules
    topic: str
    log: list[RawRecord]


# ---------------------------------------------------------------- samples and their disorders


def regular(rng: Random, rule: FleetRule, assets: Sequence[str], n_cells: int) -> list[Sample]:
    """Make one reading per asset and cell, with every sensor, in order of time."""
    first = NOW_US // rule.interval_us + rng.randrange(3 * rule.length)  # any phase against the stride
    return [
        Sample((first + step) * rule.interval_us, asset, {name: rng.randrange(-800, 800) / 8 for name in rule.sensors})
        for step in range(n_cells)
        for asset in assets
    ]


def jittered(rng: Random, samples: list[Sample], rule: FleetRule) -> list[Sample]:
    """Move each reading within its cell, the cell's very edges included."""
    before, after = -(rule.interval_us // 2), (rule.interval_us - 1) // 2
    return [
        replace(one, ts_us=one.ts_us + rng.choice([before, after, 0, rng.randint(before, after)])) for one in samples
    ]


def irregular(rng: Random, samples: list[Sample], rule: FleetRule) -> list[Sample]:
    """Give each asset a drifting clock: some cells get two readings, others none."""
    drift = {one.asset: rng.uniform(0.8, 1.25) for one in samples}
    zero = samples[0].ts_us
    moved = [replace(one, ts_us=zero + int((one.ts_us - zero) * drift[one.asset])) for one in samples]
    return sorted(moved, key=lambda one: one.ts_us)


def gapped(rng: Random, samples: list[Sample], rule: FleetRule, share: float = 0.1) -> list[Sample]:
    """Cut holes of every length around max_gap and around the window."""
    kept, silent_until = [], dict.fromkeys({one.asset for one in samples}, 0)
    for one in samples:
        if one.ts_us >= silent_until[one.asset] and rng.random() < share / 4:
            cells = rng.choice([1, rule.max_gap_cells, rule.max_gap_cells + 1, rule.length, 2 * rule.length])
            silent_until[one.asset] = one.ts_us + cells * rule.interval_us
        if one.ts_us >= silent_until[one.asset]:
            kept.append(one)
    return kept


def partial(rng: Random, samples: list[Sample], share: float = 0.3) -> list[Sample]:
    """Drop sensors, and split readings in two that arrive one after the other, overlapping or not."""
    out = []
    for one in samples:
        names = list(one.values)
        if rng.random() >= share or len(names) < 2:
            out.append(one)
            continue
        some = rng.sample(names, rng.randrange(1, len(names)))  # a list: a set's order is not the seed's
        out.append(replace(one, values={name: value for name, value in one.values.items() if name in some}))
        if rng.random() < 0.6:
            rest = {name: value for name, value in one.values.items() if name not in some or rng.random() < 0.3}
            out.append(replace(one, values={**dict.fromkeys(some), **rest}))
    return out


def permuted(rng: Random, samples: list[Sample], rule: FleetRule) -> list[Sample]:
    """Shuffle within the lateness: no reading becomes late."""
    reach = rule.lateness_cells
    keyed = [((one.ts_us + rule.interval_us // 2) // rule.interval_us + rng.uniform(0, reach), one) for one in samples]
    return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]


def delayed(rng: Random, samples: list[Sample], rule: FleetRule, share: float = 0.1) -> list[Sample]:
    """Hold some readings back by about the lateness: just within, at the edge, just beyond, far beyond."""
    late = rule.lateness_cells
    keyed = []
    for number, one in enumerate(samples):
        by = rng.choice([late - 1, late, late + 1, 3 * late + rule.length]) if rng.random() < share else 0
        keyed.append((one.ts_us + by * rule.interval_us, number, one))
    return [one for _, _, one in sorted(keyed, key=lambda item: item[:2])]


def repeated(rng: Random, samples: list[Sample], share: float = 0.1) -> list[Sample]:
    """Repeat readings, with the same values or with others, at once or somewhat later."""
    out = list(samples)
    for one in rng.sample(samples, int(len(samples) * share)):
        again = one if rng.random() < 0.5 else replace(one, values=dict.fromkeys(one.values, 99.0))
        place = samples.index(one) + rng.choice([1, 2, 10, 50])
        out.insert(min(place, len(out)), again)
    return out


def silent(rng: Random, samples: list[Sample], rule: FleetRule) -> list[Sample]:
    """Stop the first asset after a third of the time, begin the second one late, interrupt the third one."""
    assets = sorted({one.asset for one in samples})
    zero, end = samples[0].ts_us, samples[-1].ts_us
    third = (end - zero) // 3

    def is_there(one: Sample) -> bool:
        part = (one.ts_us - zero) / max(third, 1)
        return not (
            (one.asset == assets[0] and part > 1)
            or (len(assets) > 1 and one.asset == assets[1] and part < 1.3)
            or (len(assets) > 2 and one.asset == assets[2] and 1 < part < 2)
        )

    return [one for one in samples if is_there(one)]


def bundled(samples: list[Sample], n_rows: int) -> list[Sample]:
    """Group each asset's readings in runs of n_rows, as a logger sends them. Order within an asset stays."""
    turn: dict[str, int] = {}
    keyed = []
    for number, one in enumerate(samples):
        count = turn.setdefault(one.asset, 0)
        turn[one.asset] = count + 1
        keyed.append((count // n_rows, one.asset, number, one))
    return [one for *_, one in sorted(keyed, key=lambda item: item[:3])]


def ahead(rng: Random, samples: list[Sample], rule: FleetRule) -> list[Sample]:
    """Set the clock of one asset eight hours ahead, and for a while into the year 2099. All else arrives as before."""
    wrong = rng.choice(sorted({one.asset for one in samples}))
    begin, end = sorted(rng.choices(range(len(samples)), k=2))
    by_us = rng.choice([8 * 3_600_000_000, 84 * 31_557_600_000_000])
    return [
        replace(one, ts_us=one.ts_us + by_us) if one.asset == wrong and begin <= number < end else one
        for number, one in enumerate(samples)
    ]


def long_format(rng: Random, samples: list[Sample]) -> list[Sample]:
    """Send each sensor in a record of its own, those of one moment in any order."""
    return [
        replace(one, values={name: one.values[name]})
        for one in samples
        for name in rng.sample(list(one.values), len(one.values))
    ]


# ---------------------------------------------------------------- the kinds


def _rule(rng: Random, **fixed: Any) -> FleetRule:
    length = rng.choice([2, 4, 8, 12])
    chosen: dict[str, Any] = {
        "name": "turbines",
        "sensors": ("power", "wind", "pitch")[: rng.randint(1, 3)],
        "interval_us": rng.choice([MINUTE_US, 10 * MINUTE_US, 333_333]),
        "length": length,
        "stride": rng.choice([1, 1, 2, length]),
        "lateness_cells": rng.choice([0, 1, 3, 8]),
        "max_gap_cells": rng.randrange(0, length),
        "assets": ("R*",),
    }
    return FleetRule(**(chosen | fixed))


def _assets(rng: Random, most: int = 5) -> list[str]:
    return [f"R{80700 + number}" for number in range(rng.randint(1, most))]


def _wild(rng: Random, rule: FleetRule, assets: list[str]) -> list[Sample]:
    """Apply a random mix of all disorders."""
    disorders: list[Callable[[list[Sample]], list[Sample]]] = [
        lambda s: jittered(rng, s, rule),
        lambda s: gapped(rng, s, rule),
        lambda s: partial(rng, s),
        lambda s: silent(rng, s, rule),
        lambda s: irregular(rng, s, rule),
        lambda s: ahead(rng, s, rule),
        lambda s: long_format(rng, s),
    ]
    reorderings: list[Callable[[list[Sample]], list[Sample]]] = [
        lambda s: permuted(rng, s, rule),
        lambda s: delayed(rng, s, rule),
        lambda s: repeated(rng, s),
        lambda s: bundled(s, rng.randint(2, 6)),
    ]
    samples = regular(rng, rule, assets, rng.randint(20, 120))
    for change in rng.sample(disorders, rng.randint(1, 4)) + rng.sample(reorderings, rng.randint(0, 3)):
        samples = change(samples) or samples
    return samples


def make(kind: str, seed: int) -> Stream:
    """Return the stream of this kind and seed."""
    rng = Random(f"{kind}/{seed}")
    rule = _rule(rng)
    options: dict[str, Any] = {"hole_share": rng.choice([0.0, 0.05])}
    rules, samples = KINDS[kind](rng, rule, options)
    return Stream(kind, seed, rules, "plant", encode(rng, samples, rules, **options))


def _plain(disorder: Callable[[Random, list[Sample], FleetRule], list[Sample]]) -> Any:
    def recipe(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
        return Rules((rule,)), disorder(rng, regular(rng, rule, _assets(rng), rng.randint(30, 120)), rule)

    return recipe


def _stampless(disorder: Callable[[Random, list[Sample], FleetRule], list[Sample]]) -> Any:
    """Return a recipe in which some records have no timestamp of Kafka."""

    def recipe(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
        options["stampless_share"] = rng.choice([0.0, 0.1, 1.0])
        return _plain(disorder)(rng, rule, options)  # type: ignore[no-any-return]

    return recipe


def _arrays(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
    """Put readings of several assets, of two fleets, into one record. Some of them are late or repeated."""
    options["array_share"] = 0.5
    pumps = _rule(rng, name="pumps", sensors=("flow", "heat"), assets=("P*",))
    both = regular(rng, rule, _assets(rng), 60) + regular(rng, pumps, ["P1", "P2"], 60)
    samples = sorted(both, key=lambda one: one.ts_us)
    return Rules((rule, pumps)), repeated(rng, delayed(rng, samples, rule))


def _permuted_singles(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
    samples = partial(rng, gapped(rng, regular(rng, rule, _assets(rng), 80), rule))
    return Rules((rule,)), permuted(rng, samples, rule)


def _with_bad(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
    options["bad_share"] = 0.3
    return Rules((rule,)), regular(rng, rule, _assets(rng), 60)


def _wild_with_bad(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
    options["bad_share"] = rng.choice([0.0, 0.05])
    return Rules((rule,)), _wild(rng, rule, _assets(rng))


def _fleets(rng: Random, rule: FleetRule, options: dict[str, Any]) -> tuple[Rules, list[Sample]]:
    """Put two fleets with different sensors and grids on one topic: and disorder each by itself."""
    options["bad_share"] = 0.03
    pumps = _rule(rng, name="pumps", sensors=("flow", "heat"), assets=("P*",))
    both = _wild(rng, rule, _assets(rng)) + _wild(rng, pumps, ["P1", "P2"])
    return Rules((rule, pumps)), sorted(both, key=lambda one: one.ts_us) if rng.random() < 0.5 else both


KINDS: dict[str, Any] = {
    "regular": _plain(lambda rng, s, rule: s),
    "jittered": _plain(jittered),
    "irregular": _plain(irregular),
    "gapped": _plain(gapped),
    "partial": _plain(lambda rng, s, rule: partial(rng, s)),
    "permuted": _permuted_singles,
    "delayed": _plain(delayed),
    "repeated": _plain(lambda rng, s, rule: repeated(rng, s)),
    "silent": _plain(silent),
    "bundled": _plain(lambda rng, s, rule: bundled(s, rng.randint(2, 9))),
    "ahead": _stampless(ahead),
    "long": _stampless(lambda rng, s, rule: long_format(rng, gapped(rng, s, rule))),
    "arrays": _arrays,
    "bad": _with_bad,
    "fleets": _fleets,
    "wild": _wild_with_bad,
}


def plant(
    seed: int, n_assets: int, n_readings: int, rule: FleetRule, *, disorder_share: float = 0.01
) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield `(key, value, kafka_ms)` of a large plant in order of time: JSON readings, some missing, repeated, late.

    For long runs: one pass, no lists. Keys decide the partition, as in Kafka.
    """
    rng = Random(seed)
    first = NOW_US // rule.interval_us
    held: list[tuple[bytes, bytes]] = []
    sent = step = 0
    while sent < n_readings:
        ts_us = (first + step) * rule.interval_us
        stamp = (EPOCH + timedelta(microseconds=ts_us)).isoformat()
        for number in range(n_assets):
            if rng.random() < disorder_share / 2:
                continue  # a gap
            values = {name: int(rng.random() * 1600 - 800) / 8 for name in rule.sensors}
            record = (f"R{number:05}".encode(), msgspec.json.encode({"ts": stamp, "sensors": values}))
            if rng.random() < disorder_share:
                held.append(record)  # late, sometimes beyond the lateness
                continue
            yield *record, ts_us // 1000
            sent += 1
            if rng.random() < disorder_share:
                yield *record, ts_us // 1000
                sent += 1
            if sent >= n_readings:
                return
        if held and rng.random() < 0.3:
            for record in held:
                yield *record, ts_us // 1000
                sent += 1
            held.clear()
        step += 1
