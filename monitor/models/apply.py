"""Uses of a trained model besides scoring: latents, reconstructions, samples.

Input: a detector and windows in the sensors' own units, float32 [N, T, C], NaN = missing.
Output: NumPy arrays. Windows among them are in the sensors' own units, too.
Invariant: a network without a latent raises NotFound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from monitor.errors import NotFound
from monitor.models.detector import CHUNK
from monitor.models.residual import impute, reconstruction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.models.detector import TrainedModel
    from monitor.types import Float32


def encode(detector: TrainedModel, windows: Float32, assets: Sequence[str] | None = None) -> Float32:
    """Return the latents [N, K] of windows, for clustering, search or plots. NotFound: the network has none.

    `assets`: see `TrainedModel.score`.
    """
    network = detector.network

    def encode_chunk(x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        return network.encode(impute(network, x, present)).flatten(1)

    try:
        return _by_chunk(detector, windows, encode_chunk, assets)
    except NotImplementedError as cause:
        raise NotFound(f"the code of {detector.version}: {_no_latent(detector, 'none')}") from cause


def reconstruct(detector: TrainedModel, windows: Float32, assets: Sequence[str] | None = None) -> Float32:
    """Return the reconstruction [N, T, C] of windows: without their noise, their gaps filled.

    A sensor that was absent in training, or that the model leaves out, stays NaN. A counter is counted from 0.
    `assets`: see `TrainedModel.score`.
    """
    return detector.inputs.to_sensors(_reconstructed(detector, windows, assets))


def denoise(detector: TrainedModel, windows: Float32, assets: Sequence[str] | None = None) -> Float32:
    """Return `reconstruct` beside the measured values: a counter at its level, an angle nearest to the measured one."""
    out = detector.inputs.to_levels(windows, _reconstructed(detector, windows, assets))
    taken = np.isin(np.arange(windows.shape[2]), detector.inputs.owner)
    out[..., ~taken] = np.nan
    return out


def observation_noise(detector: TrainedModel) -> Float32:
    """Return the standard deviation [C] of each sensor about its reconstruction, in its own unit.

    0 for an angle, a counter, and a sensor that the model does not take.
    """
    residual, scaler, inputs = detector.members[-1].residual, detector.typical_scaler, detector.inputs
    size = (residual.sensor_error.sqrt() / scaler.per_unit[:, 0]).cpu().numpy()
    out = np.zeros(len(inputs.sensors), dtype=np.float32)
    for channel, number in enumerate(inputs.owner.tolist()):
        if inputs.inputs[number].kind == "plain" and scaler.sensors[channel].kind not in ("constant", "absent"):
            out[number] = size[channel]
    return out


def _reconstructed(detector: TrainedModel, windows: Float32, assets: Sequence[str] | None) -> Float32:
    """Return the reconstruction [N, T, K] of the channels, in their own units. NaN for those absent in training."""
    network = detector.network
    standardised = _by_chunk(detector, windows, lambda x, present: reconstruction(network, x, present), assets)
    scaler = detector.scaler_of(assets, len(windows))
    out: Float32 = scaler.restore(torch.from_numpy(standardised).to(detector.device)).transpose(1, 2).cpu().numpy()
    return _without_absent(detector, out)


def sample(detector: TrainedModel, n: int, seed: int) -> Float32:
    """Return `n` healthy windows [n, T, C] that the model decodes from random latents, without the sensors' noise.

    The latents are from the prior (variational, adversarial) or from a normal distribution fitted to healthy latents.
    NotFound: the network has no latent.
    """
    generator = torch.Generator().manual_seed(seed)
    network, scaler, length = detector.network, detector.typical_scaler, detector.card.length
    try:
        with torch.inference_mode():
            latents = network.sample_latent(n, generator)                 # (n, K)
            parts = [
                scaler.restore(network.decode(latents[at : at + CHUNK], length)).transpose(1, 2).cpu().numpy()
                for at in range(0, n, CHUNK)
            ]
    except NotImplementedError as cause:
        raise NotFound(f"samples of {detector.version}: {_no_latent(detector, 'no code to draw')}") from cause
    whole = np.concatenate(parts) if parts else np.empty((0, length, len(detector.inputs.channels)), np.float32)
    return detector.inputs.to_sensors(_without_absent(detector, whole))


def _no_latent(detector: TrainedModel, lacks: str) -> str:
    return (
        f"{detector.card.architecture} has {lacks}; train auto, conv, dense, lstm or pca, and to draw samples best "
        'conv, dense or lstm with objective = "variational" or "adversarial"'
    )


def _by_chunk(
    detector: TrainedModel,
    windows: Float32,
    apply: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    assets: Sequence[str] | None,
) -> Float32:
    detector.check_shape(windows)
    with torch.inference_mode():
        # Without windows one empty chunk is applied, because its result has the right shape.
        parts = [
            apply(
                *detector.standardise(windows[at : at + CHUNK], None if assets is None else assets[at : at + CHUNK])
            ).cpu().numpy()
            for at in range(0, max(1, len(windows)), CHUNK)
        ]
    return np.concatenate(parts)


def _without_absent(detector: TrainedModel, windows: Float32) -> Float32:
    absent = [sensor.kind == "absent" for sensor in detector.scaler.sensors]
    windows[..., absent] = np.nan
    return windows
