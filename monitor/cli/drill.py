"""`monitor drill`: the least faults that a version would detect, on copies of recent readings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.params import chosen_fleet, config_option, json_option, load_config, local_option, open_store
from monitor.cli.progress import progress
from monitor.cli.terminal import GAP, Styled, Table, columns, echo, echo_prose
from monitor.errors import MonitorError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monitor.config import Config
    from monitor.lifecycle.training_process import TrainingOrder
    from monitor.types import JobView

STYLES = ("dim", "green", "green", "", "yellow", "yellow", "bold red")
"""By level of `drill_report.level`. The text tells the same."""
MAX_ROWS = 40
"""Rows of the table. `--json` has all."""
LEAST_NAME = 8
"""Characters of a sensor's name that are shown at least."""


@click.command()
@config_option
@click.argument("fleet", required=False)
@click.option("--data", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Drill on this recording instead of Kafka's records; may be repeated.")  # fmt: skip
@click.option("--version", help="Drill this version [default: the champion].")
@click.option("--sensor", "sensors", multiple=True, help="Only this sensor; may be repeated.")
@click.option("--seed", type=click.IntRange(0), help="Seed of copies and faults [default: the day].")
@click.option("--stored", is_flag=True, help="Show the daemon's last drill instead.")
@click.option("--daemon", "by_daemon", is_flag=True,
              help="Let the running daemon drill, which stores the drill and opens or closes the alert.")  # fmt: skip
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
              help="Draw the table as a picture.")  # fmt: skip
@local_option
@json_option
def drill(
    fleet: str | None,
    files: tuple[Path, ...],
    version: str | None,
    sensors: tuple[str, ...],
    seed: int | None,
    stored: bool,
    by_daemon: bool,
    plot_file: Path | None,
    local: bool,
    as_json: bool,
) -> None:
    """Inject faults into copies of recent healthy readings, and measure the smallest that would be detected.

    FLEET is the fleet, or the only one. For each sensor and kind of fault the table has the smallest size at which 90 %
    of the copies raise an alert, in spreads of the sensor. Nothing is written, and no daemon is needed. The daemon does
    the same every night, [fleet.drill], and raises an alert if a version hardly detects anything. --daemon asks it for
    a drill now, for example to close that alert after a roll-back.
    """
    if (stored or by_daemon) and (files or version or sensors or seed is not None):
        asked = "--stored shows the daemon's last drill" if stored else "--daemon drills the champion on its records"
        raise click.UsageError(f"{asked}; leave out --data, --version, --sensor, --seed.")
    if stored and by_daemon:
        raise click.UsageError("--stored shows the last drill, --daemon makes one; leave one of them out.")
    config = load_config()
    name = chosen_fleet(config, fleet)
    if by_daemon:
        _ask_daemon(config, name)
    check = _stored(name) if stored or by_daemon else _run(config, name, files, version, sensors, seed)
    if plot_file is not None:
        _plot(check["result"], plot_file)
    if as_json:
        output.print_json(check)
    else:
        _print(check, local=local)
        if plot_file is not None:
            echo(Styled(f"\nThe picture is in {plot_file}.", "dim"))


def _stored(fleet: str) -> dict[str, Any]:
    with open_store() as store:
        found = store.model_checks(kind="drill", fleet=fleet, limit=1)
    if not found:
        raise NotFound(f"a drill of {fleet}: the daemon has made none yet. `monitor drill {fleet}` makes one now")
    return {key: found[0][key] for key in ("fleet", "version", "at", "requested_by", "problem", "result")}


def _ask_daemon(config: Config, fleet: str) -> None:
    """Let the daemon drill, and wait for the end. Raises MonitorError if it fails or no daemon runs."""
    import asyncio

    from monitor import control
    from monitor.cli import jobs
    from monitor.cli.acting import user_name
    from monitor.clock import SystemClock
    from monitor.store.engine import AsyncStore

    async def ask() -> JobView:
        clock = SystemClock()
        async with AsyncStore(config.store.url) as store:
            requested = await control.request_drill(store, clock, fleet, by=user_name())
            jobs.tell_if_alone(requested)
            return await jobs.end_of(requested.job.id, store, clock)

    jobs.check_done(asyncio.run(ask()))


def _run(
    config: Config, fleet: str, files: tuple[Path, ...], version: str | None, sensors: tuple[str, ...], seed: int | None
) -> dict[str, Any]:
    """Drill in a process of its own, and judge."""
    import asyncio

    from monitor import drill_report
    from monitor.cli.acting import user_name
    from monitor.clock import SystemClock, from_us

    now = from_us(SystemClock().now_us())
    with progress(f"drill {fleet}") as on_progress:
        result, baseline = asyncio.run(_drilled(config, fleet, files, version, sensors, seed, on_progress))
    problem = drill_report.judge(result, baseline)
    return {
        "fleet": fleet,
        "version": result["version"],
        "at": now,
        "requested_by": user_name(),
        "problem": None if problem is None else problem.text,
        "result": result,
    }


