"""The short version of `tests/chaos`: each way of breaking things once, and that the checker sees what it must see.

The seed is printed with each failure; `tests/chaos --runs 1 --seed N --scenario NAME` runs it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.figures import Figures, table
from tests.chaos.mutant import MUTATIONS
from tests.chaos.scenarios import SCENARIOS, SHORT
from tests.chaos.stage import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import KafkaServer, PostgresServer


@pytest.fixture(scope="module")
def servers(
    kafka: KafkaServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("nemesis")) as servers:
        servers.adopt(kafka, postgres)
        yield servers


CLAIMS = {
    "replicas": "killed and frozen replicas",
    "sqlite": "a daemon on SQLite that is killed again and again",
    "database": "a database that ends transactions and loses answers",
    "storm": "strangers that join and leave the group",
}


@pytest.mark.parametrize("scenario", CLAIMS)
def test_nothing_is_lost_and_nothing_doubled_by(servers: Servers, scenario: str) -> None:
    figures = SCENARIOS[scenario](servers, 1, **SHORT[scenario])
    print(table([figures]))
    assert figures.is_good, f"seed 1: {table([figures])}"


BETRAYED_BY = {
    "no_compare_and_set": ("replicas", {"n_records": 6_000, "n_faults": 1, "pause_s": (0.5, 1.0)}),
    "offset_apart": ("sqlite", {"n_records": 6_000, "n_kills": 3}),
    "no_rewind": ("sqlite", {"n_records": 5_000, "n_kills": 1}),
    "no_pause": ("storm", {"n_records": 12_000, "n_assignments": 20}),
    "letters_apart": ("replicas", {"n_records": 3_000, "n_faults": 0}),
    "told_unsent": ("sqlite", {"n_records": 3_000, "n_kills": 1}),
}


def test_every_mutation_is_tried() -> None:
    assert BETRAYED_BY.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("mutation", BETRAYED_BY)
def test_the_checker_sees_an_engine_with(servers: Servers, mutation: str) -> None:
    scenario, size = BETRAYED_BY[mutation]
    figures: Figures = SCENARIOS[scenario](servers, 1, inside=(mutation,), **size)
    print(table([figures]))
    assert figures.problems, f"{mutation} was not noticed: {table([figures])}"
