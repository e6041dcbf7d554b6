"""The REST API under `/api/v1`, with the documents and words of the command line.

    alerts.py       alerts, their evidence, and the answers to them
    answers.py      incidents, history, shelves, maintenance windows, labels of times
    models.py       model versions, decisions on them, trainings
    plant.py        fleets, assets, scores, ingestion, quarantine
    documents.py    the documents
    inputs.py       parameters and bodies, with their limits
    schema.py       the OpenAPI document

Input: requests that the gate let in. Output: JSON, or a problem document. Invariant: every list has a limit.
"""

from __future__ import annotations

from fastapi import APIRouter

from monitor.console.api import alerts, answers, models, plant

router = APIRouter(prefix="/api/v1")
for part in (alerts, answers, models, plant):
    router.include_router(part.router)
