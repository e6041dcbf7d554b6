from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.config import parse
from monitor.errors import NotFound
from monitor.models.spec import ModelSpec
from monitor.models.terms import SensorKnob
from monitor.replay.versions import (
    CHAMPION,
    RegistryCopy,
    ReplayVersion,
    copy_live_registry,
    versions_by_fleet,
    versions_in_range,
    with_deciding_lengths,
)
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import DetectorScorer
from monitor.training.fit import fit
from monitor.types import Windows
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, MINUTE_US, SENSORS, readings, windows

if TYPE_CHECKING:
    from monitor.config import Config


async def _config(folder: Path, window: int | str = 64) -> Config:
    """Two fleets with a candidate each. The champion of pumps changes at 500, fans have had only one champion."""
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["plant"]},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [
                {"name": name, "interval": "1m", "sensors": ["power"], "assets": [f"{name}-*"], "window": window}
                for name in ("pumps", "fans")
            ],
        }
    )
    async with AsyncStore(config.store.url, owner=True) as store:
        for version in ("pumps-1", "pumps-2", "pumps-new", "fans-1", "fans-new"):
            (folder / version).mkdir()
            facts = {"fleet": version.partition("-")[0], "path": str(folder / version), "card": {}, "metrics": {}}
            await store.run(versions.publish, version=version, trained_us=0, **facts)
        await store.run(versions.activate, "pumps", "pumps-1", FOREVER_AGO_US)
        await store.run(versions.activate, "pumps", "pumps-2", 500)
        await store.run(versions.activate, "fans", "fans-1", FOREVER_AGO_US)
    return config


async def test_the_deciding_version_has_its_windows(tmp_path: Path) -> None:
    config = await _config(tmp_path, window="auto")
    async with AsyncStore(config.store.url, owner=True) as store:
        for version, length in (("long", 144), ("longer", 200)):
            facts = {"fleet": "pumps", "path": "p", "card": {"length": length}, "metrics": {}, "trained_us": 0}
            await store.run(versions.publish, version=version, **facts)
        await store.run(versions.activate, "pumps", "long", 600)
    for version, length in ((None, 144), (CHAMPION, 144), ("longer", 200), ("pumps-1", 144)):
        made = await with_deciding_lengths(config, version)
        assert [fleet.length for fleet in made.fleets] == [length, 64]


async def test_a_named_version_decides_its_fleet(tmp_path: Path) -> None:
    config = await _config(tmp_path)

    def version(name: str, after_us: int = FOREVER_AGO_US) -> ReplayVersion:
        return ReplayVersion(name, tmp_path / name, after_us)

    live = {"pumps": [version("pumps-1"), version("pumps-2", 500)], "fans": [version("fans-1")]}
    assert await versions_by_fleet(config) == live
    assert await versions_by_fleet(config, CHAMPION) == live | {"pumps": [version("pumps-2")]}
    assert await versions_by_fleet(config, "fans-new") == live | {"fans": [version("fans-new")]}
    with pytest.raises(NotFound, match="version nobody; `monitor models list`"):
        await versions_by_fleet(config, "nobody")


@pytest.mark.parametrize(
    ("after_us", "to_us", "expected"),
    [
        (-6, 5, [("a", -5)]),
        (-5, 5, [("a", FOREVER_AGO_US)]),
        (0, 100, [("a", FOREVER_AGO_US)]),
        (99, 101, [("a", FOREVER_AGO_US), ("b", 100)]),
        (100, 150, [("b", FOREVER_AGO_US)]),
        (150, 1000, [("b", FOREVER_AGO_US), ("c", 200)]),
        (200, 1000, [("c", FOREVER_AGO_US)]),
        (-50, -10, []),
    ],
)
def test_only_versions_in_range_are_kept(
    after_us: int, to_us: int, expected: list[tuple[str, int]]
) -> None:
    versions = [ReplayVersion(name, Path(name), from_us) for name, from_us in (("a", -5), ("b", 100), ("c", 200))]
    found = versions_in_range(versions, after_us, to_us)
    assert [(each.version, each.decides_after_us) for each in found] == expected


async def test_a_replay_over_a_derived_version_scores_as_live(tmp_path: Path) -> None:
    """Before the boundary with the trained version, after it with the derived one and its knobs."""
    model = fit(windows(readings(400)), ModelSpec("pca"), FLEET_SPEC)
    wanted = replace(model.terms, alarms_per_week=2.0, knobs={"power": SensorKnob("up")})
    derived = model.derive(wanted)
    fleet = {"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": list(SENSORS)}
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "store": {"url": f"sqlite:///{tmp_path}/live.db"},
            "fleet": [fleet],
        }
    )
    boundary_us = 50 * MINUTE_US
    async with AsyncStore(config.store.url, owner=True) as live:
        for each, after_us in ((model, FOREVER_AGO_US), (derived, boundary_us)):
            path = tmp_path / each.save(tmp_path)
            facts = {"fleet": "pumps", "path": str(path), "trained_us": 1, "card": {}, "metrics": {}}
            await live.run(versions.publish, version=path.name, **facts)
            await live.run(versions.activate, "pumps", path.name, after_us)
    fresh = windows(readings(120, 3) * 2)
    end_us = fresh.end_us
    zero = np.zeros(len(end_us), np.int64)
    cut = Windows("pumps", zero.astype(np.int32), zero, np.ascontiguousarray(fresh.values),
                  zero.astype(np.int32), zero, zero)  # fmt: skip
    expected = np.where(end_us > boundary_us, derived.score(cut.values).score, model.score(cut.values).score)
    async with AsyncStore(f"sqlite:///{tmp_path}/replay.db", owner=True) as store:
        with closing(DetectorScorer("cpu")) as scorer:
            await copy_live_registry(config, store, scorer, RegistryCopy(None, has_partitions=False))
            found = await scorer.score(cut, end_us, SENSORS)
    np.testing.assert_allclose(found.score, expected, rtol=1e-6)  # the last bit depends on the batch
    assert set(found.version) == {model.version, derived.version}
