"""A notification as a message for people: title, text, facts, links.

Input: the notification's JSON, with what `enrich.py` added. Output: a `Message`, which each channel for people puts
into its receiver's form, and the text of a template. Invariant: pure, and bounded in length. A template that fails for
one alert does not lose the message: monitor's own text is sent, and the log has `template_failed`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from monitor import logs
from monitor.config.template import VARIABLES, generate
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logs.get("notify")

MAX_TITLE = 150
MAX_TEXT = 8_000
MAX_RENDERED = 64 * 1024
"""Characters of a template's output."""
MAX_SENSORS = 3
"""Sensors that a message names."""

_FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors of a template that meets a value it does not expect, beside those of Jinja2."""
_VERBS = {
    "firing": "is anomalous",
    "critical": "is critically anomalous",
    "closed": "is normal again",
    "worse": "has become much worse",
    "reopened": "is anomalous again",
    "again": "is still anomalous",
    "flapping": "goes in and out of alarm",
}
_VERBS_OF_OTHERS = {
    "firing": "",
    "critical": "is critical",
    "closed": "is over",
    "worse": "has become much worse",
    "reopened": "is open again",
    "again": "is still open",
    "flapping": "comes and goes",
}
LINK_LABELS = {"acknowledge": "Acknowledge", "fault": "Was real", "normal": "Was nothing"}
"""Name of a link → its button."""


@dataclass(frozen=True, slots=True)
class Message:
    """A notification for people."""

    title: str
    """One line."""
    text: str
    """Lines of plain text: all of it."""
    lead: str
    """The same without the facts below, for channels that show them in a form of their own."""
    facts: tuple[tuple[str, str], ...]
    """(label, value), short."""
    links: tuple[tuple[str, str], ...]
    """(label, address), the alert's page first."""
    severity: str
    is_over: bool
    is_own_text: bool
    """False: `text` is a template's."""


def message_of(body: bytes, template: str | None, timezone: str) -> Message:
    """Return the message of a notification."""
    facts: dict[str, Any] = json.loads(body)
    zone = ZoneInfo(timezone)
    title = _title(facts)[:MAX_TITLE]
    lead = "\n".join(_lead(facts, zone))[:MAX_TEXT]
    text = "\n".join((lead, *_summary(facts, zone)))[:MAX_TEXT]
    if template is not None:
        lead = text = _from_template(template, facts, title, text)[:MAX_TEXT]
    links = [("Open the alert", facts["url"])] if facts.get("url") else []
    links += [(LINK_LABELS[name], link) for name, link in facts.get("links", {}).items()]
    return Message(
        title=title,
        text=text,
        lead=lead,
        facts=tuple(_facts(facts, zone)) if template is None else (),
        links=tuple(links),
        severity=facts.get("severity") or "warning",
        is_over=facts["step"] == "closed",
        is_own_text=template is None,
    )


def rendered(template: str, body: bytes, timezone: str) -> str:
    """Return the output of a template."""
    facts: dict[str, Any] = json.loads(body)
    zone = ZoneInfo(timezone)
    text = "\n".join((*_lead(facts, zone), *_summary(facts, zone)))
    return _from_template(template, facts, _title(facts), text, fallback=body.decode())


def _from_template(template: str, facts: dict[str, Any], title: str, text: str, fallback: str | None = None) -> str:
    from jinja2 import TemplateError

    values: dict[str, Any] = dict.fromkeys(VARIABLES) | {"links": {}, "url": "", "sentence": "", "alerts": []}
    values |= facts | {
        "title": title,
        "body": text,
        "about": about(facts),
        "duration": _duration(facts),
    }
    made, n = [], 0
    try:
        for part in generate(template, values):
            made.append(part)
            n += len(part)
            if n > MAX_RENDERED:
                break
    except (TemplateError, *_FAILURES) as error:
        log.warning("template_failed", key=facts.get("key"), error=f"{type(error).__name__}: {error}")
        return text if fallback is None else fallback
    return "".join(made)[:MAX_RENDERED]


# ---------------------------------------------------------------- words


def about(facts: dict[str, Any]) -> str:
    """Return the subject of a notification, on one line."""
    name = facts.get("asset") or facts.get("fleet")
    if name is None and facts.get("topic") is not None:
        name = f"{facts['topic']}/{facts['partition']}"
    return escape_unprintable(name or "monitor")


