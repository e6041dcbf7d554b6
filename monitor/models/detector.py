"""Trained model: one network, or an ensemble whose scores are added up (`member`), under one threshold.

Input: windows float32 [N, T, C] in the sensors' own units, NaN = missing. Output: scores [N], 1.0 = the threshold and
NaN = nothing to score, and shares [N, C].
Invariant: causal (a window's score belongs to its last step), and a window scores alike alone and in any batch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch

from monitor.budget import Budget
from monitor.errors import CheckpointDamaged, ConfigError, NotFound
from monitor.models import checkpoint
from monitor.models.asset_scales import AssetScales, ScaleTable
from monitor.models.bundle import CARDS, cards_of, prefixed, rows_by_model, tensors_of
from monitor.models.calendar import Calendar
from monitor.models.calibrate import Threshold
from monitor.models.card import Card, card_from_json, card_to_json
from monitor.models.clearing import clearing_sets
from monitor.models.device import pick_device
from monitor.models.held_out import HeldOut
from monitor.models.inputs import ModelInputs
from monitor.models.knobs import BoundKnobs, Knobs
from monitor.models.member import Member, ensemble_score, imputer_of
from monitor.models.network import Network
from monitor.models.residual import TimeScales, impute, reconstruction
from monitor.models.scaler import Scaler
from monitor.models.sensor_profile import profiles_from_json
from monitor.models.states import States
from monitor.models.terms import Terms, factor_of, knobs_from_json, knobs_to_json
from monitor.types import Contribution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.types import Float32, Int8, Int64

CHUNK = 256
"""Windows per forward pass: one giant batch falls out of the cache and is three times slower per window."""
LATEST = TimeScales(Network.half_life, ("latest",))
"""Time scale by which an explanation weighs the steps of a window."""


class WindowScores(NamedTuple):
    """Scores of N windows, in their order."""

    score: Float32
    """[N], 1.0 = threshold. NaN = too few sensors have a value in the window."""
    share: Float32
    """[N, C], each sensor's part, 0..1. Rows sum to 1, 0 for a missing sensor (and in a NaN row)."""


class _WindowTerms(NamedTuple):
    """Terms of N windows that depend on their assets and on their states."""

    limit: Float32
    """[N], raw thresholds."""
    rows: Int64 | None
    """[N], rows of the table of scales. None = there is one scaler."""
    state: Int8 | None = None
    """[N], classes of the windows. None = no operating states are known."""

    def part(self, start: int, stop: int) -> _WindowTerms:
        return _WindowTerms(*(None if each is None else each[start:stop] for each in self))  # type: ignore[arg-type]

    def of(self, numbers: Int64) -> _WindowTerms:
        return _WindowTerms(*(None if each is None else each[numbers] for each in self))  # type: ignore[arg-type]


