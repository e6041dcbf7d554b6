"""What a trained model is good for besides scoring: codes, clean windows, windows that never were.

In: a detector and windows in the sensors' own units, float32 [N, T, C], NaN = missing. Out: NumPy arrays.
Law: own units in and out; what a model has no part for is refused by NotFound with the reason, never made up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from monitor.errors import NotFound
from monitor.models.detector import CHUNK
from monitor.models.residual import fill, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.detector import Detector
    from monitor.types import Float32

# The network and the scaler are the detector's own; this page is the detector's other face.


def encode(detector: Detector, windows: Float32) -> Float32:
    """Return the codes [N, K] of windows: a few numbers that say nearly all, for clustering, search or plots."""
    network = detector.network

    def one(x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        return network.encode(fill(network, x, present)).flatten(1)

    try:
        return _by_chunk(detector, windows, one)
    except NotImplementedError as cause:
        raise NotFound(f"the code of {detector.version}: {detector.card.architecture} has none") from cause


def reconstruct(detector: Detector, windows: Float32) -> Float32:
    """Return windows [N, T, C] as the model expects them: without their noise, their gaps filled.

    A sensor that the model never saw stays NaN.
    """
    network, scaler = detector.network, detector.scaler

    def one(x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        return scaler.restore(rebuild(network, x, present)).transpose(1, 2)

    return _without_absent(detector, _by_chunk(detector, windows, one))


def sample(detector: Detector, n: int, seed: int) -> Float32:
    """Return `n` windows [n, T, C] that the model takes for healthy: what it expects for codes drawn from the prior
    (variational, adversarial) or from a normal distribution fitted to healthy codes. Without the sensors' noise.
    """
    draw = torch.Generator().manual_seed(seed)
    network, length = detector.network, detector.card.length
    try:
        with torch.inference_mode():
            codes = network.sample_latent(n, draw)                           # (n, K)
            parts = [
                detector.scaler.restore(network.decode(codes[at : at + CHUNK], length)).transpose(1, 2).cpu().numpy()
                for at in range(0, n, CHUNK)
            ]
    except NotImplementedError as cause:
        why = f"{detector.card.architecture} has no code to draw; train an autoencoder"
        raise NotFound(f"samples of {detector.version}: {why}") from cause
    whole = np.concatenate(parts) if parts else np.empty((0, length, len(detector.sensors)), np.float32)
    return _without_absent(detector, whole)


def _by_chunk(
    detector: Detector, windows: Float32, one: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
) -> Float32:
    detector.check_shape(windows)
    with torch.inference_mode():
        # No windows are one empty chunk: its result has the right shape.
        parts = [
            one(*detector.scaler.standardise(detector.tensor(windows[at : at + CHUNK]))).cpu().numpy()
            for at in range(0, max(1, len(windows)), CHUNK)
        ]
    return np.concatenate(parts)


def _without_absent(detector: Detector, windows: Float32) -> Float32:
    absent = [sensor.kind == "absent" for sensor in detector.scaler.sensors]
    windows[..., absent] = np.nan
    return windows
