"""`monitor check`, `init`, `retrain` and `db`: their effects and their messages."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import jobs as waiting_for_jobs
from monitor.cli import main
from monitor.clock import SystemClock
from monitor.config import load
from monitor.config.spacing import Spacing
from monitor.service.advice import Proposal
from monitor.service.preflight import Preflight
from monitor.service.survey import FleetSurvey, Refusal, SensorFacts
from monitor.store import daemons, jobs
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.types import Finding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import CliRunner, Result


def run(runner: CliRunner, *arguments: str) -> Result:
    return runner.invoke(main, list(arguments))


def write(config: Path, *steps: Callable[..., Any], **values: Any) -> None:
    async def run_all() -> None:
        async with AsyncStore(f"sqlite:///{config.parent}/monitor.db") as store:
            for step in steps:
                await store.run(step, **values)

    asyncio.run(run_all())


# ---------------------------------------------------------------- check


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    done = Preflight(surveys={"turbines": FleetSurvey("turbines", n_records=3, n_used=3)})
    monkeypatch.setattr("monitor.service.preflight.preflight", lambda _config, _n_records: done)
    return done.findings


@pytest.mark.usefixtures("config")
def test_check_describes_the_settings(runner: CliRunner) -> None:
    result = run(runner, "check", "--offline")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    for fact in ("windows of 10h40m (64 × 10m)", "every 10m", "auto model", "3 of 5 anomalous windows", "1/week"):
        assert fact in shown


@pytest.mark.usefixtures("config")
def test_check_shows_findings_and_fixes(runner: CliRunner, findings: list[Finding]) -> None:
    findings.append(Finding("ok", "broker", "2 partitions [plant]"))
    result = run(runner, "check")
    assert result.exit_code == 0
    assert "✓ broker 2 partitions [plant]" in result.stdout
    assert "monitor run" in result.stdout
    findings.append(Finding("error", "database", "did not answer", "is it running?"))
    result = run(runner, "check")
    assert result.exit_code == 1
    assert "✗ database did not answer" in result.stdout
    assert "→ is it running?" in result.stdout
    assert "monitor run" not in result.stdout
    assert result.stdout.endswith("Not ready: correct what is marked with ✗.\n")
    document = json.loads(run(runner, "check", "--json").stdout)
    assert [finding["level"] for finding in document["findings"]] == ["ok", "error"]
    assert document["samples"]["turbines"]["used"] == 3
    assert document["fleets"]["turbines"].startswith("windows of 10h40m")


@pytest.mark.usefixtures("config")
def test_check_ends_as_a_daemon_would(runner: CliRunner, findings: list[Finding]) -> None:
    findings += [Finding("error", "broker", "refused", exit_code=3), Finding("error", "database", "old", exit_code=4)]
    assert run(runner, "check").exit_code == 3


@pytest.mark.usefixtures("config")
def test_check_is_ready_only_where_something_can_be_read(
    runner: CliRunner, findings: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Ready" in run(runner, "check").stdout
    done = Preflight([*findings], {"turbines": FleetSurvey("turbines")})
    monkeypatch.setattr("monitor.service.preflight.preflight", lambda _config, _n_records: done)
    result = run(runner, "check")
    assert result.exit_code == 0
    assert "Ready" not in result.stdout
    assert "Nothing to read yet: monitor run waits for the first record." in result.stdout


@pytest.mark.usefixtures("config")
def test_check_shows_how_the_sample_was_read(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FleetSurvey(
        "turbines",
        n_records=200,
        n_used=190,
        n_readings=190,
        refused=[Refusal(f"word{n}", 9 - n, f"word{n}: why", f"plant/0 offset {n}") for n in range(5)],
        assets=[f"R{n:02}" for n in range(30)],
        sensors=[SensorFacts("power", 1.0, 0, 9), SensorFacts("seq", 0.5, 0, 9, "counts up by 1")],
        spacing=Spacing(600, 600, 600),
        late_s=1200,
        span_us=(0, 60_000_000),
    )
    proposal = Proposal("fleet", "lateness", '"20m"', "readings came late")
    done = Preflight(surveys={"turbines": found}, proposals={"turbines": [proposal]})
    monkeypatch.setattr("monitor.service.preflight.preflight", lambda _config, _n_records: done)
    result = run(runner, "check")
    shown = " ".join(result.stdout.split())
    for fact in (
        "R00, R01, R02, R03, R04, R05, R06, R07 and 22 more",
        "1970-01-01 00:00 to 1970-01-01 00:01 UTC",
        "have a value in a part of the readings: seq 50",
        "doubtful seq counts up by 1",
        'readings are 10m apart; interval = "10m" fits',
        'up to 20m behind a newer reading of the asset; lateness = "10m" does not cover it',
        "refused 18 % of the records 9 × word0: why (plant/0 offset 0)",
        'lateness = "20m" # readings came late',
    ):
        assert fact in shown
    assert "word3" not in shown, "only the most frequent reasons"


def test_init_replaces_no_file_unasked(runner: CliRunner, config: Path) -> None:
    before = config.read_text()
    result = run(runner, "init", "--topic", "plant", "--output", str(config))
    assert result.exit_code == 1
    assert "is there already; name another with --output, or replace it with --force" in result.stderr
    assert config.read_text() == before


@pytest.mark.parametrize("arguments", [(), ("readings.csv", "--topic", "plant")])
def test_init_wants_a_topic_or_a_file(runner: CliRunner, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(runner, "init", *arguments, "--output", str(tmp_path / "new.toml"))
    assert result.exit_code == 2
    assert "--topic" in result.stderr


def test_init_of_a_file_names_the_next_commands(runner: CliRunner, tmp_path: Path) -> None:
    file, output = tmp_path / "pump.csv", tmp_path / "new.toml"
    file.write_text("time,temp\n" + "\n".join(f"{1_790_000_000 + 60 * n},{n % 7}" for n in range(99)))
    result = run(runner, "init", str(file), "--output", str(output))
    assert result.exit_code == 0, result.stderr
    assert f"monitor replay {file} --train-rows 49 -c {output}" in result.stdout
    assert load(output).fleets[0].sensors == ("temp",)
    assert run(runner, "check", "--offline", "-c", str(output)).exit_code == 0


def test_check_lists_every_error(runner: CliRunner, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("monitor.service.preflight.preflight")
    config.write_text(config.read_text().replace("10m", "often").replace("plant", "") + "windo = 3\n")
    result = run(runner, "check", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 4
    assert 'fleet[0].windo: unknown key; did you mean "window"?' in result.stderr


# ---------------------------------------------------------------- retrain


@pytest.mark.usefixtures("filled")
def test_retrain_warns_without_a_daemon(runner: CliRunner) -> None:
    result = run(runner, "retrain")
    assert result.exit_code == 0
    assert "for turbines is queued" in result.stdout
    assert "No daemon is running" in result.stderr


def test_retrain_with_a_daemon(runner: CliRunner, filled: Path) -> None:
    now_us = SystemClock().now_us()
    beat = {"owner": "host:1", "pipeline": "monitor", "started_us": now_us, "now_us": now_us, "status": "fine"}
    write(filled, daemons.heartbeat, **beat)
    result = run(runner, "retrain", "turbines", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    job = json.loads(result.stdout)
    assert (job["fleet"], job["state"], job["daemons"]) == ("turbines", "queued", 1)


def test_a_second_retraining_is_refused(runner: CliRunner, filled: Path) -> None:
    run(runner, "retrain")
    write(filled, jobs.start_next, owner="host:1", at_us=1)
    write(filled, lambda c: jobs.set_progress(c, 1, progress=0.41, message="epoch 4 of 9"))
    result = run(runner, "retrain")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "already under way" in result.stderr
    assert "41%" in result.stderr


@pytest.mark.parametrize("is_good", [True, False])
def test_waiting_ends_with_the_job(
    is_good: bool, runner: CliRunner, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Callable[..., Any]] = [
        lambda c: jobs.start_next(c, owner="host:1", at_us=1),
        lambda c: jobs.set_progress(c, 1, progress=0.4, message="epoch 4 of 9"),
        (lambda c: jobs.finish(c, 1, version="turbines-new", at_us=2))
        if is_good
        else (lambda c: jobs.fail(c, 1, message="not enough data", at_us=2)),
    ]
    sleep = asyncio.sleep

    async def advance_job(seconds: float) -> None:  # does the daemon's part while the command waits
        if seconds == waiting_for_jobs.POLL_EVERY_S:
            async with AsyncStore(f"sqlite:///{filled.parent}/monitor.db") as store:
                await store.run(steps.pop(0))
        else:
            await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", advance_job)
    result = run(runner, "retrain", "--wait")
    assert "40%  running: epoch 4 of 9" in result.stderr
    if is_good:
        assert result.exit_code == 0
        assert result.stdout.startswith("turbines: turbines-new is promoted: it keeps the budget")
        assert "monitor models rollback turbines" in result.stdout
    else:
        assert result.exit_code == 1
        assert "failed: not enough data" in result.stderr


@pytest.mark.parametrize("is_running", [False, True])
def test_waiting_without_a_daemon_ends(
    is_running: bool, runner: CliRunner, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_polls, sleep = 0, asyncio.sleep

    async def count_polls(seconds: float) -> None:
        nonlocal n_polls
        if seconds != waiting_for_jobs.POLL_EVERY_S:
            await sleep(seconds)
            return
        n_polls += 1
        if n_polls == 1 and is_running:
            async with AsyncStore(f"sqlite:///{filled.parent}/monitor.db") as store:
                await store.run(lambda c: jobs.start_next(c, owner="host:1", at_us=1))

    monkeypatch.setattr(asyncio, "sleep", count_polls)
    result = run(runner, "retrain", "--wait", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == ("running" if is_running else "queued")
    assert "No daemon is running: the job waits" in result.stderr
    fate = "the next one starts it again" if is_running else "the job stays queued"
    assert f"job 1 for turbines: no daemon is running, and {fate}. Start one" in " ".join(result.stderr.split())
    every_s, waited_s = waiting_for_jobs.POLL_EVERY_S, waiting_for_jobs.ALONE_FOR_S
    assert n_polls * every_s == pytest.approx(waited_s, abs=every_s)


def test_a_time_is_accepted_as_normal_with_a_note(runner: CliRunner, filled: Path) -> None:
    words = ("--accept-normal", "2015-07-27T04:00", "2015-07-27T06:00", "--asset", "R80711", "--note", "new belt")
    result = run(runner, "retrain", *words, "--by", "jo")
    assert result.exit_code == 0, result.output
    assert "Accepted as normal: R80711 from 2015-07-27 04:00 to 2015-07-27 06:00 UTC." in result.stdout
    assert "Take it back: monitor alerts unlabel 1" in result.stdout
    with open_reader(f"sqlite:///{filled.parent}/monitor.db") as reader:
        [label], [job] = reader.interval_labels(), reader.jobs()
    assert (label["asset"], label["label"], label["note"]) == ("R80711", "normal", "new belt")
    assert (job["requested_by"], job["note"], job["reason"]) == ("jo", "new belt", "operator")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--asset", "R80711"), "--asset goes with --accept-normal"),
        (("--accept-normal", "2015-07-27T06:00", "2015-07-27T04:00"), "before it begins; swap the two times"),
        (("--accept-normal", "2014-07-27T04:00", "2014-07-27T06:00"), "before the history of a training"),
        (("--accept-normal", "yesterday-ish", "now"), "--accept-normal"),
    ],
)
def test_a_time_that_cannot_be_accepted_is_refused(
    runner: CliRunner, words: tuple[str, ...], message: str
) -> None:
    result = run(runner, "retrain", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_an_unknown_fleet_is_refused(runner: CliRunner, filled: Path) -> None:
    result = run(runner, "retrain", "turbine")
    assert result.exit_code == 2
    assert "Did you mean turbines?" in result.stderr
    filled.write_text(filled.read_text() + 'assets = "R*"\n[[fleet]]\nname = "pumps"\ninterval = "1m"\n')
    result = run(runner, "retrain")
    assert result.exit_code == 2
    assert "name one of turbines, pumps" in result.stderr


# ---------------------------------------------------------------- db


@pytest.mark.usefixtures("config")
def test_upgrade_creates_the_tables_once(runner: CliRunner) -> None:
    first, second = run(runner, "db", "upgrade"), run(runner, "db", "upgrade")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "upgraded from nothing to" in first.stdout
    assert "already" in second.stdout
    assert run(runner, "alerts", "list", "--json").stdout == "[]\n"


@pytest.mark.usefixtures("filled")
def test_prune_keeps_alerts(runner: CliRunner) -> None:
    assert "Deleted 0 scores" in run(runner, "db", "prune", "--before", "2015-07-01").stdout
    assert len(json.loads(run(runner, "scores", "show", "R80711", "--json").stdout)) == 60
    assert "Deleted 0 scores and 2 records" in run(runner, "db", "prune").stdout, (
        "the age of a score counts from the newest window, of 2015"
    )
    assert "Deleted 120 scores (turbines 120) and 0" in run(runner, "db", "prune", "--before", "now").stdout
    assert run(runner, "scores", "show", "R80711", "--json").stdout == "[]\n"
    assert len(json.loads(run(runner, "alerts", "list", "--json").stdout)) == 2


def test_prune_needs_a_limit(runner: CliRunner, filled: Path) -> None:
    filled.write_text(filled.read_text() + '[store]\nkeep_scores = "forever"\n')
    result = run(runner, "db", "prune")
    assert result.exit_code == 2
    assert "--before" in result.stderr
