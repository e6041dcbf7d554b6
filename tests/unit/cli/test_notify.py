"""`monitor check` describes the notification channels. For `monitor notify test` see tests/integration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from monitor.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner

CHANNELS = """
[[notify]]
url = "https://hooks.example/T0/hunter2"
[[notify]]
name = "pager"
url = "https://pager.example:8443/hunter2"
min_severity = "critical"
fleets = "turb*"
"""


def test_check_shows_no_secret_of_a_channel(runner: CliRunner, config: Path) -> None:
    config.write_text(config.read_text() + CHANNELS)
    done = runner.invoke(main, ["check", "--offline", "-c", str(config)])
    assert done.exit_code == 0
    assert (
        "hooks.example: sends alerts to https://hooks.example\n  test it with: monitor notify test hooks" in done.stdout
    )
    assert "pager: sends critical alerts of turb* to https://pager.example:8443" in done.stdout
    as_json = runner.invoke(main, ["check", "--offline", "--json", "-c", str(config)])
    assert json.loads(as_json.stdout)["channels"] == {
        "hooks.example": "sends alerts to https://hooks.example",
        "pager": "sends critical alerts of turb* to https://pager.example:8443",
    }
    assert "hunter2" not in done.stdout + as_json.stdout


KINDS = """
[[notify]]
kind = "slack"
url = "https://chat.example/hunter2"
classes = ["process", "sensor"]
quiet_hours = "22:00-06:00"
[[notify]]
kind = "kafka"
topic = "plant.alerts"
schedule = "Mon-Fri 06:00-18:00"
[[notify]]
kind = "apprise"
url = "mailto://me:hunter2@host.example"
"""


def test_check_describes_each_kind_of_channel(runner: CliRunner, config: Path) -> None:
    config.write_text(config.read_text() + KINDS)
    config.chmod(0o600)
    done = runner.invoke(main, ["check", "--offline", "--json", "-c", str(config)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["channels"] == {
        "chat.example": "sends alerts of class process, sensor to slack https://chat.example, one notification per "
        "incident, quiet 22:00-06:00",
        "kafka": "sends alerts of Mon-Fri 06:00-18:00 to kafka topic plant.alerts",
        "mailto": "sends alerts to apprise mailto://…, one notification per incident",
    }
    assert "hunter2" not in done.output


def test_check_refuses_an_address_that_apprise_does_not_know(runner: CliRunner, config: Path) -> None:
    config.write_text(config.read_text() + '[[notify]]\nkind = "apprise"\nurl = "nosuch://hunter2"\n')
    config.chmod(0o600)
    done = runner.invoke(main, ["check", "--offline", "-c", str(config)])
    assert done.exit_code == 2
    assert "Apprise does not know this nosuch:// address" in done.output
    assert "hunter2" not in done.output


def test_check_names_the_line_of_a_mistake_in_a_template(runner: CliRunner, config: Path) -> None:
    channel = '[[notify]]\nurl = "https://h/x"\ntemplate = """\n{{ about }}\n{{ asst }}"""\n'
    config.write_text(config.read_text() + channel)
    done = runner.invoke(main, ["check", "--offline", "-c", str(config)])
    assert done.exit_code == 2
    assert 'line 2: there is no variable asst; did you mean "asset"?' in done.output
