"""Queries of model versions: aliases, reasons, events and measurements, alike on both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import NotFound
from monitor.store import jobs, registry, versions
from monitor.store.acts import MONITOR, Actor
from monitor.store.engine import AsyncStore
from monitor.store.reader import Reader, open_reader
from monitor.types import ModelCheckKind, ModelState
from tests.contract.steps import FLEET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARIA = Actor("maria", "cli")
PASSED = {"passed": True, "why": "it keeps the budget", "checks": []}
FAILED = {"passed": False, "why": "it misses 4 of 10 faults", "checks": []}


def facts(version: str, at_us: int) -> dict[str, Any]:
    return {"version": version, "fleet": FLEET, "path": f"/c/{version}", "trained_us": at_us, "card": {}, "metrics": {}}


async def fill(url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        for number, version in enumerate(("v1", "v2"), 1):
            await store.run(versions.publish, **facts(version, number))
            await store.run(registry.promote, FLEET, version, actor=MONITOR, at_us=number, verdict=PASSED)
        for number, (version, state) in enumerate({"v3": ModelState.REJECTED, "v4": ModelState.CANDIDATE}.items(), 3):
            verdict = FAILED if state == ModelState.REJECTED else PASSED
            call = {"state": state, "verdict": verdict, "actor": MONITOR, "at_us": number}
            await store.run(registry.publish, **call, **facts(version, number))
        await store.run(registry.roll_back, FLEET, actor=MARIA, at_us=5_000_000, note="noisy")
        checked = {"at_us": 6_000_000, "requested_by": "monitor", "problem": None, "result": {"n": 3}}
        await store.run(registry.record_check, ModelCheckKind.DRILL, "v1", **checked)
        await store.run(jobs.request, FLEET, "maria", 7, note="why not", detail={"a": 1})


@pytest.fixture
def reader(url: str) -> Iterator[Reader]:
    asyncio.run(fill(url))
    with open_reader(url) as opened:
        yield opened


def test_each_version_has_its_state_aliases_and_reason(reader: Reader) -> None:
    found = {row["version"]: (row["state"], row["aliases"], row["why"]) for row in reader.models(fleet=FLEET)}
    assert found == {
        "v4": ("candidate", ["challenger"], "waits for a decision: it keeps the budget"),
        "v3": ("rejected", [], "it misses 4 of 10 faults"),
        "v2": ("rolled_back", ["previous"], "rolled back by maria: noisy"),
        "v1": ("champion", ["champion"], "it keeps the budget"),
    }
    [verdict] = [row["gate_verdict"] for row in reader.models() if row["version"] == "v3"]
    assert verdict == FAILED


@pytest.mark.parametrize(
    ("name", "version"),
    [(None, "v1"), ("champion", "v1"), ("challenger", "v4"), ("previous", "v2"), ("v3", "v3")],
)
def test_a_version_is_found_by_name_or_alias(reader: Reader, name: str | None, version: str) -> None:
    assert reader.model(name, fleet=FLEET)["version"] == version


def test_an_unknown_name_is_answered_with_the_nearest_one(reader: Reader) -> None:
    with pytest.raises(NotFound, match="did you mean challenger"):
        reader.model("chalenger")
    with pytest.raises(NotFound, match="a version with the alias challenger of pumps: no version waits for a decision"):
        reader.model("challenger", fleet="pumps")


def test_events_are_the_newest_first_with_who_and_why(reader: Reader) -> None:
    [newest, *_] = events = reader.model_events(fleet=FLEET)
    assert newest == {
        "at": "1970-01-01T00:00:05Z", "fleet": FLEET, "version": "v2", "event": "rolled_back", "actor": "maria",
        "via": "cli", "note": "noisy", "detail": newest["detail"],
    }  # fmt: skip
    assert newest["detail"]["to"] == "v1"
    assert [row["event"] for row in reader.model_events(version="v3")] == ["rejected", "trained"]
    assert reader.model("v2")["events"] == [row for row in events if row["version"] == "v2"]
    assert len(reader.model_events(limit=2)) == 2


def test_measurements_are_found_by_kind_and_version(reader: Reader) -> None:
    [check] = reader.model_checks(kind="drill", fleet=FLEET)
    assert (check["version"], check["at"], check["problem"], check["result"]) == (
        "v1", "1970-01-01T00:00:06Z", None, {"n": 3},
    )  # fmt: skip
    assert reader.model_checks(kind="shadow") == []
    assert reader.model_checks(version="v2") == []


def test_a_job_has_its_reason_note_and_detail(reader: Reader) -> None:
    [job] = reader.jobs(fleet=FLEET)
    assert (job["kind"], job["reason"], job["note"], job["detail"]) == ("retrain", "operator", "why not", {"a": 1})


def test_the_whole_card_is_the_one_beside_the_weights(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"scaler": []}')
    row = reader.model("v1")
    assert reader.whole_card(row) == {}
    assert reader.whole_card(row | {"path": str(tmp_path)}) == {"scaler": []}
    assert reader.whole_card(reader.models()[0]) == {}
