"""`auto`: the network that joins the ensemble, chosen by injected faults, with the table in the card."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.errors import TrainingDiverged
from monitor.models.detector import TrainedModel
from monitor.models.pca import Pca
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training import auto
from monitor.training import fit as fit_module
from monitor.training.auto import CANDIDATES, Choice, calibrated_member, choose, refit_pca
from monitor.training.faults import KINDS
from monitor.training.fit import fit
from monitor.training.loop import train
from monitor.training.tensors import WindowTensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.models.member import Member
    from monitor.training.loop import TrainingResult

CPU = torch.device("cpu")
SPEC = ModelSpec("auto", max_steps=20, max_train_s=600.0)
SENSORS = ("speed", "power", "pitch")
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)


def waves(n: int, seed: int = 0) -> WindowTensors:
    """Return three sensors on one wave with a random phase, with noise."""
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(12) / 2
    x = torch.stack([at.sin(), at.cos(), (at.sin() + at.cos()) / 1.4], dim=1)   # (N, 3, 12)
    return WindowTensors(x + 0.1 * torch.randn(x.shape, generator=draw), None)


TRAINING, HEALTHY = waves(300), waves(100, 1)
PCA = Pca.solve(TRAINING.x)


def chosen(
    spec: ModelSpec = SPEC, healthy: WindowTensors = HEALTHY, now: Callable[[], float] = lambda: 0.0, **more: Any
) -> Choice:
    quiet: Callable[[float, str], None] = lambda _share, _message: None   # noqa: E731
    return choose(TRAINING, healthy, PCA, spec, CPU, more.get("on_progress", quiet), now)


def trained(spec: ModelSpec = SPEC) -> TrainedModel:
    values = waves(400).x.transpose(1, 2).numpy()
    windows = TrainingSet(values, np.zeros(400, np.int32), np.arange(400) * 60_000_000)
    return fit(windows, spec, FleetSpec("pumps", SENSORS, 1.0, BUDGET), now=lambda: 0.0)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return chosen()


def test_no_label_can_reach_the_choice() -> None:
    inputs = {"training", "healthy", "pca", "spec", "device", "on_progress", "now"}
    assert set(inspect.signature(choose).parameters) == inputs
    assert {field.name for field in dataclasses.fields(WindowTensors)} == {"x", "present"}
    assert "label" not in {field.name for field in dataclasses.fields(TrainingSet)}


def test_the_table_has_members_and_ensembles(choice: Choice) -> None:
    fixed = ["level", "moving", "pca"]
    alone = [[name] for name in (*fixed, *CANDIDATES)]
    assert [row["members"] for row in choice.table["rows"]] == [*alone, fixed, *([*fixed, each] for each in CANDIDATES)]
    for row in choice.table["rows"]:
        assert set(row["by_kind"]) == set(KINDS)
        assert all(0 <= found <= 1 for found in row["by_kind"].values())
        # There are as many faults of each kind, so the share of all found is the mean of the shares.
        assert row["found"] == pytest.approx(np.mean(list(row["by_kind"].values())), abs=1e-3)
    assert choice.table["failed"] == {}


def test_the_best_ensemble_is_chosen(choice: Choice) -> None:
    ensembles = {row["members"][-1]: row["found"] for row in choice.table["rows"] if len(row["members"]) == 4}
    assert ensembles[choice.table["chosen"]] == max(ensembles.values())
    assert [one.name for one in choice.members] == ["level", "moving", "pca", choice.table["chosen"]]
    assert choice.result.network is choice.members[-1].network


def test_faults_in_missing_sensors_are_missed(choice: Choice) -> None:
    present = torch.ones_like(HEALTHY.x, dtype=torch.bool)
    present[:, 1] = False
    table = chosen(healthy=WindowTensors(HEALTHY.x, present)).table
    # One sensor of three is missing, and so is a third of the faults.
    assert max(row["found"] for row in table["rows"]) < max(row["found"] for row in choice.table["rows"])


def failing(*names: str) -> Callable[..., TrainingResult]:
    def maybe(training: WindowTensors, healthy: WindowTensors, spec: ModelSpec, *rest: Any) -> TrainingResult:
        if spec.architecture in names:
            raise TrainingDiverged(f"seed 0: loss nan of {spec.architecture}")
        return train(training, healthy, spec, *rest)

    return maybe


def test_a_diverged_candidate_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "train", failing("conv"))
    table = chosen().table
    assert table["failed"] == {"conv": "seed 0: loss nan of conv"}
    assert table["chosen"] == "dense"
    assert all("conv" not in row["members"] for row in table["rows"])


def test_the_error_names_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "train", failing(*CANDIDATES))
    with pytest.raises(TrainingDiverged, match=r"dense: seed 0: loss nan of dense; conv: seed 0"):
        chosen()


@pytest.mark.parametrize(
    ("took_s", "given_s"),
    [(0.0, [60.0, 120.0]), (60.0, [60.0, 60.0]), (200.0, [60.0, 1.0])],
    ids=["unused time goes to the next", "even parts", "one second at least"],
)
def test_candidates_share_the_time(
    took_s: float, given_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    clock = [1000.0]

    def slow(training: WindowTensors, healthy: WindowTensors, spec: ModelSpec, *rest: Any) -> TrainingResult:
        given.append(spec.max_train_s)
        clock[0] += took_s
        return train(training, healthy, spec, *rest)

    monkeypatch.setattr(auto, "train", slow)
    chosen(dataclasses.replace(SPEC, max_train_s=120.0), now=lambda: clock[0])
    assert given == given_s


def test_progress_rises_by_candidate() -> None:
    reported: list[tuple[float, str]] = []
    chosen(on_progress=lambda share, text: reported.append((share, text)))
    shares = [share for share, _ in reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert list(dict.fromkeys(text.split(":")[0] for _, text in reported)) == list(CANDIDATES)


def test_members_are_calibrated_on_held_out(choice: Choice) -> None:
    for one in choice.members:
        again = calibrated_member(one.name, one.network, HEALTHY)
        assert torch.equal(one.residual.sensor_error, again.residual.sensor_error)
        assert torch.equal(one.residual.centre, again.residual.centre)


def test_refitting_changes_only_components(choice: Choice) -> None:
    before = {one.name: one.tensors("") for one in choice.members}
    after = {one.name: one.tensors("") for one in refit_pca(choice.members, TRAINING, HEALTHY, seed=0)}
    assert list(after) == list(before)
    for name, tensors in before.items():
        assert tensors.keys() == after[name].keys()
        changed = {
            key for key, tensor in tensors.items()
            if tensor.shape != after[name][key].shape or not torch.equal(tensor, after[name][key])
        }
        assert changed == ({"network.mean", "network.components", "network.spread"} if name == "pca" else set())


def test_refitting_keeps_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = trained()
    monkeypatch.setattr(fit_module, "refit_pca", lambda members, *_: members)
    as_measured = trained()
    assert detector.card.threshold == as_measured.card.threshold
    assert detector.card.choice == as_measured.card.choice
    assert detector.version != as_measured.version


def test_a_refitted_pca_can_change_its_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before: list[int] = []

    def with_noise(members: tuple[Member, ...], *rest: Any) -> tuple[Member, ...]:
        before.append(members[2].network.hyper["n_components"])
        # Noise needs more components than waves.
        return refit_pca(members, rest[0], WindowTensors(torch.randn_like(rest[1].x), None), rest[2])

    monkeypatch.setattr(fit_module, "refit_pca", with_noise)
    detector = trained()
    version = detector.save(tmp_path)
    assert detector.card.members[2]["hyper"]["n_components"] > before[0]
    assert TrainedModel.load(tmp_path / version).version == version


def test_the_card_lists_the_candidates() -> None:
    card = trained().card
    assert card.architecture == "auto"
    assert [entry["name"] for entry in card.members] == ["level", "moving", "pca", card.choice["chosen"]]
    assert len(card.choice["rows"]) == 3 + len(CANDIDATES) + 1 + len(CANDIDATES)


def test_versions_are_deterministic() -> None:
    assert trained().version == trained().version
    assert trained().version != trained(dataclasses.replace(SPEC, seed=1)).version
