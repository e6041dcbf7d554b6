"""Table of the architectures.

Input: a name and the window's shape. Output: an untrained network.
Invariant: an architecture is one file that reads top to bottom. A new one adds a line here and its name to
`monitor.config.tree.ARCHITECTURES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.errors import ConfigError
from monitor.models.autoregression import Autoregression
from monitor.models.conv import Conv
from monitor.models.cross import Cross
from monitor.models.dense import Dense
from monitor.models.forecast import Forecast
from monitor.models.lstm import Lstm
from monitor.models.memory import Memory
from monitor.models.network import Autoencoder
from monitor.models.pca import Pca
from monitor.models.shape import Shape
from monitor.models.short_memory import ShortMemory
from monitor.models.spec import refuse_unknown
from monitor.models.statistics import HealthyMedian, MovingMean
from monitor.models.variational import Variational

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network

NETWORKS: dict[str, Callable[..., Network]] = {
    "conv": Conv,
    "dense": Dense,
    "forecast": Forecast,
    "lstm": Lstm,
    "pca": Pca,
}
STATISTICS: dict[str, Callable[..., Network]] = {"level": HealthyMedian, "moving": MovingMean}
"""Members of an ensemble that learn nothing. See `statistics`."""
SOLVED: dict[str, Callable[..., Network]] = {
    "autoregression": Autoregression,
    "cross": Cross,
    "memory": Memory,
    "shape": Shape,
    "short_memory": ShortMemory,
}
"""Members of an ensemble that are solved in closed form."""
ONLY_MEMBERS = {**STATISTICS, **SOLVED}
"""Members of an ensemble that an operator cannot choose alone."""


def build(architecture: str, n_sensors: int, length: int, *, draws: int = 0, **hyper: int) -> Network:
    """Build an untrained network, a variational one if `draws` > 0. Raises ConfigError for an unknown name."""
    if architecture in ONLY_MEMBERS:
        return ONLY_MEMBERS[architecture](n_sensors, length, **hyper)
    refuse_unknown("architecture", architecture, tuple(NETWORKS))
    network = NETWORKS[architecture](n_sensors, length, **hyper)
    if not draws:
        return network
    if not isinstance(network, Autoencoder):
        raise ConfigError(f"{architecture} has no code that learns, it cannot be variational")
    return Variational(network, draws)
