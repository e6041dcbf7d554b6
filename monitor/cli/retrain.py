"""`monitor retrain`: a request to the running daemon for a new model, and the outcome in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from monitor import version_words
from monitor.cli import jobs
from monitor.cli.acting import by_option, note_option, user_name
from monitor.cli.output import argument, print_json
from monitor.cli.params import TIME, chosen_fleet, config_option, json_option, load_config, open_store
from monitor.cli.terminal import echo, echo_facts, echo_prose
from monitor.clock import to_us
from monitor.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.control import Requested
    from monitor.store.engine import AsyncStore


@dataclass(frozen=True, slots=True)
class Accepted:
    """A time that an operator accepts as normal."""

    begin: datetime
    end: datetime
    asset: str | None
    """None = every asset of the fleet."""


@click.command()
@config_option
@click.argument("fleet", required=False)
@click.option("--wait", "is_waiting", is_flag=True,
              help="Wait until the training is done. Fail if it fails, or if no daemon runs.")  # fmt: skip
@click.option("--accept-normal", "times", nargs=2, type=TIME, metavar="FROM TO",
              help="Accept this time as the new normal, and learn it.")  # fmt: skip
@click.option("--asset", help="With --accept-normal: only this asset, not the whole fleet.")
@note_option
@by_option
@json_option
def retrain(
    fleet: str | None,
    is_waiting: bool,
    times: tuple[datetime, datetime] | None,
    asset: str | None,
    note: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Train a new model for FLEET, or for the only fleet.

    A running daemon starts the job at once. A new model that passes the gate decides from the next window on, by the
    fleet's [fleet.retrain] promote. A second job for the same fleet is refused while one is queued or running. Without
    a daemon the job waits for one, and --wait ends after 5 s with exit code 1.

    --accept-normal labels a time as normal and trains: alerts in it are learnt, not left out. FROM and TO are event
    times, ISO 8601 or relative like now-3d. A time that is labelled fault is refused.
    """
    import asyncio

    config = load_config()
    name = chosen_fleet(config, fleet)
    if asset is not None and times is None:
        raise click.UsageError("--asset goes with --accept-normal: a training is of the whole fleet.")
    accepted = None if times is None else Accepted(*times, asset)
    request = _Request(config, name, note, by or user_name(), accepted)
    try:
        requested, labels = asyncio.run(request.make(is_waiting=is_waiting))
    except ConfigError as error:
        if accepted is None:
            raise
        raise click.UsageError(f"--accept-normal: {error.detail}.") from None  # not a fault of the configuration
    job = requested.job
    made = _version(job.version)
    if as_json:
        outcome = None if made is None else {"state": made["state"], "why": made["why"]}
        print_json(asdict(job) | {"daemons": requested.n_daemons, "labels": labels, "outcome": outcome})
    else:
        if labels:
            undo = f"monitor alerts unlabel {' '.join(map(str, labels))}"
            echo(f"Accepted as normal: {accepted_words(accepted, name)}. Take it back: {undo}")
        if job.state == "done":
            _print_outcome(name, asdict(job), made)
        elif not is_waiting:
            echo(f"Job {job.id} for {name} is {job.state}. See: monitor models list")
    if is_waiting:
        jobs.check_done(job)


def accepted_words(accepted: Accepted | None, fleet: str) -> str:
    """Describe an accepted time."""
    if accepted is None:
        return ""
    begin, end = (f"{at:%Y-%m-%d %H:%M}" for at in (accepted.begin, accepted.end))
    return f"{accepted.asset or f'every asset of {fleet}'} from {begin} to {end} UTC"


def _version(version: str | None) -> Mapping[str, Any] | None:
    """Return the version that a job made. None = it made none."""
    if version is None:
        return None
    with open_store() as store:
        try:
            return store.model(version)
        except NotFound:
            return None


def _print_outcome(fleet: str, job: Mapping[str, Any], made: Mapping[str, Any] | None) -> None:
    """Print the end of a training, and the next step."""
    if made is None:
        echo_prose(f"{fleet}: {job['message'] or 'new version ' + str(job['version'])}")
        return
    echo_prose(f"{fleet}: {version_words.outcome(job, made)}.")
    version = made["version"]
    next_steps = {
        "champion": {"to undo": f"monitor models rollback {argument(fleet)}"},
        "candidate": {"compare": f"monitor models diff {version}", "promote": f"monitor models promote {version}"},
        "shadow": {"follow it": f"monitor models show {version}"},
        "rejected": {"details": f"monitor models show {version}"},
    }
    echo_facts(next_steps.get(made["state"], {}))


@dataclass(frozen=True, slots=True)
class _Request:
    """A request of a training."""

    config: Config
    fleet: str
    note: str
    by: str
    accepted: Accepted | None

    async def make(self, *, is_waiting: bool) -> tuple[Requested, list[int]]:
        """Queue the job, and wait for its end. Return it, and the labels of the accepted time."""
        from dataclasses import replace

        from monitor.clock import SystemClock
        from monitor.store.engine import AsyncStore

        clock = SystemClock()
        async with AsyncStore(self.config.store.url) as store:
            requested, labels = await self._ask(store, clock)
            jobs.tell_if_alone(requested)
            if is_waiting:
                requested = replace(requested, job=await jobs.end_of(requested.job.id, store, clock))
            return requested, labels

    async def _ask(self, store: AsyncStore, clock: Clock) -> tuple[Requested, list[int]]:
        from monitor import control

        if self.accepted is None:
            return await control.request_retraining(store, clock, self.fleet, by=self.by, note=self.note), []
        fleet = next(each for each in self.config.fleets if each.name == self.fleet)
        acceptance, requested = await control.accept_normal(
            store,
            clock,
            self.fleet,
            self.accepted.asset,
            to_us(self.accepted.begin),
            to_us(self.accepted.end),
            actor=control.Actor(self.by, "cli"),
            note=self.note,
            history_us=round(fleet.retrain.history.total_seconds() * 1e6),
        )
        return requested, acceptance.label_ids
