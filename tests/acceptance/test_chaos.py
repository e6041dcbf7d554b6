"""The short chaos runs: some scenarios once, and each mutation of the protocol, which the verification must notice.

A failure prints its seed. `tests/chaos/run --runs 1 --seed N --scenario NAME` runs it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.environment import Servers
from tests.chaos.figures import Figures, table
from tests.chaos.mutant import MUTATIONS
from tests.chaos.scenarios import SCENARIOS, SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import KafkaServer, PostgresServer


@pytest.fixture(scope="module")
def servers(
    kafka: KafkaServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("chaos")) as servers:
        servers.adopt(kafka, postgres)
        yield servers


CLAIMS = {
    "replicas": "killed and suspended replicas",
    "sqlite": "a daemon on SQLite that is killed again and again",
    "database": "a database that ends transactions and loses answers",
    "rebalances": "members that join and leave the group",
}


@pytest.mark.parametrize("scenario", CLAIMS)
def test_no_window_is_lost_or_doubled_by(servers: Servers, scenario: str) -> None:
    figures = SCENARIOS[scenario](servers, 1, **SHORT[scenario])
    print(table([figures]))
    assert figures.is_good, f"seed 1: {table([figures])}"


FOUND_BY = {
    "no_compare_and_set": ("replicas", {"n_records": 6_000, "n_faults": 1, "pause_s": (0.5, 1.0)}),
    "offset_apart": ("sqlite", {"n_records": 6_000, "n_kills": 3}),
    "no_rewind": ("sqlite", {"n_records": 5_000, "n_kills": 1}),
    "no_pause": ("rebalances", {"n_records": 12_000, "n_assignments": 20}),
    "notifications_apart": ("replicas", {"n_records": 3_000, "n_faults": 0}),
    "marked_before_sent": ("sqlite", {"n_records": 3_000, "n_kills": 1}),
}


def test_every_mutation_has_a_scenario() -> None:
    assert FOUND_BY.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("mutation", FOUND_BY)
def test_the_verification_notices(servers: Servers, mutation: str) -> None:
    scenario, size = FOUND_BY[mutation]
    figures: Figures = SCENARIOS[scenario](servers, 1, hooks=(mutation,), **size)
    print(table([figures]))
    assert figures.problems, f"{mutation} was not noticed: {table([figures])}"
