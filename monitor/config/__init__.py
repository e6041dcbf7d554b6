"""The configuration: monitor.toml and MONITOR_* variables as one frozen tree.

Input: the file and the environment, read once. Output: `Config`, or one `ConfigError` that names each problem with its
path, its value and the fix. Invariant: the environment takes precedence over the file and the file over the defaults,
and an unknown key is an error.

    tree.py                the settings with their defaults and limits: read this first
    kafka.py               the table `[kafka]`
    base.py                types and checks that the tables share
    values.py              notations of a value: "10m", "3 of 5", "1/week", "sqlite:///monitor.db"
    loading.py             file and environment → tree
    file_permissions.py    the mode of files with secrets
    problems.py            pydantic's errors → sentences with the nearest valid name

The names below are imported at their first use: pydantic takes 0.15 s, and `monitor alerts list` needs only
`store_url`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitor.config.kafka import FORMATS, KafkaConfig
    from monitor.config.loading import DEFAULT_FILE, ENV_FILE, ENV_PREFIX, load, parse, store_url
    from monitor.config.tree import (
        ARCHITECTURES,
        OBJECTIVES,
        AlertConfig,
        Config,
        FleetConfig,
        HttpConfig,
        LogConfig,
        ModelConfig,
        NotifyConfig,
        RetrainConfig,
        StoreConfig,
    )
    from monitor.config.values import Confirm, Rate, format_duration, mask_url, parse_duration

__all__ = [
    "ARCHITECTURES",
    "DEFAULT_FILE",
    "ENV_FILE",
    "ENV_PREFIX",
    "FORMATS",
    "OBJECTIVES",
    "AlertConfig",
    "Config",
    "Confirm",
    "FleetConfig",
    "HttpConfig",
    "KafkaConfig",
    "LogConfig",
    "ModelConfig",
    "NotifyConfig",
    "Rate",
    "RetrainConfig",
    "StoreConfig",
    "format_duration",
    "load",
    "mask_url",
    "parse",
    "parse_duration",
    "store_url",
]

_MODULES = {
    "kafka": {"FORMATS", "KafkaConfig"},
    "loading": {"DEFAULT_FILE", "ENV_FILE", "ENV_PREFIX", "load", "parse", "store_url"},
    "values": {"Confirm", "Rate", "format_duration", "mask_url", "parse_duration"},
}
"""Module → the public names in it. The rest are in `tree`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "tree")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
