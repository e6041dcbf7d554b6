"""Queries of model versions and of the jobs that train them."""

from __future__ import annotations

import json

from monitor.errors import NotFound
from monitor.store.queries.backend import Backend, Row, Where, limited, with_times


class ModelQueries(Backend):
    """Queries of model versions and training jobs."""

    def models(self, *, fleet: str | None = None) -> list[Row]:
        """Return model versions, newest first. `asset` is None: a version belongs to a whole fleet.

        `derived_from`: the trained version with the same weights. None = it was trained itself.
        """
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        return [
            with_times(
                {name: value for name, value in row.items() if name != "card"},
                {"trained_us": "trained_at", "from_us": "decides_after"},
            )
            | {"metrics": json.loads(row["metrics"]), "derived_from": _derived_from(row["card"])}
            for row in self.fetch(f"{_MODELS} {where} ORDER BY trained_us DESC, id DESC", where.values)
        ]

    def model(self, version: str | None = None, *, fleet: str | None = None) -> Row:
        """Return one version with its card. Without `version`: the champion, of the only fleet with one or of `fleet`.

        Raises NotFound, which names the alternatives.
        """
        known = self.models(fleet=fleet)
        key, value = ("state", "champion") if version is None else ("version", version)
        wanted = [row for row in known if row[key] == value]
        if len(wanted) == 1:
            [card] = self.fetch(_CARD, {"version": wanted[0]["version"]})
            return wanted[0] | {"card": json.loads(card["card"])}
        if version is not None:
            raise NotFound(f"version {version}; `monitor models list` shows the {len(known)} there are")
        names = ", ".join(row["fleet"] for row in wanted)
        if names:
            raise NotFound(f"one champion: fleets {names} have one each; say which with --fleet")
        of_fleet = f" of {fleet}" if fleet else ""
        raise NotFound(f"a champion{of_fleet}; `monitor models list` shows the versions there are")

    def jobs(self, *, fleet: str | None = None, limit: int | None = None) -> list[Row]:
        """Return jobs, newest first."""
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        times = {"requested_us": "requested_at", "started_us": "started_at", "finished_us": "finished_at"}
        return [
            with_times(row, times)
            for row in self.fetch(f"{_JOBS} {where} ORDER BY id DESC{limited(limit)}", where.values)
        ]


def _derived_from(card: str) -> str | None:
    """Return the version of the same weights that this one was derived from. None = it was trained."""
    found = json.loads(card)
    derived = found.get("derived") if isinstance(found, dict) else None
    return str(derived["from"]) if isinstance(derived, dict) and "from" in derived else None


_MODELS = """
    SELECT fleet, NULL AS asset, version, state, trained_us, metrics,
        (SELECT MAX(from_window_end_us) FROM model_activation WHERE version_id = model_version.id) AS from_us, path,
        card
    FROM model_version
"""
_CARD = "SELECT card FROM model_version WHERE version = :version"
_JOBS = """
    SELECT id, fleet, kind, state, progress, message, requested_by, version, requested_us, started_us, finished_us
    FROM job
"""
