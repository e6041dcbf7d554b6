"""What the configuration offers is what the models can do: the two lists live in different rooms."""

from __future__ import annotations

from monitor.config import tree
from monitor.models import spec


def test_every_architecture_and_objective_that_is_offered_can_be_trained() -> None:
    assert (tree.ARCHITECTURES, tree.OBJECTIVES) == (spec.ARCHITECTURES, spec.OBJECTIVES)
