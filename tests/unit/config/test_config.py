"""All mistakes are reported at once, each with its path and its fix."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from monitor import config as configuration
from monitor.config import load, parse, store_url
from monitor.config.values import Confirm, Rate, format_duration, parse_duration
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[kafka]
bootstrap = "broker:9092"
topics = ["plant.readings"]
[[fleet]]
name = "turbines"
interval = "10m"
"""


def write(folder: Path, text: str = GOOD, mode: int = 0o600) -> Path:
    file = folder / "monitor.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def tree(**changes: Any) -> dict[str, Any]:
    """Return a valid tree with some keys changed. `fleet__window=2` changes the first fleet."""
    made: dict[str, Any] = {
        "kafka": {"bootstrap": "broker:9092", "topics": ["plant.readings"]},
        "fleet": [{"name": "turbines", "interval": "10m"}],
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        at = made.setdefault(section, {})
        at = at[0] if isinstance(at, list) and key else at
        if key:
            at[key] = value
        else:
            made[section] = value
    return made


def problems(made: dict[str, Any], environ: dict[str, str] | None = None, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(made, environ=environ, **more)
    headline, *lines = str(caught.value).splitlines()
    assert ("one problem" if len(lines) == 1 else f"{len(lines)} problems") in headline
    return [line.strip() for line in lines]


def test_only_broker_topic_and_fleet_are_required(tmp_path: Path) -> None:
    made = load(write(tmp_path), environ={})
    fleet = made.fleets[0]
    assert made.path == tmp_path / "monitor.toml"
    assert made.store.url == f"sqlite:///{tmp_path}/monitor.db"
    assert made.store.checkpoints == tmp_path / "checkpoints"
    assert (fleet.window, fleet.stride, fleet.lateness, fleet.max_gap) == (
        64, 1, timedelta(minutes=10), timedelta(minutes=80),
    )  # fmt: skip
    assert (fleet.interval_us, fleet.lateness_cells, fleet.max_gap_cells) == (600_000_000, 1, 8)
    assert fleet.max_assets == 10_000
    assert made.topics_of(fleet) == ("plant.readings",)


def test_the_tree_is_frozen_and_pickles(tmp_path: Path) -> None:
    made = load(write(tmp_path), environ={})
    with pytest.raises(ValidationError, match="frozen"):
        made.kafka.group = "other"  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.path == made.path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fleet__sensrs": ["a"]}, 'fleet[0].sensrs: unknown key; did you mean "sensors"?'),
        ({"devise": "cpu"}, 'devise: unknown key; did you mean "device"?'),
        ({"kafka": {"topics": ["t"]}}, "kafka.bootstrap: missing; set it in the file or as MONITOR_KAFKA__BOOTSTRAP"),
        ({"kafka__bootstrap": "broker"}, 'kafka.bootstrap: "broker" is not a broker address; write "host:9092"'),
        ({"kafka__topics": []}, "kafka.topics: [] is empty"),
        ({"kafka__topics": ["a", "a"]}, "names a twice"),
        ({"kafka__format": "jsn"}, 'kafka.format: "jsn" is not offered; did you mean "json" of "auto", "json"'),
        ({"kafka__max_skew": 5}, 'kafka.max_skew: 5 has no unit; did you mean "5s"?'),
        ({"kafka__max_quarantine_share": 1.5}, "kafka.max_quarantine_share: 1.5 is out of range; use at most 1"),
        ({"kafka__max_record_bytes": 1}, "kafka.max_record_bytes: 1 is out of range; use at least 1024"),
        ({"kafka__start": "now"}, 'use "earliest", "latest"'),
        ({"kafka__username": "u"}, 'kafka.username: is never sent with security_protocol = "PLAINTEXT"'),
        ({"kafka__security_protocol": "SASL_SSL"}, "kafka.sasl_mechanism: missing; security_protocol"),
        ({"kafka__ca_file": "/no/such/file"}, "kafka.ca_file:"),
        ({"store__url": "mysql://h/db"}, "store.url: (hidden) is not offered"),
        ({"store__url": "sqlite://"}, "needs a file"),
        ({"store__url": "sqlite:///:memory:"}, "needs a file"),
        ({"store__url": "postgresql://u@h"}, "names no database"),
        ({"store__keep_scores": "9x"}, 'store.keep_scores: "9x" is not a duration'),
        ({"log__level": "loud"}, 'use "debug", "info", "warning", "error"'),
        ({"http__listen": "9464"}, 'http.listen: "9464" is not an address; write "127.0.0.1:9464"'),
        ({"http__listen": "127.0.0.1:66666"}, "http.listen:"),
        ({"http__listen": "0.0.0.0:9464"}, 'can be reached from other machines; use "127.0.0.1:9464", or set'),
        ({"http__listen": "[::]:9464"}, "can be reached from other machines"),
        ({"device": "gpu"}, 'device: "gpu" is not a device; use "auto"'),
        ({"fleet": []}, "fleet: is empty; add at least one [[fleet]] table"),
        ({"fleet": {"name": "x"}}, "fleet: needs double brackets: write [[fleet]]"),
        ({"fleet__name": "Turbines"}, 'fleet[0].name: "Turbines" is not a fleet name'),
        ({"fleet__interval": "10 parsecs"}, 'fleet[0].interval: "10 parsecs" is not a duration'),
        ({"fleet__interval": "0s"}, 'fleet[0].interval: "0s" must be above zero'),
        ({"fleet__max_assets": 0}, "fleet[0].max_assets: 0 is out of range; use at least 1"),
        ({"fleet__window": 2}, "fleet[0].window: 2 is out of range; use at least 4"),
        ({"fleet__window": "long"}, 'fleet[0].window: "long" is not a whole number'),
        ({"fleet__stride": 65}, "fleet[0].stride: 65 leaves readings out; use at most the window, 64"),
        ({"fleet__max_gap": "2d"}, 'fleet[0].max_gap: "2d" is as long as the window itself (10h40m)'),
        ({"fleet__topics": ["plant.reading"]}, 'is not among kafka.topics; did you mean "plant.readings"?'),
        ({"fleet__model": {"architecture": "cnov"}}, 'did you mean "conv"'),
        ({"fleet__model": {"objective": "noising"}}, 'did you mean "denoising"'),
        (
            {"fleet__model": {"architecture": "forecast", "objective": "variational"}},
            'fleet[0].model.objective: "variational" does not go with "forecast": forecast has no latent code',
        ),
        (
            {"fleet__model": {"architecture": "lstm", "stacked": True}},
            'fleet[0].model.stacked: true does not go with "lstm": lstm has one layer',
        ),
        ({"fleet__model": {"scope": "plant"}}, 'fleet[0].model.scope: "plant" is not offered; use "fleet", "asset"'),
        ({"fleet__alerts": {"confirm": "6 of 5"}}, 'can never be met; write "5 of 6"'),
        ({"fleet__alerts": {"confirm": "often"}}, 'fleet[0].alerts.confirm: "often" is not "m of n"'),
        ({"fleet__alerts": {"budget": "1/fortnight"}}, "fleet[0].alerts.budget:"),
        ({"fleet__alerts": {"budget": "0/week"}}, "must be above zero"),
        ({"fleet__alerts": {"budget": "10/hour"}}, "allows a false alarm in every window"),
        ({"fleet__alerts": {"recover": 0}}, "fleet[0].alerts.recover: 0 is out of range"),
        ({"fleet__retrain": {"promote": "always"}}, 'fleet[0].retrain.promote: "always" is not offered; write "auto"'),
        ({"fleet__retrain": {"promote": "shadow"}}, 'after "shadow:", as in "shadow:24h"'),
        ({"fleet__retrain": {"promote": "shadow:0h"}}, 'must be above zero; write "shadow:24h"'),
        ({"fleet__retrain": {"drift": "90d"}}, 'fleet[0].retrain.drift: "90d" is not a rate'),
        ({"fleet__retrain": {"cron": "0 3 * *"}}, 'is no cron expression of five fields; write "0 6 * * mon"'),
        ({"fleet__retrain": {"cron": "0 0 31 2 *"}}, "is no cron expression"),
        ({"fleet__retrain": {"cron": "0 3 * * *", "every": "1d"}}, 'every: does not go with cron = "0 3 * * *"'),
        ({"fleet__retrain": {"timezone": "Europe/Berlin"}}, '"Europe/Berlin" is used by cron only; set cron'),
        ({"fleet__retrain": {"cron": "0 3 * * *", "timezone": "CEST2"}}, "is not a time zone"),
        ({"fleet__retrain": {"memory_limit": "4"}}, 'is no size; write a number and a unit, "2GB" or "512MiB"'),
        ({"fleet__retrain": {"new_normal": "0d"}}, "must be above zero"),
        ({"fleet__retrain": {"recall_margin": 2}}, "recall_margin: 2 is out of range"),
        ({"fleet__retrain": {"every": "0s"}}, "must be above zero"),
        ({"fleet__retrain": {"history": "10h"}}, 'fleet[0].retrain.history: "10h" holds 0 windows'),
    ],
)
def test_a_mistake_is_reported_with_its_path_and_fix(changes: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in problems(tree(**changes))), problems(tree(**changes))


