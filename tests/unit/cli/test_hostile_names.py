"""Names in an old database, or of an operator, that would command the terminal. No command prints them as they are."""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.cli import main, print_error, terminal
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo, echo_facts

if TYPE_CHECKING:
    from click.testing import CliRunner

HOSTILE = "\x1b]0;pwned\x07\x9b31m\u202egro.\u2066\x00q"
DANGEROUS = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_safe(text: str) -> bool:
    return not any(unicodedata.category(sign) in DANGEROUS and sign != "\n" for sign in text)


@pytest.fixture
def hostile(filled: Path) -> Path:
    """The filled database, with hostile names of sensors, of an asset and of a topic."""
    name = json.dumps(HOSTILE)[1:-1]
    with closing(sqlite3.connect(filled.parent / "monitor.db")) as database:
        for table, column in (("alert", "sensors"), ("fleet", "sensors"), ("model_version", "card")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, 'power', ?)", (name,))
        database.execute("UPDATE asset SET name = ? WHERE name = 'R80736'", (HOSTILE.replace("\0", ""),))
        database.execute("UPDATE quarantine SET topic = ?, reason = ?", (HOSTILE.replace("\0", ""),) * 2)
        database.commit()
    return filled


@pytest.mark.parametrize("has_json", [False, True])
@pytest.mark.parametrize(
    "command", ["alerts list", "alerts show 1", "alerts show 2", "models list", "models show", "quarantine list",
                "scores show R80711"],
)  # fmt: skip
def test_no_command_prints_what_commands_the_terminal(
    command: str, has_json: bool, hostile: Path, runner: CliRunner
) -> None:
    result = runner.invoke(main, [*command.split(), *["--json"] * has_json])
    assert result.exit_code == 0, result.output
    assert is_safe(result.stdout)
    assert is_safe(result.stderr)
    if has_json:
        json.loads(result.stdout)


def test_json_still_has_the_name_itself(hostile: Path, runner: CliRunner) -> None:
    alerts = json.loads(runner.invoke(main, ["alerts", "list", "--json"]).stdout)
    assert HOSTILE in {sensor["name"] for alert in alerts for sensor in alert["sensors"]}
    asset = HOSTILE.replace("\0", "")
    assert {alert["asset"] for alert in alerts} >= {asset}
    assert json.loads(runner.invoke(main, ["scores", "show", asset, "--json"]).stdout)


@pytest.mark.parametrize("args", [["scores", "show", HOSTILE], [HOSTILE], ["alerts", "list", "--state", HOSTILE]])
def test_an_argument_comes_back_harmless(args: list[str], filled: Path, runner: CliRunner) -> None:
    result = runner.invoke(main, args)
    assert result.exit_code in (1, 2)
    assert is_safe(result.output)


def test_each_way_to_a_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE, Styled(HOSTILE, "bold"))
    echo_facts({"a": HOSTILE})
    table = Table("name", "text:rest")
    table.add(f"{HOSTILE}\nfirst", Styled(HOSTILE, "red"))
    table.print([(HOSTILE,)])
    print_error(f"{HOSTILE}\n{HOSTILE}: x")
    with progress(HOSTILE, line_every_s=0) as show:
        show(0.5, HOSTILE)
    out, err = capsys.readouterr()
    assert "pwned" in out
    assert is_safe(out)
    assert is_safe(err)
    assert len(out.splitlines()) == 5  # a line feed in a cell begins no line


def test_only_these_files_print() -> None:
    """All others print through `terminal.echo`, tables and `output.print_json`, which escape."""
    printing = {"terminal.py", "output.py", "progress.py", "demo.py"}
    found = {
        file.name
        for file in Path(terminal.__file__).parent.glob("*.py")
        if re.search(r"click\.s?echo\(|(?<![\w.])print\(|sys\.std(out|err)\.write\(", file.read_text())
    }
    assert found == printing
