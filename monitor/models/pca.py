"""Principal components of whole windows: the baseline that every network has to earn its keep against.

In: standardised windows (B, C, T). Out: their projection on the leading components, same shape.
Law: solved, not trained; it cannot diverge, so there is always something to score with.

On public benchmarks it nearly ties with deep networks (TSB-AD, NeurIPS 2024). The components are found by
randomised subspace iteration (Halko, Martinsson and Tropp 2011).
"""

from __future__ import annotations

import torch

from monitor.models.network import Network

EXPLAINED = 0.9
MAX_COMPONENTS = 64
N_ITERATIONS = 6
WINDOWS_PER_COMPONENT = 4
"""With fewer, the last components are the accidents of a short history."""


class Pca(Network):
    """Mean window and orthonormal components."""

    mean: torch.Tensor
    components: torch.Tensor

    def __init__(self, n_sensors: int, length: int, *, n_components: int = 1) -> None:
        super().__init__()
        size = n_sensors * length
        self.hyper = {"n_components": n_components}
        self.register_buffer("mean", torch.zeros(size))
        # Until it is solved: the first unit vectors, so that a fresh one is a projection too.
        self.register_buffer("components", torch.eye(n_components, size))

    @classmethod
    def solve(cls, x: torch.Tensor, *, seed: int = 0) -> Pca:
        """Find the components of (N, C, T) that explain most of its variance, a quarter of all at most."""
        n, n_sensors, length = x.shape
        flat = x.flatten(1)                                                # (N, CT)
        mean = flat.mean(0)
        flat = flat - mean
        total = float(flat.square().sum())
        k = max(1, min(MAX_COMPONENTS, n // WINDOWS_PER_COMPONENT, flat.shape[1] // 4))
        draw = torch.randn(flat.shape[1], min(k + 8, flat.shape[1]), generator=torch.Generator().manual_seed(seed))
        basis = draw.to(x.device)                                          # (CT, k+8)
        for _ in range(N_ITERATIONS):
            basis = torch.linalg.qr(flat.T @ (flat @ basis)).Q             # (CT, k+8)
        _, sizes, turn = torch.linalg.svd(flat @ basis, full_matrices=False)
        components = (basis @ turn.T).T[:k]                                # (k, CT)
        if total > 0:
            reached = torch.cumsum(sizes[:k].square(), 0) / total          # (k,)
            k = min(k, int((reached < EXPLAINED).sum()) + 1)
        pca = cls(n_sensors, length, n_components=k)
        pca.mean.copy_(mean)
        pca.components.copy_(components[:k])
        return pca.to(x.device)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code, the place on each component."""
        return (x.flatten(1) - self.mean) @ self.components.T              # (B, k)

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the window."""
        return (z @ self.components + self.mean).reshape(len(z), -1, length)   # (B, C, T)
