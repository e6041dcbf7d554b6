"""Families of networks do what they say: noise falls, samples are like the data, latents separate faults.

`MONITOR_QUALITY=full` trains all of them with all of the data, as for deploy/MODELS.md. `-s` shows the figures.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.quality import families
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

IS_FULL = os.environ.get("MONITOR_QUALITY") == "full"
SHORT: dict[str, Any] = {} if IS_FULL else {"max_steps": 500}


def test_the_denoising_objective_lowers_noise() -> None:
    networks = families.NETWORKS if IS_FULL else ("conv",)
    each = ["pca", *(f"{name}{extra}" for name in networks for extra in ("", "+denoising"))]
    rows, _ = families.measure_noise(each, families.N_ROWS if IS_FULL else 4000, **SHORT)
    before = rows["before"]["window"]
    assert before == pytest.approx(-20 * np.log10(families.NOISE), abs=0.5)
    for name in networks:
        plain, denoising = rows[name]["window"], rows[f"{name}+denoising"]["window"]
        assert denoising > before + 6
        assert denoising > plain + 0.3, name
        assert denoising > rows["pca"]["window"] + 0.3, name


@pytest.mark.parametrize("name", families.SAMPLED if IS_FULL else families.SAMPLED[:1])
def test_samples_are_nearer_to_the_data_than_noise(name: str, data_dir: Path) -> None:
    generators = families.GENERATORS if IS_FULL else ("pca", "dense+variational")
    rows = families.measure_samples(data_dir, name, generators, **(SHORT and {"max_steps": 300}))
    for family in generators:
        assert rows[family]["autocorrelation"] < 0.3 * rows["noise"]["autocorrelation"], family
        assert rows[family]["cross_correlation"] < 0.3 * rows["noise"]["cross_correlation"], family
        assert rows[family]["ks"] < 0.25, family
        assert rows[family]["wasserstein"] < 0.3, family


def test_latents_separate_the_faults_of_tep(data_dir: Path) -> None:
    encoders = families.ENCODERS if IS_FULL else ("pca", "dense")
    rows = families.measure_latents(data_dir, encoders, **(SHORT and {"max_steps": 100}))
    for family in encoders:
        assert rows[family]["accuracy"] > 3 * rows["chance"]["accuracy"], family
        assert rows[family]["size"] < 0.05 * rows["raw windows"]["size"], family


def test_neighbours_of_the_same_block_do_not_count() -> None:
    """Features that tell only the block: nearest neighbours of another block are then of any run."""
    runs, blocks = np.repeat(np.arange(10), 20), np.tile(np.repeat(np.arange(5), 4), 10)
    draw = np.random.default_rng(0)
    own_place = draw.standard_normal((10, 5, 3))[runs, blocks] * 10 + draw.standard_normal((200, 3))
    assert families.neighbour_accuracy(own_place, runs, blocks) < 0.4
    of_the_run = draw.standard_normal((10, 3))[runs] * 100 + draw.standard_normal((200, 3))
    assert families.neighbour_accuracy(of_the_run, runs, blocks) == 1.0


@pytest.mark.parametrize(
    ("case", "word"),
    [(families.OVERFITTED, "overfitting"), (families.DISTORTED, "distorted features")],
)
def test_a_trouble_is_said_on_the_card(case: tuple[str, str], word: str, data_dir: Path) -> None:
    found = families.measure_trouble(data_dir, *case, **(SHORT and {"max_steps": 400}))
    assert any(trouble.startswith(word) for trouble in found["troubles"]), found["troubles"]
    assert found["best_step"] < found["n_steps"]
    assert found["held_out_error"] <= found["last_error"]


def test_training_with_care_ends_where_a_careless_one_does_not(data_dir: Path) -> None:
    name, family = families.HARD
    careless = families.measure_careless(data_dir, name, family, rates=(0.001, 1.0), n_steps=200)
    careful = families.measure_trouble(data_dir, name, family, max_steps=200)
    reached = 1 - careful["explained"]["all"]
    assert reached < 0.5 * careless["0.001"], "too small a rate learns nothing in this time"
    assert not careless["1"] < 1.0, "too large a rate diverges, or learns nothing"
    assert any("learning had not ended" in trouble for trouble in families.measure_trouble(
        data_dir, name, family, max_steps=400)["troubles"])  # fmt: skip


def test_the_page_names_every_family() -> None:
    text = (ROOT / "deploy" / "MODELS.md").read_text()
    assert "python -m tests.quality.families" in text
    for family in families.USES:
        assert f"| `{family}` | {families.USES[family]} |" in text
    assert (ROOT / "deploy" / "models-denoising.svg").stat().st_size < 40_000
