"""Bundle: one version with a model for each of some assets, and the fleet's model for all others.

Input: names of assets. Output: the rows of a batch by the model that serves them, and the parts of one checkpoint.
Invariant: a window's model depends on the name of its asset alone. The bundle is one folder: the tensors of an asset's
model have a prefix, its card stands in the bundle's. All models have the sensors and the length of the fleet's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from monitor.types import Int64

CARDS = "asset_models"
"""Key of the cards of the assets' models, by asset, in the order of the names on the card's entry `bundle`."""
MAX_MODELS = 100
"""Assets with a model of their own. A hundred models of eight sensors take 190 MB on disk (`deploy/RETRAINING.md`)."""

Model = TypeVar("Model")


def rows_by_model(own: Mapping[str, Model], assets: Sequence[str]) -> list[tuple[Model | None, Int64]]:
    """Return the models that serve these assets, each with its rows. None = the fleet's."""
    rows: dict[str | None, list[int]] = {}
    for row, name in enumerate(assets):
        rows.setdefault(name if name in own else None, []).append(row)
    return [(None if name is None else own[name], np.array(each, dtype=np.int64)) for name, each in rows.items()]


def prefixed(number: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of the `number`-th model by their names in the bundle's checkpoint."""
    return {f"{_prefix(number)}{name}": tensor for name, tensor in tensors.items()}


def tensors_of(number: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of the `number`-th model by their own names."""
    start = _prefix(number)
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def cards_of(raw: Mapping[str, Any], length: int, sensors: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the assets with a model of their own and its card. Raises KeyError, TypeError or ValueError."""
    if raw.get("bundle") is None:
        return []
    cards = dict(raw.get(CARDS, {}))
    if list(raw["bundle"]["own"]) != list(cards) or len(cards) > MAX_MODELS:
        raise ValueError(f"bundle: {len(cards)} models for {len(raw['bundle']['own'])} assets, {MAX_MODELS} at most")
    for name, card in cards.items():
        if card["length"] != length or tuple(card["sensors"]) != tuple(sensors):
            raise ValueError(f"bundle: the model of {name!r} is of another length or other sensors")
        if card.get("bundle") is not None:
            raise ValueError(f"bundle: the model of {name!r} is a bundle")
    return list(cards.items())


def _prefix(number: int) -> str:
    return f"asset.{number}."
