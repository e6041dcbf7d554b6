"""deploy/ agrees with the code: it has every setting and exit code, and no unknown command or event."""

from __future__ import annotations

import re
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from monitor import errors, metrics
from monitor.cli import COMMANDS, main
from monitor.config import HttpConfig, loading, parse
from monitor.config.loading import reference_file
from monitor.config.notify import KINDS
from monitor.config.template import VARIABLES
from monitor.notify.channels import sender_of
from monitor.notify.example import example_alert, sent_body
from monitor.notify.webhook import signed_headers
from monitor.service.pages import PATHS
from tests.servers import ROOT

DEPLOY = ROOT / "deploy"
SCRIPTS = ("deploy/demo", "deploy/monitor.sh", "deploy/kafka/start", "deploy/kafka/stop", "tests/run", ".ci/run")
SOURCED = ("deploy/python.sh", "deploy/kafka/common.sh", "deploy/kafka/secure.sh")
MINIMAL = {
    "kafka": {"bootstrap": "localhost:9092", "topics": ["plant.readings"]},
    "fleet": [{"name": "turbines", "interval": "10m"}],
}


def readme() -> str:
    return (DEPLOY / "README.md").read_text()


def test_the_annotated_file_shows_defaults() -> None:
    text = (DEPLOY / "monitor.toml").read_text()
    everything = re.sub(r"^# (?=[a-z_]+ = (?!.*e\.g\.))", "", text, flags=re.MULTILINE)
    file = tomllib.loads(everything)
    assert set(file) == {"device", "kafka", "store", "log", "http", "console", "fleet"}
    assert set(file["fleet"][0]) >= {"window", "lateness", "max_gap", "model", "alerts", "retrain"}
    assert parse(file) == parse(tomllib.loads(text)) == parse(MINIMAL)


def test_the_wheel_has_types_and_the_annotated_file() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["monitor"]
    assert (ROOT / "monitor" / "py.typed").is_file()
    [(source, target)] = wheel["force-include"].items()
    assert reference_file() == ROOT / source
    assert ROOT / target == Path(loading.__file__).with_name("reference.toml")
    # The image is built from a wheel, too.
    assert f"COPY {source} ./{source}\n" in (DEPLOY / "Dockerfile").read_text()
    assert f"!{source}\n" in (DEPLOY / "Dockerfile.dockerignore").read_text()


def test_every_exit_code_is_explained() -> None:
    def codes(kind: type[errors.MonitorError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(child) for child in kind.__subclasses__()))

    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", (DEPLOY / "README.md").read_text(), re.MULTILINE)}
    assert codes(errors.MonitorError) <= explained
    never_restarted = re.search(
        r"^RestartPreventExitStatus=(.*)$", (DEPLOY / "monitor.service").read_text(), re.MULTILINE
    )
    assert never_restarted is not None
    assert set(map(int, never_restarted[1].split())) == codes(errors.MonitorError) - {1}


@pytest.mark.parametrize(
    "name",
    ["README.md", "kafka/README.md", "monitor.toml", "monitor.service", "monitor-console.service", "compose.yaml"],
)
def test_every_mentioned_command_exists(name: str) -> None:
    context = click.Context(main)
    for words in re.findall(r"(?:`|exec monitor |bin/)monitor ([a-z][a-z ]*)", (DEPLOY / name).read_text()):
        first, *rest = words.split()
        assert first in COMMANDS, f"monitor {words}"
        command = main.get_command(context, first)
        if isinstance(command, click.Group):
            assert rest or command.invoke_without_command, f"monitor {first} alone does nothing"
            assert not rest or rest[0] in command.list_commands(context), f"monitor {words}"


def test_every_log_event_and_name_that_is_mentioned_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "monitor").rglob("*.py"))
    names = re.findall(r"`([a-z]+(?:_[a-z]+)+)`", (DEPLOY / "README.md").read_text())
    assert "broker_away" in names

    def is_there(name: str) -> bool:
        suffix = name.rpartition("_")[2]  # log.info(f"{what}_back")
        return bool(re.search(rf"[\"'.]{name}\b|\b{name}:|\}}_{suffix}\"", source))

    figures = {each.name for each in metrics.declared}
    unknown = [name for name in names if name not in figures and not is_there(name)]
    assert not unknown


def test_every_metric_is_in_the_table_and_nothing_else() -> None:
    rows = re.findall(r"^\| `\w+` \| (?:counter|gauge|histogram) \|.*$", readme(), re.MULTILINE)
    wanted = [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.meaning} |" for m in metrics.declared]
    missing, gone = set(wanted) - set(rows), set(rows) - set(wanted)
    assert not missing, "deploy/README.md, \"What to watch\", lacks these rows:\n" + "\n".join(sorted(missing))
    assert not gone, "deploy/README.md has rows that no metric declares:\n" + "\n".join(sorted(gone))
    assert len(rows) == len(set(rows))


