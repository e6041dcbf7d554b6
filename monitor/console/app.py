"""The console as one ASGI application.

Input: the configuration. Output: a FastAPI application that `server.py` serves. Invariant: every route is behind the
gate, also one that is added later.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

import monitor
from monitor.clock import SystemClock
from monitor.console import api, events, forms, links, login, model_forms, pages, problems, static
from monitor.console.api import schema
from monitor.console.gate import Gate
from monitor.console.state import Console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.clock import Clock
    from monitor.config import Config


def create_app(config: Config, *, clock: Clock | None = None, owner: str | None = None) -> FastAPI:
    """Return the application. Its `state.console` is a `Console`.

    `owner`: name under which people on this machine act. Default: the login name of the process.
    """
    console = Console(config, clock or SystemClock(), owner=owner)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watcher = asyncio.create_task(console.events.watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait({watcher})
            await console.close()

    app = FastAPI(
        title="monitor",
        version=monitor.__version__,
        summary="Alerts, scores, models and ingestion of a sensor anomaly monitor.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their scripts come from other sites
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.console = console
    for part in (static, events, login, forms, model_forms, links, api, pages):
        app.include_router(part.router)
    problems.add_handlers(app)
    app.openapi = lambda: schema.document(app)  # type: ignore[method-assign]
    app.add_middleware(Gate, console=console)
    return app
