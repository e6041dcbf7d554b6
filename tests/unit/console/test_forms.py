"""Forms lead back to their page with a message, and act like the command line."""

from __future__ import annotations

import html
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from monitor.clock import SystemClock
from monitor.links import sign
from monitor.store import links
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from fastapi import FastAPI

    Make = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

FORMS = [
    ("/alerts/2/acknowledge", {"note": "on my way"}, "/alerts/2", "Alert 2 is acknowledged."),
    ("/alerts/2/shelve", {"until": "7d", "reason": "known"}, "/alerts/2", "Alert 2 is shelved until 7d."),
    ("/alerts/1/label", {"label": "fault", "note": "bearing"}, "/alerts/1", "Alert 1 is labelled fault."),
    ("/alerts/2/close", {"reason": "stopped on purpose"}, "/alerts/2", "Alert 2 is closed."),
    ("/alerts/2/close", {"reason": " "}, "/alerts/2", "reason"),
    ("/alerts/1/label", {"label": "perhaps"}, "/alerts/1", "is no label"),
    ("/alerts/1/acknowledge", {}, "/alerts/1", "closed"),
    ("/alerts/2/shelve", {"until": "some day", "reason": "x"}, "/alerts/2", "cannot be read"),
    ("/shelves", {"asset": "R8*", "until": "1d", "reason": "x"}, "/shelves", "Shelved until 1d."),
    ("/maintenance", {"fleet": "turbines", "asset": "*", "from": "2030-01-01T08:00", "to": "2030-01-01T10:00",
                      "timezone": "Europe/Berlin", "reason": "x"}, "/shelves", "The maintenance window is planned."),
    ("/maintenance", {"fleet": "turbines", "from": "soon", "reason": "x"}, "/shelves", "not a time"),
    ("/maintenance", {"fleet": "turbines", "from": "2030-01-01T08:00", "timezone": "Mars"}, "/shelves", "time zone"),
    ("/assets/turbines/R80711/label", {"label": "normal", "from": "2015-07-27T00:00Z", "to": "2015-07-27T02:00Z"},
     "/assets/turbines/R80711", "The time of R80711 is labelled normal."),
    ("/models/turbines/retrain", {}, "/models/turbines", "A training of turbines is requested."),
    ("/models/turbines/retrain", {"from": "2015-07-27T04:00Z", "to": "2015-07-27T06:00Z", "asset": "R80711"},
     "/models/turbines", "The time is accepted as normal."),
    ("/models/turbines/retrain", {"from": "2015-07-27T04:00Z"}, "/models/turbines", "its beginning and its end"),
    ("/models/turbines/drill", {}, "/models/turbines", "A drill of turbines is requested."),
    ("/models/turbines/promote", {"version": "turbines-old"}, "/models/turbines", "cannot be read on this machine"),
    ("/models/turbines/promote", {"version": "turbines-old", "force": "1"}, "/models/turbines", "a note is needed"),
    ("/models/turbines/reject", {"version": "turbines-new"}, "/models/turbines", "only a candidate or a shadow"),
]  # fmt: skip


async def post(browser: httpx.AsyncClient, path: str, fields: dict[str, str]) -> httpx.Response:
    """Send a form with its CSRF token."""
    csrf = (await browser.get("/api/v1/me")).json()["csrf"]
    return await browser.post(path, data={**fields, "csrf": csrf})


@pytest.mark.parametrize(("path", "fields", "back", "said"), FORMS)
async def test_a_form_leads_back_with_a_message(
    make_app: Make, client: Client, path: str, fields: dict[str, str], back: str, said: str
) -> None:
    app = make_app()
    async with client(app) as browser:
        answer = await post(browser, path, fields)
        assert (answer.status_code, answer.headers["location"]) == (303, back)
        flash = app.state.console.signer.open("flash", answer.cookies["monitor_flash"])
    assert said in flash["text"]


