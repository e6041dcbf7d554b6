"""Base classes of the architectures: a network that reconstructs windows, and the autoencoder.

Input: standardised windows (B, C, T). Output: their reconstruction, same shape.
Invariant: everything between encoder and decoder is the latent, so that an objective may constrain it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn


class Network(nn.Module):
    """One architecture. It is built from the window's shape and its own hyperparameters, `hyper`."""

    hyper: dict[str, int]
    """Keyword arguments that build the same network again. The card keeps them."""
    half_life: float = 0.125
    """Half-life of the time scale `latest` of the errors, as a share of the window: a drift stands out after about as
    long, and is forgotten as soon."""
    scales: tuple[str, ...] = ("newest", "latest", "whole")
    """Time scales at which its errors count (`residual.SCALES`)."""
    n_context: int | None = None
    """Steps before the newest one that its prediction is from. None = any of the window. It is set where the newest
    step alone is scored: then no other one is predicted."""
    n_unscored: int = 0
    """Number of first steps of a window that the network does not predict. They count in no error."""
    stored_names: ClassVar[dict[str, str]] = {}
    """Attribute → its name in `state_dict()`, where the two differ. A version is a digest of these names too: they are
    those of the first release, so that its checkpoints load and versions stay equal."""

    if TYPE_CHECKING:
        # torch declares that calling a module may return anything.
        def __call__(self, x: torch.Tensor) -> torch.Tensor: ...  # noqa: D102 — the same as `forward`

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_attributes_to_stored)  # type: ignore[no-untyped-call]  # as in torch
        self.register_load_state_dict_pre_hook(_stored_to_attributes)  # type: ignore[no-untyped-call]  # as in torch

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent of (B, C, T). Its first axis is B, the rest is the architecture's own."""
        raise NotImplementedError

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the reconstruction (B, C, T) from a latent, T = length."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of (B, C, T)."""
        return self.decode(self.encode(x), x.shape[-1])

    def sample_latent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` latents, distributed like those of healthy windows."""
        raise NotImplementedError

    def squared_error(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the squared error (B, C, T) of the reconstruction of `x` against `target`, 0 in unscored steps."""
        squared = (self(x) - target).square()
        return F.pad(squared[..., self.n_unscored :], (self.n_unscored, 0)) if self.n_unscored else squared

    @property
    def scored_sensors(self) -> torch.Tensor | None:
        """Mask (C,) of the sensors whose errors count. None = all."""
        return None


class Autoencoder(Network):
    """A network with a flat latent between two linear layers, each with a linear path beside the architecture's own.

        window ─┬─ encode_features ─┬─ to_latent ─ latent ─┬─ decode_nonlinear ─┬─ window
                └───────────────────┘                      └─── linear_decoder ─┘

    The linear path alone is a linear autoencoder. Its optimum is known, the principal components, and training starts
    from it (`init_from_pca`). So the network is at least as good as the PCA, and learns only the nonlinear rest.
    """

    stored_names: ClassVar = {
        "to_latent": "to_code",
        "from_latent": "from_code",
        "linear_decoder": "plane",
        "latent_mean": "code_mean",
        "latent_root": "code_root",
    }
    latent_mean: torch.Tensor
    latent_root: torch.Tensor
    """Mean (code,) of the latents of healthy windows, and a root (code, code) of their covariance. A standard normal
    until `fit_latent` measures them."""

    def __init__(self, n_sensors: int, length: int, n_features: int, code: int) -> None:
        super().__init__()
        self.n_values = n_sensors * length
        self.to_latent = nn.Linear(self.n_values + n_features, code)
        self.linear_decoder = nn.Linear(code, self.n_values)
        self.register_buffer("latent_mean", torch.zeros(code))
        self.register_buffer("latent_root", torch.eye(code))

    def encode_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, n_features) that the architecture extracts from (B, C, T)."""
        raise NotImplementedError

    def decode_nonlinear(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the part (B, C, T) of the reconstruction that the architecture adds to the linear one."""
        raise NotImplementedError

    def output_layer(self) -> nn.Module:
        """Return the last layer of `decode_nonlinear`. `init_from_pca` sets it to zero."""
        raise NotImplementedError

    def layer_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return each encoder layer with its decoder counterpart, the outermost first, for stacked pretraining."""
        return []

    def latent_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the window and its features, the inputs of the latent."""
        return torch.cat([x.flatten(1), self.encode_features(x)], 1)     # (B, CT + n_features)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent, one vector per window."""
        z: torch.Tensor = self.to_latent(self.latent_inputs(x))          # (B, code)
        return z

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the reconstruction."""
        # No sigmoid at the end: standardised values are not in [0, 1], it could not reconstruct a spike.
        flat: torch.Tensor = self.linear_decoder(z)                      # (B, CT)
        linear = flat.reshape(len(z), self.n_values // length, length)   # (B, C, T)
        return linear + self.decode_nonlinear(z, length)                 # (B, C, T)

    def sample_latent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` latents from the normal distribution that `fit_latent` measured."""
        noise = torch.randn(n, len(self.latent_mean), generator=generator).to(self.latent_mean.device)
        return self.latent_mean + noise @ self.latent_root.T             # (n, code)

    @torch.no_grad()
    def fit_latent(self, x: torch.Tensor) -> None:
        """Measure mean and covariance of the latents of healthy windows `x`."""
        z = self.encode(x)                                               # (N, code)
        self.latent_mean.copy_(z.mean(0))
        z = (z - self.latent_mean).cpu().double()                        # not every device has eigh
        variances, axes = torch.linalg.eigh(z.T @ z / len(z))            # (code,), (code, code)
        self.latent_root.copy_(axes * variances.clamp(min=0).sqrt())

    @torch.no_grad()
    def init_from_pca(self, mean: torch.Tensor, components: torch.Tensor, spread: torch.Tensor) -> None:
        """Start as the principal components: mean (CT,), components (code, CT) and their spread (code,).

        Each component is scaled to unit spread. The initial latent is white, as a prior expects, and no component is
        learnt faster for being large.
        """
        scale = spread.clamp(min=1e-3)[:, None]                          # (code, 1)
        projection = components / scale                                  # (code, CT)
        self.to_latent.weight.zero_()
        self.to_latent.weight[:, : self.n_values] = projection
        self.to_latent.bias.copy_(-projection @ mean)
        self.linear_decoder.weight.copy_((components * scale).T)
        self.linear_decoder.bias.copy_(mean)
        for parameter in self.output_layer().parameters():
            parameter.zero_()


MAX_LATENT = 64
"""Greatest size of a latent."""


def default_latent_size(n_sensors: int, length: int) -> int:
    """Return the size of a latent where the data do not decide it: a sixteenth of the window, `MAX_LATENT` at most.

    Training makes it as wide as the number of principal components that explain nine tenths of the variance, up to the
    same limit (`training.loop`). A wider latent reconstructs more windows that break the relations between sensors:
    with twice the width, a wind turbine that stood still in good wind was reconstructed as well as a healthy one.
    """
    return max(1, min(MAX_LATENT, n_sensors * length // 16))


# ---------------------------------------------------------------- names in a checkpoint


def _attributes_to_stored(network: Network, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    _rename(state, prefix, network.stored_names)


def _stored_to_attributes(network: Network, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, {stored: attribute for attribute, stored in network.stored_names.items()})


def _rename(state: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    """Rename the attributes of the network at `prefix`, in place and in order."""
    for key in list(state):
        attribute, dot, rest = key.removeprefix(prefix).partition(".")
        is_renamed = key.startswith(prefix) and attribute in names
        state[f"{prefix}{names[attribute]}{dot}{rest}" if is_renamed else key] = state.pop(key)
