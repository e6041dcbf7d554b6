"""Modes of promotion with a real daemon and its training process, from the request to the champion that scores."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.kafka.embedded_broker import create_topic
from tests.daemon_process import BEGIN_MS, Deployment, publish, waves

if TYPE_CHECKING:

    from monitor.kafka.embedded_broker import EmbeddedBroker

N_HISTORY, N_NEW, N_MORE, LENGTH = 1200, 300, 400, 16
N_BEFORE = N_HISTORY + N_NEW
SLOW_S = 240.0
"""For a training on a busy machine. It takes about 5 s of CPU."""

readings = partial(waves, period=18 * np.pi, noise=0.2)


def start(deployment: Deployment, broker: EmbeddedBroker, promote: str) -> str:
    """Start a daemon that trains its first model. Return the model's version."""
    asyncio.run(create_topic(broker.bootstrap, promote[:4], 1))
    publish(broker.bootstrap, promote[:4], readings(0, N_HISTORY))
    retrain = {"every": "never", "drift": "never", "history": "365d", "promote": promote}
    alerts = {"budget": "1/day", "confirm": "2 of 3", "recover": 3}
    deployment.configure(broker.bootstrap, promote[:4], window=LENGTH, max_gap="4m", retrain=retrain, alerts=alerts)
    deployment.start()
    deployment.wait_records(N_HISTORY, limit_s=SLOW_S)
    (first,) = deployment.json("models", "list")
    assert first["state"] == "champion"
    return str(first["version"])


def states(deployment: Deployment) -> dict[str, str]:
    return {each["version"]: each["state"] for each in deployment.json("models", "list")}


def scored_by(deployment: Deployment, since_us: int) -> set[str]:
    sql = "SELECT version FROM score JOIN model_version ON model_version.id = version_id WHERE end_us > "
    return {row[0] for row in deployment.fetch(f"{sql}{since_us}")}


def end_us(n_readings: int) -> int:
    return (BEGIN_MS + 60_000 * (n_readings + LENGTH)) * 1000


def test_a_shadow_is_judged_on_what_came_since(embedded_broker: EmbeddedBroker, deployment: Deployment) -> None:
    old = start(deployment, embedded_broker, "shadow:20s")
    topic = deployment.config.kafka.topics[0]
    publish(embedded_broker.bootstrap, topic, readings(N_HISTORY, N_NEW))  # the same readings give the same version
    deployment.wait_records(N_HISTORY + N_NEW)
    assert deployment.command("retrain").returncode == 0
    new = deployment.wait_event("challenger_in_shadow", limit_s=SLOW_S)["version"]
    assert states(deployment) == {old: "champion", new: "shadow"}
    publish(embedded_broker.bootstrap, topic, readings(N_BEFORE, N_MORE))
    ended = deployment.wait_event("shadow_ended", limit_s=SLOW_S)
    compared = deployment.events("shadow_compared")[-1]
    assert N_MORE - LENGTH <= compared["n_windows"] <= N_MORE, "those since its training, and no others"
    [(kind, problem, result)] = deployment.fetch("SELECT kind, problem, result FROM model_check")
    found: dict[str, Any] = json.loads(result)
    assert kind == "shadow"
    names = {each["name"] for each in found["checks"]}
    assert names == {"budget", "history", "faults", "memory", "events", "latency", "schema"}
    assert datetime.fromisoformat(found["from"]).timestamp() * 1e3 >= BEGIN_MS + 60_000 * (N_BEFORE - LENGTH)
    publish(embedded_broker.bootstrap, topic, readings(N_BEFORE + N_MORE, N_MORE))
    deployment.wait_records(N_BEFORE + 2 * N_MORE)
    deployment.terminate()
    assert (problem, ended["state"]) == (None, "champion"), found
    assert states(deployment) == {old: "retired", new: "champion"}
    assert scored_by(deployment, end_us(N_BEFORE + N_MORE)) == {new}


@pytest.mark.parametrize("promote", ["suggest", "manual"])
def test_a_candidate_decides_once_a_person_promotes_it(
    embedded_broker: EmbeddedBroker, deployment: Deployment, promote: str
) -> None:
    old = start(deployment, embedded_broker, promote)
    publish(embedded_broker.bootstrap, promote[:4], readings(N_HISTORY, N_NEW))
    deployment.wait_records(N_HISTORY + N_NEW)
    done = deployment.command("retrain", "--wait", limit_s=SLOW_S)
    assert done.returncode == 0, done.stderr + deployment.tail()
    new = next(version for version, state in states(deployment).items() if state == "candidate")
    assert len(deployment.events("challenger_proposed")) == (promote == "suggest")
    publish(embedded_broker.bootstrap, promote[:4], readings(N_BEFORE, N_MORE))
    deployment.wait_records(N_BEFORE + N_MORE)
    assert scored_by(deployment, end_us(N_BEFORE)) == {old}, "it waits"
    differs = deployment.command("models", "diff")
    assert (differs.returncode, new in differs.stdout) == (0, True), differs.stdout + differs.stderr
    assert deployment.command("models", "promote", new, "--note", "looks good").returncode == 0
    publish(embedded_broker.bootstrap, promote[:4], readings(N_BEFORE + N_MORE, N_MORE))
    deployment.wait_records(N_BEFORE + 2 * N_MORE)
    deployment.terminate()
    assert states(deployment) == {old: "retired", new: "champion"}
    assert scored_by(deployment, end_us(N_BEFORE + N_MORE)) == {new}
