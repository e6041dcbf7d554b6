"""The model versions that score in a replay: the live ones, a named one, or one trained for this replay.

Input: the live database, or the head of a recording. Output: versions by fleet, activated in the replay's scorer.
Invariant: a version is published in the scratch database before it scores, as in the live one.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
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
from monitor.stream.score import ActiveVersion, DetectorScorer
from monitor.training.dataset import History
from monitor.training.fit import fit
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from monitor.config import Config, FleetConfig
    from monitor.models.detector import TrainedModel
    from monitor.recordings import Recording
    from monitor.types import VersionInfo

CHAMPION = "champion"
"""Stands for today's champion of each fleet."""


@dataclass(frozen=True, slots=True)
class ReplayVersion:
    """A model version, its checkpoint folder, and the windows that it decides."""

    version: str
    path: Path
    decides_after_us: int
    """It decides windows that end after this event time."""
    notes: tuple[str, ...] = ()
    """Sensors that it does not take as they are, and the reason for its windows, if it was trained for this replay."""
    length: int | None = None
    """Length of its windows, if the training chose it."""
    pruned_at: datetime | None = None
    """Time of the removal of its checkpoint. None = it is kept."""


# ---------------------------------------------------------------- trained for this replay


def train_on_head(
    config: Config,
    fleet: FleetConfig,
    head: Recording,
    checkpoints: Path,
    on_progress: Callable[[float | None, str], None],
) -> ReplayVersion:
    """Train on the head of a recording, with the daemon's own path from records to windows to a detector.

    Raises NotEnoughData, TrainingDiverged.
    """
    history = History(config, fleet, fleet.sensors)
    # One partition per asset, as in the replay.
    for number, one in enumerate(head.per_asset()):
        for batch in as_records(one, partition=Partition(head.name, number)):
            history.add(batch)
    chosen = history.choose_length(None)
    reason = "" if chosen is None else chosen.reason
    torch.set_num_threads(1)
    detector = fit(
        history.windows(),
        ModelSpec.of(fleet),
        replace(FleetSpec.of(fleet, history.sensors, config.fields_of(fleet)), window_reason=reason),
        device=config.device,
        on_progress=lambda share, text: on_progress(share, f"learning {head.name}: {text}"),
    )
    name = detector.save(checkpoints)
    newest_us = int(head.ts_us.max())
    decides_after_us = ((newest_us + fleet.interval_us // 2) // fleet.interval_us + 1) * fleet.interval_us
    notes = tuple(detector.card.training["inputs"])
    if chosen is not None:
        notes = (*notes, f"windows of {chosen.cells} cells: {chosen.reason}")
    return ReplayVersion(name, checkpoints / name, decides_after_us, notes, history.fleet.length)


# ---------------------------------------------------------------- activation


async def activate_version(
    store: AsyncStore, scorer: DetectorScorer, version: ReplayVersion, fleet: str, *, is_readable: bool = True
) -> None:
    """Publish and activate a version in the replay's database and scorer. Raises CheckpointDamaged.

    `is_readable`: whether it can score. Otherwise its windows stay unscored.
    """
    detector, card = None, dict[str, Any]()
    if is_readable:
        detector = await _load(scorer, version)
        card = json.loads((version.path / "card.json").read_text(encoding="utf-8"))
    await store.run(
        stored_versions.publish,
        version=version.version,
        fleet=fleet,
        path=str(version.path),
        trained_us=0,
        card=card,
        metrics=card.get("metrics", {}),
    )
    active = await store.run(stored_versions.activate, fleet, version.version, version.decides_after_us)
    scorer.activate(fleet, ActiveVersion(active.from_window_end_us, version.version, version.path), detector)


async def load_for_side(scorer: DetectorScorer, version: ReplayVersion, fleet: str) -> None:
    """Activate a version in the scorer of a side without a database. Raises CheckpointDamaged."""
    detector = await _load(scorer, version)
    scorer.activate(fleet, ActiveVersion(version.decides_after_us, version.version, version.path), detector)


async def _load(scorer: DetectorScorer, version: ReplayVersion) -> TrainedModel:
    if version.pruned_at is not None:
        raise NotFound(
            f"the checkpoint of {version.version}: it was pruned at {version.pruned_at:%Y-%m-%d %H:%M} UTC. Replay a"
            " later time, or name the version that decides with --version"
        )
    return await scorer.load(version.path, version.version)


# ---------------------------------------------------------------- the live registry


async def has_versions(config: Config) -> bool:
    """Return whether the configured database exists and has an active version of any fleet."""
    try:
        async with AsyncStore(config.store.url) as live:
            return any([await live.read(stored_versions.activations, fleet.name) for fleet in config.fleets])
    except NotFound:
        return False


async def with_deciding_lengths(config: Config, version: str | None = None) -> Config:
    """Return the configuration with windows for the version that decides, where `window = "auto"`.

    `version`: see `versions_by_fleet`. As live, they are those of today's champions: what versions with other windows
    decided stays unscored.
    """
    if all(fleet.window is not None for fleet in config.fleets):
        return config
    try:
        async with AsyncStore(config.store.url) as live:
            return config.with_lengths(await live.read(stored_versions.window_lengths, version))
    except NotFound:
        return config


async def versions_by_fleet(config: Config, version: str | None = None) -> dict[str, list[ReplayVersion]]:
    """Read the versions that decide each fleet's windows from the live database, earliest boundary first.

    With `version`, that version decides all windows of its fleet. `champion` stands for today's champion of each fleet.
    None = as live.

    Raises NotFound for a version of none of these fleets.
    """
    found: dict[str, list[ReplayVersion]] = {}
    async with AsyncStore(config.store.url) as live:
        is_known = version in (None, CHAMPION)
        for fleet in config.fleets:
            listed = {each.version: each for each in await live.read(stored_versions.list_all, fleet.name)}
            active = await live.read(stored_versions.activations, fleet.name)
            name = active[-1].version if active and version == CHAMPION else version
            if name in listed:
                found[fleet.name], is_known = [_replay_version(listed[name], FOREVER_AGO_US)], True
            else:
                found[fleet.name] = [_replay_version(listed[each.version], each.from_window_end_us) for each in active]
    if not is_known:
        raise NotFound(f"version {version}; `monitor models list` shows those there are")
    return found


def _replay_version(stored: VersionInfo, decides_after_us: int) -> ReplayVersion:
    return ReplayVersion(stored.version, Path(stored.path), decides_after_us, pruned_at=stored.pruned_at)


def versions_in_range(versions: Sequence[ReplayVersion], after_us: int, to_us: int) -> list[ReplayVersion]:
    """Keep the versions that decide a window ending in (after_us, to_us].

    The first of them then decides from the beginning: earlier boundaries do not matter to these windows.
    """
    ends = [*(each.decides_after_us for each in versions[1:]), LAST_US]
    return [
        replace(each, decides_after_us=FOREVER_AGO_US if each.decides_after_us <= after_us else each.decides_after_us)
        for each, until_us in zip(versions, ends, strict=False)
        if each.decides_after_us < to_us and until_us > after_us
    ]


@dataclass(frozen=True, slots=True)
class UnreadableVersion:
    """A version that decided live and that this release cannot load. Nothing can be said about its windows."""

    fleet: str
    version: str
    after_us: int
    to_us: int
    """It decided windows that end in (after_us, to_us]."""
    reason: str


async def unreadable_versions(config: Config) -> list[UnreadableVersion]:
    """Return the versions of the live registry with a pruned or damaged checkpoint, or one of another format.

    Raises CheckpointUnavailable where files are missing: they may come back.
    """
    found = []
    versions_of = await versions_by_fleet(config) if await has_versions(config) else {}
    with closing(DetectorScorer("cpu")) as scorer:
        for fleet, versions in versions_of.items():
            ends = [*(each.decides_after_us for each in versions[1:]), LAST_US]
            for each, to_us in zip(versions, ends, strict=True):
                try:
                    await _load(scorer, each)
                except (CheckpointDamaged, NotFound) as error:
                    reason = error.detail or str(error)
                    found.append(UnreadableVersion(fleet, each.version, each.decides_after_us, to_us, reason))
    return found


@dataclass(frozen=True, slots=True)
class RegistryCopy:
    """The part of the live registry that a replay needs."""

    version: str | None
    """See `versions_by_fleet`."""
    has_partitions: bool
    """Copy the assets with their partitions, too. A recording has none: there the replay assigns partitions itself."""
    after_us: int = FIRST_US
    to_us: int = LAST_US
    """Versions that decide windows ending in (after_us, to_us] are copied."""
    unreadable: Sequence[UnreadableVersion] = ()
    """Their windows stay unscored. A version that is not among them and cannot be loaded ends the replay."""


async def copy_live_registry(config: Config, store: AsyncStore, scorer: DetectorScorer, wanted: RegistryCopy) -> None:
    """Copy the deciding versions, the fleets' sensors and the assets from the live database into the replay's.

    Raises NoChampion where the live database has no version, NotFound, CheckpointDamaged.
    """
    async with AsyncStore(config.store.url) as live:
        sensors_by_fleet = await live.read(assets.fleets)
    for fleet in config.fleets:
        if sensors := sensors_by_fleet.get(fleet.name):
            await store.run(assets.register_sensors, fleet.name, sensors)
    found = await versions_by_fleet(config, wanted.version)
    if not any(found.values()):
        raise NoChampion(
            f"{config.store.shown_url} has no version yet; start the daemon, or name files and --train-rows"
        )
    unreadable = {each.version: each.reason for each in wanted.unreadable}
    for fleet_name, versions in found.items():
        for each in versions_in_range(versions, wanted.after_us, wanted.to_us):
            if reason := unreadable.get(each.version):
                scorer.leave_out(each.version, CheckpointDamaged(reason))
            await activate_version(store, scorer, each, fleet_name, is_readable=reason is None)
    if wanted.has_partitions:
        by_partition = await asyncio.to_thread(_assets_by_partition, config.store.url)
        for (fleet_name, partition), names in by_partition.items():
            await store.run(assets.register, fleet_name, names, partition)


def _assets_by_partition(url: str) -> dict[tuple[str, Partition], list[str]]:
    """Read the asset names of each fleet and partition."""
    found: dict[tuple[str, Partition], list[str]] = {}
    with open_reader(url) as reader:
        for row in reader.assets():
            found.setdefault((row["fleet"], Partition(row["topic"], row["partition"])), []).append(row["asset"])
    return found
