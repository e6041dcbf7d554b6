"""A trained model that scores: windows in the sensors' own units in, anomaly scores out.

One network, or several voices that are added up (`member`): then one threshold stands above them all.

In: float32 [N, T, C], NaN = missing. Out: score [N], 1.0 = the threshold, NaN = nothing to score; shares [N, C].
Law: causal (a window's score belongs to its last cell), and a window scores alike alone and in any batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch

from monitor.errors import CheckpointDamaged, ConfigError
from monitor.models import checkpoint
from monitor.models.calibrate import Threshold
from monitor.models.device import pick_device
from monitor.models.member import Member, blend
from monitor.models.network import Network
from monitor.models.residual import rebuild, recency
from monitor.models.scaler import Scaler
from monitor.types import Contribution

if TYPE_CHECKING:
    from monitor.types import Float32

CHUNK = 256
"""Windows per forward pass: one giant batch falls out of the cache and is three times slower per window."""
SLOWEST = 1
"""The time scale that weighs the cells when a window is explained."""


class Scored(NamedTuple):
    """Scores of N windows, in their order."""

    score: Float32
    """[N], 1.0 = threshold; NaN = no cell of the window is present."""
    share: Float32
    """[N, C], each sensor's part, 0..1; rows sum to 1, 0 for a missing sensor (and in a NaN row)."""


@dataclass(frozen=True, slots=True)
class Card:
    """All that is known about a version, apart from its weights. Written beside them as `card.json`."""

    fleet: str
    architecture: str
    objective: str
    members: tuple[dict[str, Any], ...]
    """Name, `hyper` and `half_life` (of the slow time scale, share of the window) of each network that has a voice; the
    last is the one that was trained for its architecture."""
    sensors: tuple[str, ...]
    length: int
    """Cells in a window."""
    interval_s: float
    seed: int
    """The one that succeeded; the first tried plus the number of restarts."""
    trained_at: str
    """ISO 8601, UTC."""
    threshold: Threshold
    training: dict[str, Any]
    """The receipt: what was used, what was left out and why, how learning went."""
    baseline: dict[str, Any]
    """The PCA fitted to the same windows, in the same figures."""
    choice: dict[str, Any]
    """What `auto` tried, and what it found of faults injected into held-out windows; empty = nothing was to choose."""
    metrics: dict[str, float]
    """The few figures that versions are compared by."""


