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
N_SOLVE = 8192
"""Windows that are enough to solve it on, evenly spaced."""
WINDOWS_PER_COMPONENT = 4
"""With fewer, the last components are the accidents of a short history."""


class Pca(Network):
    """Mean window and orthonormal components."""

    mean: torch.Tensor
    components: torch.Tensor
    spread: torch.Tensor
    """Of the code's numbers over the windows it was solved on, (k,)."""

    def __init__(self, n_sensors: int, length: int, *, n_components: int = 1) -> None:
        super().__init__()
        size = n_sensors * length
        self.hyper = {"n_components": n_components}
        self.register_buffer("mean", torch.zeros(size))
        # Until it is solved: the first unit vectors, so that a fresh one is a projection too.
        self.register_buffer("components", torch.eye(n_components, size))
        self.register_buffer("spread", torch.ones(n_components))

    @classmethod
    def solve(
        cls, x: torch.Tensor, *, seed: int = 0, explained: float = EXPLAINED, n_max: int = MAX_COMPONENTS
    ) -> Pca:
        """Find the components of (N, C, T) that explain so much of its variance, a quarter of all at most."""
        n, n_sensors, length = x.shape
        flat = x.flatten(1)                                                # (N, CT)
        mean = flat.mean(0)
        flat = flat - mean
        total = float(flat.square().sum())
        k = max(1, min(n_max, n // WINDOWS_PER_COMPONENT, flat.shape[1] // 4))
        draw = torch.randn(flat.shape[1], min(k + 8, flat.shape[1]), generator=torch.Generator().manual_seed(seed))
        basis = draw.to(x.device)                                          # (CT, k+8)
        for _ in range(N_ITERATIONS):
            basis = torch.linalg.qr(flat.T @ (flat @ basis)).Q             # (CT, k+8)
        _, sizes, turn = torch.linalg.svd(flat @ basis, full_matrices=False)
        components = (basis @ turn.T).T[:k]                                # (k, CT)
        if total > 0:
            reached = torch.cumsum(sizes[:k].square(), 0) / total          # (k,)
            k = min(k, int((reached < explained).sum()) + 1)
        pca = cls(n_sensors, length, n_components=k)
        pca.mean.copy_(mean)
        pca.components.copy_(components[:k])
        pca.spread.copy_(sizes[:k] / n**0.5)
        return pca.to(x.device)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code, the place on each component."""
        return (x.flatten(1) - self.mean) @ self.components.T              # (B, k)

    def draw_codes(self, n: int, draw: torch.Generator) -> torch.Tensor:
        """Return `n` codes: independent numbers, each as wide as its component."""
        return torch.randn(n, len(self.spread), generator=draw).to(self.spread.device) * self.spread

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the window."""
        flat = z @ self.components + self.mean                            # (B, CT)
        return flat.reshape(len(z), len(self.mean) // length, length)     # (B, C, T)