class TrainedModel:
    """Scaler, networks with their calibrated errors, and threshold. Immutable. One thread at a time."""

    def __init__(
        self,
        card: Card,
        members: tuple[Member, ...],
        scaler: Scaler,
        device: torch.device,
        version: str | None = None,
        held_out: HeldOut | None = None,
        asset_scales: AssetScales | None = None,
        own: Mapping[str, Self] | None = None,
    ) -> None:
        self.card = card
        self.own: dict[str, Self] = dict(own or {})
        """By asset, its own model (`bundle`), which serves its windows in place of this one, the fleet's."""
        self.asset_scales = asset_scales
        """None = all assets have the fleet's."""
        self.held_out = held_out
        """None = an older checkpoint."""
        self.device = device
        self._version = version
        self.inputs = ModelInputs.from_json(card.sensors, card.inputs)
        self.profiles = None if card.sensor_profile is None else profiles_from_json(card.sensors, card.sensor_profile)
        """Healthy behaviour of each sensor, in the order of the columns. None = not known."""
        self.scaler = scaler.to(device)
        """The fleet's."""
        self._scales = None if asset_scales is None else ScaleTable(asset_scales, self.scaler)
        self._members = tuple(member.to(device) for member in members)
        by_sensor = knobs_from_json(card.knobs)
        self._knobs = Knobs(self.inputs, self.scaler, by_sensor) if by_sensor else None
        self.states = None if card.states is None else States.from_json(card.sensors, card.states)
        """None = all windows are judged alike."""
        self.calendar = None if card.calendar is None else Calendar.from_json(card.calendar)
        """None = the threshold is the same at all times."""

    @property
    def version(self) -> str:
        """Digest of everything that scores, like `conv-3f2a9c1b`."""
        if self._version is None:
            self._version = checkpoint.version_of(self._tensors(), self._card_json())
        return self._version

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors, in the order of the columns."""
        return self.card.sensors

    @property
    def members(self) -> tuple[Member, ...]:
        """The ensemble, or one network alone. The network that was trained for the architecture is the last."""
        return self._members

    @property
    def network(self) -> Network:
        """Network that was trained for the architecture, alone or beside other members."""
        return self._members[-1].network

    @property
    def needs_assets(self) -> bool:
        """Whether a score depends on the name of the asset."""
        return bool(self.card.asset_factors) or self._scales is not None or bool(self.own)

    @property
    def typical_scaler(self) -> Scaler:
        """Scaler of a typical asset."""
        return self.scaler if self._scales is None else self._scales.typical

    def scaler_of(self, assets: Sequence[str] | None, n: int) -> Scaler:
        """Return the scaler of `n` windows, by the name of each one's asset. None = not known, the fleet's."""
        return self.scaler if self._scales is None else self._scales.scaler(self._scales.rows(assets, n))

    def score(
        self,
        values: Float32,
        assets: Sequence[str] | None = None,
        *,
        end_us: Int64 | None = None,
        share_normal: bool = True,
    ) -> WindowScores:
        """Score windows [N, T, C] in the sensors' own units. N may be 0.

        `assets`: name of each window's asset, whose own scales and threshold then count. None = those of a new asset.
        `end_us`: [N], event time of the windows' ends. None = not known: hour and day do not count.
        `share_normal`: False = the shares of normal windows, which nobody reads, are 0. They cost as much as a score.
        """
        self.check_shape(values)
        if self.own and assets is not None:
            scores, shares = np.empty(len(values), np.float32), np.empty(values.shape[::2], np.float32)
            for model, rows, names in self._by_model(assets):
                when = None if end_us is None else end_us[rows]
                scores[rows], shares[rows] = model.score(values[rows], names, end_us=when, share_normal=share_normal)
            return WindowScores(scores, shares)
        channels, terms = self.inputs.to_channels(values), self._terms_of(assets, values, end_us)
        return self._score(channels, terms, self.card.min_channels, share_normal=share_normal)

    def _by_model(self, assets: Sequence[str]) -> list[tuple[Self, Int64, list[str]]]:
        """Return the models of a bundle that serve these assets, each as one alone, with its rows and their assets."""
        return [
            (self._alone if model is None else model, rows, [assets[row] for row in rows.tolist()])
            for model, rows in rows_by_model(self.own, assets)
        ]

    @cached_property
    def _alone(self) -> Self:
        """The fleet's model without the assets' own."""
        return type(self)(self.card, self._members, self.scaler, self.device, "", self.held_out, self.asset_scales)

    def limits(
        self, assets: Sequence[str] | None, state: Int8 | None = None, end_us: Int64 | None = None
    ) -> Float32 | None:
        """Return the raw threshold [N] of each window, by the name of its asset, by its state and by its time.

        None = all have the fleet's. The models of a bundle have states of their own, which `state` does not number.
        """
        factors, scales = self.card.asset_factors or {}, self._scales
        limit: Float32 | None = None
        if assets is not None and self.own:
            limit = np.full(len(assets), self.card.threshold.raw, np.float32)
            for model, rows, names in self._by_model(assets):
                known = model.limits(names, end_us=None if end_us is None else end_us[rows])
                limit[rows] = model.card.threshold.raw if known is None else known
            return limit
        if assets is not None and self.needs_assets:
            of_new = 1.0 if self.asset_scales is None else self.asset_scales.new_asset_factor
            each = [factors.get(name, 1.0 if scales is None or name in scales else of_new) for name in assets]
            limit = np.array(each, np.float32)
        if state is not None and self.states is not None and self.states.factors:
            own = np.array(self.states.factors, np.float32)[state]
            limit = own if limit is None else limit * own
        if end_us is not None and self.calendar is not None:
            at_time = self.calendar.of(end_us)
            limit = at_time if limit is None else limit * at_time
        return None if limit is None else limit * np.float32(self.card.threshold.raw)

    def _terms_of(
        self, assets: Sequence[str] | None, values: Float32, end_us: Int64 | None = None
    ) -> _WindowTerms:
        """Return the terms of windows [N, T, C], by the name of each one's asset and its time. None = not known."""
        n, raw = len(values), self.card.threshold.raw
        state = None if self.states is None else self.states.classify(values)
        known = self.limits(assets, state, end_us)
        limit = np.full(n, raw, np.float32) if known is None else known
        if assets is None and self.asset_scales is not None:
            limit = limit * np.float32(self.asset_scales.new_asset_factor)
        return _WindowTerms(limit, None if self._scales is None else self._scales.rows(assets, n), state)

    def _scaler_at(self, rows: Int64 | None) -> Scaler:
        return self.scaler if rows is None or self._scales is None else self._scales.scaler(rows)

    def _score(
        self, channels: Float32, terms: _WindowTerms, min_channels: int | None = None, *, share_normal: bool
    ) -> WindowScores:
        """Score windows [N, T, K] of channels, each by the calibration of its state."""
        if terms.state is None or self.states is None:
            return self._score_channels(channels, terms, min_channels, share_normal=share_normal)
        score = np.full(len(channels), np.nan, dtype=np.float32)
        share = np.zeros((len(channels), len(self.sensors)), dtype=np.float32)
        for number in np.unique(terms.state).tolist():
            if self.states.left_out and number == self.states.transition:
                continue
            rows = np.flatnonzero(terms.state == number)
            members = tuple(member.in_state(number) for member in self._members)
            score[rows], share[rows] = self._score_channels(
                channels[rows], terms.of(rows), min_channels, share_normal=share_normal, members=members
            )
        return WindowScores(score, share)

    def _score_channels(
        self,
        values: Float32,
        terms: _WindowTerms,
        min_channels: int | None = None,
        *,
        share_normal: bool = True,
        members: tuple[Member, ...] | None = None,
    ) -> WindowScores:
        """Score windows [N, T, K] of channels.

        `min_channels`: with a value, for a score. None = one. `share_normal`: see `score`. `members`: with their
        calibration. None = in all states.
        """
        members = self._members if members is None else members
        n, _, n_channels = values.shape
        score = np.empty(n, dtype=np.float32)
        share = np.empty((n, n_channels), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, n, CHUNK):
                chunk, here = self._to_tensor(values[start : start + CHUNK]), terms.part(start, start + CHUNK)
                scaler = self._scaler_at(here.rows)
                x, present = scaler.standardise(chunk)                                                 # (B, K, T)
                own = torch.from_numpy(here.limit).to(self.device)                                     # (B,)
                raw, part = self._raw_scores(members, x, present, self._bound(chunk, scaler), own, share_normal)
                if present is not None and min_channels is not None:
                    raw[present.any(-1).sum(-1) < min_channels] = torch.nan
                score[start : start + CHUNK] = raw.cpu().numpy()
                share[start : start + CHUNK] = part.cpu().numpy()
        score /= terms.limit
        return WindowScores(score, self.inputs.fold_shares(share))

    def _raw_scores(
        self,
        members: tuple[Member, ...],
        x: torch.Tensor,
        present: torch.Tensor | None,
        knobs: BoundKnobs | None,
        limit: torch.Tensor,
        share_normal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return raw scores (B,) and shares (B, K) of standardised windows (B, K, T) with raw thresholds (B,)."""
        raw, part = ensemble_score(members, x, present, knobs, None if share_normal else limit)
        if knobs is None:
            return raw, part
        # An alarm must not come from a deviation that does not count, by way of the sensors whose expected values it
        # distorts. Only windows that would be anomalous pay for this.
        rows = (raw >= limit).nonzero()[:, 0]
        if len(rows):
            here = None if present is None else present[rows]
            again, shares = ensemble_score(members, x[rows], here, knobs.replacing(rows))
            raw[rows], part[rows] = again, shares
        return raw, part

    def thresholds(self) -> dict[str, Any] | None:
        """Return the raw thresholds for other budgets and alert policies, as JSON. None = no held-out scores."""
        weight = None if self._knobs is None else self._knobs.heavier
        return None if self.held_out is None else self.held_out.table(
            self.budget, self._members, weight, self.terms.label_factor
        )

    def threshold_ratio(self) -> float | None:
        """Return the threshold as a multiple of the one that the held-out scores give for this version's own terms.

        It is 1 where nobody changed the version. Of a bundle, that of the model whose ratio is farthest from 1. None =
        no held-out scores were kept.
        """
        found = [ratio for own in self.own.values() if (ratio := own.threshold_ratio()) is not None]
        if self.held_out is not None:
            weight = None if self._knobs is None else self._knobs.heavier
            factor = self.terms.label_factor
            calibrated = self.held_out.threshold(self.budget, self._members, weight, factor)
            found.append(self.card.threshold.raw / calibrated.raw)
        return max(found, key=lambda ratio: abs(math.log(ratio)), default=None)

    @property
    def terms(self) -> Terms:
        """Budget, alert policy and knobs of this version."""
        own = self.card.threshold
        knobs = knobs_from_json(self.card.knobs)
        factor = factor_of(self.card.labels)
        return Terms(own.alarms_per_week, own.confirm, own.among, own.recover, knobs, factor)

    def registry_card(self) -> dict[str, Any]:
        """Return the part of the card that the database keeps: readable without the checkpoint. JSON."""
        card = self.card
        return {
            "metrics": card.metrics,
            "trained_at": card.trained_at,
            "length": card.length,
            "threshold": asdict(card.threshold),
            "asset_factors": card.asset_factors,
            "asset_scales": card.asset_scales,
            "bundle": card.bundle,
            "inputs": card.training["inputs"],
            "thresholds": self.thresholds(),
            "knobs": card.knobs,
            "labels": card.labels,
            "derived": card.derived,
            "spread": self.spread(),
            "receipt": card.training.get("receipt"),
            "states": card.states,
            "calendar": card.calendar,
        }

    def derive(self, terms: Terms) -> Self:
        """Return the version of the same weights for other terms: the trained one, if it had them.

        Raises NotFound where there are no held-out scores.
        """
        own, terms = self.terms, terms.of_sensors(self.sensors)
        by_sensor, factor = dict(terms.knobs), terms.label_factor
        labels, calibrated = self.card.labels, self.card.threshold
        if labels is not None:
            calibrated = Threshold.from_json(labels["calibrated"])
        threshold = calibrated
        if own.needs_threshold(terms) or factor != 1:
            if self.held_out is None:
                raise NotFound(f"held-out scores of {self.version}: it was trained by an older release")
            budget = Budget(terms.alarms_per_week, terms.confirm, terms.among, terms.recover, threshold.step_s)
            weight = Knobs(self.inputs, self.scaler, by_sensor).heavier
            threshold = self.held_out.threshold(budget, self._members, weight, factor)
            if own.needs_threshold(terms):
                calibrated = self.held_out.threshold(budget, self._members, weight)
        labels = None if factor == 1 else {"factor": factor, "calibrated": asdict(calibrated)}
        card = replace(
            self.card, threshold=threshold, knobs=knobs_to_json(by_sensor), labels=labels, derived=None
        )
        own_models = {name: model.derive(terms) for name, model in self.own.items()}
        kept: dict[str, Any] = {"held_out": self.held_out, "asset_scales": self.asset_scales, "own": own_models}
        made = type(self)(card, self._members, self.scaler, self.device, **kept)
        origin = self.card.derived["from"] if self.card.derived else self.version
        if made.version == origin:  # the terms that it was trained with, again
            return made
        derived = {"from": origin, "why": "; ".join(own.differences(terms))}
        return type(self)(replace(card, derived=derived), self._members, self.scaler, self.device, **kept)

    @property
    def budget(self) -> Budget:
        """Budget and alert policy that the threshold is calibrated to."""
        own = self.card.threshold
        return Budget(own.alarms_per_week, own.confirm, own.among, own.recover, own.step_s)

    def self_test(self) -> None:
        """Score noise. Raises CheckpointDamaged if that is no number."""
        noise = np.random.default_rng(0).normal(size=(2, self.card.length, len(self.inputs.channels)))
        limit = np.full(len(noise), self.card.threshold.raw, np.float32)
        rows = None if self._scales is None else self._scales.rows(None, len(noise))
        classes = range(1 if self.states is None else len(self.states.classes))
        score = np.concatenate([
            self._score_channels(
                noise.astype(np.float32), _WindowTerms(limit, rows),
                members=tuple(member.in_state(number) for member in self._members),
            ).score
            for number in classes
        ])  # fmt: skip
        if not np.isfinite(score).all():
            raise CheckpointDamaged(f"{self.version} scores noise as {score}")
        for model in self.own.values():
            model.self_test()

    def explain(
        self, values: Float32, share: Float32, assets: Sequence[str] | None = None
    ) -> list[tuple[Contribution, ...]]:
        """Return all sensors of each window [n, T, C] that the model takes, largest share first. `assets`: see `score`.

        Each has its expected and its actual value at the step where its error is largest, in its own unit. Those of a
        counter are its change since the window began. An expected value is limited to about what the sensor ever was in
        training.
        """
        self.check_shape(values)
        if self.own and assets is not None:
            explained: list[tuple[Contribution, ...]] = [()] * len(values)
            for model, places, names in self._by_model(assets):
                found = model.explain(values[places], share[places], names)
                for row, contributions in zip(places.tolist(), found, strict=True):
                    explained[row] = contributions
            return explained
        out: list[tuple[Contribution, ...]] = []
        inputs, owner = self.inputs, torch.from_numpy(self.inputs.owner).to(self.device)
        channels, terms = inputs.to_channels(values), self._terms_of(assets, values)
        with torch.inference_mode():
            for start in range(0, len(values), CHUNK):
                chunk = self._to_tensor(channels[start : start + CHUNK])
                scaler = self._scaler_at(terms.part(start, start + CHUNK).rows)
                x, present = scaler.standardise(chunk)                     # (B, K, T)
                knobs = self._bound(chunk, scaler)
                expected_x = self._expected(x, present, knobs)             # (B, K, T)
                error = (expected_x - x).square_() * LATEST.weights(x)[:, 0]
                if knobs is not None:
                    error *= knobs.factor(expected_x)
                if present is not None:
                    error = torch.where(present, error, -1.0)
                of_sensor = error.new_zeros(len(x), len(inputs.sensors), x.shape[-1]).index_add_(1, owner, error)
                worst = of_sensor.argmax(-1, keepdim=True)[:, owner]       # (B, K, 1)
                expected = scaler.restore(expected_x).gather(-1, worst)[..., 0].cpu().numpy()
                actual = chunk.transpose(1, 2).gather(-1, worst)[..., 0].cpu().numpy()
                shown = inputs.bound(inputs.fold_values(expected)), inputs.fold_values(actual)
                rows = zip(share[start : start + CHUNK], *shown, strict=True)
                out += [self._contributions(*row) for row in rows]
        return out

    def reconstruct(self, values: Float32, assets: Sequence[str] | None = None) -> Float32:
        """Return the reconstruction of windows [N, T, C] in the sensors' own units, as `explain` shows it.

        A counter's is its level, an angle's the one nearest to the measured one: it may be below 0° or above 360°.
        `assets`: see `score`.
        NaN for a sensor that the model does not take.
        """
        self.check_shape(values)
        out = np.empty_like(values)
        if self.own and assets is not None:
            for model, rows, names in self._by_model(assets):
                out[rows] = model.reconstruct(values[rows], names)
            return out
        channels, terms = self.inputs.to_channels(values), self._terms_of(assets, values)
        with torch.inference_mode():
            for start in range(0, len(values), CHUNK):
                chunk = self._to_tensor(channels[start : start + CHUNK])
                scaler = self._scaler_at(terms.part(start, start + CHUNK).rows)
                x, present = scaler.standardise(chunk)                                                    # (B, K, T)
                expected_x = self._expected(x, present, self._bound(chunk, scaler))                       # (B, K, T)
                expected = scaler.restore(expected_x).transpose(1, 2).cpu().numpy()
                out[start : start + CHUNK] = self.inputs.to_levels(values[start : start + CHUNK], expected)
        return out

    def spread(self) -> dict[str, float]:
        """Return the usual size of the error of each sensor in its own unit, by the healthy errors of the members.

        Angles have none: their error is not one of a channel.
        """
        errors = torch.stack([member.residual.sensor_error for member in self._members]).median(0).values    # (K,)
        size = (errors.sqrt() / self.typical_scaler.per_unit[:, 0]).cpu().tolist()
        kinds = [self.inputs.inputs[number].kind for number in self.inputs.owner.tolist()]
        owners = [self.sensors[number] for number in self.inputs.owner.tolist()]
        return {name: each for name, each, kind in zip(owners, size, kinds, strict=True) if kind != "angle"}

    def clearing(
        self,
        values: Float32,
        share: Float32,
        assets: Sequence[str] | None = None,
        end_us: Int64 | None = None,
    ) -> list[tuple[str, ...]]:
        """Return the fewest sensors of each window [N, T, C] without which it is not anomalous. Empty = no few are."""
        if self.own and assets is not None:
            sets: list[tuple[str, ...]] = [()] * len(values)
            for model, rows, names in self._by_model(assets):
                when = None if end_us is None else end_us[rows]
                found = model.clearing(values[rows], share[rows], names, when)
                for row, one in zip(rows.tolist(), found, strict=True):
                    sets[row] = one
            return sets
        terms = self._terms_of(assets, values, end_us)

        def score(windows: Float32, of: Int64) -> Float32:
            return self._score(self.inputs.to_channels(windows), terms.of(of), share_normal=False).score

        return [tuple(self.sensors[c] for c in found) for found in clearing_sets(score, values, share)]

    def _bound(self, chunk: torch.Tensor, scaler: Scaler) -> BoundKnobs | None:
        """Return the knobs for windows (B, T, K) of channels. None = all deviations count alike."""
        return None if self._knobs is None else self._knobs.bind(chunk, scaler)

    def _expected(self, x: torch.Tensor, present: torch.Tensor | None, knobs: BoundKnobs | None) -> torch.Tensor:
        """Return the reconstruction (B, C, T) of each window by the member with the highest score."""
        if len(self._members) == 1:
            return reconstruction(self._members[0].network, x, present)
        imputer = imputer_of(self._members)
        if imputer is not None:
            x = impute(imputer, x, present)
        scores = torch.stack(
            [member.weight * member.score(x, present, knobs, imputer).sum(1) for member in self._members]
        )                                                                                         # (M, B)
        highest = scores.nan_to_num(nan=-1.0).argmax(0)        # (B,), NaN: it scores none of the present sensors
        expected = torch.empty_like(x)
        for number, member in enumerate(self._members):
            rows = (highest == number).nonzero()[:, 0]
            if len(rows):
                here = None if present is None or imputer is not None else present[rows]
                expected[rows] = reconstruction(member.network, x[rows], here)
        return expected

    def _contributions(self, share: Float32, expected: Float32, actual: Float32) -> tuple[Contribution, ...]:
        def known(value: np.float32) -> float | None:
            return float(value) if np.isfinite(value) else None

        kinds = [each.kind for each in self.inputs.inputs]
        return tuple(
            Contribution(
                self.card.sensors[c],
                float(share[c]),
                known(expected[c]),
                known(actual[c]),
                "change" if kinds[c] == "change" else "value",
            )
            for c in np.argsort(-share, kind="stable")
            if kinds[c] != "left_out"
        )

    def save(self, folder: Path) -> str:
        """Write a checkpoint into `folder`/version and return the version."""
        self._version = checkpoint.write(Path(folder), self._tensors(), self._card_json())
        return self._version

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """Read a checkpoint's folder.

        Raises CheckpointDamaged, CheckpointUnavailable (try again), or ConfigError for a device that is missing.
        """
        where = pick_device(device)
        tensors, raw = checkpoint.read(Path(path))
        try:
            return cls._built(tensors, raw, where)
        # Whatever JSON may hold in place of what belongs there.
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, ConfigError) as cause:
            raise CheckpointDamaged(f"{path}: whole, but not a model this version can build: {cause!r}") from cause

    @classmethod
    def _built(cls, tensors: dict[str, torch.Tensor], raw: dict[str, Any], device: torch.device) -> Self:
        """Build a model, and those of a bundle, of its tensors and its card."""
        card = card_from_json(raw)
        n_channels = len(ModelInputs.from_json(card.sensors, card.inputs).channels)
        members = tuple(
            Member.load(entry, tensors, f"{number}.", n_channels, card.length)
            for number, entry in enumerate(card.members)
        )
        scaler = Scaler.from_json(raw["scaler"], n_channels)
        of_state = () if card.states is None else States.from_json(card.sensors, card.states).factors
        calendar = None if card.calendar is None else Calendar.from_json(card.calendar)
        held_out = (
            HeldOut.load(card.held_out, tensors, card.asset_factors, of_state, calendar)
            if card.held_out is not None
            else None
        )
        scales = card.asset_scales
        asset_scales = AssetScales.load(scales, tensors, n_channels) if scales is not None else None
        own = {
            name: cls._built(tensors_of(number, tensors), entry, device)
            for number, (name, entry) in enumerate(cards_of(raw, card.length, card.sensors))
        }
        return cls(card, members, scaler, device, raw.get("version"), held_out, asset_scales, own)

    def dump(self) -> bytes:
        """Return the model as bytes, for another process. `parse` reads them."""
        return checkpoint.pack(self._tensors(), self._card_json())

    @classmethod
    def parse(cls, content: bytes, device: torch.device) -> Self:
        """Read the bytes of `dump`."""
        return cls._built(*checkpoint.unpack(content), device)

    def with_own(self, own: Mapping[str, Self], bundle: dict[str, Any]) -> Self:
        """Return the bundle of this model, the fleet's, and models of assets. `bundle`: the card's entry."""
        card = replace(self.card, bundle={**bundle, "own": list(own)})
        kept: dict[str, Any] = {"held_out": self.held_out, "asset_scales": self.asset_scales, "own": own}
        return type(self)(card, self._members, self.scaler, self.device, **kept)

    def _tensors(self) -> dict[str, torch.Tensor]:
        kept = {} if self.held_out is None else self.held_out.tensors()
        kept |= {} if self.asset_scales is None else self.asset_scales.tensors()
        for number, model in enumerate(self.own.values()):
            kept |= prefixed(number, model._tensors())
        return kept | {
            name: tensor
            for number, member in enumerate(self._members)
            for name, tensor in member.tensors(f"{number}.").items()
        }

    def _card_json(self) -> dict[str, Any]:
        card = card_to_json(self.card)
        own = {CARDS: {name: model._card_json() for name, model in self.own.items()}} if self.own else {}
        return {**card, "scaler": self.scaler.to_json(), **own}

    def standardise(
        self, values: Float32, assets: Sequence[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return windows [N, T, C] as the networks see them: (N, K, T) on the device, and the mask of present values.

        See `Scaler.standardise`. `assets`: see `score`.
        """
        scaler = self.scaler_of(assets, len(values))
        return scaler.standardise(self._to_tensor(self.inputs.to_channels(values)))

    def _to_tensor(self, values: Float32) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device)

    def check_shape(self, values: Float32) -> None:
        """Raise ValueError for windows that are not of the model's length and sensors."""
        expected = (self.card.length, len(self.card.sensors))
        if values.ndim != 3 or values.shape[1:] != expected:
            raise ValueError(f"windows of shape {values.shape[1:]} for a model of {expected} (cells, sensors)")
