"""What every architecture is: a reconstruction, and most of them one in two halves.

In: standardised windows (B, C, T). Out: their reconstruction, same shape.
Law: everything between the halves is the code, so that an objective may ask something of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn


class Network(nn.Module):
    """One architecture; built from the window's shape and its own few numbers, `hyper`."""

    hyper: dict[str, int]
    """Keyword arguments that build the same network again; kept in the card."""
    half_life: float = 0.125
    """Of the slow time scale of its errors, as a share of the window: a drift stands out after about as long, and is
    forgotten as soon. (The fast scale is the newest cell alone: a spike is seen in the window that it ends.)"""
    n_blind: int = 0
    """First cells of a window it has no opinion about: they count in no error."""

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

    def draw_codes(self, n: int, draw: torch.Generator) -> torch.Tensor:
        """Return `n` codes as healthy windows have them."""
        raise NotImplementedError

    def squared_error(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return how far (B, C, T) the reconstruction of `x` is from `target`, squared; 0 in blind cells."""
        return (self(x) - target).square()


class Autoencoder(Network):
    """A network with a flat code between two linear layers, each with a straight path beside the architecture's own.

        window ─┬─ see ──┬─ to_code ─ code ─┬─ bend ──┬─ window
                └────────┘                  └─ plane ─┘

    The straight path alone is a linear autoencoder, and its best is known: the principal components. Learning starts
    there (`init_from_pca`), so the network is at least as good as they are and has only to learn what no plane can say.
    """

    code_mean: torch.Tensor
    code_root: torch.Tensor
    """Where healthy codes lie, and a root (code, code) of their covariance; a standard normal until it is measured."""

    def __init__(self, n_sensors: int, length: int, n_seen: int, code: int) -> None:
        super().__init__()
        self.n_cells = n_sensors * length
        self.to_code = nn.Linear(self.n_cells + n_seen, code)
        self.plane = nn.Linear(code, self.n_cells)
        self.register_buffer("code_mean", torch.zeros(code))
        self.register_buffer("code_root", torch.eye(code))

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the architecture notices in (B, C, T): (B, n_seen)."""
        raise NotImplementedError

    def bend(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return what the architecture adds to the plane: (B, C, T)."""
        raise NotImplementedError

    def last_layer(self) -> nn.Module:
        """Return the layer that writes what `bend` returns; zero until there is something to add."""
        raise NotImplementedError

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of what goes in and what comes back, the outermost first, to be trained one by one."""
        return []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return all that the code is made of."""
        return torch.cat([x.flatten(1), self.see(x)], 1)                 # (B, CT + n_seen)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code, one vector."""
        z: torch.Tensor = self.to_code(self.features(x))                 # (B, code)
        return z

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the window."""
        # Linear at the end: standardised values are not in [0, 1], a sigmoid here could not rebuild a spike.
        flat: torch.Tensor = self.plane(z)                               # (B, CT)
        straight = flat.reshape(len(z), self.n_cells // length, length)  # (B, C, T)
        return straight + self.bend(z, length)                           # (B, C, T)

    def draw_codes(self, n: int, draw: torch.Generator) -> torch.Tensor:
        """Return `n` codes of the normal distribution that healthy ones were last measured to have."""
        chance = torch.randn(n, len(self.code_mean), generator=draw).to(self.code_mean.device)
        return self.code_mean + chance @ self.code_root.T                # (n, code)

    @torch.no_grad()
    def measure_codes(self, x: torch.Tensor) -> None:
        """Take the codes of the windows `x` for healthy ones."""
        z = self.encode(x)                                               # (N, code)
        self.code_mean.copy_(z.mean(0))
        z = (z - self.code_mean).cpu().double()                          # not every device can take it apart
        sizes, axes = torch.linalg.eigh(z.T @ z / len(z))                # (code,), (code, code)
        self.code_root.copy_(axes * sizes.clamp(min=0).sqrt())

    @torch.no_grad()
    def init_from_pca(self, mean: torch.Tensor, components: torch.Tensor, spread: torch.Tensor) -> None:
        """Start as the principal components: mean (CT,), components (code, CT) and their spread (code,).

        Each component is scaled to unit spread. The initial latent is white, as a prior expects, and no component is
        learnt faster for being large.
        """
        scale = spread.clamp(min=1e-3)[:, None]                          # (code, 1)
        inward = components / scale                                      # (code, CT)
        self.to_code.weight.zero_()
        self.to_code.weight[:, : self.n_cells] = inward
        self.to_code.bias.copy_(-inward @ mean)
        self.plane.weight.copy_((components * scale).T)
        self.plane.bias.copy_(mean)
        for parameter in self.last_layer().parameters():
            parameter.zero_()


def code_size(n_sensors: int, length: int) -> int:
    """Return how many numbers a code has unless the data say otherwise: a sixteenth of the window, 64 at most.

    Training takes as many as the principal components that explain nine tenths (`recipe`). A wider code rebuilds more,
    and notices less of what sensors have to do with one another: with twice as many, a wind turbine that stood still
    in good wind was rebuilt as well as a healthy one.
    """
    return max(1, min(64, n_sensors * length // 16))
