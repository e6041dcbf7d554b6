"""`monitor run`: the daemon."""

from __future__ import annotations

import click

from monitor.cli.params import config_option, load_config


@click.command()
@config_option
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Replace [log] level.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="Replace [log] format.")
def run(log_level: str | None, log_format: str | None) -> None:
    """Run the daemon: read, score, raise alerts, retrain.

    It stops within 10 s of SIGTERM or Ctrl-C. The next start continues where it stopped.
    """
    import os
    import signal

    # Until the daemon handles it, a stop during the imports ends nothing: there is no lock, no connection, no thread.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config = load_config()

    import asyncio

    from monitor import logs
    from monitor.service.daemon import run as run_daemon

    logs.configure(log_level or config.log.level, log_format or config.log.format)
    asyncio.run(run_daemon(config))
