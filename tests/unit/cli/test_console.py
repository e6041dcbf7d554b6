"""`monitor console token`: a token is printed once, listed without it, and revoked."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from monitor.cli import main
from tests import example_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "monitor.toml").write_text(
        'kafka = {bootstrap = "b:1", topics = ["t"]}\nfleet = [{name = "x", interval = "1m"}]\n'
    )
    asyncio.run(example_database.create(tmp_path / "monitor.db"))
    return lambda *words: CliRunner().invoke(main, ["console", *words])


def test_a_token_is_printed_once(run: Run) -> None:
    made = run("token", "add", "ann", "--scope", "act", "--expires", "90d")
    assert made.exit_code == 0
    token = made.stdout.strip()
    assert token.startswith("monitor_")
    assert "Token of ann, scope act, until 20" in made.stderr
    listed = run("token", "list", "--json")
    assert token not in listed.stdout
    [row] = json.loads(listed.stdout)
    assert {"name": "ann", "scope": "act", "revoked_at": None}.items() <= row.items()
    assert "hash" not in row


def test_a_revoked_token_is_listed_as_such(run: Run) -> None:
    run("token", "add", "ann")
    assert run("token", "revoke", "ann").exit_code == 0
    assert "revoked" in run("token", "list").stdout
    assert run("token", "revoke", "bob").exit_code == 1


def test_without_tokens_the_list_says_who_may_enter(run: Run) -> None:
    assert "only this machine may use the console" in run("token", "list").stdout


def test_an_address_for_everybody_is_refused(run: Run) -> None:
    refused = run("--listen", "0.0.0.0:8420")
    assert refused.exit_code == 2
    assert "can be reached from other machines" in refused.stderr
