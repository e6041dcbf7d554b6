"""`monitor models promote`, `rollback` and `reject`: an operator moves the aliases of a fleet's versions.

Input: a version or a fleet, a note. Output: what changed, from which event time, what happens to alerts, and the
command that takes it back. Invariants: nothing is asked, since each of them can be undone. No daemon is needed: the
change is a transaction of the database, and a running daemon loads the version within seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.acting import by_option, note_option, once
from monitor.cli.output import argument, print_json, time_zone, timestamp
from monitor.cli.params import config_option, json_option, load_config, local_option, open_store
from monitor.cli.terminal import Styled, echo, echo_facts
from monitor.errors import Conflict, NotFound
from monitor.store.queries import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.clock import Clock
    from monitor.control import Actor
    from monitor.store.engine import AsyncStore
    from monitor.store.reader import Reader
    from monitor.store.versions import Activation

ALERTS = "open alerts stay open and follow the new version's scores. Past scores and alerts keep their version"
MARKED = "Those that {} raised are marked"
NO_DAEMON = "No daemon is running: it takes effect when one starts (monitor run)."


@click.command("promote")
@config_option
@click.argument("version")
@click.option("--fleet", help="Fleet of the alias, where several have it.")
@click.option("--force", is_flag=True, help="Also a version that the gate rejected; --note must say why.")
@note_option
@by_option
@local_option
@json_option
def promote(
    version: str, fleet: str | None, force: bool, note: str, by: str | None, local: bool, as_json: bool
) -> None:
    """Make VERSION (or the alias challenger or previous) the champion of its fleet.

    It decides all windows that end after the newest decided one. The former champion becomes `previous`, and
    `monitor models rollback` returns to it.
    """
    with open_store() as store:
        row = store.model(version, fleet=fleet)
        former = _champion(store, row["fleet"])
    if row["state"] == "champion":
        raise Conflict(f"{row['version']} is the champion of {row['fleet']} already; nothing was changed")
    if row["state"] == "rejected":
        if not force:
            raise Conflict(
                f"{row['version']} was rejected: {row['why'] or 'no reason is stored'}. If you know better, "
                f'monitor models promote {row["version"]} --force --note "the reason" promotes it all the same'
            )
        if not note.strip():
            raise click.UsageError("--force needs --note: those who come later must learn why the gate was overruled.")

    config = load_config()

    async def act(store: AsyncStore, clock: Clock, actor: Actor) -> tuple[Activation, int]:
        from monitor import control

        active = await control.promote_version(
            store, clock, config, row["version"], actor=actor, note=note, overrule=force
        )
        return active, await control.count_daemons(store, clock)

    active, n_daemons = once(act, by)
    moved = Moved("promoted", row["fleet"], former, active.version, iso(active.from_window_end_us), n_daemons)
    moved.report(note, local=local, as_json=as_json)


@click.command("rollback")
@config_option
@click.argument("fleet", required=False)
@note_option
@by_option
@local_option
@json_option
def roll_back(fleet: str | None, note: str, by: str | None, local: bool, as_json: bool) -> None:
    """Return FLEET (or the only fleet with a champion) to the version before its champion.

    The rolled-back version is never promoted again by itself, and the alerts that it raised are marked. A second
    roll-back undoes the first.
    """
    with open_store() as store:
        champion = _champion_to_leave(store, fleet)
    name, config = champion["fleet"], load_config()

    async def act(store: AsyncStore, clock: Clock, actor: Actor) -> tuple[Activation, int]:
        from monitor import control

        active = await control.roll_back(store, clock, config, name, actor=actor, note=note)
        return active, await control.count_daemons(store, clock)

    active, n_daemons = once(act, by)
    after = iso(active.from_window_end_us)
    moved = Moved("rolled back", name, champion["version"], active.version, after, n_daemons)
    moved.report(note, local=local, as_json=as_json)


@click.command("reject")
@config_option
@click.argument("version")
@click.option("--fleet", help="Fleet of the alias, where several have it.")
@note_option
@by_option
@json_option
def reject(version: str, fleet: str | None, note: str, by: str | None, as_json: bool) -> None:
    """Reject VERSION (or the alias challenger), which waits for a decision. The champion stays."""
    with open_store() as store:
        row = store.model(version, fleet=fleet)

    async def act(store: AsyncStore, clock: Clock, actor: Actor) -> None:
        from monitor import control

        await control.reject_version(store, clock, row["version"], actor=actor, note=note)

    once(act, by)
    if as_json:
        print_json({"done": "rejected", "fleet": row["fleet"], "version": row["version"], "note": note})
        return
    echo(Styled("✗ ", "red"), f"{row['version']} of {row['fleet']} is rejected. The champion goes on deciding.")
    again = f'monitor models promote {row["version"]} --force --note "…"'
    echo_facts({"to undo": again})


def _champion_to_leave(store: Reader, fleet: str | None) -> Mapping[str, Any]:
    """Return the champion of a fleet, or of the only one. Raises NotFound, UsageError."""
    champions = {row["fleet"]: row for row in store.models() if row["state"] == "champion"}
    if fleet is None and len(champions) > 1:
        raise click.UsageError(f"Several fleets have a champion; name one of {', '.join(sorted(champions))}.")
    found = champions.get(fleet) if fleet else next(iter(champions.values()), None)
    if found is None:
        known = [row["fleet"] for row in store.fleets()]
        if fleet is not None and fleet not in known:
            raise NotFound(f"fleet {fleet}; the database knows {', '.join(known) or 'none yet: start the daemon once'}")
        of_fleet = f" of {fleet}" if fleet else ""
        raise NotFound(f"a champion{of_fleet}, so there is nothing to leave; monitor models list shows the versions")
    return found


def _champion(store: Reader, fleet: str) -> str | None:
    """Return the champion of a fleet. None before the first."""
    rows = store.models(fleet=fleet)
    return next((row["version"] for row in rows if row["state"] == "champion"), None)


@dataclass(frozen=True, slots=True)
class Moved:
    """A promotion or a roll-back that is done."""

    done: str
    """promoted, rolled back"""
    fleet: str
    former: str | None
    """The champion before. None = there was none."""
    version: str
    """The champion now."""
    decides_after: str | None
    """It decides windows that end after. None = all."""
    n_daemons: int

    def report(self, note: str, *, local: bool, as_json: bool) -> None:
        """Print what changed, from which event time on, and the way back."""
        undo = f"monitor models rollback {argument(self.fleet)}" if self.former else None
        if as_json:
            facts = asdict(self)
            n_daemons = facts.pop("n_daemons")
            print_json({**facts, "daemons": n_daemons, "note": note, "undo": undo})
            return
        if self.done == "promoted":
            echo(Styled("★ ", "bold green"), Styled(self.version, "bold"), f" is the champion of {self.fleet}")
        else:
            echo(Styled("↺ ", "bold yellow"), f"{self.fleet} is rolled back to ", Styled(self.version, "bold"))
        after = f"windows that end after {timestamp(self.decides_after, local=local)}"
        echo_facts(
            {
                "before": self.former or "no champion",
                "decides": after if self.decides_after else "all windows",
                "alerts": ALERTS if self.done == "promoted" else f"{ALERTS}. {MARKED.format(self.former)}",
                "to undo": undo,
            }
        )
        echo(Styled(f"\n{time_zone(local=local)}", "dim"))
        if self.n_daemons == 0:
            echo(Styled(NO_DAEMON, "yellow"), err=True)


COMMANDS = (promote, roll_back, reject)
