"""The common part of all screens: parts that are fetched again alone, the reader's time zone, formats of values.

Input: a request, and functions that read a part from the database. Output: a whole page, or one part of it
(`?fragment=NAME`). Invariant: a page and its fragment come from the same functions and templates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Request, Response
from jinja2 import pass_context
from markupsafe import Markup, escape

from monitor import drawing, wording
from monitor.clock import from_us, to_us
from monitor.console.rendering import environment, render
from monitor.errors import NotFound
from monitor.store.queries import iso
from monitor.wording import contributions, count, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2.runtime import Context
    from starlette.responses import HTMLResponse

    from monitor.config import Config
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ZONE_COOKIE, THEME_COOKIE = "monitor_zone", "monitor_theme"
FIRST_YEAR, LAST_YEAR = 1900, 2999
"""Of a time in an address."""
MAX_KEPT = 64
"""Parts that are kept for other viewers."""
SCREENS = (
    ("/", "Now"),
    ("/alerts", "Alerts"),
    ("/models", "Models"),
    ("/ingestion", "Ingestion"),
    ("/shelves", "Shelves"),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as the functions of a screen see it."""

    config: Config
    now_us: int
    """Processing time."""
    zone: tzinfo
    zone_name: str
    query: Mapping[str, str]
    kept: dict[Any, tuple[int, Any]]
    """Results for other viewers, by key: the time until which they serve, and the result."""

    def time(self, name: str) -> int | None:
        """Return a time of the query in µs. None = missing, unreadable or far off. Without an offset it is in the zone.

        Pages reckon with it, so the ends of the calendar are left out.
        """
        text = self.query.get(name, "")
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return None
        if not FIRST_YEAR <= found.year <= LAST_YEAR:
            return None
        return to_us(found if found.tzinfo else found.replace(tzinfo=self.zone))

    def number(self, name: str, default: int = 1, least: int = 1) -> int:
        """Return a whole number of the query, at least `least`."""
        text = self.query.get(name, "")
        return max(least, int(text)) if text.isascii() and text.isdecimal() and len(text) < 10 else default

    def once(self, key: Any, keep_s: float, compute: Callable[[], Any]) -> Any:
        """Return a result that other viewers may have caused already, at most `keep_s` old."""
        found = self.kept.get(key)
        if found is not None and found[0] > self.now_us:
            return found[1]
        result = compute()
        for old in [each for each, (until, _) in list(self.kept.items()) if until <= self.now_us]:
            self.kept.pop(old, None)  # several threads read, each with a connection of its own
        if len(self.kept) >= MAX_KEPT:
            self.kept.clear()
        self.kept[key] = (self.now_us + int(keep_s * 1e6), result)
        return result

    def when(self, us: int) -> str:
        """Return a time in the zone."""
        return _when(from_us(us).astimezone(self.zone), from_us(self.now_us).astimezone(self.zone))


class Part(NamedTuple):
    """A part of a screen that is fetched again when one of its topics changes."""

    read: Callable[[Reader, Ask], Mapping[str, Any]]
    topics: str
    """Of `console.events.TOPICS`, separated by blanks."""


async def show(
    request: Request,
    screen: str,
    section: str,
    parts: Mapping[str, Part],
    *,
    fragment: str | None = None,
    **path: str,
) -> Response:
    """Return a screen, or one part of it. `path`: parameters of the route, added to the query. Raises NotFound."""
    console = request.app.state.console
    zone, zone_name = _zone(request.cookies.get(ZONE_COOKIE, ""))
    query = {name: value for name, value in request.query_params.items() if value and name != "fragment"} | path
    ask = Ask(console.config, console.clock.now_us(), zone, zone_name, query, console.kept)
    if fragment is not None and fragment not in parts:
        raise NotFound(f"a part {fragment} of this page")
    names = list(parts) if fragment is None else [fragment]

    def read(reader: Reader) -> dict[str, Any]:
        found: dict[str, Any] = {name: parts[name].read(reader, ask) for name in names}
        if fragment is None:
            found["n_open"] = ask.once("open", 1.0, lambda: sum(row["n"] for row in reader.open_counts()))
        return found

    found = await console.read(read)
    if fragment is not None:
        return _page(request, f"{screen}/{fragment}.html", ask, section, found)
    topics = {name: part.topics for name, part in parts.items()}
    return _page(request, f"{screen}.html", ask, section, found | {"topics": topics})


