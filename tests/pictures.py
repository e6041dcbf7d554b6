"""Pictures of the console: serves the database of a demo, and photographs Alert and Now in Chromium.

    python -m tests.pictures [deploy]

Input: the demo's recording. It flows through the demo's broker and daemon until an afternoon with open alerts. Output:
`console-alert.png` and `console-now.png`, light, 1280 pixels wide, as the console is at that moment. Invariant: nothing
is written by hand.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from playwright.sync_api import sync_playwright

from monitor import demo
from monitor.clock import SystemClock, to_us
from monitor.config import load
from monitor.console.app import create_app
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import Config
    from monitor.recordings import Recording

MOMENT = datetime(2014, 7, 24, 16, tzinfo=UTC)
"""All four turbines have an open alert."""
WIDTH = 1280
HEIGHTS = {"console-alert": 1180, "console-now": 860}


def addresses(config: Config) -> dict[str, str]:
    """Return the pages to photograph. The alert is the open one with the highest score."""
    with open_reader(config.store.url) as reader:
        [worst] = reader.alerts(alert_class="process", state="open", sort="peak", limit=1)
    return {"console-alert": f"/alerts/{worst['id']}", "console-now": "/"}


class Afternoon(SystemClock):
    """The clock of the console: ten minutes after the last reading, when its window has ended."""

    def now_us(self) -> int:
        """Return the moment."""
        return to_us(MOMENT) + 600_000_000


def run_demo(folder: Path, then: Callable[[], None]) -> None:
    """Run the demo in a folder, with a recording that ends at `MOMENT`. `then` is called while its daemon runs."""
    split = demo._split

    def cut(readings: Recording) -> tuple[Recording, Recording]:
        past, rest = split(readings)
        end = int(np.searchsorted(rest.ts_us, to_us(MOMENT), side="right"))
        return past, rest.rows(slice(end))

    demo._split = cut
    run = demo.DemoRun(folder, print, lambda _title: nullcontext(lambda _share, _text: None))
    demo.run_turbines(run, lambda _result: then())


def main() -> None:
    """Write the pictures."""
    target = Path(sys.argv[1] if sys.argv[1:] else "deploy").resolve()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "demo"
        run_demo(made, lambda: photograph(load(made / "monitor.toml"), target))


def photograph(config: Config, target: Path) -> None:
    """Serve the database and write the pictures."""
    app = create_app(config, clock=Afternoon(), owner="operator")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, address in addresses(config).items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHTS[name]}, color_scheme="light")
            page.goto(url + address, wait_until="load")
            page.locator("#live.on").wait_for()
            page.screenshot(path=target / f"{name}.png")
            print(f"{target / name}.png: {(target / f'{name}.png').stat().st_size / 1000:.0f} kB")
            page.close()
        browser.close()
    app.state.console.events.is_closing = True
    server.should_exit = True
    thread.join(5)


if __name__ == "__main__":
    main()
