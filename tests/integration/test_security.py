"""Kafka with TLS and logins, on a real broker: records pass, mistakes are named, and no secret is shown."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import subprocess
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from monitor.clock import SystemClock
from monitor.config import parse
from monitor.errors import MonitorError
from monitor.kafka import Assigned
from monitor.kafka.consumer_group import KafkaSource
from monitor.kafka.log_reader import KafkaHistory, partitions_of
from monitor.replay.publish import publish
from monitor.types import RecordBatch
from tests import daemon_process
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, read_back
from tests.needs import need
from tests.oracle.log import FleetRule
from tests.servers import SecureKafkaServer, java_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from monitor.config import Config

N = 20
WRONG = "a-mistyped-password"
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)

Settings = dict[str, Any]

pytestmark = pytest.mark.filterwarnings(
    # aiokafka 0.14 closes the socket of a refused login and does not wait for it (`AIOKafkaConnection.connect`): the
    # loop of a short command may end before.
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed:ResourceWarning",
)


@pytest.fixture(autouse=True)
def _sockets_of_refused_logins() -> Iterator[None]:
    """Collect them here, not in a test that they do not belong to."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafkaServer]:
    need(java_missing() is None, java_missing() or "")
    server = SecureKafkaServer(tmp_path_factory.mktemp("secure-kafka"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "deployment")
    deployment.path.touch(0o600)
    yield deployment
    deployment.kill()


# ---------------------------------------------------------------- ways to log in


def jwt(lives_s: float) -> str:
    """Return an unsigned token. Only Kafka's validator for tests accepts it."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'monitor', 'iat': now - 60, 'exp': now + lives_s})}."


def token_file(server: SecureKafkaServer, text: str, name: str = "token") -> str:
    file = server.secret(name)
    file.touch(0o600)
    file.write_text(text)
    return str(file)


def tls(server: SecureKafkaServer) -> Settings:
    return {"bootstrap": server.at("TLS"), "security_protocol": "SSL", "ca_file": str(server.secret("ca.pem"))}


def mutual(server: SecureKafkaServer) -> Settings:
    files = {"cert_file": str(server.secret("client.pem")), "key_file": str(server.secret("client.key"))}
    return tls(server) | {"bootstrap": server.at("MUTUAL"), **files, "key_password": server.password}


def password(mechanism: str) -> Callable[[SecureKafkaServer], Settings]:
    def settings(server: SecureKafkaServer) -> Settings:
        login = {"sasl_mechanism": mechanism, "username": "monitor", "password": server.password}
        return tls(server) | {"bootstrap": server.at("LOGIN"), "security_protocol": "SASL_SSL", **login}

    return settings


def token(server: SecureKafkaServer) -> Settings:
    login = {"sasl_mechanism": "OAUTHBEARER", "token_file": token_file(server, jwt(3600))}
    return tls(server) | {"bootstrap": server.at("LOGIN"), "security_protocol": "SASL_SSL", **login}


def readable(server: SecureKafkaServer) -> Settings:
    unencrypted = {"bootstrap": server.at("READABLE"), "security_protocol": "SASL_PLAINTEXT", "ca_file": None}
    return password("PLAIN")(server) | unencrypted | {"allow_plaintext_password": True}


LOGINS = {
    "tls": tls,
    "mutual": mutual,
    "plain": password("PLAIN"),
    "scram-256": password("SCRAM-SHA-256"),
    "scram-512": password("SCRAM-SHA-512"),
    "oauth": token,
    "readable": readable,
}


def configured(settings: Settings, topic: str = "t") -> Config:
    kafka = {"topics": [topic], "group": f"of-{topic}", **settings}
    return parse({"kafka": kafka, "fleet": [{"name": "turbines", "interval": "1m"}]})


def secrets_of(server: SecureKafkaServer) -> list[str]:
    tokens = [path.read_text() for path in server.folder.glob("secrets/*token*")]
    return [WRONG, server.password, *tokens]


def assert_hidden(server: SecureKafkaServer, *texts: str) -> None:
    for secret in secrets_of(server):
        assert not [text for text in texts if secret in text]


# ---------------------------------------------------------------- records


async def send(config: Config, topic: str, numbers: Iterable[int]) -> None:
    records = ((number, b"R1", b"%d" % number) for number in numbers)
    await publish(config.kafka, topic, records, speed=None, clock=SystemClock(), on_sent=lambda n, ts_us: None)


async def in_history(config: Config, topic: str) -> list[int]:
    return [int(value) async for batch in KafkaHistory(config.kafka, [topic]) for value in batch.values]


async def by_group(config: Config, topic: str, n: int, limit_s: float = 20.0) -> list[int]:
    """Read from the beginning as a member of the group, like the daemon."""
    source = KafkaSource(config.kafka, [topic])
    found: list[int] = []
    try:
        await source.start()
        async with asyncio.timeout(limit_s):
            while len(found) < n:
                for event in await source.poll():
                    if isinstance(event, Assigned):
                        for partition in event.partitions:
                            source.seek(partition, 0)
                    elif isinstance(event, RecordBatch):
                        found += [int(value) for value in event.values]
    finally:
        await source.close()
    return found


@pytest.mark.parametrize("way", LOGINS)
async def test_records_are_written_and_read_back(
    way: str, server: SecureKafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = configured(LOGINS[way](server), topic := f"through-{way}")
    await send(config, topic, range(N))  # also creates the topic: look-ups, administration and producers log in alike
    assert await in_history(config, topic) == list(range(N))
    assert await by_group(config, topic, N) == list(range(N))
    assert_hidden(server, caplog.text, repr(config), str(config), config.kafka.shown_security)
    assert ("(login)" in caplog.text) is ("sasl_mechanism" in LOGINS[way](server)), "aiokafka logs at this level"


async def test_reading_continues_past_token_expiry(server: SecureKafkaServer, tmp_path: Path) -> None:
    """The broker closes a connection whose token has expired. The next login sends the next token."""
    code = f"open({str(tmp_path / 'runs')!r}, 'a').write('.'); print(open({str(tmp_path / 'token')!r}).read())"
    (tmp_path / "token").write_text(jwt(4))
    settings = token(server) | {"token_file": None, "token_command": [sys.executable, "-c", code]}
    config = configured(settings, "token-ends")
    writer = configured(tls(server), "token-ends")
    await send(writer, "token-ends", range(N))

    async def feed() -> None:
        for number in range(N, 2 * N):
            (tmp_path / "token").write_text(jwt(4))
            await send(writer, "token-ends", [number])
            await asyncio.sleep(0.3)

    feeding = asyncio.create_task(feed())
    assert await by_group(config, "token-ends", 2 * N, limit_s=40) == list(range(2 * N))
    await feeding
    assert len((tmp_path / "runs").read_text()) >= 2


# ---------------------------------------------------------------- mistakes


def wrong_password(server: SecureKafkaServer) -> Settings:
    return password("SCRAM-SHA-512")(server) | {"password": WRONG}


def no_such_mechanism(server: SecureKafkaServer) -> Settings:
    return readable(server) | {"sasl_mechanism": "SCRAM-SHA-256"}


def bad_token(server: SecureKafkaServer) -> Settings:
    return token(server) | {"token_file": token_file(server, jwt(3600)[:-9] + ".", "bad-token")}


def unknown_authority(server: SecureKafkaServer) -> Settings:
    return tls(server) | {"ca_file": str(server.secret("client.pem"))}


def other_host(server: SecureKafkaServer) -> Settings:
    return tls(server) | {"bootstrap": server.at("TLS", "localhost")}


def no_client_certificate(server: SecureKafkaServer) -> Settings:
    return tls(server) | {"bootstrap": server.at("MUTUAL")}


def untrusted_certificate(server: SecureKafkaServer) -> Settings:
    """Log in with a certificate that the broker's authority did not sign."""
    key, cert = server.secret("stray.key"), server.secret("stray.pem")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=stray", "-days", "1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    return no_client_certificate(server) | {"cert_file": str(cert), "key_file": str(key)}


def key_of_another(server: SecureKafkaServer) -> Settings:
    return mutual(server) | {"key_file": str(server.secret("broker.key"))}


def wrong_key_password(server: SecureKafkaServer) -> Settings:
    return mutual(server) | {"key_password": WRONG}


def key_without_password(server: SecureKafkaServer) -> Settings:
    return mutual(server) | {"key_password": None}


def authority_is_no_certificate(server: SecureKafkaServer) -> Settings:
    return tls(server) | {"ca_file": str(server.secret("password"))}


def to(listener: str, way: str) -> Callable[[SecureKafkaServer], Settings]:
    def settings(server: SecureKafkaServer) -> Settings:
        wanted = LOGINS[way](server) if way else {}
        return wanted | {"bootstrap": server.at(listener)}

    return settings


MISTAKES: dict[str, tuple[Callable[[SecureKafkaServer], Settings], str, str]] = {
    "wrong password, SCRAM": (wrong_password, "SourceRefused", r"our login; check .* \(.*invalid credentials"),
    "wrong password, PLAIN": (
        lambda server: password("PLAIN")(server) | {"password": WRONG},
        "SourceRefused",
        r"our login; check \[kafka\] username and password, .* \(.*Invalid username or password",
    ),
    "unknown mechanism": (no_such_mechanism, "SourceRefused", r"SASL mechanism; check \[kafka\] sasl_mechanism"),
    "refused token": (bad_token, "SourceRefused", r"our login; check .* token \(.*invalid_token"),
    "expired token": (
        lambda server: token(server) | {"token_file": token_file(server, jwt(-9), "old-token")},
        "SourceUnavailable",
        "has expired; does the program that renews it run",
    ),
    "no token": (
        lambda server: token(server) | {"token_file": str(server.secret("no-token"))},
        "SourceUnavailable",
        "no-token is not there; does the program that writes it run",
    ),
    "unknown authority": (unknown_authority, "SourceRefused", r"that we do not know .* \[kafka\] ca_file"),
    "the system's authorities": (
        lambda server: tls(server) | {"ca_file": None},
        "SourceRefused",
        r"that we do not know .* \[kafka\] ca_file",
    ),
    "another host's certificate": (other_host, "SourceRefused", r"another host's .*localhost.*; in \[kafka\] boot"),
    "expired certificate": (to("EXPIRED", "tls"), "SourceRefused", "has expired; the broker's operator must renew it"),
    "no client certificate": (no_client_certificate, "SourceRefused", r"check \[kafka\] cert_file and key_file"),
    "an untrusted certificate": (untrusted_certificate, "SourceRefused", r"check \[kafka\] cert_file and key_file"),
    "another certificate's key": (key_of_another, "ConfigError", "kafka.key_file: the key in .* is not that of"),
    "a wrong key password": (wrong_key_password, "ConfigError", "kafka.key_password: does not open"),
    "no key password": (key_without_password, "ConfigError", "kafka.key_password: is missing"),
    "no authority": (authority_is_no_certificate, "ConfigError", "kafka.ca_file: .* holds no certificate"),
    "plaintext to TLS": (to("TLS", ""), "SourceRefused", r'security_protocol to "SSL"'),
    "plaintext login to TLS": (to("LOGIN", "readable"), "SourceRefused", 'or to "SASL_SSL" with a login'),
    "TLS to plaintext": (to("PLAINTEXT", "tls"), "SourceUnavailable", r"no TLS on this port \(then correct \[kafka\] "),
    "no login where one is required": (to("LOGIN", "tls"), "SourceUnavailable", 'security_protocol begins with "SASL"'),
    "a login where none is expected": (to("TLS", "plain"), "SourceRefused", r"no login on this port; check \[kafka\]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_named_with_its_fix_and_no_secret(
    mistake: str, server: SecureKafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    make, kind, sentence = MISTAKES[mistake]
    caplog.set_level(logging.DEBUG)
    config = configured(make(server))
    attempts = {
        "look-up": lambda: partitions_of(config.kafka, ["t"]),
        "group": lambda: by_group(config, "t", 1),
        "producer": lambda: send(config, "t", range(1)),
    }
    for way, attempt in attempts.items():
        with pytest.raises(MonitorError, match=sentence) as caught:
            await attempt()
        assert type(caught.value).__name__ == kind, way
        assert_hidden(server, *traceback.format_exception(caught.value), caplog.text)


# ---------------------------------------------------------------- the process


def install(deployment: Deployment, settings: Settings, topic: str) -> None:
    given = {key: value for key, value in settings.items() if key != "bootstrap"} | {"group": f"of-{topic}"}
    deployment.configure(settings["bootstrap"], topic, kafka=given)
    deployment.path.write_text(f"{deployment.path.read_text()}[log]\nlevel = 'debug'\n")


def test_the_daemon_logs_in_and_shows_no_secret(server: SecureKafkaServer, deployment: Deployment) -> None:
    topic = "process"
    server.create_topic(topic, 1, retention_ms="-1")  # the event times are in the past
    messages = list(partitioned(plant(3, 2, 200, RULE), 1))
    daemon_process.publish(server.bootstrap, topic, messages)
    certificate = {key: value for key, value in mutual(server).items() if "cert" in key or "key" in key}
    install(deployment, token(server) | certificate, topic)
    deployment.install_model()

    checked = deployment.command("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    text = " ".join(checked.stdout.split())
    assert f"SASL_SSL with OAUTHBEARER, the token from {server.secret('token')}" in text
    assert f"host name checked against {server.secret('ca.pem')}" in text

    deployment.start()
    deployment.wait_records(len(messages))
    deployment.terminate()
    deployment.check(read_back(server.bootstrap, topic, 1))
    log = deployment.log_path.read_text()
    assert '"level": "debug", "logger": "aiokafka.conn"' in log
    assert_hidden(server, log, checked.stdout, checked.stderr)


def test_a_refused_daemon_exits_with_3_and_check_says_why(server: SecureKafkaServer, deployment: Deployment) -> None:
    install(deployment, password("PLAIN")(server) | {"password": f"not-{server.password}"}, "t")
    deployment.install_model()
    for command in ("check", "run"):
        done = deployment.command(command)
        text = done.stdout + done.stderr
        assert done.returncode == 3, text
        assert "it does not accept our login; check [kafka] username and password" in " ".join(text.split())
        assert_hidden(server, text)
