"""How a difference between two sides is told: what would have been gained, lost and moved, and how often each fires.

Enters: a `Difference`. Leaves: a table of what differs, the newest last, and one sentence that says it all, last of
all: that is where an operator looks first.
"""

from __future__ import annotations

from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

import click

from monitor.cli import output, terminal
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.replay.diff import Difference, EpisodeDiff, FleetSummary, Side, SideAlert, SideSummary

SHOWN = 50
"""Rows in a table."""
WHAT = {"gained": ("+ gained", "bold green"), "lost": ("− lost", "bold red"), "moved": ("~ moved", "yellow")}


def parse_side(text: str) -> Side:
    """Read a side: a version, alert parameters, or both."""
    from monitor.replay.diff import Side

    return Side.parse(text)


def sides_of(named: Sequence[Side]) -> tuple[Side, Side] | None:
    """Return both sides: one that is named is held against what decided live."""
    from monitor.replay.diff import Side

    if not named:
        return None
    if len(named) > 2:
        raise click.UsageError(f"--diff compares two sides; {len(named)} are named.")
    before, after = named if len(named) == 2 else (Side(), named[0])
    if before == after:
        raise click.UsageError(f'--diff: both sides are "{after}"; name another version or other alert parameters.')
    return before, after


def show(found: Difference, decider: str) -> None:
    """Print it. `decider`: who decides where a side names no version."""
    differing = [outcome for outcome in found.episodes if outcome.what != "same"]
    if differing:
        echo()
        _show_alerts(found, differing[-SHOWN:])
        if len(differing) > SHOWN:
            echo(Styled(f"The newest {SHOWN} of {len(differing):,}; --json has all.", "dim"))
    echo()
    _show_sums(found, decider)
    for each in found.fleets:
        for side, about in ((found.before, each.before), (found.after, each.after)):
            # Where both sides miss the same, it is no difference.
            if about.unscored is not None and not (about.windows and each.before.unscored == each.after.unscored):
                why = f"{each.fleet}, {side}: some windows have no score: {about.unscored}"
                echo(Styled(terminal.wrapped(why, terminal.columns()), "yellow"))
    echo()
    name, text = str(found.after), terminal.wrapped(_sentence(found), terminal.columns())
    if text.startswith(name):
        echo(Styled(name, "bold"), text.removeprefix(name))
    else:  # its own words are broken over lines
        echo(text)
    if shift := _shift(found):
        echo(shift)


def _show_alerts(found: Difference, differing: Sequence[EpisodeDiff]) -> None:
    """Print a row for each episode, under the name of its fleet, or of its asset where each fleet has only one."""
    has_assets = any(each.assets > 1 for each in found.fleets)
    has_room = terminal.columns() >= terminal.WIDE
    table = Table("", *["asset"] * has_assets, "fired", *["open for:right"] * has_room, "peak:right", "how:rest")
    under = []
    for each in found.fleets:
        for outcome in differing:
            if outcome.fleet == each.fleet:
                table.add(*_row(outcome, has_asset=has_assets, has_room=has_room))
                under.append(each.fleet if has_assets else outcome.asset)
    _show_under(table, [] if has_assets and len(found.fleets) == 1 else under)


def _row(outcome: EpisodeDiff, *, has_asset: bool, has_room: bool) -> list[str | Styled]:
    told = outcome.before or outcome.after
    peaks = [f"{max(each.peak_score for each in side):.2f}" for side in (outcome.before, outcome.after) if side]
    is_critical = "critical" in (_severity(outcome.before), _severity(outcome.after))
    return [
        Styled(*WHAT[outcome.what]),
        *[outcome.asset] * has_asset,
        _moment(told[0].fired_us),
        *[_open_for(told)] * has_room,
        Styled(" → ".join(dict.fromkeys(peaks)), "bold red" if is_critical else ""),
        _how(outcome),
    ]


