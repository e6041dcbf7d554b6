"""Versions with broken weights, as valid models."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from monitor.models.detector import TrainedModel

if TYPE_CHECKING:
    from monitor.models.member import Member


def zeroed(model: TrainedModel) -> TrainedModel:
    """Return the version with all weights of its networks set to 0. Scaler, calibration and threshold stay."""
    return TrainedModel(
        model.card,
        tuple(map(_zeroed, model.members)),
        model.scaler,
        model.device,
        held_out=model.held_out,
        asset_scales=model.asset_scales,
        own={name: zeroed(own) for name, own in model.own.items()},
    )


def _zeroed(member: Member) -> Member:
    network = deepcopy(member.network)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.zero_()
    return replace(member, network=network)
