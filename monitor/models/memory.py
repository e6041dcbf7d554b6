"""Memory of healthy windows: each window is expected to look like one that was seen before.

Input: standardised windows (B, C, T). Output: the nearest remembered windows, their mean, same shape.
Invariant: solved, not trained, and the same rows give the same memory. The nearest ones are searched in the leading
principal axes alone, the mean of all their cells is returned.

An odd cycle of a long repeating signal is close to no healthy one, though each of its values is usual. Distances to
healthy windows lead recent comparisons (PaAno, ICLR 2026; the matrix profile, Yeh et al., ICDM 2016). To remember each
window costs too much, so some thousand are kept as the means of clusters (k-means, Lloyd 1982).
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from monitor.models.network import Network
from monitor.models.pca import principal_axes
from monitor.models.rows import evenly_spaced

MAX_REMEMBERED = 1000
MAX_REMEMBERED_VALUES = 4_000_000
"""Values in a memory, 16 MB in the checkpoint: of many sensors, fewer windows are remembered."""
WINDOWS_PER_MEAN = 4
"""Windows of a cluster, on average. The mean of a few has less noise than each."""
N_SOLVE = 16_384
"""Windows that are clustered."""
N_AXES = 32
"""Principal axes of the search, at most one per cell. Twelve to 48 find about as much."""
N_SOLVE_AXES = 4096
N_AXIS_ITERATIONS = 2
N_LLOYD = 3
N_NEAREST = 4
SHARPNESS = 2.0
"""The nearest windows are weighted by exp(-2 d² / d₁²), d = the distance, d₁ the least one. Eight simulated odd cycles:
VUS-PR .47, the nearest alone .43, the mean of the nearest three of all healthy windows .48."""
ROUNDING = 1e-6
"""Relative error of a squared distance."""
MIN_ROWS = 4
"""Rows of a product, at least."""
NEWEST_SHARE = 0.25
"""Share of the windows taken from the newest quarter of the time, beside those of all times."""


class Memory(Network):
    """Remembered windows and their coordinates on the principal axes."""

    windows: torch.Tensor
    """(K, C · T)"""
    axes: torch.Tensor
    """(C · T, D)"""
    keys: torch.Tensor
    """Coordinates of the remembered windows, (D, K)."""
    half_squares: torch.Tensor
    """Half of each squared length of the keys, (K,), negative: the key with the largest sum is the nearest."""
    ends_us: torch.Tensor
    """Event time of the end of the most typical window of each cluster, (K,), microseconds. 0 = not known."""

    def __init__(self, n_sensors: int, length: int, *, n_windows: int = 1, n_axes: int = 1, cells: int = 0) -> None:
        """`cells`: of cards before 30 November 2026, which name the length of the windows."""
        super().__init__()
        if cells not in (0, length):
            raise ValueError(f"cells {cells} of windows of {length} steps")
        self.hyper = {"n_windows": n_windows, "n_axes": n_axes}
        size = n_sensors * length
        self.register_buffer("windows", torch.zeros(n_windows, size))
        self.register_buffer("axes", torch.eye(size, n_axes))
        self.register_buffer("keys", torch.zeros(n_axes, n_windows))
        self.register_buffer("half_squares", torch.zeros(n_windows))
        self.register_buffer("ends_us", torch.zeros(n_windows, dtype=torch.int64))

    @classmethod
    def solve(
        cls,
        x: torch.Tensor,
        ends_us: torch.Tensor | None = None,
        *,
        seed: int = 0,
        n_max: int = MAX_REMEMBERED,
    ) -> Self:
        """Remember healthy windows (N, C, T). `ends_us` (N,): event times, favours the newest. None = all alike."""
        rows = chosen_rows(len(x), ends_us).to(x.device)
        ends_us = None if ends_us is None else ends_us.to(x.device)[rows]
        return cls.solve_on(x[rows], ends_us, seed=seed, n_max=n_max)

    @classmethod
    def solve_on(cls, x: torch.Tensor, ends_us: torch.Tensor | None, *, seed: int, n_max: int) -> Self:
        """Remember windows (N, C, T) that `chosen_rows` chose."""
        n, n_sensors, length = x.shape
        flat = x.flatten(1)                                                  # (N, C · T)
        size = flat.shape[1]
        axes = _axes(flat, min(N_AXES, length), seed)                        # (C · T, D)
        points = flat @ axes                                                 # (N, D)
        cluster = _cluster(points, max(1, min(n_max, n // WINDOWS_PER_MEAN, MAX_REMEMBERED_VALUES // size)))   # (N,)
        used, cluster = torch.unique(cluster, return_inverse=True)
        memory = cls(n_sensors, length, n_windows=len(used), n_axes=axes.shape[1]).to(x.device)
        memory.windows.copy_(_means(flat, cluster, len(used)))
        memory.axes.copy_(axes)
        keys = memory.windows @ axes                                         # (K, D)
        memory.keys.copy_(keys.T)
        memory.half_squares.copy_(keys.square().sum(1) / -2)
        if ends_us is not None:
            distance = (points - keys[cluster]).square().sum(1)              # (N,)
            memory.ends_us.copy_(ends_us[_nearest_rows(cluster, distance)])
        return memory

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """Return the number (B,) of the remembered window nearest to each of (B, C, T). `ends_us` has its time."""
        return self._search(x)[0][:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the nearest remembered windows."""
        found, distance = self._search(x)                                    # (B, k), (B, k)
        weight = torch.softmax(-SHARPNESS * distance / distance[:, :1], 1)
        mean = F.embedding_bag(found, self.windows, per_sample_weights=weight, mode="sum")   # (B, C · T)
        return mean.reshape(x.shape)

    def _search(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers (B, k) of the nearest windows, the nearest first, and their squared distances (B, k)."""
        flat = x.flatten(1)                                                  # (B, C · T)
        # A product of one or two rows rounds otherwise, which decides between two windows that are as near.
        flat = F.pad(flat, (0, 0, 0, max(0, MIN_ROWS - len(x))))
        points = flat @ self.axes                                            # (B, D)
        value, found = _largest(torch.addmm(self.half_squares, points, self.keys), N_NEAREST)
        squares = points.square().sum(1, keepdim=True)                       # (B, 1)
        distance = torch.maximum(squares - 2 * value, ROUNDING * squares + torch.finfo(x.dtype).tiny)
        return found[: len(x)], distance[: len(x)]


def chosen_rows(n: int, ends_us: torch.Tensor | None) -> torch.Tensor:
    """Return the rows to cluster, in the order of their times, those of the newest quarter about twice as dense."""
    if ends_us is None:
        return evenly_spaced(n, N_SOLVE)
    order = ends_us.cpu().argsort(stable=True)
    n_newest = int(NEWEST_SHARE * min(n, N_SOLVE))
    newest = order[n - n // 4 :]
    return torch.cat([order[evenly_spaced(n, N_SOLVE - n_newest)], newest[evenly_spaced(len(newest), n_newest)]])


def _axes(flat: torch.Tensor, n_axes: int, seed: int) -> torch.Tensor:
    """Return the principal axes (values, D) of the search, all unit vectors where the windows have few values."""
    if n_axes == flat.shape[1]:
        return torch.eye(n_axes, device=flat.device)
    some = flat[evenly_spaced(len(flat), N_SOLVE_AXES).to(flat.device)]
    axes, _ = principal_axes(some - some.mean(0), n_axes, seed=seed, n_iterations=N_AXIS_ITERATIONS)
    return axes.T


def _cluster(points: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """Return the number of the cluster (N,) of each point (N, D): k-means that starts from evenly spaced points."""
    keys = points[evenly_spaced(len(points), n_clusters).to(points.device)]  # (K, D)
    for _ in range(N_LLOYD):
        cluster = _nearest_key(points, keys)
        n_in = torch.bincount(cluster, minlength=len(keys))
        keys = torch.where(n_in[:, None] > 0, _means(points, cluster, len(keys)), keys)
    return _nearest_key(points, keys)


def _nearest_key(points: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    half_squares = keys.square().sum(1) / -2
    parts = torch.split(points, 1024)
    return torch.cat([_largest(torch.addmm(half_squares, part, keys.T), 1)[1][:, 0] for part in parts])


def _largest(rows: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `n` largest values (B, n) of each row (B, K), and their columns. The rows are overwritten."""
    n = min(n, rows.shape[1])
    if rows.device.type != "cpu":
        return rows.topk(n, dim=1)
    # NumPy's argmax is eight times as fast as PyTorch's: .13 and .93 µs a window for K = 1,000.
    table, each = rows.detach().numpy(), np.arange(len(rows))
    value, column = np.empty((len(rows), n), table.dtype), np.empty((len(rows), n), np.int64)
    for rank in range(n):
        column[:, rank] = table.argmax(1)
        value[:, rank] = table[each, column[:, rank]]
        table[each, column[:, rank]] = -np.inf
    return torch.from_numpy(value), torch.from_numpy(column)


def _means(rows: torch.Tensor, cluster: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """Return the mean (K, values) of the rows of each cluster, 0 where there are none."""
    total = torch.zeros(n_clusters, rows.shape[1], device=rows.device).index_add_(0, cluster, rows)
    return total / torch.bincount(cluster, minlength=n_clusters).clamp(min=1)[:, None]


def _nearest_rows(cluster: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """Return the row (K,) with the least distance in each cluster. No cluster is empty."""
    order = np.lexsort((distance.cpu().numpy(), cluster.cpu().numpy()))
    _, first = np.unique(cluster.cpu().numpy()[order], return_index=True)
    return torch.from_numpy(order[first]).to(cluster.device)
