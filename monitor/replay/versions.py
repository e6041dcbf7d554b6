"""Which version decides in a replay: the registry's, as they decided live; one that is named; or one just learnt.

The law: a version is published in the scratch database before it scores, as in the live one.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from monitor.errors import CheckpointDamaged, NoChampion, NotFound
from monitor.models.spec import FleetSpec, ModelSpec
from monitor.recordings import as_records
from monitor.store import assets
from monitor.store import versions as stored_versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.store.results import FIRST_US, LAST_US
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import Activation
from monitor.training.dataset import History
from monitor.training.fit import fit
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.evaluation.recordings import Split
    from monitor.models.detector import Detector
    from monitor.stream.score import DetectorScorer

CHAMPION = "champion"
"""A name for today's champion of each fleet."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version and where its checkpoint lies."""

    version: str
    path: Path
    decides_after_us: int
    """It decides windows that end after this."""


def learn(
    config: Config,
    fleet: FleetConfig,
    parts: Split,
    checkpoints: Path,
    on_progress: Callable[[float | None, str], None],
) -> Version:
    """Learn from the head of a recording, by the daemon's own way from records to windows to a detector.

    Raises NotEnoughData, TrainingDiverged.
    """
    history = History(config, fleet, fleet.sensors)
    # A partition per asset, as in the replay: one watermark for all would cut off the assets that lag.
    for number, one in enumerate(parts.head.per_asset()):
        for batch in as_records(one, partition=Partition(parts.head.name, number)):
            history.add(batch)
    torch.set_num_threads(1)
    detector = fit(
        history.windows(),
        ModelSpec.of(fleet),
        FleetSpec.of(fleet, history.sensors),
        device=config.device,
        on_progress=lambda share, text: on_progress(share, f"learning {parts.head.name}: {text}"),
    )
    name = detector.save(checkpoints)
    newest = int(parts.head.ts_us.max())
    decided_us = ((newest + fleet.interval_us // 2) // fleet.interval_us + 1) * fleet.interval_us
    return Version(name, checkpoints / name, decided_us)


async def take_version(store: AsyncStore, scorer: DetectorScorer, version: Version, fleet: str) -> None:
    """Let a version decide the fleet's windows from its boundary on. Raises CheckpointDamaged."""
    detector = await _load(scorer, version)
    card = _card(version.path)
    await store.run(
        stored_versions.publish,
        version=version.version,
        fleet=fleet,
        path=str(version.path),
        trained_us=0,
        card=card,
        metrics=card.get("metrics", {}),
    )
    held = await store.run(stored_versions.activate, fleet, version.version, version.decides_after_us)
    scorer.activate(fleet, Activation(held.from_window_end_us, version.version, version.path), detector)


async def lend(scorer: DetectorScorer, version: Version, fleet: str) -> None:
    """Let a version score for a side whose scores are kept nowhere. Raises CheckpointDamaged."""
    detector = await _load(scorer, version)
    scorer.activate(fleet, Activation(version.decides_after_us, version.version, version.path), detector)


async def _load(scorer: DetectorScorer, version: Version) -> Detector:
    detector = await scorer.load(version.path)
    if detector.version != version.version:
        raise CheckpointDamaged(f"{version.path} holds {detector.version}, not {version.version}")
    return detector


async def has_versions(config: Config) -> bool:
    """Whether the configured database is there and has an active version of any fleet."""
    try:
        async with AsyncStore(config.store.url) as live:
            return any([await live.read(stored_versions.activations, fleet.name) for fleet in config.fleets])
    except NotFound:
        return False


async def deciders(config: Config, version: str | None = None) -> dict[str, list[Version]]:
    """Ask the live database who decides each fleet's windows, earliest boundary first. `version`: this one decides its
    fleet from the beginning, `champion` today's champion of each; None = as it was live.

    Raises NotFound for a version that is none of these fleets'.
    """
    found: dict[str, list[Version]] = {}
    async with AsyncStore(config.store.url) as live:
        is_known = version in (None, CHAMPION)
        for fleet in config.fleets:
            paths = {each.version: Path(each.path) for each in await live.read(stored_versions.every, fleet.name)}
            active = await live.read(stored_versions.activations, fleet.name)
            name = active[-1].version if active and version == CHAMPION else version
            if name in paths:
                found[fleet.name], is_known = [Version(name, paths[name], FOREVER_AGO_US)], True
            else:
                found[fleet.name] = [
                    Version(each.version, paths[each.version], each.from_window_end_us) for each in active
                ]
    if not is_known:
        raise NotFound(f"version {version}; `monitor models list` shows those there are")
    return found


def reigning(versions: Sequence[Version], after_us: int, to_us: int) -> list[Version]:
    """Leave out those that decide no window that ends in (after_us, to_us]; who reigned before is of no account."""
    nexts = [*(each.decides_after_us for each in versions[1:]), LAST_US]
    return [
        replace(each, decides_after_us=FOREVER_AGO_US if each.decides_after_us <= after_us else each.decides_after_us)
        for each, until_us in zip(versions, nexts, strict=False)
        if each.decides_after_us < to_us and until_us > after_us
    ]


async def registered(
    config: Config,
    store: AsyncStore,
    scorer: DetectorScorer,
    version: str | None,
    *,
    homes: bool,
    after_us: int = FIRST_US,
    to_us: int = LAST_US,
) -> None:
    """Take over from the live database who decides the windows that end in (after_us, to_us] (`deciders`), the sensors
    its fleets have learnt, and (`homes`) where its assets live.

    Raises NoChampion where there is nothing to decide by, NotFound, CheckpointDamaged.
    """
    async with AsyncStore(config.store.url) as live:
        learnt = await live.read(assets.fleets)
    for fleet in config.fleets:
        if sensors := learnt.get(fleet.name):
            await store.run(assets.learn, fleet.name, sensors)
    chosen = await deciders(config, version)
    if not any(chosen.values()):
        raise NoChampion(
            f"{config.store.shown_url} has no version yet; start the daemon, or name files and --train-rows"
        )
    for fleet_name, versions in chosen.items():
        for each in reigning(versions, after_us, to_us):
            await take_version(store, scorer, each, fleet_name)
    if homes:
        for (fleet_name, partition), names in (await asyncio.to_thread(_homes, config.store.url)).items():
            await store.run(assets.resolve, fleet_name, names, partition)


def _homes(url: str) -> dict[tuple[str, Partition], list[str]]:
    """By fleet and partition, the assets that live there."""
    found: dict[tuple[str, Partition], list[str]] = {}
    with open_reader(url) as reader:
        for row in reader.assets():
            found.setdefault((row["fleet"], Partition(row["topic"], row["partition"])), []).append(row["asset"])
    return found


def _card(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((path / "card.json").read_text(encoding="utf-8"))
    return card
