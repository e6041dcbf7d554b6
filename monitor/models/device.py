"""Choice of the torch device.

Input: the configured name (`auto`, `cpu`, `cuda`, `cuda:1`, `mps`). Output: a torch device of this machine.
Invariant: no silent fallback. Only `auto` may choose.
"""

from __future__ import annotations

import torch

from monitor.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Return the device. Raises ConfigError for one that this machine or this torch does not have."""
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if n_cuda else "mps" if has_mps else "cpu")

    here = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(n_cuda)), *(["mps"] if has_mps else [])])
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise ConfigError(f'device "{name}" is not a device (here: {here})') from cause
    if device.type == "cpu":
        return device
    if device.type == "cuda" and (device.index or 0) < n_cuda:
        return device
    if device.type == "mps" and has_mps:
        return device
    raise ConfigError(f'device "{name}" is not there (here: {here})')
