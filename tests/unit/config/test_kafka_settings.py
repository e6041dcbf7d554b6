"""The login in `[kafka]` is complete and consistent, and its files are secret."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import load, parse
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.config import KafkaConfig

HIDDEN = "hunter2"
LOGIN = {"sasl_mechanism": "PLAIN", "username": "u", "password": HIDDEN}
OAUTH = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}


def kafka(environ: dict[str, str] | None = None, **settings: Any) -> KafkaConfig:
    table = {"bootstrap": "broker:9093", "topics": ["t"], **settings}
    return parse({"kafka": table, "fleet": [{"name": "x", "interval": "1m"}]}, environ=environ).kafka


def problems(environ: dict[str, str] | None = None, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        kafka(environ, **settings)
    assert HIDDEN not in str(caught.value)
    return str(caught.value)


def secret(folder: Path, mode: int, name: str = "secret") -> str:
    file = folder / name
    file.write_text(HIDDEN)
    file.chmod(mode)
    return str(file)


# ---------------------------------------------------------------- combinations


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"security_protocol": "TLS"}, 'kafka.security_protocol: "TLS" is not offered'),
        ({**LOGIN, "security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, 'use "PLAIN", "SCRAM-SHA-256"'),
        ({**LOGIN, "security_protocol": "SSL"}, 'kafka.password: is never sent with security_protocol = "SSL"'),
        ({"security_protocol": "SASL_SSL", "username": "u"}, "kafka.sasl_mechanism: missing"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u"}, "kafka.password: missing"),
        (OAUTH, "kafka.token_command: and token_file: sasl_mechanism"),
        ({**OAUTH, "token_file": "t", "token_command": ["p"]}, "needs one of the two"),
        ({**OAUTH, "token_file": "t", "username": "u"}, "kafka.username: is never sent with sasl_mechanism"),
        ({**LOGIN, "security_protocol": "SASL_SSL", "token_file": "t"}, "kafka.token_file: is never sent"),
        ({**OAUTH, "token_command": []}, "kafka.token_command: (hidden) is empty; name a program"),
        ({**OAUTH, "token_command": f"print '{HIDDEN}"}, "kafka.token_command: (hidden) is not a command"),
        ({"security_protocol": "SSL", "key_password": HIDDEN}, "kafka.key_password: is never read without cert_file"),
        ({"security_protocol": "SSL", "cert_file": "/no/such"}, "kafka.cert_file:"),
        ({"security_protocol": "SSL", "cert_file": "/etc/hostname/x"}, "kafka.cert_file:"),
        ({"key_password": HIDDEN}, 'kafka.key_password: is never read with security_protocol = "PLAINTEXT"; use "SSL"'),
        ({"allow_plaintext_password": True}, "kafka.allow_plaintext_password: true means nothing"),
        ({**LOGIN, "security_protocol": "SASL_SSL", "allow_plaintext_password": True}, "means nothing with"),
    ],
)
def test_an_invalid_combination_is_reported_with_its_fix(settings: dict[str, Any], expected: str) -> None:
    assert expected in problems(**settings)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_an_unencrypted_login_needs_an_explicit_setting(mechanism: str) -> None:
    login = {"token_file": "t"} if mechanism == "OAUTHBEARER" else {"username": "u", "password": HIDDEN}
    settings = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, **login}
    assert "allow_plaintext_password = true" in problems(**settings)
    assert kafka(**settings, allow_plaintext_password=True).sasl_mechanism == mechanism


def test_a_token_program_is_a_list_or_one_line_without_a_shell() -> None:
    assert kafka(**OAUTH, token_command=["p", "-a", "b c"]).token_command == ("p", "-a", "b c")
    environ = {"MONITOR_KAFKA__TOKEN_COMMAND": "p -a 'b c' $HOME"}
    assert kafka(environ, **OAUTH).token_command == ("p", "-a", "b c", "$HOME")


# ---------------------------------------------------------------- modes of files


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602, 0o650])
def test_keys_readable_by_others_are_refused(tmp_path: Path, mode: int) -> None:
    files = {"cert_file": secret(tmp_path, 0o644, "cert"), "key_file": secret(tmp_path, mode, "key")}
    found = problems(security_protocol="SSL", **files)
    assert f"has mode {mode:04o}, so others can read or change it; chmod 640 {tmp_path}/key" in found
    assert "kafka.key_file:" in found


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o440])
def test_a_key_for_owner_and_group_is_accepted(tmp_path: Path, mode: int) -> None:
    files = {"cert_file": secret(tmp_path, 0o644, "cert"), "key_file": secret(tmp_path, mode, "key")}
    assert kafka(security_protocol="SSL", **files).key_file == tmp_path / "key"


def test_a_certificate_with_its_key_must_be_secret(tmp_path: Path) -> None:
    found = problems(security_protocol="SSL", cert_file=secret(tmp_path, 0o644))
    assert "kafka.cert_file: without key_file holds the key, too, and has mode 0644" in found
    assert kafka(security_protocol="SSL", cert_file=secret(tmp_path, 0o640)).key_file is None


@pytest.mark.parametrize("key", ["password", "key_password"])
def test_a_secret_from_a_readable_file_is_refused(tmp_path: Path, key: str) -> None:
    name = f"MONITOR_KAFKA__{key.upper()}_FILE"
    path = secret(tmp_path, 0o644)
    assert f"kafka.{key}: {name} names {path}, which has mode 0644" in problems({name: path})


def test_a_setting_without_a_secret_may_come_from_any_file(tmp_path: Path) -> None:
    assert kafka({"MONITOR_KAFKA__GROUP_FILE": secret(tmp_path, 0o644)}).group == HIDDEN


def test_a_key_password_in_a_readable_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(f'[kafka]\nbootstrap = "b:1"\ntopics = ["t"]\nkey_password = "{HIDDEN}"\n')
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"has mode 0644, .* or use MONITOR_KAFKA__KEY_PASSWORD_FILE"):
        load(file, environ={})


def test_symbolic_links_are_not_resolved_at_the_start(tmp_path: Path) -> None:
    """Kubernetes renews a file by changing a link. A resolved path would stay with the old file."""
    (tmp_path / "first").mkdir()
    secret(tmp_path / "first", 0o640, "key")
    (tmp_path / "now").symlink_to(tmp_path / "first")
    made = kafka(security_protocol="SSL", cert_file=str(tmp_path / "now" / "key"))
    assert made.cert_file == tmp_path / "now" / "key"


def test_the_token_file_may_be_missing_at_the_start(tmp_path: Path) -> None:
    assert kafka(**OAUTH, token_file=str(tmp_path / "later")).token_file == tmp_path / "later"


# ---------------------------------------------------------------- the summary


def test_no_configuration_shows_a_secret(tmp_path: Path) -> None:
    files = {"cert_file": secret(tmp_path, 0o644, "cert"), "key_file": secret(tmp_path, 0o600, "key")}
    by_password = kafka(**LOGIN, security_protocol="SASL_SSL", **files, key_password=HIDDEN)
    by_program = kafka(**OAUTH, token_command=["fetch", "--secret", HIDDEN])
    for made in (by_password, by_program):
        again = pickle.loads(pickle.dumps(made))
        assert HIDDEN not in f"{made!r} {made} {again!r} {made.shown_security}"
        assert again == made


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "PLAINTEXT, no login, nothing encrypted"),
        (
            {"security_protocol": "SSL"},
            "SSL, no login, certificate and host name checked against the system's authorities",
        ),
        (
            {**LOGIN, "security_protocol": "SASL_SSL"},
            "SASL_SSL with PLAIN as user u, certificate and host name checked against the system's authorities",
        ),
        (
            {**LOGIN, "security_protocol": "SASL_PLAINTEXT", "allow_plaintext_password": True},
            "SASL_PLAINTEXT with PLAIN as user u, nothing encrypted",
        ),
        (
            {**OAUTH, "token_command": ["/bin/fetch", "x"]},
            "SASL_SSL with OAUTHBEARER, the token from the program /bin/fetch, certificate",
        ),
        ({**OAUTH, "token_file": "/run/token"}, "SASL_SSL with OAUTHBEARER, the token from /run/token, certificate"),
    ],
)
def test_the_security_is_summed_up_in_a_sentence(settings: dict[str, Any], expected: str) -> None:
    assert kafka(**settings).shown_security.startswith(expected)


def test_certificates_are_named(tmp_path: Path) -> None:
    files = {"ca_file": secret(tmp_path, 0o644, "ca.pem"), "cert_file": secret(tmp_path, 0o640, "us.pem")}
    summary = f"client certificate {tmp_path}/us.pem, certificate and host name checked against {tmp_path}/ca.pem"
    assert kafka(security_protocol="SSL", **files).shown_security == f"SSL, {summary}"
    assert kafka(**LOGIN, security_protocol="SASL_SSL", **files).shown_security.endswith(summary)


# ---------------------------------------------------------------- schema registry and schema file


REGISTRY = {"registry_url": "https://registry:8081/"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"registry_user": "u"}, "kafka.registry_user: is never used without registry_url"),
        ({**REGISTRY, "registry_user": "u"}, "kafka.registry_password: missing; registry_user is never sent"),
        ({**REGISTRY, "registry_password": HIDDEN}, "kafka.registry_user: missing; registry_password is never sent"),
        ({"registry_url": "http://registry:8081"}, "set registry_allow_http = true"),
        ({"registry_url": "registry:8081"}, 'is not a web address; write "https://host/path"'),
        ({"registry_url": f"https://u:{HIDDEN}@registry"}, "use registry_password"),
        ({"schema_file": "/no/such"}, "there is no file /no/such"),
        ({"schema_file": __file__}, 'set format = "avro" or "protobuf"'),
        ({"schema_file": __file__, "format": "avro", "message": "a"}, "kafka.message: is never used with format"),
        ({"schema_file": __file__, "format": "avro", **REGISTRY}, "only one of the two is read"),
        ({"format": "protobuf"}, "kafka.schema_file: missing"),
        ({"format": "protobuf", "schema_file": __file__}, "kafka.message: missing"),
        ({"message": "a"}, "kafka.message: is never used without schema_file"),
        ({"fields": {"columns": ["time", "a"]}}, 'fields.columns: is never used with format = "auto"'),
    ],
)
def test_registry_and_schema_file_contradict_nothing(settings, expected):
    assert expected in problems(**settings)


def test_the_registry_needs_https_except_on_this_machine(tmp_path):
    assert kafka(**REGISTRY).registry_url == "https://registry:8081"
    assert kafka(registry_url="http://127.0.0.1:8081").registry_url == "http://127.0.0.1:8081"
    assert kafka(registry_url="http://registry:8081", registry_allow_http=True).registry_allow_http
    secret(tmp_path, 0o600, "ca.pem")
    assert kafka(**REGISTRY, ca_file=str(tmp_path / "ca.pem")).ca_file == tmp_path / "ca.pem"
    password = kafka(
        {"MONITOR_KAFKA__REGISTRY_PASSWORD_FILE": secret(tmp_path, 0o600)}, **REGISTRY, registry_user="u"
    ).registry_password
    assert password.get_secret_value() == HIDDEN


def test_the_schema_file_is_read_with_the_configuration():
    found = kafka(schema_file=__file__, format="avro")
    assert found.schema_bytes.startswith(b'"""The login')
    assert found.model_copy(update={"group": "another"}).schema_bytes == found.schema_bytes
    assert kafka().schema_bytes is None


def test_columns_belong_to_the_topic_and_not_to_a_fleet():
    fleet = {"name": "x", "interval": "1m", "fields": {"columns": ["time", "a"]}}
    with pytest.raises(ConfigError, match=r"fleet\[0\]\.fields\.columns: is never used: lines are read before"):
        parse({"kafka": {"bootstrap": "b:1", "topics": ["t"]}, "fleet": [fleet]})
    assert kafka(format="csv", fields={"columns": ["time", "a"]}).fields.columns == ("time", "a")
