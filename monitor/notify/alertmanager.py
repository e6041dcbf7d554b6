"""Alertmanager, API v2: alerts are posted while they fire, and resolved at the end.

Input: notifications of single alerts, and every minute the alerts that are still firing. Output: POSTs to
/api/v2/alerts. Invariant: labels identify an alert and hold no score, so that silences and groups of Alertmanager last
as long as the alert. A rise to critical changes the label `severity`: the warning is resolved in the same request.

A firing alert ends by itself `FIRES_FOR` after its last post, should monitor stop. Alertmanager's own `resolve_timeout`
does not count, because `endsAt` is given.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from monitor.notify.http_receiver import HttpReceiver
from monitor.notify.rendering import message_of
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.config import NotifyConfig
    from monitor.notify.failure import Failure
    from monitor.timing import Timing

PATH = "/api/v2/alerts"
FIRES_FOR = timedelta(minutes=5)
"""Five posts may fail before Alertmanager takes the alert for resolved."""
MAX_AT_ONCE = 100
"""Alerts of one request."""
_NAMES = {"process": "SensorAnomaly", "sensor": "SensorFault", "data": "SensorDataProblem"}
_LABELS = ("class", "kind", "fleet", "asset", "sensor", "topic", "partition", "subject")


class Alertmanager(HttpReceiver):
    """The receiver of one channel of kind `alertmanager`."""

    def __init__(
        self,
        config: NotifyConfig,
        timing: Timing = DEFAULT_TIMING,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(config, timing, path="" if config.url.rstrip("/").endswith(PATH) else PATH)
        self._now = now

    async def repeat(self, bodies: Sequence[bytes]) -> Failure | None:
        """Post the alerts that are still firing."""
        for first in range(0, len(bodies), MAX_AT_ONCE):
            alerts = [self._alert(json.loads(body), body) for body in bodies[first : first + MAX_AT_ONCE]]
            failure = await self._post.post(msgspec.json.encode(alerts))
            if failure is not None:
                return failure
        return None

    def content(self, body: bytes) -> bytes:
        """Return the body of the request."""
        facts = json.loads(body)
        alert = self._alert(facts, body)
        alerts = [alert]
        if facts["step"] == "critical":
            warning = alert | {"labels": alert["labels"] | {"severity": "warning"}, "endsAt": _iso(self._now())}
            alerts.insert(0, warning)
        return msgspec.json.encode(alerts)

    def _alert(self, facts: dict[str, Any], body: bytes) -> dict[str, Any]:
        now = self._now()
        message = message_of(body, self._template, self._zone)
        is_over = facts["step"] == "closed"
        labels = {name: str(facts[name]) for name in _LABELS if facts.get(name) is not None}
        severity = facts.get("severity") or "warning"
        started = min(datetime.fromisoformat(facts["opened_at"]), now) if facts.get("opened_at") else now
        annotations = {"summary": message.title, "description": message.text}
        if facts.get("id") is not None:
            annotations["alert"] = str(facts["id"])
        if facts.get("peak_score") is not None:
            annotations["peak_score"] = f"{facts['peak_score']:.3g}"
        alert: dict[str, Any] = {
            "labels": {"alertname": _NAMES.get(facts.get("class", ""), "MonitorTest"), **labels, "severity": severity},
            "annotations": annotations,
            "startsAt": _iso(started),
            "endsAt": _iso(now if is_over or facts["step"] == "test" else now + FIRES_FOR),
        }
        if facts.get("url"):
            alert["generatorURL"] = facts["url"]
        return alert


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
