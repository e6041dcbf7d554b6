"""The one table of architectures.

In: a name and the window's shape. Out: an untrained network.
Law: an architecture is one file that reads top to bottom; a new one adds a line here and its name in `spec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.models.conv import Conv
from monitor.models.lstm import Lstm
from monitor.models.pca import Pca
from monitor.models.spec import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network

NETWORKS: dict[str, Callable[..., Network]] = {"conv": Conv, "lstm": Lstm, "pca": Pca}


def build(architecture: str, n_sensors: int, length: int, **hyper: int) -> Network:
    """Build an untrained network. Raises ConfigError for an unknown name."""
    refuse_unknown("architecture", architecture, tuple(NETWORKS))
    return NETWORKS[architecture](n_sensors, length, **hyper)
