"""`monitor retrain`: ask a running daemon for a new model."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli.output import emit
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.progress import progress
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.control import Requested

POLL_EVERY_S = 0.3


@click.command()
@config_option
@click.argument("fleet", required=False)
@click.option("--wait", "is_waiting", is_flag=True, help="Show the progress until it is done; fail if it fails.")
@json_option
def retrain(fleet: str | None, is_waiting: bool, as_json: bool) -> None:
    """Train a new model for FLEET; without a name, for the only one.

    A running daemon takes the job up at once and swaps the model without losing a window. While a job is under way
    a second one is refused.
    """
    config = load_config()
    name = _choose(config, fleet)

    import asyncio

    requested = asyncio.run(_retrain(config.store.url, name, is_waiting=is_waiting))
    job = requested.job
    if as_json:
        emit(asdict(job) | {"daemons": requested.n_daemons})
    elif is_waiting and job.state == "done":
        click.echo(f"{name}: new version {job.version}")
    elif not is_waiting:
        click.echo(f"Job {job.id} for {name} is {job.state}. See: monitor models list")
    if job.state == "failed":
        raise MonitorError(f"job {job.id} for {name} failed: {job.message}")


def _choose(config: Config, fleet: str | None) -> str:
    names = [each.name for each in config.fleets]
    if fleet is None and len(names) == 1:
        return names[0]
    if fleet is None:
        raise click.UsageError(f"There are several fleets; name one of {', '.join(names)}.")
    if fleet not in names:
        from monitor.config.problems import nearest

        meant = nearest(fleet, names)
        hint = f"Did you mean {meant}?" if meant else f"There are {', '.join(names)}."
        raise click.UsageError(f"{config.path} has no fleet {fleet}. {hint}")
    return fleet


async def _retrain(url: str, fleet: str, *, is_waiting: bool) -> Requested:
    import asyncio
    from dataclasses import replace

    from monitor import control
    from monitor.clock import SystemClock
    from monitor.store.engine import AsyncStore

    async with AsyncStore(url) as store:
        requested = await control.request_retraining(store, SystemClock(), fleet, by=_who())
        job = requested.job
        if requested.n_daemons == 0:
            note = "No daemon has been heard of lately: the job waits until one starts (monitor run)."
            click.secho(note, fg="yellow", err=True)
        if is_waiting:
            with progress(fleet, line_every_s=0.0) as show:
                while job.state in ("queued", "running"):
                    await asyncio.sleep(POLL_EVERY_S)
                    job = await control.job(store, job.id)
                    show(job.progress, f"{job.state}: {job.message}" if job.message else job.state)
        return replace(requested, job=job)


def _who() -> str:
    """Name the operator, for the job's record."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have a number only
        return f"uid {os.getuid()}"
