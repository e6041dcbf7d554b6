"""Findings of `monitor check` on the terms of a champion: settings that the next start takes over without a training.

Input: a fleet's configuration, and the part of its champion's card that the database keeps. Output: findings.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from monitor.models.terms import Terms
from monitor.types import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.config import FleetConfig


def terms_findings(
    fleet: FleetConfig, champion: tuple[str, Mapping[str, Any]] | None, sensors: Sequence[str]
) -> list[Finding]:
    """Return the differences between the configuration and the champion, and settings of unknown sensors.

    `sensors`: those that are read. Empty = not known yet.
    """
    subject, findings = f"fleet {fleet.name}", []
    for name in fleet.sensor:
        if sensors and name not in sensors:
            near = get_close_matches(name, sensors, n=1, cutoff=0.6)
            fix = f'did you mean [fleet.sensor.{near[0]}]?' if near else f"its sensors are {', '.join(sensors[:8])}"
            findings.append(Finding("warning", subject, f"[fleet.sensor.{name}] is no sensor that is read", fix))
    own = Terms.of_card(champion[1]) if champion else None
    if champion is None or own is None:
        return findings
    version, card = champion
    wanted = Terms.of(fleet)
    if fleet.alerts.learn_from_labels:  # the running daemon keeps it up to date
        wanted = replace(wanted, label_factor=own.label_factor)
    wanted = wanted.of_sensors(tuple(sensors)) if sensors else wanted
    if not (found := own.differences(wanted)):
        return findings
    text = f"{version} has other terms: {'; '.join(found)}"
    if own.needs_threshold(wanted) and not card.get("thresholds"):
        why = f"{text}. It keeps no held-out scores, so its threshold stays"
        return [*findings, Finding("warning", subject, why, f"monitor retrain {fleet.name}")]
    return [*findings, Finding("ok", subject, f"{text}. The next start derives a version, without a training")]