def _page(request: Request, template: str, ask: Ask, section: str, found: Mapping[str, Any]) -> HTMLResponse:
    theme = request.cookies.get(THEME_COOKIE, "")
    common = {
        "ask": ask,
        "section": section,
        "theme": theme if theme in ("light", "dark") else "",
        "zone_name": ask.zone_name,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
    }
    return render(request, template, {**common, **found}, headers={"Vary": "Cookie"})


def _zone(name: str) -> tuple[tzinfo, str]:
    try:
        return (ZoneInfo(name), name) if name and len(name) < 64 else (UTC, "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC, "UTC"


_STYLE = drawing.stylesheet()
_STYLE_ADDRESS = f"/drawing/{hashlib.sha256(_STYLE.encode()).hexdigest()[:16]}.css"


@router.get("/drawing/{name}")
async def drawing_style(name: str) -> Response:
    """Answer with the colours of the drawings, which live beside the renderer."""
    kept = "public, max-age=31536000, immutable" if _STYLE_ADDRESS.endswith(name) else "no-cache"
    return Response(_STYLE, media_type="text/css", headers={"Cache-Control": kept})


# ---------------------------------------------------------------- formats


def duration(seconds: float) -> str:
    """Format a duration in its two largest units, from two weeks on in days."""
    days = max(0, round(seconds)) // 86400
    return f"{days:,} d" if days >= 14 else wording.duration(seconds)


def number(value: float | None, digits: int = 3) -> str:
    """Format a measured value with this many significant digits, and a real minus sign."""
    return wording.number(value, digits).replace("-", "−")


def as_us(value: str | int | None) -> int | None:
    """Return a time of a query's row, ISO 8601 or µs, in µs."""
    return to_us(datetime.fromisoformat(value)) if isinstance(value, str) else value


def address(*parts: object, **query: object) -> str:
    """Return a path of the console with every part quoted."""
    path = "".join(f"/{quote(str(part), safe='')}" for part in parts)
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path or '/'}{'?' + urlencode(given) if given else ''}"


def _when(at: datetime, now: datetime) -> str:
    clock = f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
    if abs(now - at) < timedelta(days=300):
        return f"{at:%b} {at.day}, {clock}"
    return f"{at:%Y-%m-%d} {clock}"


@pass_context
def _time(context: Context, value: str | int | None, form: str = "when") -> Markup | str:
    us = as_us(value)
    if us is None:
        return "–"
    ask: Ask = context["ask"]
    exact = from_us(us).astimezone(ask.zone)
    text = _when(exact, from_us(ask.now_us).astimezone(ask.zone))
    if form == "ago":
        text = f"{duration((ask.now_us - us) / 1e6)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S} {ask.zone_name}", text
    )


@pass_context
def _plain_time(context: Context, value: int) -> str:
    """Return a time as text alone, for long tables."""
    ask: Ask = context["ask"]
    return ask.when(value)


@pass_context
def _field(context: Context, value: int) -> str:
    """Return a time as the value of a datetime-local field, in the reader's zone."""
    ask: Ask = context["ask"]
    return f"{from_us(value).astimezone(ask.zone):%Y-%m-%dT%H:%M}"


def lasted_s(alert: Mapping[str, Any]) -> float:
    """Return the event time that an alert was open. An open one counts until its last update."""
    opened, last = as_us(alert["opened_at"]), as_us(alert["closed_at"] or alert["updated_at"])
    return 0.0 if opened is None or last is None else (last - opened) / 1e6


def svg(text: str) -> Markup:
    """Mark a drawing as markup: `drawing` escapes all text in it."""
    return Markup(text)  # noqa: S704


environment.filters.update(
    {
        "time": _time,
        "when": _plain_time,
        "field": _field,
        "iso": iso,
        "duration": duration,
        "num": number,
        "percent": percent,
        "count": count,
        "blamed": contributions,
        "lasted": lambda alert: duration(lasted_s(alert)),
        "plain": lambda value: escape(value).replace("_", " "),
    }
)
environment.globals.update({"screens": SCREENS, "drawing_css": _STYLE_ADDRESS, "address": address})