class Detector:
    """Networks between their scaler and their calibration. Immutable; one thread at a time."""

    def __init__(
        self,
        card: Card,
        members: tuple[Member, ...],
        scaler: Scaler,
        device: torch.device,
        version: str | None = None,
    ) -> None:
        self.card = card
        self.device = device
        self._version = version
        self.scaler = scaler.to(device)
        self._members = tuple(member.to(device) for member in members)

    @property
    def version(self) -> str:
        """The identity of what scores, like `conv-3f2a9c1b`."""
        if self._version is None:
            self._version = checkpoint.version_of(self._tensors(), self._card_json())
        return self._version

    @property
    def sensors(self) -> tuple[str, ...]:
        """Their names, in the order of the columns."""
        return self.card.sensors

    @property
    def network(self) -> Network:
        """The one that was trained for the architecture; alone, or beside others."""
        return self._members[-1].network

    def score(self, values: Float32) -> Scored:
        """Score windows [N, T, C] in the sensors' own units; N may be 0."""
        self.check_shape(values)
        n, _, n_sensors = values.shape
        score = np.empty(n, dtype=np.float32)
        share = np.empty((n, n_sensors), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, n, CHUNK):
                chunk = self.tensor(values[start : start + CHUNK])
                raw, part = self.raw(chunk)
                score[start : start + CHUNK] = raw.cpu().numpy()
                share[start : start + CHUNK] = part.cpu().numpy()
        score /= np.float32(self.card.threshold.raw)
        return Scored(score, share)

    def raw(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return raw scores (B,) and shares (B, C) of windows (B, T, C) on the device."""
        x, present = self.scaler.standardise(values)                      # (B, C, T)
        return blend(self._members, x, present)

    def explain(self, values: Float32, share: Float32) -> list[tuple[Contribution, ...]]:
        """Return every sensor of the windows [n, T, C], largest share first, with what was expected and what was
        measured at the cell where its error is largest, in its own unit.
        """
        self.check_shape(values)
        out: list[tuple[Contribution, ...]] = []
        with torch.inference_mode():
            for start in range(0, len(values), CHUNK):
                chunk = self.tensor(values[start : start + CHUNK])
                x, present = self.scaler.standardise(chunk)                # (B, C, T)
                rebuilt = self._expected(x, present)                       # (B, C, T)
                error = (rebuilt - x).square_() * recency(x, Network.half_life)[:, SLOWEST]
                if present is not None:
                    error = torch.where(present, error, -1.0)
                worst = error.argmax(-1, keepdim=True)                     # (B, C, 1)
                expected = self.scaler.restore(rebuilt).gather(-1, worst)[..., 0].cpu().numpy()
                actual = chunk.transpose(1, 2).gather(-1, worst)[..., 0].cpu().numpy()
                rows = zip(share[start : start + CHUNK], expected, actual, strict=True)
                out += [self._contributions(*row) for row in rows]
        return out

    def _expected(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Return what the member that is most alarmed by a window expected there."""
        if len(self._members) == 1:
            return rebuild(self._members[0].network, x, present)
        alarm = torch.stack([member.evidence(x, present)[0].sum(1) for member in self._members])   # (M, B)
        loudest = alarm.argmax(0)                                                                  # (B,)
        expected = torch.empty_like(x)
        for number, member in enumerate(self._members):
            rows = (loudest == number).nonzero()[:, 0]
            if len(rows):
                here = None if present is None else present[rows]
                expected[rows] = rebuild(member.network, x[rows], here)
        return expected

    def _contributions(self, share: Float32, expected: Float32, actual: Float32) -> tuple[Contribution, ...]:
        def known(value: np.float32) -> float | None:
            return float(value) if np.isfinite(value) else None

        return tuple(
            Contribution(self.card.sensors[c], float(share[c]), known(expected[c]), known(actual[c]))
            for c in np.argsort(-share, kind="stable")
        )

    def save(self, folder: Path) -> str:
        """Write a checkpoint into `folder`/version and return the version."""
        self._version = checkpoint.write(Path(folder), self._tensors(), self._card_json())
        return self._version

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """Read a checkpoint's folder. Raises CheckpointDamaged, CheckpointUnavailable (try again), or ConfigError where
        the device is not there.
        """
        where = pick_device(device)
        tensors, raw = checkpoint.read(Path(path))
        try:
            card = _card_from_json(raw)
            members = tuple(
                Member.load(said, tensors, f"{number}.", len(card.sensors), card.length)
                for number, said in enumerate(card.members)
            )
            scaler = Scaler.from_json(raw["scaler"])
        except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as cause:
            raise CheckpointDamaged(f"{path}: whole, but not a model this version can build: {cause}") from cause
        return cls(card, members, scaler, where, raw["version"])

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            name: tensor
            for number, member in enumerate(self._members)
            for name, tensor in member.tensors(f"{number}.").items()
        }

    def _card_json(self) -> dict[str, Any]:
        return {**asdict(self.card), "scaler": self.scaler.to_json()}   # JSON makes lists of tuples

    def tensor(self, values: Float32) -> torch.Tensor:
        """Return windows on the device."""
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device)

    def check_shape(self, values: Float32) -> None:
        """Raise ValueError for windows that are not of the model's length and sensors."""
        expected = (self.card.length, len(self.card.sensors))
        if values.ndim != 3 or values.shape[1:] != expected:
            raise ValueError(f"windows of shape {values.shape[1:]} for a model of {expected} (cells, sensors)")


def _card_from_json(raw: dict[str, Any]) -> Card:
    fields = {name: raw[name] for name in Card.__dataclass_fields__}
    fields["sensors"] = tuple(fields["sensors"])
    fields["members"] = tuple(fields["members"])
    fields["threshold"] = Threshold.from_json(fields["threshold"])
    return Card(**fields)
