"""What a network is asked to do while it learns.

In: a network, standardised windows (B, C, T) and what is present (None = all). Out: the loss to be made small.
Law: a cell that is missing asks for nothing. A new objective adds a function here and its name in `spec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from monitor.models.network import Network

    Objective = Callable[[Network, torch.Tensor, torch.Tensor | None, torch.Generator], torch.Tensor]


def plain(
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    draw: torch.Generator,  # noqa: ARG001 — one door for every objective; this one needs no chance
) -> torch.Tensor:
    """Rebuild the window: mean squared error over the cells that are present."""
    return masked_mean((network(x) - x).square(), present)


def masked_mean(squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over the cells that are present."""
    if present is None:
        return squared.mean()
    return (squared * present).sum() / present.sum().clamp(min=1)


OBJECTIVES: dict[str, Objective] = {"plain": plain}
