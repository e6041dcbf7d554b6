"""Rows of tensors, evenly spaced: the samples that models are solved and measured on.

Input: a number of rows. Output: some of their numbers. Invariant: pure, the same numbers each time.
"""

from __future__ import annotations

import torch


def evenly_spaced(n: int, n_max: int) -> torch.Tensor:
    """Return at most `n_max` of the rows 0..n-1, evenly spaced."""
    if n <= n_max:
        return torch.arange(n)
    return torch.linspace(0, n - 1, n_max).round().to(torch.int64)
