"""`monitor alerts ack`, `unack`, `shelve`, `unshelve`, `label`, `unlabel`, `close`: answers of operators to alerts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.acting import by_option, note_option, once, perform, reason_option, report
from monitor.cli.params import config_option, json_option
from monitor.config.values import parse_time

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.control import Actor
    from monitor.store.engine import AsyncStore

LABELS = ("fault", "normal", "ignore")
UNLABEL = "none"

ids_argument = click.argument("ids", metavar="ID…", type=int, nargs=-1, required=True)


@click.command("ack")
@config_option
@ids_argument
@note_option
@by_option
@json_option
def acknowledge(ids: tuple[int, ...], note: str, by: str | None, as_json: bool) -> None:
    """Acknowledge open alerts: you have seen them.

    It ends with the alert by itself, and when the alert becomes much worse ([fleet.alerts] worse).
    """

    async def act(store: AsyncStore, clock: Clock, actor: Actor, alert_id: int) -> None:
        from monitor import control

        await control.acknowledge(store, clock, alert_id, actor=actor, note=note)

    _each("acknowledged", ids, act, by, as_json=as_json)


@click.command("unack")
@config_option
@ids_argument
@note_option
@by_option
@json_option
def unacknowledge(ids: tuple[int, ...], note: str, by: str | None, as_json: bool) -> None:
    """Take acknowledgements back."""

    async def act(store: AsyncStore, clock: Clock, actor: Actor, alert_id: int) -> None:
        from monitor import control

        await control.unacknowledge(store, clock, alert_id, actor=actor, note=note)

    _each("no longer acknowledged", ids, act, by, as_json=as_json)


@click.command("close")
@config_option
@ids_argument
@reason_option
@by_option
@json_option
def close(ids: tuple[int, ...], reason: str, by: str | None, as_json: bool) -> None:
    """Close alerts by hand, with a reason.

    An alert opens again by itself if it recovers and fires once more, or becomes much worse.
    """

    async def act(store: AsyncStore, clock: Clock, actor: Actor, alert_id: int) -> None:
        from monitor import control

        await control.close_alert(store, clock, alert_id, reason=reason, actor=actor)

    _each("closed", ids, act, by, as_json=as_json)


@click.command("shelve")
@config_option
@click.argument("ids", metavar="[ID…]", type=int, nargs=-1)
@click.option("--asset", metavar="GLOB", help="All alerts of these assets, later ones too.")
@click.option("--fleet", metavar="GLOB", help="All alerts of these fleets, later ones too.")
@click.option("--sensor", metavar="GLOB", help="Only alerts blamed most on these sensors.")
@click.option("--until", required=True, metavar="END",
              help='7d, a time, recovered, worse:2x, 5x/1d, or several: "7d or worse:2x".')  # fmt: skip
@reason_option
@by_option
@json_option
def shelve(
    ids: tuple[int, ...],
    asset: str | None,
    fleet: str | None,
    sensor: str | None,
    until: str,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Shelve alerts: send no notifications until an end that you give.

    Name alerts, or all alerts of assets, fleets or sensors. --until is a duration, a time, "recovered" (closed),
    "worse:2x" (twice the present peak) or "5x/1d" (more than five alerts within a day). The first end that comes true
    counts, and the conditions end after 30 days in any case. Alerts that fire then are notified.
    """
    from monitor.control import ShelfTarget

    named = {"asset": asset, "fleet": fleet, "sensor": sensor}
    if bool(ids) == any(named.values()):
        raise click.UsageError("Name alerts by their ID, or what they are about with --asset, --fleet or --sensor.")
    targets = [ShelfTarget(each) for each in ids] or [ShelfTarget(None, fleet, asset, sensor)]

    async def act(store: AsyncStore, clock: Clock, actor: Actor, target: ShelfTarget) -> int:
        from monitor import control

        return await control.shelve(store, clock, target, until=until, reason=reason, actor=actor)

    done, errors = perform(targets, act, by)
    rows = [{"shelf": shelf, "alert": target.alert_id, **named, "until": until} for target, shelf in done]
    about = ", ".join(f"{name} {value}" for name, value in named.items() if value)
    lines = [
        f"Shelf {shelf}: {about or f'alert {target.alert_id}'} until {until}. End it: monitor alerts unshelve {shelf}"
        for target, shelf in done
    ]
    report(rows, lines, errors, as_json=as_json)


