"""`monitor run`: the daemon."""

from __future__ import annotations

import click

from monitor.cli.params import config_option, load_config


@click.command()
@config_option
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Instead of [log] level.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="Instead of [log] format.")
def run(log_level: str | None, log_format: str | None) -> None:
    """Watch live: read, score, raise alerts, retrain.

    Stops within 10 s of SIGTERM or Ctrl-C and goes on where it stopped.
    """
    config = load_config()

    import asyncio

    from monitor import logs
    from monitor.service.daemon import run as run_daemon

    logs.configure(log_level or config.log.level, log_format or config.log.format)
    asyncio.run(run_daemon(config))
