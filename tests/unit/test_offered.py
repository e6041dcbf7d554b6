"""The configuration offers exactly the models that can be built."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from monitor.config.tree import ModelConfig
from monitor.errors import ConfigError
from monitor.models import spec
from monitor.models.build import NETWORKS
from monitor.models.objectives import OBJECTIVES
from monitor.models.spec import ModelSpec


def test_every_offered_architecture_can_be_built_or_is_auto() -> None:
    assert set(spec.ARCHITECTURES) == {"auto", *NETWORKS}
    assert set(spec.OBJECTIVES) == set(OBJECTIVES)


def test_incompatible_options_are_refused_by_both_packages() -> None:
    for architecture, objective, stacked in itertools.product(spec.ARCHITECTURES, spec.OBJECTIVES, (False, True)):
        not_with, why = spec.INCOMPATIBLE_OPTIONS.get(architecture, ((), ""))
        is_incompatible = objective in not_with or (stacked and "stacked" in not_with)
        with pytest.raises(ConfigError, match=why) if is_incompatible else nullcontext():
            ModelSpec(architecture, objective, stacked)
        with pytest.raises(ValidationError) if is_incompatible else nullcontext():
            ModelConfig(architecture=architecture, objective=objective, stacked=stacked)