@click.command("unshelve")
@config_option
@click.argument("ids", metavar="SHELF…", type=int, nargs=-1, required=True)
@note_option
@by_option
@json_option
def unshelve(ids: tuple[int, ...], note: str, by: str | None, as_json: bool) -> None:
    """End shelves. Alerts that still fire are notified. `monitor alerts shelves` lists their numbers."""

    async def act(store: AsyncStore, clock: Clock, actor: Actor, shelf_id: int) -> None:
        from monitor import control

        await control.unshelve(store, clock, shelf_id, actor=actor, note=note)

    _each("ended", ids, act, by, as_json=as_json, noun="Shelf")


@click.command("label")
@config_option
@click.argument("what", metavar="ID… | ASSET FROM TO", nargs=-1, required=True)
@click.argument("label", metavar="LABEL", type=click.Choice([*LABELS, UNLABEL]))
@click.option("--fleet", help="Fleet of ASSET, where several have one of this name.")
@note_option
@by_option
@json_option
def label(what: tuple[str, ...], label: str, fleet: str | None, note: str, by: str | None, as_json: bool) -> None:
    """Label alerts, or a time of ASSET, as fault, normal or ignore; none takes an alert's label back.

    Training leaves faults and ignored times out, and learns normal ones. The false-alarm budget counts neither faults
    nor ignored times.
    """
    from monitor.types import Label

    value = None if label == UNLABEL else Label(label)
    if all(each.lstrip("-").isdecimal() for each in what):

        async def act(store: AsyncStore, clock: Clock, actor: Actor, alert_id: int) -> None:
            from monitor import control

            await control.label_alert(store, clock, alert_id, value, actor=actor, note=note)

        past = "no longer labelled" if value is None else f"labelled {label}"
        _each(past, tuple(map(int, what)), act, by, as_json=as_json, label=None if value is None else label)
        return
    if len(what) != 3 or value is None:
        raise click.UsageError(f"Write ID… LABEL or ASSET FROM TO LABEL, with one of {', '.join(LABELS)}.")
    asset, *times = what
    try:
        from_us, to_us = (_us(each) for each in times)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None

    async def act_on_interval(store: AsyncStore, clock: Clock, actor: Actor) -> int:
        from monitor import control

        return await control.label_interval(
            store, clock, fleet, asset, from_us, to_us, value, actor=actor, note=note
        )

    number = once(act_on_interval, by)
    row = {"interval_label": number, "asset": asset, "from": times[0], "to": times[1], "label": label}
    line = f"{asset} from {times[0]} to {times[1]}: labelled {label}. Take it back: monitor alerts unlabel {number}"
    report([row], [line], [], as_json=as_json)


def _us(text: str) -> int:
    from monitor.clock import to_us

    return to_us(parse_time(text, datetime.now(UTC)))


@click.command("unlabel")
@config_option
@click.argument("ids", metavar="LABEL…", type=int, nargs=-1, required=True)
@by_option
@json_option
def unlabel(ids: tuple[int, ...], by: str | None, as_json: bool) -> None:
    """Take labels of times back. `monitor alerts labels` lists their numbers."""

    async def act(store: AsyncStore, clock: Clock, actor: Actor, label_id: int) -> None:
        from monitor import control

        await control.remove_interval_label(store, clock, label_id, actor=actor)

    _each("taken back", ids, act, by, as_json=as_json, noun="Label")


def _each(
    done_word: str, ids: tuple[int, ...], act: Any, by: str | None, *, as_json: bool, noun: str = "Alert", **facts: Any
) -> None:
    done, errors = perform(tuple(dict.fromkeys(ids)), act, by)
    key = {"Alert": "alert", "Shelf": "shelf", "Label": "interval_label"}[noun]
    rows = [{key: number, "done": done_word, **facts} for number, _ in done]
    report(rows, [f"{noun} {number} is {done_word}." for number, _ in done], errors, as_json=as_json)


COMMANDS = (acknowledge, unacknowledge, shelve, unshelve, label, unlabel, close)
