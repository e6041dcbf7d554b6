"""`monitor check` says who is told of what, and nothing of a secret. `monitor notify test`: tests/integration."""

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


def test_check_says_who_is_told_of_what(runner: CliRunner, config: Path) -> None:
    config.write_text(config.read_text() + CHANNELS)
    done = runner.invoke(main, ["check", "--offline", "-c", str(config)])
    assert done.exit_code == 0
    assert "hooks.example: https://hooks.example is told of alerts; try it: monitor notify test" in done.stdout
    assert "pager: https://pager.example:8443 is told of critical alerts of turb*" in done.stdout
    as_json = runner.invoke(main, ["check", "--offline", "--json", "-c", str(config)])
    assert json.loads(as_json.stdout)["channels"] == {
        "hooks.example": "https://hooks.example is told of alerts",
        "pager": "https://pager.example:8443 is told of critical alerts of turb*",
    }
    assert "hunter2" not in done.stdout + as_json.stdout
