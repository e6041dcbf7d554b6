from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.errors import NotFound
from monitor.evaluation.versions import CHAMPION, Version, deciders
from monitor.registry import Registry
from monitor.store.engine import AsyncStore
from monitor.store.versions import FOREVER_AGO_US

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.config import Config


async def _config(folder: Path) -> Config:
    """Two fleets: pumps changed hands at 500, fans have one champion; each has a candidate."""
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
        registry = Registry(store)
        for version in ("pumps-1", "pumps-2", "pumps-new", "fans-1", "fans-new"):
            (folder / version).mkdir()
            fleet, path = version.partition("-")[0], folder / version
            await registry.publish(version=version, fleet=fleet, path=path, trained_us=0, card={}, metrics={})
        await registry.activate("pumps", "pumps-1", FOREVER_AGO_US)
        await registry.activate("pumps", "pumps-2", 500)
        await registry.activate("fans", "fans-1", FOREVER_AGO_US)
    return config


async def test_a_named_version_decides_its_fleet_and_the_others_are_decided_as_live(tmp_path: Path) -> None:
    config = await _config(tmp_path)

    def version(name: str, after_us: int = FOREVER_AGO_US) -> Version:
        return Version(name, tmp_path / name, after_us)

    live = {"pumps": [version("pumps-1"), version("pumps-2", 500)], "fans": [version("fans-1")]}
    assert await deciders(config) == live
    assert await deciders(config, CHAMPION) == live | {"pumps": [version("pumps-2")]}
    assert await deciders(config, "fans-new") == live | {"fans": [version("fans-new")]}
    with pytest.raises(NotFound, match="version nobody; `monitor models list`"):
        await deciders(config, "nobody")
