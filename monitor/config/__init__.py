"""The configuration: monitor.toml and MONITOR_* variables as one frozen tree.

Input: the file and the environment, read once. Output: `Config`, or one `ConfigError` that names each problem with its
path, its value and the fix. Invariant: the environment takes precedence over the file and the file over the defaults,
and an unknown key is an error.

    tree.py                the settings with their defaults and limits: read this first
    kafka.py               the table `[kafka]`
    notify.py              the tables `[[notify]]`
    template.py            templates of notifications: variables and check
    hours.py               times of a week: "22:00-06:00"
    console.py             the table `[console]`
    sensors.py             the tables `[fleet.sensor.NAME]`
    states.py              the tables `[fleet.states]` and `[fleet.calendar]`
    base.py                types and checks that the tables share
    spacing.py             time between readings → an interval
    values.py              notations of a value: "10m", "3 of 5", "1/week"
    database_url.py        URLs of databases: parser, check, form without secrets
    loading.py             file and environment → tree
    file_permissions.py    the mode of files with secrets
    problems.py            pydantic's errors → sentences with the nearest valid name

The names below are imported at their first use: pydantic takes 0.15 s, and `monitor alerts list` needs only
`store_url`. All other names are imported from their module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitor.config.console import ConsoleConfig
    from monitor.config.kafka import KafkaConfig
    from monitor.config.loading import load, parse, sensor_texts, store_url
    from monitor.config.notify import NotifyConfig
    from monitor.config.sensors import SensorConfig
    from monitor.config.tree import Config, FleetConfig, HttpConfig

__all__ = [
    "Config",
    "ConsoleConfig",
    "FleetConfig",
    "HttpConfig",
    "KafkaConfig",
    "NotifyConfig",
    "SensorConfig",
    "load",
    "parse",
    "sensor_texts",
    "store_url",
]

_MODULES = {
    "ConsoleConfig": "console",
    "KafkaConfig": "kafka",
    "NotifyConfig": "notify",
    "SensorConfig": "sensors",
    "load": "loading",
    "parse": "loading",
    "sensor_texts": "loading",
    "store_url": "loading",
}
"""Public name → its module. The rest are in `tree`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'tree')}"), name)
