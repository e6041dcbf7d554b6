"""The pages that operators read: one file for each screen.

    view.py       the common parts of all screens: fragments, times in the reader's zone, formats
    now.py        open alerts, swim lanes, tiles        alert.py    one alert, its evidence and the answers to it
    alerts.py     all alerts, incidents                 asset.py    one asset: scores, sensors, a stretch of time
    models.py     fleets, a fleet, the slider           versions.py   a fleet's versions, proposal, history
    version_card.py  one version's card                 ingestion.py  lag, quarantine, daemons, trainings
    shelves.py    shelves and maintenance

Input: requests. Output: HTML. Invariant: pages only read. Their forms post to the routes of the console's acts.
"""

from __future__ import annotations

from fastapi import APIRouter

from monitor.console.pages import alert, alerts, asset, ingestion, models, now, shelves, view

router = APIRouter(include_in_schema=False)
for screen in (view, now, alerts, alert, asset, models, ingestion, shelves):
    router.include_router(screen.router)
