"""What the operator decides: `load()` turns monitor.toml and MONITOR_* variables into one frozen tree.

Enters: the file and the environment, read once. Leaves: `Config`, or one `ConfigError` that names every
problem with its path, the value and what to write instead.
Law: defaults < file < environment, and nothing is guessed: an unknown key is an error.

    tree.py       the settings themselves, each with its default and its limits: read this first
    kafka.py      one of its tables, `[kafka]`
    base.py       what all tables are made of
    values.py     the small languages: "10m", "3 of 5", "1/week", "sqlite:///monitor.db"
    loading.py    file and environment → tree
    private.py    which files with secrets others could read
    problems.py   what was wrong → sentences, with the nearest valid name

The names below are loaded when first used: pydantic costs 0.15 s, and `monitor alerts list` needs only `store_url`.
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

_KAFKA = {"FORMATS", "KafkaConfig"}
_LOADING = {"DEFAULT_FILE", "ENV_FILE", "ENV_PREFIX", "load", "parse", "store_url"}
_VALUES = {"Confirm", "Rate", "format_duration", "mask_url", "parse_duration"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"kafka": _KAFKA, "loading": _LOADING, "values": _VALUES}
    home = next((home for home, names in homes.items() if name in names), "tree")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
