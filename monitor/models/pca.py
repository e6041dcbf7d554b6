"""Principal components of whole windows: the baseline of every network.

Input: standardised windows (B, C, T). Output: their projection on the leading components, same shape.
Invariant: solved, not trained. It cannot diverge, so there is always a model to score with.

On public benchmarks it nearly ties with deep networks (TSB-AD, NeurIPS 2024). The components are found by
randomised subspace iteration (Halko, Martinsson and Tropp 2011).
"""

from __future__ import annotations

import torch

from monitor.models.network import Network

EXPLAINED = 0.9
MAX_COMPONENTS = 256
MIN_OF_MAX = 64
MAX_PRODUCT = 1 << 18
"""Limit of components × values of a window, but `MIN_OF_MAX` components are always allowed. Two products of this size
cost 8 µs a window. With too few components, relations of many sensors lie in the part that is not explained: some
recordings need 145 for nine tenths of the variance."""
N_ITERATIONS = 6
N_SOLVE = 8192
"""Windows that it is solved on, evenly spaced. More are not needed."""
WINDOWS_PER_COMPONENT = 4
"""With fewer, the last components describe chance in a short history."""


class Pca(Network):
    """Mean window and orthonormal components."""

    mean: torch.Tensor
    components: torch.Tensor
    spread: torch.Tensor
    """Standard deviation of each number of the latent over the windows it was solved on, (k,)."""

    def __init__(self, n_sensors: int, length: int, *, n_components: int = 1) -> None:
        super().__init__()
        size = n_sensors * length
        self.hyper = {"n_components": n_components}
        self.register_buffer("mean", torch.zeros(size))
        # The first unit vectors until it is solved, so that a new one is a projection too.
        self.register_buffer("components", torch.eye(n_components, size))
        self.register_buffer("spread", torch.ones(n_components))

    @classmethod
    def solve(
        cls, x: torch.Tensor, *, seed: int = 0, explained: float = EXPLAINED, n_max: int | None = None
    ) -> Pca:
        """Find the first components of (N, C, T) that explain a share of its variance, at most CT/4 and `n_max`.

        `n_max`: None = as many as are affordable.
        """
        n, n_sensors, length = x.shape
        flat = x.flatten(1)                                                # (N, CT)
        mean = flat.mean(0)
        flat = flat - mean
        total = float(flat.square().sum())
        if n_max is None:
            n_max = min(MAX_COMPONENTS, max(MIN_OF_MAX, MAX_PRODUCT // flat.shape[1]))
        k = max(1, min(n_max, n // WINDOWS_PER_COMPONENT, flat.shape[1] // 4))
        components, singular = principal_axes(flat, k, seed=seed)          # (k, CT), (k,)
        if total > 0:
            reached = torch.cumsum(singular.square(), 0) / total           # (k,)
            k = min(k, int((reached < explained).sum()) + 1)
        pca = cls(n_sensors, length, n_components=k)
        pca.mean.copy_(mean)
        pca.components.copy_(components[:k])
        pca.spread.copy_(singular[:k] / n**0.5)
        return pca.to(x.device)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) - self.mean) @ self.components.T              # (B, k)

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        flat = z @ self.components + self.mean                            # (B, CT)
        return flat.reshape(len(z), len(self.mean) // length, length)     # (B, C, T)

    def sample_latent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` latents of independent normal numbers, each with the spread of its component."""
        return torch.randn(n, len(self.spread), generator=generator).to(self.spread.device) * self.spread


def principal_axes(
    centred: torch.Tensor, k: int, *, seed: int, n_iterations: int = N_ITERATIONS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `k` leading axes (k, values) of centred rows (N, values), and their singular values (k,)."""
    size = centred.shape[1]
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(size, min(k + 8, size), generator=generator).to(centred.device)     # (values, k + 8)
    for _ in range(n_iterations):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q                            # (values, k + 8)
    _, singular, rotation = torch.linalg.svd(centred @ basis, full_matrices=False)
    return (basis @ rotation.T).T[:k], singular[:k]
