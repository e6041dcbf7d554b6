"""Additions to a notification for people: the alert's page, links that act, and the explanation in one sentence.

Input: the stored payload and its context. Output: the payload with `url`, `links`, `alerts` and `sentence`. Invariant:
pure. Links are added only where `[console] public_url` says how people reach the console. An alert that cannot be
explained is sent without the sentence, and the log has `explanation_failed`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from monitor import explain, links, logs
from monitor.store.queries.evidence import evidence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import FleetConfig
    from monitor.store.outbox import Context

log = logs.get("notify")

LINKS = {"acknowledge": "acknowledge", "fault": "label-fault", "normal": "label-normal"}
"""Name in templates → act."""


@dataclass(frozen=True, slots=True)
class Enricher:
    """Adds facts and links for people."""

    public_url: str = ""
    """Of the console; "" = no links."""
    fleets: Sequence[FleetConfig] = ()
    """With the units and descriptions of their sensors."""

    def body(self, stored: str, context: Context, now_us: int) -> bytes:
        """Return the payload with the additions. `now_us`: processing time, from which the links expire."""
        body: dict[str, Any] = json.loads(stored)
        alert_id, is_over = body.get("id"), body["step"] == "closed"
        if self.public_url and alert_id is not None:
            expires_us = now_us + links.VALID_FOR_US
            body["url"] = f"{self.public_url}/alerts/{alert_id}"
            body["links"] = {
                name: f"{self.public_url}/links/{links.sign(context.link_key, alert_id, act, expires_us)}"
                for name, act in LINKS.items()
                if _goes(name, body, is_over=is_over)
            }
        elif self.public_url:
            body["url"] = f"{self.public_url}/alerts"
        if context.alerts:
            body["alerts"] = context.alerts
        if context.alert is not None and (sentence := self._sentence(context, body)):
            body["sentence"] = sentence
        return msgspec.json.encode(body)

    def _sentence(self, context: Context, body: dict[str, Any]) -> str:
        known = next((fleet.sensor for fleet in self.fleets if fleet.name == body.get("fleet")), {})
        units = {name: sensor.unit for name, sensor in known.items() if sensor.unit}
        descriptions = {name: sensor.description for name, sensor in known.items() if sensor.description}
        try:
            evidence = evidence_of(context.chunks, context.card)
            told = explain.sentence(context.alert or {}, evidence, units, descriptions)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # no alert may be lost for a sentence
            log.warning("explanation_failed", alert=body.get("id"), error=f"{type(error).__name__}: {error}")
            return ""
        return f"{told}." if told else ""  # it begins with a sensor's name, which keeps its case


def _goes(name: str, body: dict[str, Any], *, is_over: bool) -> bool:
    """Return whether a link has a meaning: only open alerts are acknowledged, only those of assets are labelled."""
    return not is_over if name == "acknowledge" else body.get("class") == "process"
