"""Programs that print a token: run in time, limited, killed with their children, and never logged."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

import pytest

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka import auth
from monitor.kafka.auth import CommandTokenProvider, TokenUnavailable

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
SECRET = "s3cret"


class SettableClock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def counting(folder: Path, then: str) -> tuple[str, ...]:
    """Return a program that counts its runs in a file and then does something."""
    return ("sh", "-c", f"echo run >> {folder}/runs; {then}")


def runs(folder: Path) -> int:
    return (folder / "runs").read_text().count("run")


async def test_a_program_runs_again_before_its_token_expires(tmp_path: Path) -> None:
    clock = SettableClock()
    tokens = CommandTokenProvider(counting(tmp_path, 'echo \'{"access_token": "abc", "expires_in": 100}\''), clock)
    for after_s, n_runs in ((0, 1), (79, 1), (80, 2), (159, 2), (160, 3)):
        clock.now = NOW + after_s
        assert await tokens.token() == "abc"
        assert runs(tmp_path) == n_runs
    tokens.invalidate()
    await tokens.token()
    assert runs(tmp_path) == 4


async def test_a_valid_token_is_used_while_the_program_fails(tmp_path: Path) -> None:
    clock = SettableClock()
    answer = tmp_path / "answer"
    answer.write_text('{"access_token": "abc", "expires_in": 100}')
    tokens = CommandTokenProvider(("cat", str(answer)), clock)
    await tokens.token()
    answer.unlink()
    clock.now = NOW + 99
    assert await tokens.token() == "abc"
    clock.now = NOW + 100
    with pytest.raises(TokenUnavailable, match="ended with exit code 1"):
        await tokens.token()


@pytest.mark.parametrize(
    ("command", "kind", "expected"),
    [
        (("/no/such/program", SECRET), SourceRefused, "cannot be run: No such file"),
        (("sh", "-c", f"echo {SECRET} >&2; exit 3"), SourceUnavailable, "ended with exit code 3; run it by hand"),
        (("sh", "-c", f"echo two {SECRET}"), SourceRefused, "printed no token"),
        (("true", SECRET), SourceRefused, "printed no token"),
        (("sh", "-c", "head -c 100000 /dev/zero"), SourceRefused, "printed more than 65536 bytes"),
        (("yes", SECRET), SourceRefused, "printed more than 65536 bytes"),
        (("echo", '{"access_token": "abc", "expires_in": -1}'), SourceUnavailable, "printed a token that has expired"),
    ],
)
async def test_a_program_without_a_token_is_classified(
    capfd: pytest.CaptureFixture[str], command: tuple[str, ...], kind: type[Exception], expected: str
) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        await CommandTokenProvider(command, lambda: NOW).token()
    assert type(caught.value.cause) is kind
    assert expected in str(caught.value.cause)
    out, err = capfd.readouterr()
    assert SECRET not in f"{caught.value!r} {caught.value.cause} {out} {err}"


async def test_a_hanging_program_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "TOKEN_LIMIT_S", 0.2)
    pid_file = tmp_path / "pid"
    with pytest.raises(TokenUnavailable, match="printed no token within"):
        await CommandTokenProvider(("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait")).token()
    for _ in range(200):  # it is killed; its parent may take a moment to reap it
        if is_dead(int(pid_file.read_text())):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the program's child lives on")


def is_dead(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] in ("", "Z")
