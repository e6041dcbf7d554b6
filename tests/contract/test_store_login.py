"""Generated passwords, against a PostgreSQL server that asks for them: they log in, and no output contains them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from monitor.cli import main
from monitor.errors import ConfigError, StoreUnavailable
from monitor.store import schema
from monitor.store.migrations import HEAD
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import PostgresServer

PASSWORDS = ["sl/SEK+RET", "at@SEK@RET", "q?SEK#RET", "p%SEK%RET", "c:SEK://RET", "ü SEK&RET="]


@pytest.fixture(scope="module")
def login(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server, which asks the role `odd` for its password."""
    rules = postgres._data / "pg_hba.conf"
    before = rules.read_text()
    postgres.execute("CREATE ROLE odd SUPERUSER LOGIN")
    rules.write_text(f"host all odd all scram-sha-256\n{before}")
    postgres.execute("SELECT pg_reload_conf()")
    yield postgres
    rules.write_text(before)
    postgres.execute("SELECT pg_reload_conf()")
    postgres.execute("DROP OWNED BY odd")


def url_of(login: PostgresServer, password: str) -> str:
    plain = login.url()
    login.execute(f"ALTER ROLE odd PASSWORD '{password}'")
    return f"postgresql://odd:{password}@{plain.rpartition('@')[2]}"


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_generated_password_logs_in_and_is_shown_nowhere(
    password: str, login: PostgresServer, tmp_path: Path
) -> None:
    url = url_of(login, password)
    file = tmp_path / "monitor.toml"
    fleet = '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
    kafka = 'kafka = {bootstrap = "127.0.0.1:9", topics = ["plant"]}\n'
    file.write_text(f"{kafka}{fleet}[store]\nurl = '{url}'\n")
    file.chmod(0o600)
    shown = []
    for command in (["db", "upgrade"], ["alerts", "list"], ["check", "--offline"], ["models", "show"]):
        result = CliRunner().invoke(main, [*command, "-c", str(file)])
        assert result.exit_code == (1 if command == ["models", "show"] else 0), result.output
        shown.append(result.output)
    assert f"upgraded from nothing to {HEAD}" in shown[0]
    file.write_text(file.read_text().replace("RET", "RETx"))
    wrong = CliRunner().invoke(main, ["alerts", "list", "-c", str(file)])
    assert wrong.exit_code == 2
    assert "password authentication failed" in wrong.stderr
    for text in (*shown, wrong.output):
        assert not any(part in text for part in ("SEK", "RET"))


@pytest.mark.parametrize("password", PASSWORDS)
def test_errors_about_the_server_hide_the_password(password: str) -> None:
    url = f"postgresql://odd:{password}@127.0.0.1:9/plant"
    for opens in (lambda: asyncio.run(schema.upgrade(url)), lambda: open_reader(url)):
        with pytest.raises((StoreUnavailable, ConfigError)) as found:
            opens()
        assert "postgresql://odd:***@127.0.0.1:9/plant" in str(found.value)
        assert not any(part in f"{found.value!r}{found.value}" for part in ("SEK", "RET"))
