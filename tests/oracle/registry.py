"""The registry of model versions, recomputed from its history alone.

Input: a function that runs SQL. Output: differences, each one sentence.
Invariant: states, aliases and activations are what the events add up to, in their order. No version decides a window
while it is a candidate, in shadow or rejected: it was promoted before, or a person overruled the gate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Fetch = Callable[[str], Sequence[Sequence[Any]]]

EVENTS = """
    SELECT model_event.fleet, version, event, via, detail
    FROM model_event JOIN model_version ON model_version.id = version_id ORDER BY model_event.id
"""
VERSIONS = "SELECT fleet, version, state, rolled_back_us, pruned_us FROM model_version"
ALIASES = """
    SELECT model_alias.fleet, alias, version FROM model_alias JOIN model_version ON model_version.id = version_id
"""
ACTIVATIONS = """
    SELECT model_activation.fleet, from_window_end_us, version
    FROM model_activation JOIN model_version ON model_version.id = version_id
"""
SCORED = """
    SELECT DISTINCT asset.fleet, version
    FROM score JOIN asset ON asset.id = asset_id JOIN model_version ON model_version.id = version_id
"""
SCORED_ENDS = """
    SELECT DISTINCT asset.fleet, end_us, version
    FROM score JOIN asset ON asset.id = asset_id JOIN model_version ON model_version.id = version_id
"""
WAITING = {"trained": "candidate", "proposed": "candidate", "shadowed": "shadow", "rejected": "rejected"}


@dataclass
class Fleet:
    """The facts of one fleet, as its events add up."""

    state: dict[str, str] = field(default_factory=dict)
    champion: str | None = None
    previous: str | None = None
    marked: set[str] = field(default_factory=set)
    pruned: set[str] = field(default_factory=set)
    activations: dict[int, str] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    """Versions that were the champion at some time."""
    problems: list[str] = field(default_factory=list)

    def add(self, version: str, event: str, via: str, detail: dict[str, Any]) -> None:
        """Let an event happen."""
        if event in WAITING:
            if self.state.get(version) in ("champion", "rolled_back"):
                self.problems.append(f"{version} is {self.state[version]}, and was {event}")
            self.state[version] = WAITING[event]
        elif event in ("promoted", "derived"):
            self._promote(version, event, via, detail)
        elif event == "rolled_back":
            self._roll_back(version, detail)
        elif event == "pruned":
            if version in (self.champion, self.previous):
                self.problems.append(f"{version} was pruned, and an alias names it")
            self.pruned.add(version)
        else:
            self.problems.append(f"{version}: unknown event {event}")

    def _promote(self, version: str, event: str, via: str, detail: dict[str, Any]) -> None:
        state = self.state.get(version)
        may = bool(detail.get("overruled") or detail.get("passed"))
        if state == "rejected" and not may:
            self.problems.append(f"{version} was rejected, and was {event}")
        if detail.get("passed") is False and self.champion is not None and not detail.get("overruled"):
            self.problems.append(f"{version} failed the gate, and was {event}")
        if state == "rolled_back" and via == "daemon":
            self.problems.append(f"{version} was rolled back, and the daemon {event} it again")
        if state == "champion":
            self.problems.append(f"{version} is the champion, and was {event} again")
        if detail.get("former") != self.champion:
            self.problems.append(f"{version} followed {detail.get('former')}, and the champion was {self.champion}")
        self._become_champion(version, detail)

    def _roll_back(self, version: str, detail: dict[str, Any]) -> None:
        target = detail["to"]
        if (version, target) != (self.champion, self.previous):
            self.problems.append(
                f"{version} was rolled back to {target}; champion and previous were {self.champion}, {self.previous}"
            )
        is_undone = self.state.get(target) == "rolled_back"
        if is_undone != bool(detail.get("undone")):
            self.problems.append(f"{version} was rolled back to {target}: undone is {detail.get('undone')}")
        self._become_champion(target, detail)
        if not is_undone:
            self.state[version] = "rolled_back"
            self.marked.add(version)

    def _become_champion(self, version: str, detail: dict[str, Any]) -> None:
        if version in self.pruned:
            self.problems.append(f"{version} was pruned, and became the champion")
        if self.champion is not None:
            self.state[self.champion] = "retired"
            self.previous = self.champion
        self.champion = version
        self.state[version] = "champion"
        self.marked.discard(version)
        self.decided.add(version)
        self.activations[detail["from_window_end_us"]] = version


def registry_problems(fetch: Fetch) -> list[str]:
    """Return the differences between the registry and its history."""
    fleets: dict[str, Fleet] = {}
    for fleet, version, event, via, detail in fetch(EVENTS):
        fleets.setdefault(fleet, Fleet()).add(version, event, via, json.loads(detail) if detail else {})
    return [
        *(f"registry of {name}: {problem}" for name, fleet in fleets.items() for problem in fleet.problems),
        *_compare(fetch, fleets),
    ]


def activation_problems(fetch: Fetch) -> list[str]:
    """Return windows that another version scored than the one active at their end."""
    activations: dict[str, list[tuple[int, str]]] = {}
    for fleet, from_us, version in fetch(ACTIVATIONS):
        activations.setdefault(fleet, []).append((from_us, version))
    wrong = []
    for fleet, end_us, version in fetch(SCORED_ENDS):
        _, active = max((each for each in activations.get(fleet, ()) if each[0] < end_us), default=(0, None))
        if active != version:
            wrong.append(f"windows that end at {end_us} were scored by version {version}, not by {active}")
    return wrong


def _compare(fetch: Fetch, fleets: dict[str, Fleet]) -> Iterator[str]:
    aliases = {(fleet, alias): version for fleet, alias, version in fetch(ALIASES)}
    activations: dict[str, dict[int, str]] = {name: {} for name in fleets}
    for name, from_us, version in fetch(ACTIVATIONS):
        activations.setdefault(name, {})[from_us] = version
    for name, fleet in fleets.items():
        for alias, version in (("champion", fleet.champion), ("previous", fleet.previous)):
            if aliases.get((name, alias)) != version:
                yield f"registry of {name}: {alias} is {aliases.get((name, alias))}, by its history {version}"
        challenger = aliases.get((name, "challenger"))
        if challenger is not None and fleet.state.get(challenger) not in ("candidate", "shadow"):
            yield f"registry of {name}: the challenger {challenger} is {fleet.state.get(challenger)}"
    for name, found in activations.items():
        right = fleets[name].activations if name in fleets else {}
        for from_us in sorted(found.keys() | right.keys()):
            if found.get(from_us) != right.get(from_us):
                was, should = found.get(from_us), right.get(from_us)
                yield f"registry of {name}: {was} is active from {from_us}, by its history {should}"
    for name, version, state, rolled_back_us, pruned_us in fetch(VERSIONS):
        fleet = fleets.get(name, Fleet())
        if state != fleet.state.get(version, "candidate"):
            yield f"registry of {name}: {version} is {state}, by its history {fleet.state.get(version)}"
        if (rolled_back_us is not None) != (version in fleet.marked):
            yield f"registry of {name}: {version} has the mark of a roll-back {rolled_back_us}, by its history not so"
        if pruned_us is not None and version not in fleet.pruned:
            yield f"registry of {name}: {version} was pruned without an event"
    for name, version in fetch(SCORED):
        if version not in fleets.get(name, Fleet()).decided:
            yield f"registry of {name}: {version} decided windows, and was never the champion"
