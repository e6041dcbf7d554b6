"""Pages from templates.

Input: the name of a template in `templates/` and its values. Output: an HTML response. Invariant: every value is
escaped, unless it is markup that `drawing` made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from monitor.console.security import csrf_token, flash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

environment = Environment(
    loader=PackageLoader("monitor.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
"""The templates. Pages add their filters to it."""


def render(
    request: Request,
    template: str,
    values: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Return a page.

    Every template has `who` (None before a login), `csrf`, `flash`, `events_id`, `path` and `static(name)`.
    """
    console = request.app.state.console
    found = getattr(request.state, "who", None)
    common = {
        "who": found,
        "csrf": csrf_token(request) if found is not None else "",
        "flash": flash(request),
        "static": console.static.url,
        "events_id": console.events.id,
        "path": request.url.path,
    }
    text = environment.get_template(template).render({**common, **(values or {})})
    return HTMLResponse(text, status, dict(headers or {}))
