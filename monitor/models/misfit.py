"""The reason why a version cannot score a fleet's windows. No torch.

Input: the length and sensors of a version, and those of a fleet. Output: a reason, or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.errors import CheckpointDamaged
from monitor.models.inputs import ModelInputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def reason(trained_length: int, taken: Sequence[str], length: int, sensors: Sequence[str]) -> str | None:
    """Return the reason why a version cannot score windows of this length and these sensors. None = it can.

    `taken`: sensors that the version has a channel for. It goes on with those that it knows, as long as they are half
    of these. With fewer, healthy windows alarm (see `training.fit`).
    """
    known = set(sensors)
    n_common = sum(name in known for name in taken)
    if trained_length != length:
        return f"was trained on windows of {trained_length} cells; the configuration now has {length}"
    if n_common * 2 < len(taken) or not n_common:
        return (
            f"knows {n_common} of the sensors {', '.join(sensors)}, and needs half of the {len(taken)} that it was "
            f"trained on, {', '.join(taken)}"
        )
    return None


def reason_of_card(card: Mapping[str, Any], length: int | None, sensors: Sequence[str] | None) -> str | None:
    """Return the same for a version that is not loaded. None for `length` or `sensors`: any will do.

    Raises CheckpointDamaged for a card that is no model's.
    """
    try:
        trained_length = int(card["length"])
        taken = ModelInputs.from_json(tuple(card["sensors"]), card.get("inputs")).taken
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise CheckpointDamaged(f"whole, but not a model this version can build: {cause!r}") from cause
    wanted = trained_length if length is None else length
    return reason(trained_length, taken, wanted, taken if sensors is None else sensors)
