"""`monitor retrain`: a request to the running daemon for a new model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli.acting import user_name
from monitor.cli.output import print_json
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, echo
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.control import Requested

POLL_EVERY_S = 0.3
"""Time between two looks at the job with `--wait`."""
ALONE_FOR_S = 5.0
"""With `--wait`, time without a running daemon after which the command ends: nobody would ever do the job."""


@click.command()
@config_option
@click.argument("fleet", required=False)
@click.option("--wait", "is_waiting", is_flag=True,
              help="Wait until the training is done. Fail if it fails, or if no daemon runs.")  # fmt: skip
@json_option
def retrain(fleet: str | None, is_waiting: bool, as_json: bool) -> None:
    """Train a new model for FLEET, or for the only fleet.

    A running daemon starts the job at once, and switches to the new model without losing a window. A second job for
    the same fleet is refused while one is queued or running. Without a daemon the job waits for one, and --wait ends
    after 5 s with exit code 1.
    """
    import asyncio

    config = load_config()
    name = _chosen_fleet(config, fleet)
    requested = asyncio.run(_request(config.store.url, name, is_waiting=is_waiting))
    job = requested.job
    if as_json:
        print_json(asdict(job) | {"daemons": requested.n_daemons})
    elif job.state == "done":
        echo(f"{name}: new version {job.version}")
    elif not is_waiting:
        echo(f"Job {job.id} for {name} is {job.state}. See: monitor models list")
    if is_waiting and job.state in ("queued", "running"):
        fate = "the job stays queued" if job.state == "queued" else "the next one starts it again"
        raise MonitorError(f"job {job.id} for {name}: no daemon is running, and {fate}. Start one with `monitor run`")
    if job.state == "failed":
        raise MonitorError(f"job {job.id} for {name} failed: {job.message}")


def _chosen_fleet(config: Config, fleet: str | None) -> str:
    names = [each.name for each in config.fleets]
    if fleet is None and len(names) == 1:
        return names[0]
    if fleet is None:
        raise click.UsageError(f"There are several fleets; name one of {', '.join(names)}.")
    if fleet not in names:
        from monitor.config.problems import nearest

        match = nearest(fleet, names)
        hint = f"Did you mean {match}?" if match else f"Its fleets are {', '.join(names)}."
        raise click.UsageError(f"{config.path} has no fleet {fleet}. {hint}")
    return fleet


async def _request(url: str, fleet: str, *, is_waiting: bool) -> Requested:
    import asyncio
    from dataclasses import replace

    from monitor import control
    from monitor.clock import SystemClock
    from monitor.store.engine import AsyncStore

    clock = SystemClock()
    async with AsyncStore(url) as store:
        requested = await control.request_retraining(store, clock, fleet, by=user_name())
        job = requested.job
        if requested.n_daemons == 0:
            note = "No daemon is running: the job waits until one starts (monitor run)."
            echo(Styled(note, "yellow"), err=True)
        if is_waiting:
            with progress(fleet, line_every_s=0.0) as on_progress:
                n_alone = 0
                while job.state in ("queued", "running") and n_alone * POLL_EVERY_S < ALONE_FOR_S:
                    await asyncio.sleep(POLL_EVERY_S)
                    job = await control.job(store, job.id)
                    n_alone = 0 if await control.count_daemons(store, clock) else n_alone + 1
                    on_progress(job.progress, f"{job.state}: {job.message}" if job.message else job.state)
        return replace(requested, job=job)