def test_mistakes_are_reported_in_the_order_of_the_settings() -> None:
    made = tree(kafka__format="xml", fleet__window=1, device="gpu", store__keep_scores="x")
    made["fleet"].append({"name": "turbines", "interval": "1h", "lateness": "soon"})
    found = [line.partition(":")[0] for line in problems(made)]
    starved = ["fleet[1].lateness", "fleet[1].name", "fleet[1].assets"]
    assert found == ["kafka.format", "fleet[0].window", *starved, "store.keep_scores", "device"]


def test_a_derived_default_does_not_repeat_its_mistake() -> None:
    assert len(problems(tree(fleet__interval="often"))) == 1


@pytest.mark.parametrize(
    ("listen", "remote", "address"),
    [
        ("", False, None),
        ("localhost:9464", False, ("127.0.0.1", 9464)),
        ("[::1]:80", False, ("::1", 80)),
        ("0.0.0.0:9464", True, ("0.0.0.0", 9464)),
    ],
)
def test_pages_are_served_to_this_machine_by_default(
    listen: str, remote: bool, address: tuple[str, int] | None
) -> None:
    assert parse(tree(http={"listen": listen, "allow_remote": remote})).http.address == address


def test_listed_assets_must_have_enough_windows_for_training() -> None:
    few = {"assets": ["a", "b"], "interval": "10m", "window": 36, "retrain": {"history": "20h"}}
    [line] = problems(tree(fleet=[{"name": "x", **few}]))
    assert line.startswith("fleet[0].retrain.history:")
    assert "100 needed" in line
    assert parse(tree(fleet=[{"name": "x", **few, "assets": "*"}])).fleets[0].windows_in_history == 85


