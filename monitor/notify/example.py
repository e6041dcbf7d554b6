"""An example alert, as it is sent to a channel: for `monitor notify test`.

Input: a channel's settings. Output: the content of a request. Invariant: nothing is sent, and no database is read: the
example's links are signed with a key that no database has.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from monitor.clock import from_us
from monitor.links import KEY_BYTES
from monitor.notify.channels import options_of
from monitor.notify.enrich import Enricher
from monitor.store.outbox import Context

if TYPE_CHECKING:
    from monitor.config import NotifyConfig

HOUR_US = 3_600_000_000
TEST_TEXT = "A test of monitor: notifications of alerts arrive here."


def example_alert(channel: NotifyConfig, fleet: str, now_us: int) -> dict[str, Any]:
    """Return the payload of an alert that has fired, as the outbox stores it."""
    opened = from_us(now_us - HOUR_US)
    return {
        "key": f"{channel.name}:{fleet}/R80711:{now_us - HOUR_US}:firing",
        "step": "firing",
        "text": f"R80711 ({fleet}) is anomalous: alert 17 since {opened:%Y-%m-%d %H:%M} UTC, score up to 2.4 where 1.0 "
        "is the threshold, most of it power's",
        "id": 17,
        "class": "process",
        "fleet": fleet,
        "asset": "R80711",
        "state": "firing",
        "severity": channel.min_severity,
        "opened_at": opened,
        "closed_at": None,
        "at": from_us(now_us),
        "peak_score": 2.4,
        "peak_at": from_us(now_us),
        "n_anomalous": 3,
        "sensors": [
            {"name": "power", "share": 0.61, "expected": 560.0, "actual": -3.0, "quantity": "value"},
            {"name": "pitch", "share": 0.27, "expected": 2.0, "actual": 88.5, "quantity": "value"},
        ],
        "version": "auto-1f0c2a77",
        "incident": 9,
        "clearing": ["power", "pitch"],
    }


def test_body(channel: NotifyConfig, now_us: int) -> dict[str, Any]:
    """Return the payload of a test."""
    return {"key": f"{channel.name}:test:{now_us}", "step": "test", "text": TEST_TEXT}


def sent_body(channel: NotifyConfig, payload: dict[str, Any], public_url: str, now_us: int) -> bytes:
    """Return the body that the channel's sender gets for a payload."""
    stored = msgspec.json.encode(payload)
    if not options_of(channel).has_context:
        return stored
    context = Context(secrets.token_bytes(KEY_BYTES), alert=payload if payload["step"] == "firing" else None)
    return Enricher(public_url).body(stored.decode(), context, now_us)


def shown(content: bytes) -> Any:
    """Return the content of a request for a terminal: the document, or the text that is none."""
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")
