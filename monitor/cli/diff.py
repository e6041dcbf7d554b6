"""The difference between two sides of a replay in words: alerts gained, lost and moved, and both alert rates.

Input: a `Difference`. Output: a table of the episodes that differ, the newest last, a table of both alert rates, and a
summary sentence. The summary is the last line, since an operator looks there first.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.terminal import Styled, Table, echo, echo_prose, is_wide, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.replay.diff import Difference, EpisodeDiff, Side, SideAlert

MAX_ROWS = 50
"""Episodes in the table."""
KINDS = {"gained": ("+ gained", "bold green"), "lost": ("− lost", "bold red"), "moved": ("~ moved", "yellow")}


def parse_side(text: str) -> Side:
    """Parse a side: a version, alert parameters, or both. Raises ValueError."""
    from monitor.replay.diff import Side

    return Side.parse(text)


def sides_to_compare(given: Sequence[Side]) -> tuple[Side, Side] | None:
    """Return both sides. A single side is compared with the versions that decided live. Raises UsageError."""
    from monitor.replay.diff import Side

    if not given:
        return None
    if len(given) > 2:
        raise click.UsageError(f"--diff compares two sides; {len(given)} are named.")
    before, after = given if len(given) == 2 else (Side(), given[0])
    if before == after:
        raise click.UsageError(f'--diff: both sides are "{after}"; name another version or other alert parameters.')
    return before, after


def print_difference(found: Difference, live_name: str) -> None:
    """Print the difference. `live_name` names the deciding version of a side that names none."""
    differing = [episode for episode in found.episodes if episode.what != "same"]
    if differing:
        echo()
        _print_episodes(found, differing[-MAX_ROWS:])
        if len(differing) > MAX_ROWS:
            echo(Styled(f"The newest {MAX_ROWS} of {len(differing):,}; --json has all.", "dim"))
    echo()
    _print_rates(found, live_name)
    _print_unscored(found)
    echo()
    _print_summary(found)


# ---------------------------------------------------------------- episodes


def _print_episodes(found: Difference, differing: Sequence[EpisodeDiff]) -> None:
    """Print a row for each episode, under the name of its fleet, or of its asset where each fleet has only one."""
    has_assets = any(summary.assets > 1 for summary in found.fleets)
    asset, open_for = ["asset"] * has_assets, ["open for:right"] * is_wide()
    table = Table("", *asset, "fired", *open_for, "peak:right", "details:rest")
    groups: list[tuple[Styled]] = []
    for summary in found.fleets:
        for episode in differing:
            if episode.fleet == summary.fleet:
                table.add(*_episode_row(episode, has_asset=has_assets))
                groups.append((Styled(summary.fleet if has_assets else episode.asset, "bold"),))
    table.print([] if has_assets and len(found.fleets) == 1 else groups)


def _episode_row(episode: EpisodeDiff, *, has_asset: bool) -> list[str | Styled]:
    sides = [side for side in (episode.before, episode.after) if side]
    peaks = dict.fromkeys(f"{max(alert.peak_score for alert in side):.2f}" for side in sides)
    is_critical = any(_severity(side) == "critical" for side in sides)
    return [
        Styled(*KINDS[episode.what]),
        *[episode.asset] * has_asset,
        output.timestamp(sides[0][0].fired_us),
        *[_open_for(sides[0])] * is_wide(),
        Styled(" → ".join(peaks), "bold red" if is_critical else ""),
        _details(episode),
    ]


def _details(episode: EpisodeDiff) -> str:
    """Describe the changes of a moved episode, the most urgent first, or the sensors of a gained or lost one."""
    if episode.what != "moved":
        alerts = episode.before or episode.after
        several = f"{len(alerts)} alerts: " if len(alerts) > 1 else ""
        return several + output.contributions(alerts[0].row()["sensors"])
    n, m = len(episode.before), len(episode.after)
    changes = [f"{wording.count(n, 'alert')} → {m}"] if n != m else []
    was, now = (_severity(side) for side in (episode.before, episode.after))
    changes += [f"{was} → {now}"] if was != now else []
    delays = (("fires", episode.fired_by_s), ("closes", episode.closed_by_s), ("opens", episode.opened_by_s))
    changes += [f"{verb} {'+' if by_s > 0 else '−'}{wording.duration(abs(by_s))}" for verb, by_s in delays if by_s]
    was_open, is_open = (side[-1].closed_us is None for side in (episode.before, episode.after))
    if was_open != is_open:
        changes.append("stays open" if is_open else "closes")
    return ", ".join(changes) or "splits at other times"


def _severity(alerts: Sequence[SideAlert]) -> str:
    return "critical" if any(alert.severity == "critical" for alert in alerts) else "warning"


def _open_for(alerts: Sequence[SideAlert]) -> str:
    closed_us = alerts[-1].closed_us
    return "still open" if closed_us is None else wording.duration((closed_us - alerts[0].opened_us) / 1e6)


# ---------------------------------------------------------------- rates


def _print_rates(found: Difference, live_name: str) -> None:
    """Print the number and the rate of alerts of each side."""
    version = ["version"] * (found.before.version != found.after.version)
    windows = ["windows:right"] * is_wide()
    rates = ("alerts:right", "critical:right", "per asset-week:right")
    table = Table("", *version, "confirm", "recover:right", *rates, *windows)
    groups: list[tuple[Styled]] = []
    for fleet in found.fleets:
        is_changed = fleet.before.alerts != fleet.after.alerts
        for name, side, figures in (("before", found.before, fleet.before), ("after", found.after, fleet.after)):
            style = "bold" if is_changed and name == "after" else ""
            table.add(
                name,
                *[side.version or live_name] * len(version),
                figures.confirm,
                str(figures.recover),
                Styled(f"{figures.alerts:,}", style),
                f"{figures.critical:,}",
                Styled(wording.number(figures.per_asset_week, 2), style),
                *[f"{figures.windows:,}"] * len(windows),
            )
            groups.append((Styled(fleet.fleet, "bold"),))
    table.print(groups if len(found.fleets) > 1 else [])


def _print_unscored(found: Difference) -> None:
    """Print the reasons for unscored windows. A reason that both sides share makes no difference."""
    for fleet in found.fleets:
        for side, figures in ((found.before, fleet.before), (found.after, fleet.after)):
            is_shared = figures.windows and fleet.before.unscored == fleet.after.unscored
            if figures.unscored is not None and not is_shared:
                echo_prose(f"{fleet.fleet}, {side}: some windows have no score: {figures.unscored}", "yellow")


# ---------------------------------------------------------------- summary


def _print_summary(found: Difference) -> None:
    name, (first, *rest) = str(found.after), wrapped(_summary(found))
    if first.startswith(name):
        echo(Styled(name, "bold"), first.removeprefix(name))
    else:  # the name itself is broken over lines
        echo(first)
    for line in rest:
        echo(line)
    if shift := _median_shift(found):
        echo_prose(shift)


def _summary(found: Difference) -> str:
    before, after = (sum(getattr(fleet, side).alerts for fleet in found.fleets) for side in ("before", "after"))
    counts = {kind: sum(getattr(fleet, kind) for fleet in found.fleets) for kind in ("gained", "lost", "moved", "same")}
    if not (counts["gained"] or counts["lost"] or counts["moved"]):
        times = f"both would have fired {_times(after)}, at the same times" if after else "neither would have fired"
        return f"{found.after} changes nothing: {times}."
    changes = ", ".join(f"{n:,} {'the same' if kind == 'same' else kind}" for kind, n in counts.items() if n)
    comparison = f" instead of {before:,}" if before != after else f", as often as {found.before}"
    return f"{found.after} would have fired {_times(after)}{comparison}: {changes}."


def _median_shift(found: Difference) -> str:
    """Describe the median shift of the moved episodes, which is the price of a stricter rule."""
    moved = [episode for episode in found.episodes if episode.what == "moved"]
    shifts = {"fire": [each.fired_by_s for each in moved], "close": [each.closed_by_s for each in moved]}
    medians = {verb: median([by_s for by_s in delays if by_s is not None] or [0.0]) for verb, delays in shifts.items()}
    words = [f"{verb} {wording.duration(abs(s))} {'later' if s > 0 else 'earlier'}" for verb, s in medians.items() if s]
    return f"In the median, moved alerts {' and '.join(words)}." if words else ""


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"