@pytest.mark.parametrize(
    ("first", "second", "starves"),
    [("*", "R80*", True), ("R80*", "*", False), ("R8*", "R80711", True), ("R?0*", "R*0*", False), ("a", "b", False)],
)
def test_a_fleet_without_assets_is_reported(first: str, second: str, starves: bool) -> None:
    fleets = [{"name": "one", "assets": first, "interval": "1m"}, {"name": "two", "assets": second, "interval": "1m"}]
    for fleet in fleets:
        fleet["retrain"] = {"min_windows": 16}  # type: ignore[assignment]
    if starves:
        [line] = problems(tree(fleet=fleets))
        assert line.startswith("fleet[1].assets: gets nothing: fleet[0] takes all of these first")
    else:
        assert len(parse(tree(fleet=fleets)).fleets) == 2


def test_a_topic_that_no_fleet_takes_is_reported() -> None:
    made = tree(kafka__topics=["a", "b"], fleet__topics=["a"])
    assert problems(made) == ['kafka.topics: no fleet takes "b"; add it to a fleet\'s topics or leave it out here']


# ---------------------------------------------------------------- environment


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "MONITOR_KAFKA__BOOTSTRAP": "other:9093",
        "MONITOR_KAFKA__TOPICS": "a,b",
        "MONITOR_FLEET__0__ALERTS__CONFIRM": "4 of 7",
        "MONITOR_DEVICE": "cuda:1",
        "MONITOR_STORE__URL": "postgresql://u:pw@h/db",
    }
    made = load(write(tmp_path), environ=environ)
    assert (made.kafka.bootstrap, made.kafka.topics, made.device) == ("other:9093", ("a", "b"), "cuda:1")
    assert made.fleets[0].alerts.confirm == Confirm(4, 7)
    assert store_url(write(tmp_path), environ=environ) == made.store.url


def test_a_mistake_in_a_variable_names_the_variable() -> None:
    [line] = problems(tree(), {"MONITOR_KAFKA__BOOTSTRAP": "x"})
    assert line.endswith("(from MONITOR_KAFKA__BOOTSTRAP)")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MONITOR_KAFKA_BOOTSTRAP", "did you mean MONITOR_KAFKA__BOOTSTRAP?"),
        ("MONITOR_KAFKA__BOOTSTRP", 'did you mean "bootstrap"?'),
        ("MONITOR_DEVCE", "did you mean MONITOR_DEVICE?"),
        ("MONITOR_FLEET__7__WINDOW", "there is no fleet[7]"),
    ],
)
def test_a_misspelt_variable_is_reported(name: str, expected: str) -> None:
    [line] = problems(tree(), {name: "1"})
    assert expected in line


def test_kubernetes_variables_of_a_service_monitor_are_ignored() -> None:
    environ = {"MONITOR_SERVICE_HOST": "10.0.0.1", "MONITOR_PORT": "tcp://10.0.0.1:80", "MONITOR_CONFIG": "x"}
    assert parse(tree(), environ=environ) == parse(tree())


