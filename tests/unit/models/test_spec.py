"""Model specification and device: wrong names are refused with the reason and the valid ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monitor.errors import ConfigError
from monitor.models.build import build
from monitor.models.device import pick_device
from monitor.models.spec import ModelSpec


def test_the_default_architecture_is_auto() -> None:
    assert (ModelSpec().architecture, ModelSpec().objective) == ("auto", "plain")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "cnov"}, r'"cnov".*valid: auto, conv, dense, forecast, lstm, pca.*did you mean "conv"'),
        ({"objective": "magic"}, r'objective "magic".*valid: plain'),
        ({"architecture": "pca", "objective": "sparse"}, 'objective "sparse" does not go with pca: .*solved directly'),
        ({"architecture": "lstm", "stacked": True}, "stacked does not go with lstm: .*one layer"),
        ({"max_train_s": 0}, "max_train_s must be above 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"n_tries": 0}, "n_tries must be at least 1"),
        ({"max_trim": 1.0}, "max_trim must be in"),
    ],
)
def test_wrong_values_are_refused_with_a_reason(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSpec(**wrong)


def test_an_unknown_network_is_not_built() -> None:
    with pytest.raises(ConfigError, match="valid: conv, dense, forecast, lstm, pca"):
        build("transformer", 3, 16)


def test_the_cpu_is_always_available() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_chooses_the_best_device() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", "", "cpu, please"])
def test_a_missing_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="here: auto, cpu"):
        pick_device(name)
