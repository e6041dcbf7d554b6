"""The embedded broker as far as it starts no process. Real brokers are in tests/integration."""

from __future__ import annotations

from typing import NoReturn

import pytest

from monitor.kafka import embedded_broker
from monitor.kafka.embedded_broker import BrokerFailed, EmbeddedBroker, producer_settings


def test_without_the_wheel_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_broker.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrokerFailed, match="extra `demo`"):
        EmbeddedBroker().start()


def test_a_real_broker_gets_an_idempotent_producer_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> NoReturn:
        raise AssertionError("asked another broker")

    monkeypatch.setattr(embedded_broker.socket, "create_connection", no_network)
    settings = producer_settings("kafka-1.plant:9092,kafka-2.plant:9092")
    assert settings["enable_idempotence"] is True
    assert settings["acks"] == "all"
    assert settings["bootstrap_servers"] == "kafka-1.plant:9092,kafka-2.plant:9092"
