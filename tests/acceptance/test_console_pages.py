"""The console's pages in a real browser: access, size, keys, live refresh, answers, slider, stretches of time."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import uvicorn

from monitor.config import load
from monitor.console.app import create_app
from tests import console_database
from tests.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")

N_ASSETS = 1000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
SCREENS = {
    "now": "/",
    "alert": "/alerts/1",
    "sensor alert": "/alerts/9",
    "asset": "/assets/turbines/T0001",
    "models": "/models",
    "fleet": "/models/turbines",
    "fleet in shadow": "/models/pumps",
    "rejected version": "/models/turbines?version=turbines-4",
    "difference": "/models/turbines/diff",
    "ingestion": "/ingestion",
    "alerts": "/alerts?state=all",
    "incidents": "/incidents",
    "shelves": "/shelves",
    "login": "/login",
    "error": "/nothing",
}


def in_thread(function, *args, **more) -> None:
    """Call a function that runs an event loop. Playwright has one in the tests' own thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, *args, **more).result()


TOO_WIDE = """() => document.documentElement.scrollWidth > innerWidth
    ? [...document.querySelectorAll('body *')].filter(each => each.getBoundingClientRect().right > innerWidth + 1)
        .slice(0, 5).map(each => each.outerHTML.slice(0, 120))
    : []"""