async def test_models_are_promoted_and_rolled_back_with_a_note(
    make_app: Make, client: Client, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def verified(*_arguments: object) -> None:
        return None

    monkeypatch.setattr("monitor.control._verify", verified)
    said = []
    app = make_app()
    async with client(app) as browser:
        for path, fields in (
            ("promote", {"version": "turbines-old", "note": "calmer"}),
            ("rollback", {"note": "no, noisy"}),
        ):
            answer = await post(browser, f"/models/turbines/{path}", fields)
            said.append(app.state.console.signer.open("flash", answer.cookies["monitor_flash"])["text"])
    assert said == [
        "turbines-old is the champion of turbines from the next window on.",
        "turbines is rolled back from the next window on.",
    ]
    with open_reader(f"sqlite:///{database}") as reader:
        events = reader.model_events(fleet="turbines", limit=2)
        assert reader.model()["version"] == "turbines-new"
    assert [(each["version"], each["event"], each["note"], each["via"]) for each in events] == [
        ("turbines-old", "rolled_back", "no, noisy", "console"),
        ("turbines-old", "promoted", "calmer", "console"),
    ]


async def test_a_form_leads_to_the_page_it_was_on(make_app: Make, client: Client) -> None:
    async with client(make_app()) as browser:
        answer = await post(browser, "/alerts/2/acknowledge", {"next": "/alerts?state=open"})
        assert answer.headers["location"] == "/alerts?state=open"
        elsewhere = await post(browser, "/alerts/2/unacknowledge", {"next": "https://evil.example/"})
        assert elsewhere.headers["location"] == "/"


async def test_a_message_is_shown_once(make_app: Make, client: Client) -> None:
    async with client(make_app()) as browser:
        await post(browser, "/alerts/2/acknowledge", {})
        first, second = [await browser.get("/alerts", headers={"accept": "text/html"}) for _ in range(2)]
    assert "Alert 2 is acknowledged." in first.text
    assert "Alert 2 is acknowledged." not in second.text


async def test_the_history_names_the_person_and_the_way(make_app: Make, client: Client, database: Path) -> None:
    async with client(make_app()) as browser:
        await post(browser, "/alerts/2/acknowledge", {"note": "ok\x1b[31m\u202e"})
    with open_reader(f"sqlite:///{database}") as reader:
        [act] = reader.alert(2)["acts"]
    assert (act["by"], act["via"], act["act"]) == ("op", "console", "acknowledge")
    assert act["note"] == r"ok\x1b[31m\u202e"


def take_away(database: Path) -> None:
    for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
        database.with_name(name).unlink(missing_ok=True)


async def test_an_answer_reaches_a_database_that_was_restored(
    make_app: Make, client: Client, database: Path, tmp_path: Path
) -> None:
    backup = shutil.copy(database, tmp_path / "backup.db")
    async with client(make_app()) as browser:
        await post(browser, "/alerts/2/acknowledge", {})
        take_away(database)
        assert (await post(browser, "/alerts/2/acknowledge", {})).status_code == 503
        shutil.copy(backup, database)
        await post(browser, "/alerts/2/acknowledge", {"note": "again"})
    with open_reader(f"sqlite:///{database}") as reader:
        assert [act["note"] for act in reader.alert(2)["acts"]] == ["again"]


async def test_an_unknown_alert_has_its_own_page(make_app: Make, client: Client) -> None:
    async with client(make_app()) as browser:
        answer = await post(browser, "/alerts/99/acknowledge", {})
    assert answer.status_code == 404


# ---------------------------------------------------------------- links


@pytest.fixture
def make_link(database: Path) -> Callable[..., Any]:
    async def make(act: str, alert_id: int = 2, valid_us: int = 10**9) -> str:
        async with AsyncStore(f"sqlite:///{database}") as store:
            key = await store.run(links.key)
        return f"/links/{sign(key, alert_id, act, SystemClock().now_us() + valid_us)}"

    return make


async def test_opening_a_link_changes_nothing(make_app: Make, client: Client, make_link: Any, database: Path) -> None:
    path = await make_link("acknowledge")
    async with client(make_app(), peer="10.0.0.7") as phone:  # without a login
        for _ in range(2):
            page = await phone.get(path)
            assert page.status_code == 200
            assert html.escape(path) in page.text
    with open_reader(f"sqlite:///{database}") as reader:
        assert reader.alert(2)["acknowledged_by"] is None


@pytest.mark.parametrize(("act", "alert_id"), [("acknowledge", 2), ("label-fault", 1), ("label-normal", 1)])
async def test_a_link_acts_once(
    make_app: Make, client: Client, make_link: Any, database: Path, act: str, alert_id: int
) -> None:
    path = await make_link(act, alert_id)
    async with client(make_app(), peer="10.0.0.7") as phone:
        assert (await phone.post(path, data={"note": "from the phone"})).status_code == 200
        assert (await phone.post(path)).status_code == 409
    with open_reader(f"sqlite:///{database}") as reader:
        alert = reader.alert(alert_id)
    [done] = alert["acts"]
    assert (done["via"], done["by"], done["note"]) == ("link", "link in a notification", "from the phone")
    assert alert["acknowledged_by"] or alert["label"]


async def test_a_link_whose_act_was_refused_is_not_used_up(make_app: Make, client: Client, make_link: Any) -> None:
    path = await make_link("acknowledge")
    async with client(make_app()) as browser:
        await post(browser, "/alerts/2/acknowledge", {})
        assert (await browser.post(path)).status_code == 409
        await post(browser, "/alerts/2/unacknowledge", {})
        assert (await browser.post(path)).status_code == 303
        assert (await browser.post(path)).status_code == 409


async def test_a_changed_or_old_link_is_refused(make_app: Make, client: Client, make_link: Any) -> None:
    path, old = await make_link("acknowledge"), await make_link("acknowledge", valid_us=-1)
    async with client(make_app(), peer="10.0.0.7") as phone:
        changed = re.sub(r"\.2\.acknowledge", ".1.acknowledge", path)
        assert changed != path
        assert (await phone.post(changed)).status_code == 404
        assert (await phone.post(old)).status_code == 409
        foreign = {"origin": "https://evil.example"}
        assert (await phone.post(path, headers=foreign)).status_code == 403
