"""`auto`: members solved in closed form, calibrated on windows before they learn from them, and the card's table."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.models.detector import TrainedModel
from monitor.models.member import Member
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training import auto
from monitor.training.auto import Ensemble, Timeline, errors_of, fit_ensemble
from monitor.training.faults import KINDS
from monitor.training.fit import FOLDS, MIN_SPANS, fit
from monitor.training.tensors import WindowTensors

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.types import Bool, Float32, Int64

CPU = torch.device("cpu")
SPEC = ModelSpec("auto")
SENSORS = ("speed", "power", "pitch")
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)
ALL = ["level", "moving", "autoregression", "cross", "short_memory", "memory", "pca"]
LENGTH, SECOND = 24, 1_000_000


def noise(n: int, seed: int = 0) -> WindowTensors:
    """Return windows of three sensors that share a random walk back to zero."""
    draw = np.random.default_rng(seed)
    load = np.zeros(n + LENGTH)
    for row in range(1, len(load)):
        load[row] = 0.9 * load[row - 1] + draw.normal()
    rows = np.stack([load, -load, load / 2]) + 0.3 * draw.normal(size=(3, len(load)))
    return windowed(rows.T.astype(np.float32))


def windowed(rows: Float32) -> WindowTensors:
    return WindowTensors(torch.from_numpy(rows).unfold(0, LENGTH, 1).contiguous(), None)   # (N, 3, T)


def timeline(
    x: WindowTensors, *, n_folds: int = 2, learnable: Bool | None = None, repeats: bool = False
) -> Timeline:
    """Return a timeline of one asset: half of the windows are early, the rest in folds of the same size."""
    n = len(x)
    ends: Int64 = np.arange(n) * SECOND
    half = n // 2
    fold = np.arange(n - half) * n_folds // (n - half)
    every = np.ones(n - half, bool) if learnable is None else learnable
    early, held, none = x.select(slice(0, half)), x.select(slice(half, n)), np.zeros(n - half, bool)
    return Timeline(early, ends[:half], held, ends[half:], fold, every, fold + 1, np.zeros(3, bool), repeats,
                    none, np.zeros(half, bool), none)


def ensemble(found: Timeline) -> Ensemble:
    return fit_ensemble(found, SPEC, CPU, lambda _share, _text: None)


def trained(n: int = 700, spec: ModelSpec = SPEC, alerted: Bool | None = None) -> TrainedModel:
    values = noise(n - 1).x.transpose(1, 2).numpy()
    windows = TrainingSet(values, np.zeros(n, np.int32), np.arange(n) * SECOND, alerted)
    return fit(windows, spec, FleetSpec("pumps", SENSORS, 1.0, BUDGET), now=lambda: 0.0)


@pytest.fixture(scope="module")
def windows() -> WindowTensors:
    return noise(500)


@pytest.fixture(scope="module")
def fitted(windows: WindowTensors) -> Ensemble:
    return ensemble(timeline(windows))


def test_no_label_can_reach_the_ensemble() -> None:
    fields = {"early", "early_us", "held_out", "held_us", "fold", "learnable", "reaches", "periodic", "repeats"}
    of_people = {"trusted", "held_trusted"}  # accepted as normal, by an operator who was asked nothing
    assert set(Timeline._fields) == fields | of_people | {"event"}
    assert {field.name for field in dataclasses.fields(WindowTensors)} == {"x", "present"}
    assert "label" not in {field.name for field in dataclasses.fields(TrainingSet)}


def test_the_table_has_each_member_and_all(fitted: Ensemble) -> None:
    assert [row["members"] for row in fitted.table["rows"]] == [*([name] for name in ALL), ALL]
    for row in fitted.table["rows"]:
        assert set(row["by_kind"]) == set(KINDS)
        # There are as many faults of each kind, so the share of all found is the mean of the shares.
        assert row["found"] == pytest.approx(np.mean(list(row["by_kind"].values())), abs=1e-3)
    assert fitted.table["rows"][-1]["found"] > 0.3


def test_errors_are_of_members_that_did_not_see_the_window(windows: WindowTensors, fitted: Ensemble) -> None:
    """Each fold's errors are those of members solved on the windows before it."""
    found = timeline(windows)
    again = ensemble(Timeline(*(part for part in found))._replace(held_out=found.held_out))
    changed = windows.x.clone()
    changed[-60:] += 3 * torch.randn(60, 3, LENGTH, generator=torch.Generator().manual_seed(1))   # in the last fold
    other = ensemble(timeline(WindowTensors(changed, None)))
    first = torch.from_numpy(np.flatnonzero(found.fold == 0))
    for one, same, moved in zip(fitted.errors, again.errors, other.errors, strict=True):
        assert torch.equal(one.error, same.error)
        assert torch.equal(one.error[first], moved.error[first])


def test_members_are_calibrated_on_those_errors(fitted: Ensemble) -> None:
    healthy = torch.from_numpy(np.flatnonzero(~fitted.outlier))
    for member, errors in zip(fitted.members, fitted.errors, strict=True):
        again = Member.fit(member.name, member.network, errors.rows(healthy))
        assert torch.equal(member.residual.sensor_error, again.residual.sensor_error)
        assert torch.equal(member.residual.centre, again.residual.centre)


def test_the_members_of_the_version_know_the_newest_windows(windows: WindowTensors, fitted: Ensemble) -> None:
    memory = next(member for member in fitted.members if member.name == "memory")
    newest = windows.select(slice(len(windows) - 40, len(windows)))
    before = fitted.errors[ALL.index("memory")].error[-40:, :, -1].mean()
    assert errors_of(memory.network, newest).error[..., -1].mean() < 0.9 * before


