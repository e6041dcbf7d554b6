"""What the configuration offers is what the models can do: the two lists live in different rooms."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from monitor.config import ModelConfig, tree
from monitor.errors import ConfigError
from monitor.models import spec
from monitor.models.spec import ModelSpec


def test_every_architecture_and_objective_that_is_offered_can_be_trained() -> None:
    assert (tree.ARCHITECTURES, tree.OBJECTIVES) == (spec.ARCHITECTURES, spec.OBJECTIVES)


def test_what_does_not_go_together_is_refused_in_both_rooms_for_the_same_reason() -> None:
    assert tree.SENSELESS == spec.SENSELESS
    for architecture, objective, stacked in itertools.product(spec.ARCHITECTURES, spec.OBJECTIVES, (False, True)):
        not_with, why = spec.SENSELESS.get(architecture, ((), ""))
        senseless = objective in not_with or (stacked and "stacked" in not_with)
        with pytest.raises(ConfigError, match=why) if senseless else nullcontext():
            ModelSpec(architecture, objective, stacked)
        with pytest.raises(ValidationError) if senseless else nullcontext():
            ModelConfig(architecture=architecture, objective=objective, stacked=stacked)
