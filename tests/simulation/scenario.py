"""The input of a run, drawn from a seed: fleets, their rules and the logs of some partitions. It is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monitor.config import Config
from monitor.types import Partition
from tests.acceptance import streams
from tests.acceptance.records import encode
from tests.oracle.log import FleetRule, Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.acceptance.records import Sample
    from tests.oracle.log import RawRecord

TOPIC = "plant"
GROUP = "monitor"
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Scenario:
    rules: Rules
    config: Config
    logs: dict[Partition, list[RawRecord]]
    is_limited: bool
    """True if not all assets are admitted. The oracle admits all, so a run without faults is the reference."""


def draw(rng: Random) -> Scenario:
    """Draw one or two fleets on one to three partitions. An asset may appear in a second partition."""
    learns = rng.random() < 0.15
    limits = {"max_assets": rng.choice([1, 2, 9])}
    is_limited = rng.random() < 0.1
    fleets = [_rule(rng, "turbines", ("R*",), ("power", "wind", "pitch")[: rng.randint(1, 3)])]
    if rng.random() < 0.3:
        fleets.append(_rule(rng, "pumps", ("P*",), ("flow", "heat")))
    rules = Rules(tuple(fleets))
    logs = {}
    for number in range(rng.choice([1, 1, 2, 2, 3])):
        samples = [one for rule in fleets for one in _samples(rng, rule, number, whole=learns, wanders=not is_limited)]
        if len(fleets) > 1 and rng.random() < 0.7:  # else one fleet falls silent when the other begins
            samples.sort(key=lambda one: one.ts_us)
        logs[Partition(TOPIC, number)] = encode(
            rng,
            samples,
            rules,
            bad_share=0.0 if learns else rng.choice([0.0, 0.05]),
            hole_share=rng.choice([0.0, 0.05]),
            array_share=0.0 if learns else rng.choice([0.0, 0.0, 0.3]),
            stampless_share=rng.choice([0.0, 0.0, 0.1, 1.0]),
            blocks=not learns and rng.random() < 0.3,
        )
    return Scenario(rules, _config(rules, limits if is_limited else {}, learns=learns), logs, is_limited)


def _rule(rng: Random, name: str, patterns: tuple[str, ...], sensors: tuple[str, ...]) -> FleetRule:
    length = rng.choice([4, 4, 6, 9])
    return FleetRule(
        name=name,
        sensors=sensors,
        interval_us=rng.choice([MINUTE_US, 10 * MINUTE_US, 333_333]),
        length=length,
        stride=rng.choice([1, 1, 2, length]),
        lateness_cells=rng.choice([0, 1, 3, 8]),
        max_gap_cells=rng.randrange(0, length),
        assets=patterns,
        confirm=rng.choice([(1, 1), (2, 3), (3, 5)]),
        recover=rng.choice([1, 2, 4]),
    )


def _samples(rng: Random, rule: FleetRule, number: int, *, whole: bool, wanders: bool) -> list[Sample]:
    initial = rule.assets[0][0]
    assets = [f"{initial}{number}{one}" for one in range(rng.randint(1, 3))]
    if wanders and rng.random() < 0.15:
        assets.append(f"{initial}9")  # registered in the partition that sends first
    samples = streams.regular(rng, rule, assets, rng.randint(10, 60 // len(assets) + 10))
    changes: list[Callable[[list[Sample]], list[Sample]]] = [
        lambda s: streams.jittered(rng, s, rule),
        lambda s: streams.gapped(rng, s, rule),
        lambda s: streams.silent(rng, s, rule),
        lambda s: streams.irregular(rng, s, rule),
        lambda s: streams.ahead(rng, s, rule),
    ]
    if not whole:
        changes += [lambda s: streams.partial(rng, s), lambda s: streams.long_format(rng, s)]
    reorderings: list[Callable[[list[Sample]], list[Sample]]] = [
        lambda s: streams.permuted(rng, s, rule),
        lambda s: streams.delayed(rng, s, rule),
        lambda s: streams.repeated(rng, s),
        lambda s: streams.bundled(s, rng.randint(2, 6)),
    ]
    for change in rng.sample(changes, rng.randint(0, 2)) + rng.sample(reorderings, rng.randint(0, 2)):
        samples = change(samples) or samples
    return samples


def _config(rules: Rules, limits: dict[str, int], *, learns: bool) -> Config:
    return Config.model_validate(
        {
            "kafka": {
                "bootstrap": "nowhere:1",
                "topics": [TOPIC],
                "group": GROUP,
                "start": "earliest",
                "max_quarantine_share": 1.0,
            },
            "store": {"url": "sqlite:///nowhere.db"},
            "fleet": [_fleet(rule, learns=learns) | limits for rule in rules.fleets],
        }
    )


def _fleet(rule: FleetRule, *, learns: bool) -> dict[str, Any]:
    def cells(n: int) -> str:
        return f"{n * rule.interval_us}us"

    settings: dict[str, Any] = {
        "name": rule.name,
        "assets": list(rule.assets),
        "interval": cells(1),
        "window": rule.length,
        "stride": rule.stride,
        "lateness": cells(rule.lateness_cells),
        "max_gap": cells(rule.max_gap_cells),
        "alerts": {"confirm": "{} of {}".format(*rule.confirm), "recover": rule.recover},
    }
    return settings if learns else settings | {"sensors": list(rule.sensors)}