def test_windows_of_alerts_are_never_learnt_from(windows: WindowTensors, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    solve = auto._solve
    monkeypatch.setattr(auto, "_solve", lambda x, *rest: (seen.append(x), solve(x, *rest))[1])
    marked = windows.x.clone()
    marked[300:320] += 0.001   # found again below
    learnable = np.ones(len(windows) - len(windows) // 2, bool)
    learnable[300 - len(windows) // 2 : 320 - len(windows) // 2] = False
    ensemble(timeline(WindowTensors(marked, None), learnable=learnable))
    assert len(seen) == 3
    known = {tuple(row) for x in seen for row in x.flatten(1).tolist()}
    assert not any(tuple(row) in known for row in marked[300:320].flatten(1).tolist())
    assert any(tuple(row) in known for row in marked[320:340].flatten(1).tolist())


def test_a_window_that_reaches_into_a_fold_is_no_history_of_it(
    windows: WindowTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    solve = auto._solve
    monkeypatch.setattr(auto, "_solve", lambda x, *rest: (sizes.append(len(x)), solve(x, *rest))[1])
    found = timeline(windows)
    reaches = found.reaches.copy()
    reaches[(found.fold == 0) & (np.arange(len(reaches)) >= int((found.fold == 0).sum()) - LENGTH)] = 2
    ensemble(found._replace(reaches=reaches))
    ensemble(found)
    assert sizes[1] == sizes[4] - LENGTH
    assert sizes[2] == sizes[5]


def test_memories_have_more_say_in_a_repeating_signal() -> None:
    at = 2 * np.pi * np.arange(1400) / 10
    square = np.sign(np.sin(at)) * (1 + 0.2 * np.sin(at / 41))
    rows = np.stack([square, np.roll(square, 2), np.roll(square, 5)], 1)
    rows += 0.02 * np.random.default_rng(0).normal(size=rows.shape)
    found = timeline(windowed(rows.astype(np.float32)), repeats=True)._replace(periodic=np.ones(3, bool))
    weight = {member.name: member.weight for member in ensemble(found).members}
    assert weight["memory"] == weight["short_memory"] == weight["shape"] == weight["level"] == 1.0
    assert weight["pca"] == weight["moving"] == weight["autoregression"] == weight["cross"] < 0.9


def test_a_member_that_drifts_speaks_softly() -> None:
    """A level that moves away in the held-out time says nothing about the steps just before."""
    found = noise(500).x.clone()
    found[330:] += torch.linspace(0, 12, len(found) - 330)[:, None, None]
    weight = {member.name: member.weight for member in ensemble(timeline(WindowTensors(found, None))).members}
    assert weight["level"] < 0.5 < weight["moving"]
    assert all(0 < each <= 1 for each in weight.values())


def test_a_single_sensor_has_no_cross_member() -> None:
    one = noise(300)
    alone = WindowTensors(one.x[:, :1].contiguous(), None)
    names = [member.name for member in ensemble(timeline(alone)._replace(periodic=np.zeros(1, bool))).members]
    assert names == [name for name in ALL if name != "cross"]


def test_half_of_a_long_history_gives_the_threshold() -> None:
    card = trained(1400).card
    assert card.training["n_held_out"] == pytest.approx((1 - FOLDS[0]) * 1400, abs=1)
    assert card.threshold.weeks == pytest.approx(700 / (7 * 86_400), rel=0.01)


def test_a_fifth_of_a_short_one_does() -> None:
    n = MIN_SPANS * LENGTH - 100
    assert trained(n).card.training["n_held_out"] == pytest.approx(0.2 * n, abs=1)


def test_the_card_lists_the_members(tmp_path: Path) -> None:
    model = trained()
    assert model.card.architecture == "auto"
    assert [entry["name"] for entry in model.card.members] == ALL
    assert {entry["name"]: entry["scales"] for entry in model.card.members}["level"] == ["whole"]
    version = model.save(tmp_path)
    again = TrainedModel.load(tmp_path / version)
    values = noise(40, 2).x.transpose(1, 2).numpy()
    assert np.array_equal(again.score(values).score, model.score(values).score)


def test_versions_are_deterministic() -> None:
    assert trained().version == trained().version


def test_a_sensor_without_a_held_out_value_trains() -> None:
    """The shape knows the periodic sensor alone, which has no value in the held-out time."""
    draw, n = np.random.default_rng(0), 1500
    rows = draw.normal(size=(n + LENGTH - 1, 3)).astype(np.float32)
    rows[:, 1] = np.sin(2 * np.pi * np.arange(len(rows)) / 10) + 0.05 * rows[:, 1]
    rows[n // 2 - LENGTH :, 1] = np.nan
    values = np.lib.stride_tricks.sliding_window_view(rows, LENGTH, axis=0).transpose(0, 2, 1)
    train = TrainingSet(values, np.zeros(n, np.int32), np.arange(n) * SECOND)
    model = fit(train, SPEC, FleetSpec("pumps", SENSORS, 1.0, BUDGET))
    assert "shape" in [member.name for member in model.members]
    assert np.isfinite(model.score(np.ascontiguousarray(values[:20])).score).all()
    assert np.isfinite(model.score(np.ascontiguousarray(values[-20:])).score).all()


def test_a_short_window_has_one_memory() -> None:
    """A short memory of windows of 16 steps is the memory again, and both had a say."""
    x = WindowTensors(noise(500).x[..., :16].contiguous(), None)
    names = [member.name for member in ensemble(timeline(x)).members]
    assert names == [name for name in ALL if name != "short_memory"]
