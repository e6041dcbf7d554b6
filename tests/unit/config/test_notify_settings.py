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
        ({"url": URL, "kind": "slak"}, 'notify[0].kind: "slak" is not offered; did you mean "slack"'),
        ({"url": URL, "classes": "proces"}, 'notify[0].classes[0]: "proces" is not offered; did you mean "process"'),
        ({"url": URL, "group": "fleet"}, 'notify[0].group: "fleet" is not offered'),
        ({"url": URL, "quiet_hours": "22-6"}, 'notify[0].quiet_hours: "22-6" is not a time of the day; write "22:00'),
        ({"url": URL, "schedule": "Moo 1:00-2:00"}, 'notify[0].schedule: "Moo" is no day of the week'),
        ({"url": URL, "timezone": "Berlin"}, 'notify[0].timezone: "Berlin" is not a time zone'),
        ({"url": URL, "secret": "hunter2"}, "notify[0].secret: (hidden) is too short to sign with; use 16 bytes"),
        ({"url": URL, "secret": "whsec_hunter2!"}, "notify[0].secret: (hidden) has no base64 after whsec_"),
        ({"url": URL, "template": "a\n{{ asst }}"}, 'line 2: there is no variable asst; did you mean "asset"?'),
        ({"url": URL, "template": "a\n\n{% if %}"}, "line 3: Expected an expression"),
        ({"url": URL, "template": "{{ asset | nope }}"}, "line 1: No filter named 'nope'"),
        ({"url": URL, "topic": "x"}, "notify[0].topic: does not go with webhook; topic is for kafka"),
        ({"url": URL, "kind": "slack", "token": "x"}, "notify[0].token: does not go with slack"),
        ({"url": URL, "kind": "kafka", "topic": "x"}, "notify[0].url: (hidden) is not used: the broker is [kafka]"),
        ({"kind": "kafka"}, 'notify[0].topic: missing; name the topic: topic = "plant.alerts"'),
        ({"kind": "kafka", "topic": "a b"}, 'notify[0].topic: "a b" is not a topic\'s name'),
        ({"kind": "kafka", "topic": "plant.readings"}, 'notify[0].topic: "plant.readings" is read for readings'),
        ({"kind": "apprise", "url": "hunter2"}, "notify[0].url: (hidden) is not an address of Apprise"),
        ({"kind": "alertmanager", "url": URL, "group": "incident"}, "does not go with alertmanager"),
        ({"kind": "alertmanager", "url": URL, "quiet_hours": "22:00-06:00"}, "quiet_hours is for apprise, kafka"),
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


@pytest.mark.parametrize(
    ("channel", "name", "shown", "by_incident"),
    [
        ({"kind": "slack", "url": URL}, "hooks.example", "https://Hooks.example", True),
        ({"kind": "teams", "url": URL, "group": "alert"}, "hooks.example", "https://Hooks.example", False),
        ({"kind": "alertmanager", "url": URL}, "hooks.example", "https://Hooks.example", False),
        ({"kind": "kafka", "topic": "plant.alerts"}, "kafka", "topic plant.alerts", False),
        ({"kind": "apprise", "url": "mailto://me:hunter2@host"}, "mailto", "mailto://…", True),
        ({"kind": "apprise", "url": "discord://hunter2/hunter2"}, "discord", "discord://…", True),
        ({"url": URL, "group": "incident"}, "hooks.example", "https://Hooks.example", True),
    ],
)
def test_each_kind_has_its_defaults_and_hides_its_secrets(
    channel: dict[str, Any], name: str, shown: str, by_incident: bool
) -> None:
    config = made(channel)
    [found] = config.notify
    assert (found.name, found.shown_url, found.by_incident) == (name, shown, by_incident)
    assert "hunter2" not in repr(config) + found.shown_url


@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a" * 16])
def test_a_secret_is_base64_with_a_prefix_or_any_text(secret: str) -> None:
    [channel] = made({"url": URL, "secret": secret}).notify
    assert len(channel.secret_bytes or b"") in (16, 24)
    assert secret not in repr(channel)


@pytest.mark.parametrize("key", ["secret", "url"])
def test_further_secrets_in_a_readable_file_are_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "monitor.toml"
    apprise, signed = 'kind = "apprise"\nurl = "mailto://me:hunter2@host"', f'url = "{URL}"\nsecret = "{"s" * 20}"'
    file.write_text(FILE.partition("[[notify]]")[0] + f"[[notify]]\n{apprise if key == 'url' else signed}\n")
    file.chmod(0o644)
    variable = f"MONITOR_NOTIFY__0__{key.upper()}_FILE"
    with pytest.raises(ConfigError, match=rf"notify\[0\].{key}: stands in a file .* {variable}"):
        load(file, environ={})
    file.chmod(0o600)
    assert load(file, environ={}).notify


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
