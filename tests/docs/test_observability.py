"""Rules and dashboards in deploy/: valid, tested by promtool, and about metrics and tables that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # a dependency of schemathesis

from monitor import metrics
from monitor.store.tables import metadata
from tests.needs import need
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
SOURCES = {"monitor-prometheus": "prometheus", "monitor-postgresql": "grafana-postgresql-datasource"}
PRIVATE = {"console_token", "used_link", "identity", "outbox", "evidence"}
"""Tables with keys, payloads of notifications or bulk, which Grafana's role does not see."""


def dashboard(path: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def targets(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield from panel.get("targets", ())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check_metrics(expression: str) -> None:
    """Each metric is declared, with the labels and the values that the expression selects."""
    declared = {each.name: each for each in metrics.declared}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    names = re.findall(r"\b(?:monitor|process)_[a-z_]+|\bmonitor:[a-z_:0-9]+", expression)
    assert names, expression
    for name in names:
        if ":" in name:
            assert name in recorded, name
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        each = declared.get(name) or declared[base]
        assert (each.kind == "histogram") == (name != base or name.endswith("_bucket")), name
        for selector in re.findall(rf"\b{name}\{{([^}}]*)\}}", expression):
            labels = set(re.findall(r'(\w+)(?:=~|!=|=)"', selector))
            assert labels <= {*each.labels, "job", "instance", "le"}, selector


# ---------------------------------------------------------------- Prometheus


@pytest.mark.parametrize(
    "command", ["check rules rules.yml", "check config prometheus.yml", "test rules rules_test.yml"]
)
def test_promtool_accepts_the_rules(command: str) -> None:
    promtool = shutil.which("promtool")
    need(promtool, "promtool (Debian package prometheus)")
    assert promtool is not None
    done = subprocess.run(
        [promtool, *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_use_declared_metrics() -> None:
    for rule in rules():
        if rule.get("alert") != "MonitorDown":
            check_metrics(rule["expr"])


def test_each_alerting_rule_fires_in_the_test_file() -> None:
    fired = set(re.findall(r"alertname(?:=\"|: )(\w+)", (PROMETHEUS / "rules_test.yml").read_text()))
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert fired == alerts
    assert len(alerts) > 20
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
    assert any("absent(" in rule["expr"] for rule in rules())


# ---------------------------------------------------------------- Grafana


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Any) -> None:
    board = dashboard(path)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes: list[tuple[int, int, int, int]] = []
    for panel in panels:
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        for x, y, w, h in boxes:
            apart = box["x"] >= x + w or x >= box["x"] + box["w"] or box["y"] >= y + h or y >= box["y"] + box["h"]
            assert apart, panel["title"]
        boxes.append((box["x"], box["y"], box["w"], box["h"]))
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"].endswith((".", "?"))
            assert panel["targets"]
    sources = [target["datasource"] for target in targets(board)]
    sources += [variable["datasource"] for variable in board["templating"]["list"]]
    assert all(SOURCES[source["uid"]] == source["type"] for source in sources)
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(list(targets(board)))))
    assert used == {variable["name"] for variable in board["templating"]["list"]}


def test_dashboards_use_declared_metrics() -> None:
    expressions = [target["expr"] for path in DASHBOARDS for target in targets(dashboard(path)) if "expr" in target]
    assert len(expressions) > 30
    for expression in expressions:
        check_metrics(expression)


def test_grafana_is_provisioned() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "monitor.yaml").read_text())["datasources"]
    assert {source["uid"]: source["type"] for source in sources} == SOURCES
    [provider] = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "monitor.yaml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    mounts = dict(mount.rsplit(":", 2)[:2] for mount in compose["grafana"]["volumes"] if mount.startswith("./"))
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert {name for name, each in compose.items() if each.get("profiles") == ["observability"]} == {
        "prometheus",
        "grafana",
        "grafana-role",
    }
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(f"{provider['options']['path']}/") in {path.name for path in DASHBOARDS}
    for service in ("prometheus", "grafana", "grafana-role"):
        for mount in compose[service]["volumes"]:
            source = mount.partition(":")[0]
            assert not source.startswith("./") or (ROOT / "deploy" / source).exists(), source


def test_grafana_sees_no_token_and_no_key() -> None:
    granted = (GRAFANA / "role.sql").read_text().partition("GRANT SELECT ON")[2]
    tables = set(re.findall(r"\b[a-z_]+\b", granted.partition("TO grafana")[0]))
    assert len(tables) > 15
    assert tables <= set(metadata.tables) - PRIVATE
