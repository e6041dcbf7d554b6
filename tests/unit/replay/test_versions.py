from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.errors import NotFound
from monitor.replay.versions import CHAMPION, ReplayVersion, versions_by_fleet, versions_in_range
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.store.versions import FOREVER_AGO_US

if TYPE_CHECKING:
    from monitor.config import Config


async def _config(folder: Path) -> Config:
    """Two fleets with a candidate each. The champion of pumps changes at 500, fans have had only one champion."""
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["plant"]},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [
                {"name": name, "interval": "1m", "sensors": ["power"], "assets": [f"{name}-*"]}
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