def _how(outcome: EpisodeDiff) -> str:
    """Say how an episode differs, the most urgent first; of what only one side saw, which sensors are to blame."""
    if outcome.what != "moved":
        alerts = outcome.before or outcome.after
        several = f"{len(alerts)} alerts: " if len(alerts) > 1 else ""
        shares = [{"name": each.name, "share": each.share} for each in alerts[0].contributions]
        return several + output.contributions(shares)
    n, m = len(outcome.before), len(outcome.after)
    said = [f"{n} alert{'s' if n > 1 else ''} → {m}"] if n != m else []
    was, now = (_severity(side) for side in (outcome.before, outcome.after))
    said += [f"{was} → {now}"] if was != now else []
    for word, by_s in (("fires", outcome.fired_by_s), ("closes", outcome.closed_by_s), ("opens", outcome.opened_by_s)):
        if by_s:
            said.append(f"{word} {'+' if by_s > 0 else '−'}{_span(abs(by_s))}")
    was_open, is_open = (side[-1].closed_us is None for side in (outcome.before, outcome.after))
    if was_open != is_open:
        said.append("stays open" if is_open else "closes")
    return ", ".join(said) or "splits at other times"


def _severity(alerts: Sequence[SideAlert]) -> str:
    return "critical" if any(alert.severity == "critical" for alert in alerts) else "warning"


def _show_sums(found: Difference, decider: str) -> None:
    """Print how often each side would have fired."""
    has_versions = found.before.version != found.after.version
    has_room = terminal.columns() >= terminal.WIDE
    table = Table("", *["who decides"] * has_versions, "confirm", "recover:right", "alerts:right", "critical:right",
                  "per asset-week:right", *["windows:right"] * has_room)  # fmt: skip
    under = []
    for each in found.fleets:
        for name, side, about in (("before", found.before, each.before), ("after", found.after, each.after)):
            who = [side.version or decider] * has_versions
            windows = [f"{about.windows:,}"] * has_room
            table.add(name, *who, *_cells(about, each, is_after=name == "after"), *windows)
            under.append(each.fleet)
    _show_under(table, under if len(found.fleets) > 1 else [])


def _show_under(table: Table, names: Sequence[str]) -> None:
    """Print a table, each row under its name; no names: as it is."""
    headings, *lines = table.lines(terminal.columns())
    if not names:
        names = [""] * len(lines)
    echo(headings)
    last = ""
    for name, line in zip(names, lines, strict=True):
        if name != last:
            echo(Styled(name, "bold"))
        last = name
        echo(line)


def _cells(about: SideSummary, fleet: FleetSummary, *, is_after: bool) -> list[str | Styled]:
    look = "bold" if is_after and about.alerts != fleet.before.alerts else ""
    return [
        about.confirm,
        str(about.recover),
        Styled(f"{about.alerts:,}", look),
        f"{about.critical:,}",
        Styled(output.number(about.per_asset_week, 2), look),
    ]


def _sentence(found: Difference) -> str:
    def total(name: str) -> int:
        return sum(getattr(each, name) for each in found.fleets)

    before, after = (sum(getattr(each, side).alerts for each in found.fleets) for side in ("before", "after"))
    if not (total("gained") or total("lost") or total("moved")):
        times = "neither would have fired" if not after else f"both would have fired {_times(after)}, at the same times"
        return f"{found.after} changes nothing: {times}."
    names = {"gained": "gained", "lost": "lost", "moved": "moved", "same": "the same"}
    counts = ", ".join(f"{total(name):,} {word}" for name, word in names.items() if total(name))
    instead = f" instead of {before:,}" if before != after else f", as often as {found.before}"
    return f"{found.after} would have fired {_times(after)}{instead}: {counts}."


def _shift(found: Difference) -> str:
    """Say what most of those that moved have in common: the price of a stricter rule."""
    moved = [outcome for outcome in found.episodes if outcome.what == "moved"]
    fires = [outcome.fired_by_s for outcome in moved if outcome.fired_by_s is not None]
    closes = [outcome.closed_by_s for outcome in moved if outcome.closed_by_s is not None]
    by = {"fires": median(fires or [0.0]), "closes": median(closes or [0.0])}
    said = [f"{word} {_span(abs(s))} {'later' if s > 0 else 'earlier'}" for word, s in by.items() if s]
    return f"In the median what moved {' and '.join(said)}." if said else ""


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def _open_for(alerts: Sequence[SideAlert]) -> str:
    closed_us = alerts[-1].closed_us
    return "still open" if closed_us is None else _span((closed_us - alerts[0].opened_us) / 1e6)


def _span(seconds: float) -> str:
    return output.duration(timedelta(seconds=seconds))


def _moment(us: int) -> str:
    from monitor.clock import from_us

    return output.moment(from_us(us))