def _title(facts: dict[str, Any]) -> str:
    step, severity = facts["step"], facts.get("severity") or "warning"
    if step == "digest":
        n_open = facts["n_open"]
        alerts = "1 alert" if n_open == 1 else f"{n_open} alerts"
        return f"{severity.capitalize()}: {facts['n_notifications']} notifications, {alerts} still open"
    if step == "test":
        return "Test: notifications of alerts arrive here"
    mark = "Closed" if step == "closed" else severity.capitalize()
    others = len(facts.get("alerts") or ()) - 1 if step == "closed" else 0
    more = f" and {others} more" if others > 0 else ""
    fleet = f" ({facts['fleet']})" if facts.get("asset") and facts.get("fleet") else ""
    if facts.get("class") == "process":
        verb = "are normal again" if more else _VERBS[step]
        return f"{mark}: {about(facts)}{more}{fleet} {verb}"
    what = facts.get("kind") or ""
    sensor = f" {escape_unprintable(facts['sensor'])}" if facts.get("sensor") else ""
    verb = f" {_VERBS_OF_OTHERS[step]}".rstrip()
    return f"{mark}: {about(facts)}{sensor}{fleet}: {what.replace('_', ' ')}{verb}{more}"


def _lead(facts: dict[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """Yield the explanation, and the alerts of a digest or of an incident that is over."""
    step = facts["step"]
    if step in ("test", "digest"):
        yield facts["text"]
    elif facts.get("message"):
        yield escape_unprintable(facts["message"])
    elif facts.get("sentence"):
        yield escape_unprintable(facts["sentence"])
    else:
        yield from map(_sensor_line, facts.get("sensors", [])[:MAX_SENSORS])
    if step == "digest" or len(facts.get("alerts") or ()) > 1:
        if step != "digest":
            yield "Alerts of this incident:"
        yield from _alert_lines(facts, zone)


def _summary(facts: dict[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """Yield the time of the alert and its score."""
    if facts.get("opened_at") is None:
        return
    since = f"since {_time(facts['opened_at'], zone)}"
    is_over = facts["step"] == "closed"
    yield f"It lasted {_duration(facts)}, {since}." if is_over else f"Open {since}, {_duration(facts)}."
    if facts.get("peak_score") is not None:
        yield f"Score up to {facts['peak_score']:.1f} where 1.0 is the threshold, severity {facts['severity']}."


def _sensor_line(sensor: dict[str, Any]) -> str:
    expected, actual = sensor.get("expected"), sensor.get("actual")
    values = f": {_figure(actual)} where {_figure(expected)} was expected" if expected is not None else ""
    return f"{escape_unprintable(sensor['name'])}{values} ({sensor['share']:.0%} of the deviation)"


def _alert_lines(facts: dict[str, Any], zone: ZoneInfo) -> Iterator[str]:
    for alert in facts.get("alerts") or ():
        state = "open" if alert["state"] != "closed" else "closed"
        kind = f" {alert['kind'].replace('_', ' ')}" if alert.get("kind") else ""
        peak = f", score {alert['peak_score']:.1f}" if alert.get("peak_score") is not None else ""
        opened = _time(alert["opened_at"], zone)
        yield f"• {alert['about']}{kind}: {state}, {alert['severity']}, since {opened}{peak} (alert {alert['id']})"


def _facts(facts: dict[str, Any], zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    if facts.get("opened_at") is None:
        return
    yield "Since", _time(facts["opened_at"], zone)
    yield "Duration", _duration(facts)
    yield "Severity", facts["severity"]
    if facts.get("peak_score") is not None:
        yield "Highest score", f"{facts['peak_score']:.1f}"
    names = [escape_unprintable(each["name"]) for each in facts.get("sensors", [])[:MAX_SENSORS]]
    if names:
        yield "Sensors", ", ".join(names)
    if facts.get("fleet"):
        yield "Fleet", facts["fleet"]
    yield "Alert", str(facts["id"])


def _figure(value: float | None) -> str:
    return "no reading" if value is None else f"{value:.4g}"


def _time(text: str, zone: ZoneInfo) -> str:
    local = datetime.fromisoformat(text).astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M} {local:%Z}"


def _duration(facts: dict[str, Any]) -> str:
    """Return the time from the opening to this step, or to the end."""
    if facts.get("opened_at") is None:
        return ""
    end = datetime.fromisoformat(facts.get("closed_at") or facts["at"])
    return duration_text(end - datetime.fromisoformat(facts["opened_at"]))


def duration_text(duration: timedelta) -> str:
    """Return a duration in two units: 19 h 20 min."""
    seconds = max(0, round(duration.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    days, minutes = divmod(minutes, 1440)
    hours, minutes = divmod(minutes, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    shown = [f"{n} {unit}" for n, unit in parts if n][:2]
    return " ".join(shown)
