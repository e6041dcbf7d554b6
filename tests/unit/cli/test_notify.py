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
