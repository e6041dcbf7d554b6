"""`auto`: which network joins, decided by faults that nobody labelled, and told in a table."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from monitor.errors import TrainingDiverged
from monitor.models.calibrate import Budget
from monitor.models.detector import Detector
from monitor.models.pca import Pca
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.training import auto
from monitor.training import fit as fit_module
from monitor.training.auto import CANDIDATES, Choice, choose, member, renewed
from monitor.training.faults import KINDS
from monitor.training.fit import fit
from monitor.training.loop import Tensors, learn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.models.member import Member
    from monitor.training.loop import Learnt

CPU = torch.device("cpu")
SPEC = ModelSpec("auto", max_steps=20, max_train_s=600.0)
SENSORS = ("speed", "power", "pitch")
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)


def waves(n: int, seed: int = 0) -> Tensors:
    """Three sensors on one wave, its phase at random, with noise."""
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(12) / 2
    x = torch.stack([at.sin(), at.cos(), (at.sin() + at.cos()) / 1.4], dim=1)   # (N, 3, 12)
    return Tensors(x + 0.1 * torch.randn(x.shape, generator=draw), None)


LEARNING, CLEAN = waves(300), waves(100, 1)
PCA = Pca.solve(LEARNING.x)


def chosen(
    spec: ModelSpec = SPEC, clean: Tensors = CLEAN, now: Callable[[], float] = lambda: 0.0, **more: Any
) -> Choice:
    quiet: Callable[[float, str], None] = lambda _share, _message: None   # noqa: E731
    return choose(LEARNING, clean, PCA, spec, CPU, more.get("on_progress", quiet), now)


def trained(spec: ModelSpec = SPEC) -> Detector:
    values = waves(400).x.transpose(1, 2).numpy()
    train = TrainingSet(values, np.zeros(400, np.int32), np.arange(400) * 60_000_000)
    return fit(train, spec, fleet="pumps", sensors=SENSORS, interval_s=1.0, budget=BUDGET, now=lambda: 0.0)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return chosen()


def test_no_label_can_reach_it() -> None:
    taken = {"learning", "clean", "pca", "spec", "device", "on_progress", "now"}
    assert set(inspect.signature(choose).parameters) == taken
    assert {field.name for field in dataclasses.fields(Tensors)} == {"x", "present"}
    assert "label" not in {field.name for field in dataclasses.fields(TrainingSet)}


def test_the_table_has_a_row_for_each_voice_alone_and_for_each_blend(choice: Choice) -> None:
    usual = ["level", "moving", "pca"]
    alone = [[name] for name in (*usual, *CANDIDATES)]
    assert [row["members"] for row in choice.table["rows"]] == [*alone, usual, *([*usual, each] for each in CANDIDATES)]
    for row in choice.table["rows"]:
        assert set(row["by_kind"]) == set(KINDS)
        assert all(0 <= found <= 1 for found in row["by_kind"].values())
        # The kinds are as many of each, so what is found of all is the mean of what is found of each.
        assert row["found"] == pytest.approx(np.mean(list(row["by_kind"].values())), abs=1e-3)
    assert choice.table["failed"] == {}


def test_the_chosen_network_is_that_of_the_blend_that_finds_most_and_speaks_last(choice: Choice) -> None:
    blends = {row["members"][-1]: row["found"] for row in choice.table["rows"] if len(row["members"]) == 4}
    assert blends[choice.table["chosen"]] == max(blends.values())
    assert [one.name for one in choice.members] == ["level", "moving", "pca", choice.table["chosen"]]
    assert choice.learnt.network is choice.members[-1].network


def test_windows_with_gaps_are_tried_with_their_gaps(choice: Choice) -> None:
    present = torch.ones_like(CLEAN.x, dtype=torch.bool)
    present[:, 1] = False
    table = chosen(clean=Tensors(CLEAN.x, present)).table
    # A fault in a sensor that is not there cannot be found; of one sensor in three that is a third of all.
    assert max(row["found"] for row in table["rows"]) < max(row["found"] for row in choice.table["rows"])


def failing(*names: str) -> Callable[..., Learnt]:
    def maybe(learning: Tensors, clean: Tensors, spec: ModelSpec, *rest: Any) -> Learnt:
        if spec.architecture in names:
            raise TrainingDiverged(f"seed 0: loss nan of {spec.architecture}")
        return learn(learning, clean, spec, *rest)

    return maybe


def test_a_candidate_that_diverges_is_named_and_the_others_carry_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "learn", failing("conv"))
    table = chosen().table
    assert table["failed"] == {"conv": "seed 0: loss nan of conv"}
    assert table["chosen"] == "dense"
    assert all("conv" not in row["members"] for row in table["rows"])


def test_when_all_diverge_each_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "learn", failing(*CANDIDATES))
    with pytest.raises(TrainingDiverged, match=r"dense: seed 0: loss nan of dense; conv: seed 0"):
        chosen()


@pytest.mark.parametrize(
    ("took_s", "given_s"),
    [(0.0, [60.0, 120.0]), (60.0, [60.0, 60.0]), (200.0, [60.0, 1.0])],
    ids=["unused time is left to the next", "even parts", "when it is over each has a word"],
)
def test_the_time_is_divided_among_the_candidates(
    took_s: float, given_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    clock = [1000.0]

    def slow(learning: Tensors, clean: Tensors, spec: ModelSpec, *rest: Any) -> Learnt:
        given.append(spec.max_train_s)
        clock[0] += took_s
        return learn(learning, clean, spec, *rest)

    monkeypatch.setattr(auto, "learn", slow)
    chosen(dataclasses.replace(SPEC, max_train_s=120.0), now=lambda: clock[0])
    assert given == given_s


def test_progress_only_rises_and_names_who_learns() -> None:
    heard: list[tuple[float, str]] = []
    chosen(on_progress=lambda share, text: heard.append((share, text)))
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert list(dict.fromkeys(text.split(":")[0] for _, text in heard)) == list(CANDIDATES)


def test_every_voice_is_calibrated_on_windows_it_has_not_learnt_from(choice: Choice) -> None:
    for one in choice.members:
        again = member(one.name, one.network, CLEAN)
        assert torch.equal(one.residual.sensor_error, again.residual.sensor_error)
        assert torch.equal(one.residual.centre, again.residual.centre)


def test_renewing_changes_the_weights_of_the_components_and_nothing_else(choice: Choice) -> None:
    before = {one.name: one.tensors("") for one in choice.members}
    after = {one.name: one.tensors("") for one in renewed(choice.members, LEARNING, CLEAN, seed=0)}
    assert list(after) == list(before)
    for name, tensors in before.items():
        assert tensors.keys() == after[name].keys()
        changed = {
            key for key, tensor in tensors.items()
            if tensor.shape != after[name][key].shape or not torch.equal(tensor, after[name][key])
        }
        assert changed == ({"network.mean", "network.components", "network.spread"} if name == "pca" else set())


def test_the_threshold_stays_from_before_the_components_were_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = trained()
    monkeypatch.setattr(fit_module, "renewed", lambda members, *_: members)
    as_measured = trained()
    assert detector.card.threshold == as_measured.card.threshold
    assert detector.card.choice == as_measured.card.choice
    assert detector.version != as_measured.version


def test_a_detector_whose_components_were_renewed_to_another_number_can_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before: list[int] = []

    def watched(members: tuple[Member, ...], *rest: Any) -> tuple[Member, ...]:
        before.append(members[2].network.hyper["n_components"])
        # What moves differently lately: noise needs more components than waves.
        return renewed(members, rest[0], Tensors(torch.randn_like(rest[1].x), None), rest[2])

    monkeypatch.setattr(fit_module, "renewed", watched)
    detector = trained()
    version = detector.save(tmp_path)
    assert detector.card.members[2]["hyper"]["n_components"] > before[0]
    assert Detector.load(tmp_path / version).version == version


def test_the_card_tells_who_speaks_and_what_was_tried() -> None:
    card = trained().card
    assert card.architecture == "auto"
    assert [said["name"] for said in card.members] == ["level", "moving", "pca", card.choice["chosen"]]
    assert len(card.choice["rows"]) == 3 + len(CANDIDATES) + 1 + len(CANDIDATES)


def test_the_same_seed_and_data_give_the_same_version() -> None:
    assert trained().version == trained().version
    assert trained().version != trained(dataclasses.replace(SPEC, seed=1)).version
