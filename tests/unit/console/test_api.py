"""The API's documents have the keys of the command line, its lists have parts, and its errors are sentences."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from monitor import control
from monitor.clock import SystemClock
from monitor.console.api import documents
from monitor.control import Actor, Maintenance, ShelfTarget
from monitor.store.engine import AsyncStore
from monitor.store.queries.evidence import arrays_of
from monitor.store.reader import open_reader
from monitor.types import Label
from monitor.version_differences import difference_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from fastapi import FastAPI
    from pydantic import BaseModel

    Make = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

API = "/api/v1"


def names(document: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in document.model_fields.items()}


async def test_the_documents_have_the_keys_of_the_rows(database: Path) -> None:
    clock, who = SystemClock(), Actor("me", "cli")
    async with AsyncStore(f"sqlite:///{database}") as store:
        await control.acknowledge(store, clock, 2, actor=who)
        await control.shelve(store, clock, ShelfTarget(2), until="7d", reason="r", actor=who)
        await control.label_interval(store, clock, None, "R80711", 0, 10**12, Label.NORMAL, actor=who)
        week = Maintenance("turbines", "*", clock.now_us(), clock.now_us() + 10**12, "r")
        await control.plan_maintenance(store, clock, week, actor=who)
        await control.request_retraining(store, clock, "turbines", by="me")
    with open_reader(f"sqlite:///{database}") as reader:
        alert = reader.alert(2)
        evidence, [similar] = reader.evidence(2), reader.similar(2)
        assert evidence is not None
        [shelf], [label], [planned], [job] = (
            reader.shelves(), reader.interval_labels(), reader.maintenance(), reader.jobs()
        )  # fmt: skip
        pairs: list[tuple[type[BaseModel], dict[str, Any]]] = [
            (documents.Alert, reader.alerts()[0]),
            (documents.AlertDetail, alert | {"explanation": None}),
            (documents.Evidence, arrays_of(evidence)),
            (documents.SimilarAlert, similar),
            (documents.Transition, alert["transitions"][0]),
            (documents.Act, alert["acts"][0]),
            (documents.Incident, reader.incidents()[0]),
            (documents.Sensor, alert["sensors"][0]),
            (documents.Shelf, shelf),
            (documents.IntervalLabel, label),
            (documents.Maintenance, planned),
            (documents.Job, job),
            (documents.Health, reader.alert_health()),
            (documents.Fleet, reader.fleets()[0]),
            (documents.Asset, reader.assets()[0]),
            (documents.Window, next(iter(reader.scores("R80711")))),
            (documents.Hour, next(iter(reader.score_hours("R80711")))),
            (documents.Model, reader.models()[0]),
            (documents.ModelDetail, reader.model()),
            (documents.ModelEvent, reader.model_events()[0]),
            (documents.ModelDiff, difference_document(reader.model("turbines-old"), reader.model())),
            (documents.ModelSide, difference_document(reader.model("turbines-old"), reader.model())["before"]),
            (documents.Partition, reader.partitions()[0]),
            (documents.Quarantined, reader.quarantine()[0]),
            (documents.QuarantineCount, reader.quarantine_counts()[0]),
        ]
    for document, row in pairs:
        assert names(document) == set(row), f"console/api/documents.py: {document.__name__}"


async def test_a_list_comes_in_parts(make_app: Make, client: Client) -> None:
    async with client(make_app()) as program:
        first = (await program.get(f"{API}/assets", params={"limit": 1})).json()
        second = (await program.get(f"{API}/assets", params={"limit": 1, "offset": first["next_offset"]})).json()
    assert [row["asset"] for row in first["items"] + second["items"]] == ["R80711", "R80736"]
    assert second["next_offset"] is None


async def test_long_times_of_scores_come_as_hours(make_app: Make, client: Client) -> None:
    async with client(make_app()) as program:
        few = (await program.get(f"{API}/scores", params={"asset": "R80711", "limit": 100})).json()
        many = (await program.get(f"{API}/scores", params={"asset": "R80711", "limit": 20})).json()
    assert (few["by"], len(few["windows"])) == ("windows", 60)
    assert (many["by"], many["windows"]) == ("hours", [])
    assert max(hour["score"] for hour in many["hours"]) == max(row["score"] for row in few["windows"])


async def test_filters_reach_the_query(make_app: Make, client: Client) -> None:
    after = datetime(2015, 7, 27, 5, tzinfo=UTC).isoformat()
    async with client(make_app()) as program:
        async def ids(**filters: str) -> list[int]:
            return [row["id"] for row in (await program.get(f"{API}/alerts", params=filters)).json()["items"]]

        assert await ids() == [2, 1]
        assert await ids(state="closed") == [1]
        assert await ids(**{"from": after}) == [2]
        assert await ids(asset="R8071*") == [1]
        assert await ids(label="fault") == []


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/alerts/99", 404, "Not found: alert 99"),
        ("/alerts/0", 422, "alert_id: Input should be greater than or equal to 1"),
        ("/alerts?limit=5000", 422, "limit: Input should be less than or equal to 1000"),
        ("/alerts?from=yesterday", 422, "write a time as in 2015-07-27T10:00:00Z"),
        ("/scores?asset=nobody", 404, "Not found: asset nobody"),
        ("/scores", 422, "asset: Field required"),
        ("/models/none", 404, "version none"),
        ("/nothing", 404, "there is nothing at /api/v1/nothing"),
    ],
)
async def test_errors_are_problem_documents(
    make_app: Make, client: Client, path: str, status: int, sentence: str
) -> None:
    async with client(make_app()) as program:
        answer = await program.get(API + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert sentence in answer.json()["detail"]


async def test_an_act_of_the_api_is_in_the_history(make_app: Make, client: Client) -> None:
    async with client(make_app()) as program:
        program.headers["x-csrf-token"] = (await program.get(f"{API}/me")).json()["csrf"]
        alert = (await program.post(f"{API}/alerts/2/acknowledge", json={"note": "ok"})).json()
        assert alert["acknowledged_by"] == "op"
        again = await program.post(f"{API}/alerts/2/acknowledge", json={})
        assert (again.status_code, again.json()["detail"].startswith("alert 2 was acknowledged")) == (409, True)
        [act] = (await program.get(f"{API}/history")).json()["items"]
    assert (act["by"], act["via"], act["act"], act["note"]) == ("op", "api", "acknowledge", "ok")


async def test_versions_are_promoted_rolled_back_and_compared(
    make_app: Make, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def verified(*_arguments: object) -> None:
        return None

    monkeypatch.setattr("monitor.control._verify", verified)
    async with client(make_app()) as program:
        program.headers["x-csrf-token"] = (await program.get(f"{API}/me")).json()["csrf"]
        moved = (await program.post(f"{API}/models/turbines-old/promote", json={"note": "calmer"})).json()
        assert (moved["version"], moved["former"]) == ("turbines-old", "turbines-new")
        back = (await program.post(f"{API}/fleets/turbines/rollback", json={})).json()
        assert (back["version"], back["former"]) == ("turbines-new", "turbines-old")
        events = (await program.get(f"{API}/fleets/turbines/history?limit=2")).json()["items"]
        compared = (await program.get(f"{API}/models/champion/diff?before=previous")).json()
        refused = await program.post(f"{API}/models/champion/reject", json={})
        unexplained = await program.post(f"{API}/models/previous/promote", json={"force": True})
    assert [event["event"] for event in events] == ["rolled_back", "promoted"]
    assert (compared["before"]["version"], compared["after"]["version"]) == ("turbines-old", "turbines-new")
    assert compared["replay"] == "monitor replay --from now-7d --diff turbines-old --diff turbines-new"
    assert (refused.status_code, unexplained.status_code) == (409, 422)
    assert "force needs a note" in unexplained.json()["detail"]


async def test_a_training_is_asked_for_with_a_note_and_an_accepted_time(make_app: Make, client: Client) -> None:
    accepted = {"from": "2015-07-27T04:00:00Z", "to": "2015-07-27T06:00:00Z", "asset": "R80711"}
    async with client(make_app()) as program:
        program.headers["x-csrf-token"] = (await program.get(f"{API}/me")).json()["csrf"]
        body = {"fleet": "turbines", "note": "cleaned", "accept_normal": accepted}
        job = (await program.post(f"{API}/jobs", json=body)).json()
        labels = (await program.get(f"{API}/labels")).json()["items"]
        again = await program.post(f"{API}/jobs", json={"fleet": "turbines"})
    assert (job["state"], job["note"], job["reason"]) == ("queued", "cleaned", "operator")
    assert job["detail"]["accept_normal"]["asset"] == "R80711"
    assert [(label["asset"], label["label"], label["note"]) for label in labels] == [("R80711", "normal", "cleaned")]
    assert again.status_code == 409


async def test_a_defect_shows_no_traceback(
    make_app: Make, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()

    async def broken(_fn: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(app.state.console, "read", broken)
    async with client(app) as program:
        answer = await program.get(f"{API}/fleets")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers
