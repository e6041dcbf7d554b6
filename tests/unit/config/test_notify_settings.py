"""`[[notify]]`: channels are checked at the start, and their secrets are never shown."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import Config, NotifyConfig, load, parse
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://Hooks.example/T0/hunter2"
BASE: dict[str, Any] = {
    "kafka": {"bootstrap": "broker:9092", "topics": ["plant.readings"]},
    "fleet": [{"name": "turbines", "interval": "10m"}],
}


def made(*channels: dict[str, Any]) -> Config:
    return parse(BASE | {"notify": list(channels)})


def problems(*channels: dict[str, Any] | str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(BASE | {"notify": list(channels)} | more)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_there_is_no_channel_by_default() -> None:
    assert parse(dict(BASE)).notify == ()


def test_a_url_is_enough() -> None:
    [channel] = made({"url": URL}).notify
    assert (channel.name, channel.min_severity, channel.fleets) == ("hooks.example", "warning", ("*",))
    assert channel.max_age == timedelta(days=7)
    assert channel.token is None
    assert not channel.allow_http
    assert channel.shown_url == "https://Hooks.example"


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ({}, "notify[0].url: missing; set it in the file or as MONITOR_NOTIFY__0__URL"),
        ({"url": "ftp://h/x"}, "notify[0].url: (hidden) is not a web address"),
        ({"url": "https:///x"}, "is not a web address"),
        ({"url": "https://h:99999/x"}, "is not a web address"),
        ({"url": "https://h:0/x"}, "is not a web address"),
        ({"url": "https://[::1/x"}, "is not a web address"),
        ({"url": "https://h/a b"}, "has a space or a letter beyond ASCII"),
        ({"url": "https://h/x\r\nHost: other"}, "notify[0].url: (hidden)"),
        ({"url": "https://hö/x"}, "has a space or a letter beyond ASCII"),
        ({"url": "https://u:pw@h/x"}, "has a password or a fragment"),
        ({"url": "https://h/x#y"}, "has a password or a fragment"),
        ({"url": "http://hooks.example/x"}, "notify[0].url: is http, which is not encrypted"),
        ({"url": "http://10.0.0.1/x"}, "is http"),
        ({"url": "http://localhost.example/x"}, "is http"),
        ({"url": URL, "name": "Duty"}, 'notify[0].name: "Duty" is not a channel\'s name'),
        ({"url": URL, "name": "a:b"}, "is not a channel's name"),
        ({"url": "https://[2001:db8::1]/x"}, "is not a channel's name"),
        ({"url": URL, "min_severity": "critcal"}, 'did you mean "critical" of "warning", "critical"?'),
        ({"url": URL, "fleets": ["turbine"]}, 'notify[0].fleets: "turbine" is none of the fleets turbines'),
        ({"url": URL, "max_age": "0s"}, 'notify[0].max_age: "0s" must be above zero'),
        ({"url": URL, "fleets": []}, "notify[0].fleets: [] is empty"),
        ({"url": URL, "token": "two words"}, "notify[0].token: (hidden) must be one word"),
        ({"url": URL, "token": "a\r\nX-Other: b"}, "notify[0].token: (hidden) must be one word"),
        ({"url": URL, "tokn": "x"}, 'notify[0].tokn: unknown key; did you mean "token"?'),
    ],
)
def test_a_mistake_is_reported_with_its_path_and_fix(channel: dict[str, Any], expected: str) -> None:
    found = problems(channel)
    assert any(expected in line for line in found), found


def test_a_single_table_is_corrected_to_double_brackets() -> None:
    assert "notify: needs double brackets: write [[notify]], once for each channel" in problems(notify={"url": URL})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:80/x"])
def test_http_to_this_machine_is_allowed(url: str) -> None:
    assert made({"url": url, "name": "here"}).notify[0].url == url


def test_http_to_another_machine_needs_an_explicit_setting() -> None:
    assert made({"url": "http://hooks.plant/x", "allow_http": True}).notify[0].name == "hooks.plant"


def test_two_channels_need_two_names() -> None:
    [line] = problems({"url": URL}, {"url": "https://hooks.example/other"})
    assert line == 'notify[1].name: "hooks.example" is notify[0] already; give each a name of its own'
    assert len(made({"url": URL}, {"url": URL, "name": "other"}).notify) == 2


def test_max_age_may_be_forever() -> None:
    assert made({"url": URL, "max_age": "forever"}).notify[0].max_age is None


def test_fleets_may_be_globs() -> None:
    assert made({"url": URL, "fleets": "turb*"}).notify[0].fleets == ("turb*",)


# ---------------------------------------------------------------- secrets

FILE = f"""
[kafka]
bootstrap = "broker:9092"
topics = ["plant.readings"]
[[fleet]]
name = "turbines"
interval = "10m"
[[notify]]
url = "{URL}"
"""


def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file, secret = tmp_path / "monitor.toml", tmp_path / "token"
    file.write_text(FILE)
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    for environ in ({"MONITOR_NOTIFY__0__TOKEN": "hunter2"}, {"MONITOR_NOTIFY__0__TOKEN_FILE": str(secret)}):
        [channel] = load(file, environ=environ).notify
        assert channel.token is not None
        assert channel.token.get_secret_value() == "hunter2"


def test_a_channel_may_come_from_the_environment_alone(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(FILE)
    environ = {"MONITOR_NOTIFY__1__URL": "https://other.example/x", "MONITOR_NOTIFY__1__MIN_SEVERITY": "critical"}
    names = [channel.name for channel in load(file, environ=environ).notify]
    assert names == ["hooks.example", "other.example"]


def test_the_path_of_a_url_and_the_token_are_never_shown(tmp_path: Path) -> None:
    config = made({"url": URL, "token": "hunter2"})
    [channel] = config.notify
    for shown in (repr(config), str(config), repr(channel), channel.shown_url):
        assert "hunter2" not in shown
    again: NotifyConfig = pickle.loads(pickle.dumps(channel))  # a training process gets it too
    assert again == channel


def test_a_token_in_a_readable_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(FILE + 'token = "hunter2"\n')
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"notify\[0\].token: stands in a file .* MONITOR_NOTIFY__0__TOKEN_FILE"):
        load(file, environ={})
    file.chmod(0o600)
    assert load(file, environ={}).notify[0].token is not None