async def _drilled(
    config: Config,
    fleet: str,
    files: tuple[Path, ...],
    version: str | None,
    sensors: tuple[str, ...],
    seed: int | None,
    on_progress: Callable[[float, str], None],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from monitor.lifecycle.training_process import run_training_process
    from monitor.store import drills
    from monitor.store.engine import AsyncStore

    async def report(share: float, text: str) -> None:
        on_progress(share, text)

    async with AsyncStore(config.store.url) as store:
        order, drilled = await _order(config, store, fleet, version)
        known = order.sensors or ()
        if unknown := [name for name in sensors if known and name not in known]:
            raise NotFound(f"sensor {', '.join(unknown)} of {fleet}; its sensors are {', '.join(known)}")
        detail: dict[str, Any] = {}
        if files:
            detail["files"] = [str(each.resolve()) for each in files]
        if sensors:
            detail["sensors"] = list(sensors)
        if seed is not None:
            detail["seed"] = seed
        found = await run_training_process(_with_detail(order, detail), report)
        if found.result is None:
            raise MonitorError("the process of the drill sent no result")
        before = None
        if not files:  # another time, perhaps another machine
            from monitor.clock import SystemClock

            before = await store.read(drills.baseline, fleet, drilled, SystemClock().now_us())
        return found.result, None if before is None else before.result


def _with_detail(order: TrainingOrder, detail: dict[str, Any]) -> TrainingOrder:
    import msgspec

    return msgspec.structs.replace(order, detail=detail)


async def _order(config: Config, store: Any, fleet: str, version: str | None) -> tuple[TrainingOrder, str]:
    """Return the order of the drill, and the version to drill."""
    import msgspec

    from monitor.lifecycle.orders import order_of
    from monitor.store import versions
    from monitor.types import JobView

    own = next(each for each in config.fleets if each.name == fleet)
    known = await store.read(versions.list_all, fleet)
    wanted = [each for each in known if (each.state == "champion" if version is None else each.version == version)]
    if not wanted:
        what = f"version {version} of {fleet}" if version else f"a champion of {fleet}"
        raise NotFound(f"{what}; monitor models list shows the versions")
    job = JobView(id=0, fleet=fleet, state="running", progress=0.0, message="", requested_at=wanted[0].trained_at,
                  kind="drill")  # fmt: skip
    order = await order_of(config, store, own, job, has_champion=True)
    return msgspec.structs.replace(order, champion=wanted[0].path), wanted[0].version


# ---------------------------------------------------------------- output


def _plot(result: Mapping[str, Any], path: Path) -> None:
    from monitor import drawing, drill_report

    try:
        path.write_text(drawing.standalone(drill_report.picture(result), 760), encoding="utf-8")
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror}") from error


def _print(check: Mapping[str, Any], *, local: bool) -> None:
    from monitor import drill_report

    result = check["result"]
    at = output.timestamp(check["at"], local=local)
    echo(Styled(check["version"], "bold"), Styled(f" of {check['fleet']}, drilled {at}", "dim"))
    echo()
    drilled = [sensor for sensor in result["sensors"] if sensor["kinds"]]
    rows = [
        [
            Styled(drill_report.cell_text(cell, kind, result), STYLES[drill_report.level(cell, kind, result)])
            for kind, cell in sensor["kinds"].items()
        ]
        for sensor in drilled[:MAX_ROWS]
    ]
    table = Table("sensor", *(f"{kind}:right" for kind in drill_report.KINDS))
    wide = [max(len(each.text) for each in column) for column in zip(*rows, strict=True)]
    taken = sum(max(len(kind), each) + len(GAP) for kind, each in zip(drill_report.KINDS, wide, strict=True))
    widest = max(LEAST_NAME, columns() - taken)
    for sensor, cells in zip(drilled, rows, strict=False):
        name = sensor["name"]
        table.add(name if len(name) <= widest else f"{name[: widest - 1]}…", *cells)
    table.print()
    if len(drilled) > MAX_ROWS:
        echo(Styled(f"… and {len(drilled) - MAX_ROWS} more sensors: --json", "dim"))
    echo()
    for line in drill_report.sentences(result):
        echo_prose(line)
    echo()
    if check["problem"] is None:
        healthy = result["healthy"]
        calm = f"no problem: of {healthy['copies']} healthy copies {healthy['alarmed']} alarm"
        echo(Styled(output.SIGNS["certified"][0] + " ", "bold green"), calm)
    else:
        echo_prose(f"{output.SIGNS['violated'][0]} {check['problem']}.", "bold red")
    echo()
    echo_prose(drill_report.LEGEND, "dim")
    echo(Styled(output.time_zone(local=local), "dim"))
