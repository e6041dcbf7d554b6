"""Which version decides which window; and what the registry lets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.errors import CheckpointDamaged
from monitor.lifecycle.registry import Activation, Registry, version_at
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FLEET = "turbines"


@pytest.mark.parametrize(("end_us", "version"), [(99, None), (100, None), (101, "a"), (200, "a"), (201, "b")])
def test_a_version_decides_windows_that_end_after_its_boundary(end_us: int, version: str | None) -> None:
    assert version_at([Activation(100, "a"), Activation(200, "b")], end_us) == version


def test_nobody_decides_before_the_first_training() -> None:
    assert version_at([], 100) is None


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with AsyncStore(f"sqlite:///{tmp_path / 'monitor.db'}", owner=True) as store:
        yield Registry(store)
        assert store.n_checked_out == 0


async def publish(registry: Registry, folder: Path, version: str) -> None:
    (folder / version).mkdir()
    await registry.publish(version=version, fleet=FLEET, path=folder / version, trained_us=1, card={}, metrics={})


async def test_a_version_is_published_then_activated_then_retired(registry: Registry, tmp_path: Path) -> None:
    for version, boundary in (("a", 100), ("b", 200)):
        await publish(registry, tmp_path, version)
        await registry.activate(FLEET, version, boundary)
    activations = await registry.activations(FLEET)
    assert version_at(activations, 150) == "a"
    champion = await registry.champion(FLEET)
    assert champion is not None
    assert (champion.version, champion.path) == ("b", str(tmp_path / "b"))
    assert {each.version: each.state for each in await registry.list(FLEET)} == {"a": "retired", "b": "champion"}
    assert (await registry.get("a")).state == "retired"


async def test_a_version_without_its_folder_is_not_let_in(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="not there"):
        await registry.publish(version="a", fleet=FLEET, path=tmp_path / "a", trained_us=1, card={}, metrics={})
    assert await registry.list() == []
