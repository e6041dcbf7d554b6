"""What every architecture is: a reconstruction in two halves.

In: standardised windows (B, C, T). Out: their reconstruction, same shape.
Law: everything between the halves is the code, so that an objective may ask something of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch


class Network(nn.Module):
    """One architecture; built from the window's shape and its own few numbers, `hyper`."""

    hyper: dict[str, int]
    """Keyword arguments that build the same network again; kept in the card."""

    if TYPE_CHECKING:
        # torch declares that calling a module may return anything.
        def __call__(self, x: torch.Tensor) -> torch.Tensor: ...  # noqa: D102 — the same as `forward`

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, T) into a code; the first axis is B, the rest is the architecture's own."""
        raise NotImplementedError

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Turn a code back into (B, C, T), T = length."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of (B, C, T)."""
        return self.decode(self.encode(x), x.shape[-1])
