"""`[kafka] format`, `schema_file` and `registry_url`: what the wire formats need, and its check.

Input: `[kafka]`. Output: options of the parsers, the client of the registry, findings of `monitor check`. Invariant:
the HTTP client is imported only where a registry is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.decode.formats import FormatOptions, make_parser
from monitor.errors import ConfigError, MonitorError
from monitor.types import Finding

if TYPE_CHECKING:
    from monitor.config import KafkaConfig
    from monitor.kafka.schema_registry import SchemaRegistry


def format_options(config: KafkaConfig) -> FormatOptions:
    """Return the settings of the wire formats."""
    return FormatOptions(
        columns=config.fields.columns,
        schema=config.schema_bytes,
        message=config.message,
        has_registry=config.registry_url is not None,
    )


def registry_of(config: KafkaConfig) -> SchemaRegistry | None:
    """Return a client of the configured registry, or None. The caller closes it."""
    if config.registry_url is None:
        return None
    from monitor.kafka.schema_registry import SchemaRegistry

    return SchemaRegistry(config)


async def check_format(config: KafkaConfig) -> list[Finding]:
    """Return the findings about schema file and registry. None where neither is configured."""
    findings = []
    if config.schema_bytes is not None:
        try:
            make_parser(config.format, format_options(config))
            findings.append(Finding("ok", "schema file", f"{config.schema_file} can be used"))
        except ConfigError as error:
            findings.append(
                Finding("error", "schema file", error.detail, "correct kafka.schema_file or message", error.exit_code)
            )
    registry = registry_of(config)
    if registry is not None:
        async with registry:
            try:
                await registry.ping()
                findings.append(Finding("ok", "schema registry", f"{config.registry_url} answers"))
            except MonitorError as error:
                fix = "start the registry, or correct kafka.registry_url" if error.retriable else ""
                findings.append(Finding("error", "schema registry", error.detail, fix, error.exit_code))
    return findings
