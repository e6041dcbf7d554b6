"""Queries of model versions, of their history and measurements, and of the jobs that train them."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound
from monitor.store.queries.backend import Backend, Row, Where, limited, with_times
from monitor.types import Alias
from monitor.version_words import newest_by_version, why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ModelQueries(Backend):
    """Queries of model versions and training jobs."""

    def models(self, *, fleet: str | None = None) -> list[Row]:
        """Return model versions, newest first. `asset` is None: a version belongs to a whole fleet.

        `derived_from`: the trained version with the same weights. None = it was trained itself. `aliases`: the names
        that point to it now. `gate_verdict`: the gate's document. None = it was not judged. `why`: the reason of its
        state in one sentence.
        """
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        aliases, events = self._aliases(), newest_by_version(self.model_events(fleet=fleet))
        return [
            _model(row, aliases.get(row["id"], []), events.get(row["version"]))
            for row in self.fetch(f"{_MODELS} {where} ORDER BY trained_us DESC, id DESC", where.values)
        ]

    def model(self, version: str | None = None, *, fleet: str | None = None) -> Row:
        """Return one version with its card and its events. `version`: its name, or an alias. None = the champion.

        An alias needs `fleet` where several fleets have it. Raises NotFound, which names the alternatives.
        """
        known = self.models(fleet=fleet)
        wanted = [row for row in known if row["version"] == version]
        if not wanted:
            wanted = [_with_alias(known, version or Alias.CHAMPION, fleet)]
        [found] = wanted
        version = found["version"]
        return found | {"card": self._stored_card(version), "events": self.model_events(version=version)}

    def whole_card(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the card beside the weights, or the database's part where the folder is not on this machine.

        `row`: of `models` or `model`.
        """
        try:
            found: Any = json.loads((Path(row["path"]) / "card.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = row["card"] if "card" in row else self._stored_card(row["version"])
        return found if isinstance(found, dict) else {}

    def _stored_card(self, version: str) -> Any:
        [row] = self.fetch(_CARD, {"version": version})
        return json.loads(row["card"])

    def model_events(
        self, *, fleet: str | None = None, version: str | None = None, limit: int | None = None
    ) -> list[Row]:
        """Return the events in the lives of versions, newest first: who, when, by which way, and the note."""
        where = Where()
        where.add("model_event.fleet = :fleet", fleet=fleet)
        where.add("version = :version", version=version)
        sql = f"{_EVENTS} {where} ORDER BY model_event.id DESC{limited(limit)}"
        return [_with_json(with_times(row, {"at_us": "at"}), "detail") for row in self.fetch(sql, where.values)]

    def model_checks(
        self,
        *,
        kind: str | None = None,
        fleet: str | None = None,
        version: str | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return measurements of versions after their training, newest first. `kind`: drill, drift or shadow."""
        where = Where()
        where.add("kind = :kind", kind=kind)
        where.add("model_check.fleet = :fleet", fleet=fleet)
        where.add("version = :version", version=version)
        sql = f"{_CHECKS} {where} ORDER BY model_check.id DESC{limited(limit)}"
        return [_with_json(with_times(row, {"at_us": "at"}), "result") for row in self.fetch(sql, where.values)]

    def jobs(self, *, fleet: str | None = None, limit: int | None = None) -> list[Row]:
        """Return jobs, newest first."""
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        times = {"requested_us": "requested_at", "started_us": "started_at", "finished_us": "finished_at"}
        return [
            _with_json(with_times(row, times), "detail")
            for row in self.fetch(f"{_JOBS} {where} ORDER BY id DESC{limited(limit)}", where.values)
        ]

    def _aliases(self) -> dict[int, list[str]]:
        """Return the aliases of each version, by its id, in the order of `Alias`."""
        found: dict[int, list[str]] = {}
        rows = {(row["version_id"], row["alias"]) for row in self.fetch("SELECT version_id, alias FROM model_alias")}
        for number, alias in sorted(rows, key=lambda each: list(Alias).index(Alias(each[1]))):
            found.setdefault(number, []).append(alias)
        return found


_NO_ALIAS = {
    Alias.CHAMPION: "nothing was promoted yet",
    Alias.CHALLENGER: "no version waits for a decision",
    Alias.PREVIOUS: "no other version decided before the champion",
}


def _with_alias(known: Sequence[Row], alias: str, fleet: str | None) -> Row:
    """Return the only version with an alias. Raises NotFound."""
    of_fleet = f" of {fleet}" if fleet else ""
    if alias not in list(Alias):
        match = difflib.get_close_matches(alias, [*(row["version"] for row in known), *Alias], 1)
        hint = f"did you mean {match[0]}? " if match else ""
        raise NotFound(
            f"version {alias}{of_fleet}; {hint}`monitor models list` shows the versions, and the aliases are "
            f"{', '.join(Alias)}"
        )
    wanted = [row for row in known if alias in (row["state"], *row["aliases"])]
    if len(wanted) > 1:
        names = ", ".join(row["fleet"] for row in wanted)
        raise NotFound(f"one {alias}: fleets {names} have one each; say which with --fleet")
    if not wanted:
        why = _NO_ALIAS[Alias(alias)]
        raise NotFound(f"a version with the alias {alias}{of_fleet}: {why}; `monitor models list` shows the versions")
    return wanted[0]


def _model(row: Mapping[str, Any], aliases: list[str], event: Mapping[str, Any] | None) -> Row:
    times = {
        "trained_us": "trained_at",
        "from_us": "decides_after",
        "rolled_back_us": "rolled_back_at",
        "pruned_us": "pruned_at",
    }
    kept = {name: value for name, value in row.items() if name not in ("card", "id", "gate_verdict")}
    found = with_times(kept, times) | {
        "metrics": json.loads(row["metrics"]),
        "derived_from": _derived_from(row["card"]),
        "aliases": aliases,
        "gate_verdict": None if row["gate_verdict"] is None else json.loads(row["gate_verdict"]),
    }
    return found | {"why": why(found, event)}


def _with_json(row: Row, name: str) -> Row:
    return row | {name: None if row[name] is None else json.loads(row[name])}


def _derived_from(card: str) -> str | None:
    """Return the version of the same weights that this one was derived from. None = it was trained."""
    found = json.loads(card)
    derived = found.get("derived") if isinstance(found, dict) else None
    return str(derived["from"]) if isinstance(derived, dict) and "from" in derived else None


_MODELS = """
    SELECT id, fleet, NULL AS asset, version, state, trained_us, metrics,
        (SELECT MAX(from_window_end_us) FROM model_activation WHERE version_id = model_version.id) AS from_us, path,
        card, gate_verdict, rolled_back_us, pruned_us
    FROM model_version
"""
_CARD = "SELECT card FROM model_version WHERE version = :version"
_EVENTS = """
    SELECT at_us, model_event.fleet, version, event, actor, via, note, detail
    FROM model_event LEFT JOIN model_version ON model_version.id = version_id
"""
_CHECKS = """
    SELECT kind, model_check.fleet, version, at_us, requested_by, problem, result
    FROM model_check JOIN model_version ON model_version.id = version_id
"""
_JOBS = """
    SELECT id, fleet, kind, state, progress, message, requested_by, version, requested_us, started_us, finished_us,
        reason, note, detail
    FROM job
"""
