"""Scope "asset" in the daemon: train, score, retrain, roll back. A replay gives the live results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monitor.replay.digest import digest_of
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, publish, read_back
from tests.oracle.log import FleetRule

if TYPE_CHECKING:

    from tests.servers import KafkaServer

PARTITIONS, TOPIC = 2, "scope_asset"
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)


def test_a_bundle_is_trained_retrained_rolled_back_and_replayed(kafka: KafkaServer, deployment: Deployment) -> None:
    kafka.create_topic(TOPIC, PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(5, 6, 9_000, RULE), PARTITIONS))
    # One asset comes after the first training.
    messages += list(partitioned(plant(6, 7, 6_000, RULE), PARTITIONS))
    deployment.configure(
        kafka.bootstrap, TOPIC, model={"architecture": "pca", "scope": "asset"},
        retrain={"every": "never", "history": "365d", "recall_margin": 1, "workers": 2},
    )  # fmt: skip
    sent = 4_500
    publish(kafka.bootstrap, TOPIC, messages[:sent])
    deployment.start()
    deployment.wait_records(sent)
    first = own_models(deployment)
    assert len(first) == 6

    job = deployment.json("retrain", "--wait", limit_s=180)
    assert job["state"] == "done", job
    second = champion(deployment)
    publish(kafka.bootstrap, TOPIC, messages[sent : 2 * sent])
    deployment.wait_records(2 * sent)
    back = deployment.command("models", "rollback", "--note", "test")
    assert back.returncode == 0, back.stderr
    deployment.wait("the former champion", lambda: champion(deployment) != second)
    publish(kafka.bootstrap, TOPIC, messages[2 * sent :])
    deployment.wait_records(len(messages))
    deployment.terminate()

    deployment.check(read_back(kafka.bootstrap, TOPIC, PARTITIONS))
    rows = deployment.fetch(
        "SELECT asset.name, version, count(*) FROM score JOIN asset ON asset.id = asset_id"
        " JOIN model_version ON model_version.id = version_id GROUP BY 1, 2"
    )
    assert {version for _, version, _ in rows} == {champion(deployment), second}
    assert "R00006" in {name for name, _, _ in rows}, "the asset that came later is scored"
    with deployment.reader() as reader:
        live = digest_of(reader)
    assert deployment.json("replay", limit_s=120)["digest"] == live


def champion(deployment: Deployment) -> str:
    return str(next(each["version"] for each in deployment.json("models", "list") if each["state"] == "champion"))


def own_models(deployment: Deployment) -> list[str]:
    card: dict[str, Any] = json.loads(
        (deployment.folder / "checkpoints" / champion(deployment) / "card.json").read_text()
    )
    return list(card["bundle"]["own"])
