"""The tests for drift of each fleet, beside the scheduler: the champion's stored scores against its held-out ones, and
what a drill found about the readings.

Input: the loaded champion, and the hourly scores in the database. Output: rows of `model_check`, one for each new day,
which `due.py` takes as a reason to retrain. Invariant: the daemon that trains tests, so a day is tested once.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from monitor import logs, metrics
from monitor.lifecycle.drift import DAY_US, DriftTest, HourlyScores, find_drift, hourly
from monitor.models.card import learnt_until_us
from monitor.store import hourly_scores, registry
from monitor.types import ModelCheckKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from monitor.clock import Clock
    from monitor.config import FleetConfig
    from monitor.config.values import Rate
    from monitor.lifecycle.champions import Champions
    from monitor.models.detector import TrainedModel
    from monitor.store.engine import AsyncStore
    from monitor.store.hourly_scores import HourRow

log = logs.get("training")

LOOK_EVERY_S = 3600.0
"""Between two looks for a new day of a fleet."""
LIVE_REFERENCE_DAYS = 14
"""First days of a champion that later ones are compared with, where its held-out scores cannot be: those of states or
of single assets have other thresholds, and those of thinned windows lower maxima."""
MEANING = "scores are higher than in the history that the champion was calibrated on"


class DriftWatch:
    """Tests each fleet once a day of event time."""

    def __init__(self, champions: Champions, store: AsyncStore, clock: Clock) -> None:
        self._champions = champions
        self._store = store
        self._clock = clock
        self._look_at_s: dict[str, float] = {}
        self._tested: dict[str, tuple[str, int]] = {}
        """By fleet, version and number of days of the last test."""

    async def look(self, fleet: FleetConfig) -> None:
        """Test the fleet, if a day has ended since the last test. Raises StoreUnavailable."""
        rate, champion = fleet.retrain.drift, self._champions.detector_of(fleet)
        now_s = self._clock.monotonic_s()
        if rate is None or champion is None or now_s < self._look_at_s.get(fleet.name, -math.inf):
            return
        self._look_at_s[fleet.name] = now_s + LOOK_EVERY_S
        since_us = learnt_until_us(champion.card)
        if since_us is None:
            return
        rows = await self._store.read(hourly_scores.since, fleet.name, since_us)
        found = await asyncio.to_thread(_test, champion, rows, rate)
        if found is None:
            return
        metrics.drift_ratio.labels(fleet.name).set(found.value)
        if self._tested.get(fleet.name) == (champion.version, found.n_days):
            return
        last = await self._store.read(registry.latest_check, ModelCheckKind.DRIFT, fleet.name)
        self._tested[fleet.name] = (champion.version, found.n_days)
        if last is not None and last.version == champion.version and last.result.get("n_days") == found.n_days:
            return  # before a restart
        problem = None
        if found.value >= 1:
            spread = "most assets" if found.is_regime else "the fleet"
            problem = f"drift of {spread}: {MEANING}, on {found.n_days} days since"
            facts = {"version": champion.version, "value": round(found.value, 2)}
            log.info("drift_found", fleet=fleet.name, why=problem, **facts)
        record = partial(
            registry.record_check, at_us=self._clock.now_us(), requested_by="the daemon", problem=problem,
            result=found.to_json(),
        )  # fmt: skip
        await self._store.run(record, ModelCheckKind.DRIFT, champion.version)


    async def keep_inputs(self, fleet: FleetConfig, version: str, found: Mapping[str, Any]) -> None:
        """Store the test of a drill's readings (`input_drift.py`). Raises StoreUnavailable."""
        metrics.input_drift_ratio.labels(fleet.name).set(found["value"])
        if found["problem"] is not None:
            log.info("drift_found", fleet=fleet.name, why=found["problem"], version=version, value=found["value"])
        record = partial(
            registry.record_check, at_us=self._clock.now_us(), requested_by="the daemon", problem=found["problem"],
            result={key: value for key, value in found.items() if key != "problem"},
        )  # fmt: skip
        await self._store.run(record, ModelCheckKind.INPUT_DRIFT, version)


def _test(champion: TrainedModel, rows: Sequence[HourRow], rate: Rate) -> DriftTest | None:
    scores = [math.nan if row.score is None else row.score for row in rows]
    hours = np.array([row.hour_us for row in rows], np.int64)
    live = HourlyScores(hours, np.array([row.asset for row in rows], np.str_), np.array(scores))
    if not len(hours):
        return None
    is_whole = live.hour_us // DAY_US < live.hour_us[-1] // DAY_US  # the last day goes on
    live = _part(live, is_whole)
    reference = _held_out(champion)
    if reference is None and len(live.hour_us):
        until = live.hour_us // DAY_US < live.hour_us[0] // DAY_US + LIVE_REFERENCE_DAYS
        reference, live = _part(live, until), _part(live, ~until)
    return None if reference is None else find_drift(reference, live, rate)


def _part(scores: HourlyScores, wanted: np.ndarray) -> HourlyScores:
    return HourlyScores(scores.hour_us[wanted], scores.asset[wanted], scores.score[wanted])


def _held_out(champion: TrainedModel) -> HourlyScores | None:
    """Return the held-out scores of a champion, where live scores can be compared with them."""
    held = champion.held_out
    has_states = champion.states is not None and bool(champion.states.factors)
    if held is None or champion.own or has_states or held.stride_factor != 1:
        return None
    if not all(isinstance(name, str) for name in held.names):
        return None
    names = np.array(held.names, np.str_)[held.asset]
    limits = champion.limits(names.tolist(), end_us=held.end_us)
    raw = champion.card.threshold.raw if limits is None else limits
    return hourly(held.end_us, names, np.asarray(held.raw / raw, np.float64))