def test_every_metric_in_a_rule_is_declared_with_its_labels() -> None:
    declared = {each.name: each.labels for each in metrics.declared}
    rules = readme().partition("Worth an alert:")[2].partition("| metric | kind")[0]
    named = re.findall(r"\b((?:monitor|process)_[a-z_]+)(?:\{(\w+)=)?", rules)
    assert len(named) > 8
    for name, label in named:
        assert name in declared, name
        assert not label or label in declared[name], f"{name} has no label {label}"


def test_probes_ask_for_pages_that_are_there() -> None:
    dockerfile, compose = ((DEPLOY / name).read_text() for name in ("Dockerfile", "compose.yaml"))
    listen = re.search(r"MONITOR_HTTP__LISTEN=(\S+)", dockerfile)
    assert listen is not None
    assert HttpConfig(listen=listen[1]).address is not None
    probe = r"HTTPConnection\('(\S+)', timeout=\d\); c\.request\('GET', '(/\w+)'\)"
    for text, page in ((dockerfile, "/live"), (compose, "/ready")):
        asked = re.findall(probe, text)[0]
        assert asked == (listen[1], page)
        assert page in PATHS
    console = re.findall(probe, compose)[1:]
    assert console == [("127.0.0.1:8420", "/live")]
    assert "MONITOR_CONSOLE__LISTEN: 0.0.0.0:8420" in compose


def test_developers_and_compose_run_the_same_kafka() -> None:
    version = re.search(r"<kafka.version>(.*)</kafka.version>", (DEPLOY / "kafka" / "pom.xml").read_text())
    assert version is not None
    images = re.findall(r"image: apache/kafka:(\S+)", (DEPLOY / "compose.yaml").read_text())
    assert set(images) == {version[1]}


@pytest.mark.parametrize("script", SCRIPTS + SOURCED)
def test_scripts_are_bash_and_may_be_run(script: str) -> None:
    path = ROOT / script
    assert bool(path.stat().st_mode & 0o111) is (script in SCRIPTS)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("script", ["deploy/kafka/start", "deploy/kafka/stop", "tests/run"])
def test_scripts_explain_themselves(script: str) -> None:
    done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, check=True)
    assert f"{script} " in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("mistake", [["--port", "0"], ["--port", "http"], ["--nodes", "12"], ["--dirr"], ["--port"]])
def test_a_mistyped_option_of_kafka_start_is_a_usage_error(mistake: list[str]) -> None:
    done = subprocess.run(
        [DEPLOY / "kafka" / "start", *mistake], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 2
    assert mistake[0] in done.stderr


# ---------------------------------------------------------------- notifications


def block(heading: str, language: str) -> str:
    """Return the first code block of a language after a text in deploy/README.md."""
    found = re.search(rf"{re.escape(heading)}.*?```{language}\n(.*?)```", readme(), re.DOTALL)
    assert found
    return found[1]


def test_the_examples_of_channels_are_a_valid_configuration() -> None:
    config = parse(MINIMAL | tomllib.loads(block("## Notifications", "toml")))
    assert {channel.kind for channel in config.notify} == set(KINDS)
    for channel in config.notify:
        payload = example_alert(channel, "turbines", 1_700_000_000_000_000)
        assert sender_of(channel, config).content(sent_body(channel, payload, config.console.public_url, 0))


def test_every_kind_of_channel_and_variable_is_explained() -> None:
    section = readme().partition("## Notifications")[2].partition("\n## ")[0]
    assert set(KINDS) <= set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert all(f"| `{name}` | {meaning} |" in section for name, meaning in VARIABLES.items())


@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "any text of sixteen bytes"])
def test_the_example_verifies_a_signed_request(secret: str) -> None:
    names: dict[str, Any] = {}
    exec(block("**Signature.**", "python"), names)
    config = parse(MINIMAL | {"notify": [{"url": "https://h/x", "name": "x", "secret": secret}]})
    [channel] = config.notify
    assert channel.secret_bytes
    key, body, now_s = "x:turbines/R1:1:firing", b'{"step": "firing"}', int(time.time())
    headers = signed_headers(channel.secret_bytes, key, body, now_s)
    assert names["is_genuine"](secret, headers, body)
    assert not names["is_genuine"](secret, headers, body + b" ")
    assert not names["is_genuine"](secret, headers | {"webhook-id": "y"}, body)
    assert not names["is_genuine"](secret + "x" * 4, headers, body)
    assert not names["is_genuine"](secret, signed_headers(channel.secret_bytes, key, body, now_s - 400), body)