HIDE = """is => {
    Object.defineProperty(document, 'hidden', {value: is, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


class Served:
    """A console that serves in a thread."""

    def __init__(self, folder: Path, *, database: bool = True) -> None:
        self.path = folder / "monitor.db"
        if database:
            in_thread(console_database.fill, self.path, n_assets=N_ASSETS)
        (folder / "monitor.toml").write_text(console_database.CONFIG.format(path=self.path))
        app = create_app(load(folder / "monitor.toml"), owner="maria")
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
        self._server, self._events = uvicorn.Server(config), app.state.console.events
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._events.close)
        self._server.should_exit = True
        self._thread.join(15)

    @property
    def n_streams(self) -> int:
        return self._events.n_streams

    def execute(self, sql: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            return connection.execute(sql, values).fetchall()


@pytest.fixture(scope="module")
def console(tmp_path_factory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("console"))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    need(chromium, "Chromium (Debian package chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, console: Served) -> Iterator[Page]:
    context = browser.new_context(viewport=DESK, base_url=console.url)
    page = context.new_page()
    page.set_default_timeout(10_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda entry: problems.append(entry.text) if entry.type == "error" else None)
    yield page
    context.close()
    assert [each for each in problems if "404" not in each] == []


def faults(page: Page, *rules: str) -> list[str]:
    """Serious faults. `rules`: default all."""
    from axe_playwright_python.sync_playwright import Axe

    chosen = {"runOnly": [*rules]} if rules else {}
    found = Axe().run(page, options={"resultTypes": ["violations"], **chosen}).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_accessible_in_both_themes_and_fits_a_phone(page: Page, name: str) -> None:
    page.goto(SCREENS[name], wait_until="load")
    for each in page.locator("details.form").all():
        each.evaluate("each => { each.open = true; }")
    drawings = page.locator("svg[role]")
    assert drawings.count() == drawings.filter(has=page.locator("title")).count()
    found = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found[theme] = faults(page, *(["color-contrast"] if theme == "dark" else []))  # all else is the same in both
    assert found == {"light": [], "dark": []}
    page.set_viewport_size(PHONE)
    assert page.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("name", ["now", "alert", "asset", "fleet", "ingestion"])
def test_a_first_view_is_small(browser: Browser, console: Served, name: str) -> None:
    context = browser.new_context(viewport=DESK, base_url=console.url)
    page = context.new_page()
    page.goto(SCREENS[name], wait_until="load")
    entries = page.evaluate(
        "() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map(e => [e.encodedBodySize, e.loadEventEnd || 0])"
    )
    context.close()
    size = sum(n for n, _ in entries)
    print(f"{name}: {size / 1000:.0f} kB, {max(end for _, end in entries):.0f} ms")  # the time depends on the load
    assert 10_000 < size <= 150_000


def test_pages_work_without_script(browser: Browser, console: Served) -> None:
    context = browser.new_context(viewport=DESK, base_url=console.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/assets/turbines/T0001")
    page.get_by_role("button", name="Look").click()
    assert "from=" in page.url
    playwright.expect(page.get_by_text("Assets in it")).to_be_visible()
    page.goto("/models/turbines")
    page.locator("#confirm").select_option("2 of 3")
    page.get_by_role("button", name="Show").click()
    assert 'confirm = "2 of 3"' in page.locator("#toml").inner_text()
    context.close()


def test_the_keyboard_alone_finds_and_opens_an_alert(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/alerts/1")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_url("**/ingestion")


def test_every_control_is_reached_with_tab_and_shows_its_focus(page: Page) -> None:
    page.goto("/alerts/1")
    n = page.evaluate(
        "() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary')]"
        ".filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled).length"
    )
    seen = set()
    for _ in range(n + 15):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("() => document.activeElement._n ||= window._n = 1 + (window._n || 0)"))
    assert len(seen) >= n - 2, "all but the other buttons of a group of choices"


def test_the_page_follows_the_database_without_a_reload(page: Page, console: Served) -> None:
    page.goto("/")
    page.locator("#live.on").wait_for()
    page.evaluate("() => { window.stays = true; }")
    page.locator('[data-alert="1"] a').focus()
    console.execute(
        "INSERT INTO alert (class, asset_id, opened_us, state, severity, updated_us, peak_score, n_anomalous, sensors, "
        "subject, is_flapping) SELECT 'process', 30, opened_us + 7, 'firing', 'critical', updated_us, 9.9, 3, sensors, "
        "'', 0 FROM alert WHERE id = 1"
    )
    page.locator(".alert", has_text="T0030").wait_for(timeout=8000)
    assert page.evaluate("() => window.stays") is True
    assert page.evaluate("() => document.activeElement.textContent") == "T0001"
    assert "open alert" in page.locator("#announce").inner_text()


def test_a_page_is_live_again_after_the_error_of_a_proxy(page: Page) -> None:
    page.route("**/events?*", lambda route: route.fulfill(status=204, body=""))
    page.goto("/shelves")
    page.locator("#live.off").wait_for()
    page.unroute("**/events?*")
    page.locator("#live.on").wait_for(timeout=8000)


def test_a_page_that_nobody_sees_holds_no_connection(page: Page, console: Served) -> None:
    page.goto("/shelves")
    page.locator("#live.on").wait_for()
    page.evaluate(HIDE, True)
    deadline = time.monotonic() + 5
    while console.n_streams and time.monotonic() < deadline:
        time.sleep(0.02)
    assert console.n_streams == 0
    page.evaluate(HIDE, False)
    while not console.n_streams and time.monotonic() < deadline:
        time.sleep(0.02)
    assert console.n_streams == 1


def test_an_alert_is_answered_by_the_forms_of_its_page(page: Page, console: Served) -> None:
    page.goto("/alerts/2")
    page.get_by_label("Note").first.fill("on my way")
    page.locator(".acts").get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Alert 2 is acknowledged.").wait_for()
    page.get_by_text("Label: what was it?").click()
    page.get_by_text("real fault").click()
    page.locator("#label-note").fill("pitch bearing <b>")
    page.get_by_role("button", name="Label", exact=True).click()
    page.get_by_text("Alert 2 is labelled fault.").wait_for()
    page.get_by_text("Shelve: notify nobody").click()
    page.locator("#shelf-reason").fill("part is ordered")
    page.get_by_role("button", name="Shelve", exact=True).click()
    page.get_by_text("Alert 2 is shelved until 1d.").wait_for()
    page.get_by_text("History:").click()
    history = page.locator(".timeline").inner_text()
    assert all(word in history for word in ("acknowledge by maria", "on my way", "label by maria", "pitch bearing <b>"))
    page.get_by_role("button", name="End it").click()
    page.get_by_text("has ended").wait_for()
    acts = console.execute("SELECT act, actor, via FROM act WHERE alert_id = 2 ORDER BY id")
    assert acts == [(act, "maria", "console") for act in ("acknowledge", "label", "shelve", "unshelve")]


def test_a_key_acknowledges_the_chosen_alert(page: Page, console: Served) -> None:
    page.goto("/")
    page.keyboard.press("j")
    chosen = page.locator(".alert.current").get_attribute("data-alert")
    page.keyboard.press("a")
    page.get_by_text(f"Alert {chosen} is acknowledged.").wait_for()
    assert page.url.endswith("/")


def test_maintenance_is_planned_and_ended_on_the_page(page: Page) -> None:
    page.goto("/shelves")
    page.locator("#m-fleet").select_option("turbines")
    page.locator("#m-asset").fill("T00*")
    page.locator("#m-reason").fill("oil change")
    page.get_by_role("button", name="Plan").click()
    page.get_by_text("The maintenance window is planned.").wait_for()
    row = page.locator("tr", has_text="oil change")
    row.get_by_role("button", name="End").click()
    page.get_by_text("The maintenance window has ended.").wait_for()


def test_the_slider_shows_what_another_budget_would_have_done(page: Page) -> None:
    page.goto("/models/turbines")
    before = int(page.locator('[data-show="alerts"]').first.inner_text())
    page.locator("#budget-step").focus()
    page.keyboard.press("End")
    after = int(page.locator('[data-show="alerts"]').first.inner_text())
    assert after > before
    assert 'budget = "3/day"' in page.locator("#toml").inner_text()
    page.locator("#confirm").select_option("5 of 8")
    assert int(page.locator('[data-show="alerts"]').first.inner_text()) < after
    assert page.locator('[data-curve="5 of 8"]').is_visible()


def test_a_proposal_is_promoted_and_rolled_back_on_its_page(page: Page, console: Served, monkeypatch) -> None:
    async def verified(*_arguments: object) -> None:  # its checkpoint is not in this folder
        return None

    monkeypatch.setattr("monitor.control._verify", verified)
    page.goto("/")
    page.locator(".waits a").click()
    page.wait_for_url("**/models/turbines#proposal")
    page.locator("#decision-note").fill("the new gearbox runs warmer")
    page.get_by_role("button", name="Promote").click()
    page.get_by_text("turbines-5 is the champion of turbines from the next window on.").wait_for()
    playwright.expect(page.locator("#part-proposal .proposal")).to_have_count(0)
    playwright.expect(page.locator(".versions .champion a")).to_have_text("turbines-5")
    page.get_by_text("Roll back to turbines-2").click()
    page.locator("#rollback-note").fill("alarms at every start")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("turbines is rolled back from the next window on.").wait_for()
    playwright.expect(page.locator(".versions .champion a")).to_have_text("turbines-2")
    assert "alarms at every start" in page.locator("#part-history").inner_text()
    events = console.execute("SELECT event, actor, via FROM model_event ORDER BY id DESC LIMIT 2")
    assert events == [("rolled_back", "maria", "console"), ("promoted", "maria", "console")]


def test_the_progress_of_a_training_is_live(page: Page, console: Served) -> None:
    page.goto("/models/turbines")
    page.locator("#live.on").wait_for()
    console.execute("UPDATE job SET progress = 0.9, message = 'the gate judges' WHERE state = 'running'")
    trainings = page.locator("#part-trainings")
    trainings.get_by_text("the gate judges").wait_for(timeout=8000)
    playwright.expect(trainings).to_contain_text("90\xa0%")
    playwright.expect(trainings).to_contain_text("left")


def test_a_proposal_is_rejected_without_script(browser: Browser, console: Served) -> None:
    context = browser.new_context(viewport=DESK, base_url=console.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/models/pumps")
    page.locator("#decision-note").fill("after the holidays")
    page.get_by_role("button", name="Reject").click()
    playwright.expect(page.get_by_text("pumps-3 is rejected. The champion goes on deciding.")).to_be_visible()
    playwright.expect(page.locator(".versions")).to_contain_text("rejected by maria: after the holidays")
    context.close()


def test_dragging_over_scores_ranks_the_stretch_and_labels_it(page: Page, console: Served) -> None:
    page.goto("/assets/turbines/T0001?range=3d")
    box = page.locator("#part-chart svg.drawing").first.bounding_box()
    assert box is not None
    y = box["y"] + 40
    page.mouse.move(box["x"] + box["width"] * 0.75, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y, steps=3)
    page.mouse.up()
    page.wait_for_url("**from=**")
    playwright.expect(page.get_by_text("Sensors in it")).to_be_visible()
    page.get_by_text("do not count it").click()
    page.locator("#s-note").fill("cleaning")
    page.get_by_role("button", name="Label", exact=True).click()
    page.get_by_text("is labelled ignore").wait_for()
    [(begin, end)] = console.execute("SELECT from_us, to_us FROM interval_label WHERE actor = 'maria'")
    assert 9 < (end - begin) / console_database.HOUR_US < 12.5


def test_a_click_on_a_lane_opens_its_stretch(page: Page) -> None:
    page.goto("/")
    link = page.locator('.lane-cell a[href*="T0001"]').first
    assert "above the threshold from" in (link.get_attribute("aria-label") or "")
    link.click()
    page.wait_for_url("**/assets/turbines/T0001?from=**")


def test_search_finds_one_of_1000_assets(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("T0777")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=T0777**")
    assert page.locator(".lanes .asset a").all_inner_texts() == ["T0777"]


def test_times_are_shown_in_the_readers_zone(browser: Browser, console: Served) -> None:
    context = browser.new_context(base_url=console.url, timezone_id="Asia/Tokyo")
    page = context.new_page()
    page.goto("/alerts/1")
    utc = page.locator("time").first.get_attribute("datetime")
    page.get_by_role("button", name="use local time").click()
    page.get_by_text("Times: Asia/Tokyo").wait_for()
    local = page.locator("time").first.get_attribute("datetime")
    assert (utc or "").endswith("+00:00")
    assert (local or "").endswith("+09:00")
    context.close()


def test_without_a_database_the_page_says_what_is_missing(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, database=False)
    page = browser.new_page(base_url=served.url)
    page.goto("/")
    playwright.expect(page.get_by_text("Start the daemon: monitor run")).to_be_visible()
    in_thread(console_database.create, served.path)
    page.goto("/")
    playwright.expect(page.get_by_text("No daemon has started yet")).to_be_visible()
    assert faults(page) == []
    for address in ("/alerts", "/incidents", "/models", "/models/turbines", "/ingestion", "/shelves"):
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 200
    page.close()
    served.stop()
