"""Calibration on the later half of the history: members know earlier windows alone, and it is used where it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monitor.budget import WEEK_S
from monitor.models.pca import Pca
from monitor.models.spec import ModelSpec
from monitor.training import fit as fit_module
from monitor.training.fit import fit
from monitor.training.forward import MIN_SPANS, N_PARTS, Rows, forward, has_room, later_half, part_begins
from monitor.training.tensors import WindowTensors
from tests.unit.training.sine_windows import BUDGET, FLEET_SPEC, LENGTH, MINUTE_US, readings, windows

SPAN_US = LENGTH * MINUTE_US
TWO = windows(readings(900), readings(600, 1))


def rows_of_later_half() -> np.ndarray:
    return later_half(TWO.asset, np.arange(len(TWO)))


def test_the_later_half_is_that_of_each_asset() -> None:
    rows = rows_of_later_half()
    assert np.bincount(TWO.asset[rows]).tolist() == [445, 295]
    begins = part_begins(TWO.asset[rows], TWO.end_us[rows])
    assert {one: len(ends) for one, ends in begins.items()} == {0: N_PARTS, 1: N_PARTS}
    assert begins[0][0] == TWO.end_us[rows[0]]


def test_no_part_is_scored_by_members_that_know_it() -> None:
    """The windows carry their end time and their asset as values, so that each solution shows what it has seen."""
    minute = (TWO.end_us // MINUTE_US).astype(np.float32)
    x = torch.from_numpy(np.stack([minute, TWO.asset.astype(np.float32)], 1))[..., None].repeat(1, 1, LENGTH)
    rows = rows_of_later_half()
    seen: list[torch.Tensor] = []

    def solve(some: WindowTensors) -> dict[str, Pca]:
        seen.append(some.x[..., 0])
        return {"pca": Pca.solve(some.x)}

    found = forward(
        Rows(TWO.asset, TWO.end_us, WindowTensors(x, None)),
        Rows(TWO.asset[rows], TWO.end_us[rows], WindowTensors(x[torch.from_numpy(rows)], None)),
        begins := part_begins(TWO.asset[rows], TWO.end_us[rows]), SPAN_US, solve, 0.1,
    )  # fmt: skip
    assert found is not None
    assert len(found.raw) == len(rows)
    assert np.isfinite(found.raw).all()
    assert len(seen) == N_PARTS + 1
    assert len(seen[-1]) == len(TWO)  # the members that will score are solved on everything
    for number in range(N_PARTS):
        for asset in (0, 1):
            newest = seen[number][seen[number][:, 1] == asset, 0].max()
            assert newest * MINUTE_US <= begins[asset][number] - SPAN_US
            assert newest * MINUTE_US > begins[asset][number] - 2 * SPAN_US  # and all that it may know


def test_a_month_is_calibrated_on_its_later_half() -> None:
    train = windows(readings(3000))
    model = fit(train, ModelSpec("pca"), FLEET_SPEC)
    threshold, held_out = model.card.threshold, model.held_out
    assert held_out is not None
    assert model.card.training["n_calibrated"] == len(held_out.raw) == len(train) - len(train) // 2
    assert threshold.weeks == pytest.approx(len(held_out.raw) * 60 / WEEK_S, rel=1e-3)
    weighted = held_out.weighted(model.members, [1.0, 1.0])
    assert weighted == pytest.approx(held_out.raw[:: held_out.every], rel=5e-3, abs=5e-3)
    assert held_out.threshold(BUDGET) == threshold


def test_alerted_windows_are_scored_and_not_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    train = windows(readings(3000))
    alerted = np.zeros(len(train), dtype=bool)
    alerted[2000:2400] = True
    n_learnt: list[int] = []
    whole = fit_module.forward
    monkeypatch.setattr(
        fit_module, "forward", lambda learnt, *rest: (n_learnt.append(len(learnt.windows)), whole(learnt, *rest))[1]
    )
    fit(train, ModelSpec("pca"), FLEET_SPEC)
    model = fit(replace(train, alerted=alerted), ModelSpec("pca"), FLEET_SPEC)
    assert n_learnt[0] - n_learnt[1] == pytest.approx(400, abs=LENGTH)
    assert model.card.training["n_calibrated"] == len(train) - len(train) // 2


def test_a_short_history_keeps_the_single_split() -> None:
    model = fit(windows(readings(400)), ModelSpec("pca"), FLEET_SPEC)
    assert model.card.training["n_calibrated"] == model.card.training["n_held_out"] < 100
    ends = np.arange(2 * MIN_SPANS * LENGTH) * MINUTE_US
    asset = np.zeros(len(ends), np.int64)
    late = ends[later_half(asset, np.arange(len(ends)))]
    begins = part_begins(np.zeros(len(late), np.int64), late)
    assert not has_room(asset, ends, begins, SPAN_US, 100)
    assert has_room(asset, ends, begins, SPAN_US // 2, 100)
    assert not has_room(asset, ends, begins, SPAN_US // 2, 1000)
