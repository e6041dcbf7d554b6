"""Which model version decides what. Checkpoint folders enter by name, versions leave by name.

    registry = Registry(store)
    await registry.publish(version=…, fleet="turbines", path=…, trained_us=…, card=…, metrics=…)
    await registry.activate("turbines", version, from_window_end_us=…)
    version_at(await registry.activations("turbines"), window_end_us)

Law: a version is published before it is activated, and decides from an event-time boundary on, never "from now on":
so a replay picks the version that decided live. Weights are none of its business (no torch): it hands out folders.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from monitor.errors import CheckpointDamaged
from monitor.store import versions
from monitor.store.versions import Activation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from monitor.store.engine import AsyncStore
    from monitor.types import VersionInfo

__all__ = ["Activation", "Registry", "version_at"]


class Registry:
    """The versions of one database."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def publish(
        self,
        *,
        version: str,
        fleet: str,
        path: Path,
        trained_us: int,
        card: Mapping[str, Any],
        metrics: Mapping[str, float],
    ) -> VersionInfo:
        """Enter a version whose folder is complete on disk; it is a candidate until it is activated.

        Publishing it again changes nothing. Raises CheckpointDamaged when there is no such folder.
        """
        if not _is_folder(path):
            raise CheckpointDamaged(f"{path} is not there")
        return await self._store.run(
            versions.publish,
            version=version,
            fleet=fleet,
            path=str(path),
            trained_us=trained_us,
            card=card,
            metrics=metrics,
        )

    async def activate(self, fleet: str, version: str, from_window_end_us: int) -> Activation:
        """Make a version the champion for windows that end after the boundary; return the boundary that holds.

        It is moved to the last activation's if it lies before that one: decided windows stay decided.
        """
        return await self._store.run(versions.activate, fleet, version, from_window_end_us)

    async def champion(self, fleet: str) -> VersionInfo | None:
        """Return the version activated last; None before the first."""
        return await self._store.read(versions.champion, fleet)

    async def activations(self, fleet: str) -> list[Activation]:
        """Return who decides from when, earliest boundary first."""
        return await self._store.read(versions.activations, fleet)

    async def get(self, version: str) -> VersionInfo:
        """Return one version. Raises NotFound."""
        return await self._store.read(versions.get, version)

    async def list(self, fleet: str | None = None) -> list[VersionInfo]:
        """Return all versions, newest first."""
        return await self._store.read(versions.every, fleet)


def version_at(activations: Sequence[Activation], window_end_us: int) -> str | None:
    """Return the version that decides a window that ends at `window_end_us`; None = before the first.

    >>> version_at([Activation(0, "a"), Activation(100, "b")], 100)
    'a'
    """
    place = bisect.bisect_left(activations, window_end_us, key=lambda activation: activation.from_window_end_us)
    return activations[place - 1].version if place else None


def _is_folder(path: Path) -> bool:
    return path.is_dir()