# ---------------------------------------------------------------- secrets


def test_a_secret_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o640)
    made = parse(
        tree(kafka__security_protocol="SASL_SSL", kafka__sasl_mechanism="PLAIN", kafka__username="u"),
        environ={"MONITOR_KAFKA__PASSWORD_FILE": str(secret), "MONITOR_STORE__URL": "postgresql://u:hunter2@h/db"},
    )
    assert made.kafka.password is not None
    assert made.kafka.password.get_secret_value() == "hunter2"
    assert made.store.shown_url == "postgresql://u:***@h/db"
    assert "hunter2" not in f"{made!r} {made} {made.store.shown_url}"


@pytest.mark.parametrize("url", ["mysql://u:hunter2@h/db", "postgresql://u:hunter2@h", "hunter2"])
def test_a_problem_never_quotes_a_secret(url: str, tmp_path: Path) -> None:
    made = tree(store__url=url, kafka__password=["hunter2"])
    assert "hunter2" not in "\n".join(problems(made))
    with pytest.raises(ConfigError) as caught:
        store_url(write(tmp_path, f'store.url = "{url}"'), environ={})
    assert "hunter2" not in str(caught.value)


def test_a_missing_secret_file_is_a_problem_with_its_name() -> None:
    [line] = problems(tree(), {"MONITOR_STORE__URL_FILE": "/no/such"})
    assert "MONITOR_STORE__URL_FILE names a file that cannot be read" in line


SECRETIVE = GOOD.replace("[[", '[store]\nurl = "postgresql://u:pw@h/db"\n[[')


def test_a_password_in_a_readable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store.url: holds a password .* MONITOR_STORE__URL_FILE"):
        load(write(tmp_path, SECRETIVE, mode=0o644), environ={})
    assert load(write(tmp_path, SECRETIVE, mode=0o640), environ={}).store.url.endswith("/db")


# ---------------------------------------------------------------- file


def test_the_environment_chooses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no file monitor.toml; name one with -c or \$MONITOR_CONFIG"):
        load(environ={})
    write(tmp_path)
    (tmp_path / "etc").mkdir()
    other = write(tmp_path / "etc")
    assert load(environ={}).path == tmp_path / "monitor.toml"
    assert load(environ={"MONITOR_CONFIG": str(other)}).path == other


@pytest.mark.parametrize(("text", "expected"), [("a = b", r"is not TOML: .*line 1"), ("a = 1\na = 2", "is not TOML")])
def test_bad_toml_is_reported_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(write(tmp_path, text), environ={})


def test_the_database_is_found_despite_other_errors(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("10m", "often"))
    assert store_url(file, environ={}) == f"sqlite:///{tmp_path}/monitor.db"


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("10 s", timedelta(seconds=10)),
        ("1h30m", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        ("1.5d", timedelta(hours=36)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_parsed_and_formatted(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected
    assert parse_duration(format_duration(expected)) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1h x", "10 minutes", None, True, 3, "9" * 400 + "d"])
def test_an_invalid_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/week", Rate(1, timedelta(7))), ("2 per day", Rate(2, timedelta(1))), ("1/90d", Rate(1, timedelta(90)))],
)
def test_a_rate_is_parsed_and_formatted(text: str, expected: Rate) -> None:
    assert Rate.parse(text) == expected
    assert Rate.parse(str(expected)) == expected


def test_a_rate_is_scaled_to_a_duration() -> None:
    assert Rate.parse("14/week").within(timedelta(days=1)) == pytest.approx(2)


def test_every_public_name_exists() -> None:
    assert all(getattr(configuration, name) is not None for name in configuration.__all__)
    with pytest.raises(AttributeError):
        _ = configuration.nothing


def test_auto_windows_have_a_usual_length() -> None:
    config = parse(tree(fleet__window="auto"))
    (fleet,) = config.fleets
    assert (fleet.window, fleet.length, fleet.max_gap_cells) == (None, 64, 8)
    (longer,) = config.with_lengths({"turbines": 144, "others": 99}).fleets
    assert (longer.window, longer.length, longer.max_gap_cells) == (None, 144, 18)
    assert (fleet.length, config.with_lengths({}).fleets[0].length) == (64, 64)
    # What the operator gave stays.
    (given,) = parse(tree(fleet__window="auto", fleet__max_gap="30m")).with_lengths({"turbines": 144}).fleets
    assert (given.length, given.max_gap_cells) == (144, 3)
    assert parse(tree(fleet__window=32)).with_lengths({"turbines": 144}).fleets[0].length == 32
