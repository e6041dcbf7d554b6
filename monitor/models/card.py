"""Card of a model version: everything known about it, apart from its weights. No torch.

Input: the facts of a training, or `card.json`. Output: a frozen object, and the JSON of it.
Invariant: the keys are a contract. They are added and never renamed, and a card of an older release stays as it was.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from monitor.clock import to_us
from monitor.models.calibrate import Threshold
from monitor.models.inputs import ModelInputs
from monitor.models.states import States
from monitor.models.terms import factor_of

MAX_WINDOW_VALUES = 4 << 20
"""Values in one window of a checkpoint: its channels times its length. `[fleet] window` allows 4,096 steps."""
MAX_MEMBERS = 64
NEW_KEYS = (
    "inputs", "min_channels", "held_out", "derived", "knobs", "sensor_profile", "asset_factors", "labels",
    "window_reason", "asset_scales", "bundle", "states", "calendar",
)  # fmt: skip
"""Keys of a card that cards of format 2 may lack."""


@dataclass(frozen=True, slots=True)
class Card:
    """Everything known about a version, apart from its weights. Written beside them as `card.json`."""

    fleet: str
    architecture: str
    objective: str
    members: tuple[dict[str, Any], ...]
    """Of each member of the ensemble: name, `hyper`, time scales, `half_life` (of the scale `latest`, share of the
    window) and weight. The last is the network of the architecture, of `auto` the PCA."""
    sensors: tuple[str, ...]
    length: int
    """Steps in a window."""
    interval_s: float
    seed: int
    """Seed that succeeded: the first one tried plus the number of restarts."""
    trained_at: str
    """ISO 8601, UTC."""
    threshold: Threshold
    training: dict[str, Any]
    """Receipt: windows used and left out with the reasons, the course of the training."""
    baseline: dict[str, Any]
    """The same metrics of the PCA fitted to the same windows."""
    choice: dict[str, Any]
    """Candidates of `auto`, and the share of injected faults that each detects. Empty = there was no choice."""
    metrics: dict[str, float]
    """Metrics that versions are compared by."""
    inputs: dict[str, Any] | None = None
    """By sensor, the way in which the model takes it (`inputs.SensorInput`). None = an older card: each as it is."""
    min_channels: int | None = None
    """Channels with a value that a window needs to be scored. None = an older card: one."""
    held_out: dict[str, Any] | None = None
    """Facts of the scores kept in the checkpoint (`held_out.HeldOut`). None = an older card: they were not kept."""
    derived: dict[str, Any] | None = None
    """Version of the same weights that this one was derived from (`from`), and the reason (`why`). None = trained."""
    sensor_profile: dict[str, Any] | None = None
    """By sensor, its healthy behaviour (`sensor_profile.SensorProfile`). None = an older card: not known."""
    knobs: dict[str, Any] | None = None
    """By sensor, the deviations that count and their weight (`terms.SensorKnob`). None = all count alike."""
    asset_factors: dict[str, float] | None = None
    """By asset, its threshold as a multiple of the fleet's (`calibrate.asset_factors`). One that is missing has the
    fleet's. None = all have."""
    labels: dict[str, Any] | None = None
    """Factor of the threshold by operators' labels (`factor`), and the threshold without it (`calibrated`). None = no
    label moves it."""
    window_reason: str | None = None
    """The reason for the length, where the training chose it (`window = "auto"`). None = it was configured."""
    asset_scales: dict[str, Any] | None = None
    """Assets with scales of their own (`asset_scales.AssetScales`). None = all have the fleet's."""
    bundle: dict[str, Any] | None = None
    """Assets with a model of their own (`own`), and the number of the others by the reason (`fleet`), each with some
    names. None = there is one model."""
    states: dict[str, Any] | None = None
    """Operating states (`states.States`), each with its own calibration and threshold. None = none are known."""
    calendar: dict[str, Any] | None = None
    """Factors of the threshold by hour and day (`calendar.Calendar`). None = it is the same at all times."""


def learnt_until_us(card: Card) -> int | None:
    """Return the event time of the end of the newest window of the training. None = an older card: not known."""
    until = card.training.get("to")
    return None if until is None else to_us(datetime.fromisoformat(until))


def card_to_json(card: Card) -> dict[str, Any]:
    """Return the form of `card.json`, without the keys that the card does not have."""
    found = asdict(card)                                                 # JSON makes lists of tuples
    for name in NEW_KEYS:
        if found[name] is None:                                          # an older card stays what it was
            del found[name]
    return found


def card_from_json(raw: dict[str, Any]) -> Card:
    """Read `card.json`. Raises KeyError, TypeError or ValueError for one that no model can have."""
    fields = {name: raw[name] for name in Card.__dataclass_fields__ if name not in NEW_KEYS or name in raw}
    fields["sensors"] = tuple(fields["sensors"])
    fields["members"] = tuple(fields["members"])
    fields["threshold"] = Threshold.from_json(fields["threshold"])
    card = Card(**fields)
    if card.labels is not None:
        factor_of(card.labels)
        Threshold.from_json(card.labels["calibrated"])
    n_channels = len(ModelInputs.from_json(card.sensors, card.inputs).channels)
    if not (1 <= card.length <= MAX_WINDOW_VALUES // max(1, n_channels)) or not 1 <= len(card.members) <= MAX_MEMBERS:
        raise ValueError(f"{len(card.members)} members, windows of {card.length} steps and {n_channels} channels")
    n_classes = 0 if card.states is None else len(States.from_json(card.sensors, card.states).classes)
    if any(int(each.get("n_states", 0)) not in (0, n_classes - 1) for each in card.members):
        raise ValueError(f"members of other states than the {n_classes} of the card")
    if card.min_channels is not None and not 1 <= card.min_channels <= n_channels:
        raise ValueError(f"min_channels {card.min_channels} of {n_channels}")
    if not all(0 < raw < math.inf for raw in (card.threshold.raw, *(card.asset_factors or {}).values())):
        raise ValueError(f"threshold {card.threshold.raw}, asset_factors {card.asset_factors}")
    return card
