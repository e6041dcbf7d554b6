"""Faults of the daemons: killed, suspended, blocked, replaced, with new models and with a wrong clock."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from monitor import control
from monitor.clock import SystemClock
from monitor.errors import WrongState
from monitor.store import versions
from monitor.store.engine import AsyncStore
from tests.chaos import journal
from tests.chaos.environment import Environment, Servers, tree_commit
from tests.chaos.figures import Figures
from tests.chaos.hooks import SESSION_S
from tests.chaos.scenarios.common import Later, require, wait
from tests.chaos.wrong_clock import WrongClock, find_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.config import Config
    from tests.chaos.environment import ChaosDaemon


REPLICA_FAULTS = ("kill", "kill", "zombie", "suspend_at_commit", "suspend_at_commit", "pause", "terminate")


def replicas(
    servers: Servers, seed: int, *, n_records: int = 100_000, n_faults: int = 14, n_replicas: int = 3,
    hooks: Sequence[str] = (), pause_s: tuple[float, float] = (2.0, 6.0), kinds: Sequence[str] = REPLICA_FAULTS,
) -> Figures:  # fmt: skip
    """Several daemons on one PostgreSQL, with kill -9 and SIGSTOP for longer than the session at random moments."""
    rng = random.Random(f"replicas/{seed}")
    figures = Figures("replicas", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=6, hooks=("suspend_at_commit", *hooks)) as env:
        daemons = [env.daemon(f"daemon-{number}") for number in range(n_replicas)]
        for daemon in daemons:
            daemon.start()
        env.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        env.start_traffic(n_records, seconds=n_faults * sum(pause_s) * 0.75)
        later = Later()
        deadline = time.monotonic() + 3 * n_faults * pause_s[1]
        while len(env.faults) < n_faults and time.monotonic() < deadline:
            wait(env, later, rng.uniform(*pause_s))
            _inject_fault(env, rng, later, daemons, kinds)
        wait(env, later, 2.0)
        while any(not daemon.is_up for daemon in daemons):
            wait(env, later, 0.2)
        env.finish()
        require(figures, of=("rebuilt", "fenced", "late", "quarantined", "duplicate", "alerts"))
    return figures


def _inject_fault(
    env: Environment, rng: random.Random, later: Later, daemons: Sequence[ChaosDaemon], kinds: Sequence[str]
) -> None:  # fmt: skip
    """Inject a fault into a daemon with partitions, usually only while the others are up."""
    n_down = sum(not daemon.is_up for daemon in daemons)
    up = env.holders()
    if not up or (n_down and rng.random() < 0.6):
        return
    victim = rng.choice(up)
    # The first fault makes a zombie with an open batch for sure: a short run must have one fenced, too.
    kind = rng.choice(kinds) if env.faults else "suspend_at_commit"
    if kind == "suspend_at_commit" and not victim.suspend_at_commit(signal.SIGUSR1):
        return
    env.record_fault(kind, victim)
    if kind == "kill":
        victim.kill()
        later.at(rng.uniform(0, 3), victim.start)
    elif kind == "suspend_at_commit":
        later.at(SESSION_S + rng.uniform(2, 6), victim.resume)
    elif kind == "zombie":  # longer than the session: another owns its partitions when it resumes
        victim.suspend()
        later.at(SESSION_S + rng.uniform(2, 6), victim.resume)
    elif kind == "pause":  # shorter
        victim.suspend()
        later.at(rng.uniform(0.2, SESSION_S * 0.6), victim.resume)
    else:
        victim.terminate()
        later.at(rng.uniform(0, 2), victim.start)


def models(
    servers: Servers, seed: int, *, n_records: int = 80_000, n_retrainings: int = 4, hooks: Sequence[str] = ()
) -> Figures:
    """Models are trained and promoted while replicas are killed, the training one among them."""
    rng = random.Random(f"models/{seed}")
    figures = Figures("models", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=6, hooks=("suspend_at_commit", *hooks)) as env:
        daemons = [env.daemon(f"daemon-{number}") for number in range(3)]
        for daemon in daemons:
            daemon.start()
        env.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        env.start_traffic(n_records, seconds=n_retrainings * 25)
        env.wait_for("records to train on", lambda: env.records() > n_records // 10, 60)
        later, n_refused = Later(), 0
        for _ in range(n_retrainings):
            n_refused += (
                env.deployment.command("retrain").returncode != 0
            )  # refused while another job runs, as it should be
            for _ in range(2):
                wait(env, later, rng.uniform(1, 7))
                _inject_fault(env, rng, later, daemons, REPLICA_FAULTS)
            wait(env, later, rng.uniform(4, 10))
        _finish_with_versions(env, later, daemons, {"refused": n_refused}, "no model was promoted")
    return figures


def swaps(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_swaps: int = 200, hooks: Sequence[str] = ()
) -> Figures:
    """Operators promote and roll back versions at random moments, while replicas score and are killed."""
    rng = random.Random(f"swaps/{seed}")
    figures = Figures("swaps", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=6, hooks=("suspend_at_commit", *hooks)) as env:
        config = env.deployment.config
        known = [row[0] for row in env.deployment.fetch("SELECT version FROM model_version")]
        known += [env.deployment.install_model(seed=number, is_champion=False) for number in (8, 9)]
        daemons = [env.daemon(f"daemon-{number}") for number in range(2)]
        for daemon in daemons:
            daemon.start()
        env.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        env.start_traffic(n_records, seconds=n_swaps * 0.4)
        later, n_done, n_acts = Later(), 0, 0
        while n_done < n_swaps:
            wait(env, later, rng.uniform(0.0, 0.5))
            n_done += asyncio.run(_swap(config, rng, known))
            n_acts += 1
            if n_acts % max(10, n_swaps // 4) == 0:
                _inject_fault(env, rng, later, daemons, REPLICA_FAULTS)
        _finish_with_versions(env, later, daemons, {"swaps": n_done}, "one version decided all windows")
    return figures


def _finish_with_versions(
    env: Environment, later: Later, daemons: Sequence[ChaosDaemon], measured: Mapping[str, int], vacuous: str
) -> None:
    """Let all daemons come up and finish, and tell the versions. `vacuous`: said where one decided all windows."""
    while any(not daemon.is_up for daemon in daemons):
        wait(env, later, 0.2)
    env.finish()
    [(n_versions,)] = env.deployment.fetch("SELECT COUNT(DISTINCT version_id) FROM score")
    env.figures.measured |= {
        "versions": n_versions,
        **measured,
        "scored_again": sum(len(daemon.events("scoring_again")) for daemon in daemons),
    }
    require(env.figures)
    if n_versions < 2:
        env.figures.vacuous.append(vacuous)


async def _swap(config: Config, rng: random.Random, known: Sequence[str]) -> bool:
    """Promote one of the versions or roll back, as an operator's command does. Return whether the champion changed."""
    fleet, clock, actor = config.fleets[0].name, SystemClock(), control.Actor("eva", "cli")
    async with AsyncStore(config.store.url) as store:
        before = await store.read(versions.champion, fleet)
        if rng.random() < 0.4:
            with suppress(WrongState):  # there is no version before
                await control.roll_back(store, clock, config, fleet, actor=actor)
        else:
            await control.promote_version(store, clock, config, rng.choice(known), actor=actor)
        return await store.read(versions.champion, fleet) != before


def clocks(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 8, hooks: Sequence[str] = ()
) -> Figures:
    """`replicas`, while the clock of every daemon jumps by up to a day.

    With libfaketime it is the C library's clock, for all code in the process. Else it is SystemClock's.
    """
    size: dict[str, Any] = {"n_records": n_records, "n_faults": n_faults}
    library = find_library()
    if library is None:
        figures = replicas(servers, seed, hooks=("clock_jumps", *hooks), **size)
    else:
        with (
            WrongClock(library, servers.new_folder("clock"), seed) as clock,
            servers.other_fork_server(clock.environment),
        ):
            figures = replicas(servers, seed, hooks=hooks, **size)
        figures.measured["jumps"] = clock.n_jumps
    figures.scenario = "clocks"
    if "clocks_apart_s" not in figures.measured:
        figures.vacuous.append("no daemon saw another time")
    return figures


def blocked(
    servers: Servers, seed: int, *, n_records: int = 40_000, seconds: float = 60.0, hooks: Sequence[str] = ()
) -> Figures:
    """The event loop of one of two replicas is blocked, with its threads and sockets alive."""
    figures = Figures("blocked", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=6, hooks=(f"block_loop:{seconds}", *hooks)) as env:
        daemons = [env.daemon("daemon-0"), env.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        env.wait_for("both to have partitions", lambda: len(env.holders()) == 2, 60)
        env.start_traffic(n_records, seconds=2 * seconds + 20)
        for daemon in daemons:
            wait(env, Later(), 3.0)
            daemon.send_signal(signal.SIGUSR2)
            env.record_fault("loop_blocked", daemon)
            wait(env, Later(), seconds + 4)
        env.finish()
        require(figures)
    return figures


def recovery(servers: Servers, seed: int, *, n_faults: int = 5, hooks: Sequence[str] = ()) -> Figures:
    """kill -9 and a start with the command line: the first new score within 10 s, imports included."""
    rng = random.Random(f"recovery/{seed}")
    figures = Figures("recovery", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=4, database="sqlite", hooks=hooks) as env:
        daemon = env.daemon("daemon")
        daemon.start(as_operator=True)
        env.start_traffic(20_000 + 4_000 * n_faults, seconds=20 + 20 * n_faults)
        env.wait_for("a first record", env.records, 60)
        for _ in range(n_faults):
            wait(env, Later(), rng.uniform(2, 5))
            env.record_fault("kill", daemon)
            daemon.kill()
            before = env.records()
            daemon.start(as_operator=True)
            env.wait_for("a new record", lambda at=before: env.records() > at, 60, 0.1)
        env.finish()
        moves = journal.moves(env.deployment.fetch)
        waits = [_first_score(moves, began) for _, began in daemon.starts[1:]]
        figures.worst_recovery_s = max(waits)
        figures.measured |= {"restarts": len(waits), "worst_first_score_s": round(max(waits), 2)}
        figures.measured["mean_first_score_s"] = round(sum(waits) / len(waits), 2)
        if max(waits) > 10:
            figures.problems.append(f"{max(waits):.1f} s from a start to the first new score; 10 are allowed")
        require(figures)
    return figures


def _first_score(moves: Sequence[journal.Move], since: float) -> float:
    """Return the seconds until the first commit with a window."""
    n_windows: dict[tuple[str, int], int] = {}
    for move in moves:
        if move.at > since and move.is_save and move.n_windows > n_windows.get(move.partition, 0):
            return move.at - since
        n_windows[move.partition] = move.n_windows
    return float("inf")


def takeover(servers: Servers, seed: int, *, n_faults: int = 4, hooks: Sequence[str] = ()) -> Figures:
    """One of two replicas is killed. The other owns its partitions within the session timeout + 10 s."""
    rng = random.Random(f"takeover/{seed}")
    figures = Figures("takeover", seed, commit=tree_commit())
    limit_s = SESSION_S + 10
    with Environment.set_up(servers, figures, n_partitions=6, hooks=hooks) as env:
        daemons = [env.daemon("daemon-0"), env.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        env.start_traffic(n_faults * 9_000, seconds=n_faults * 40)
        for _ in range(n_faults):
            env.wait_for("both to have partitions", lambda: len(env.holders()) == 2, 60)
            wait(env, Later(), rng.uniform(2, 4))
            victim = rng.choice(daemons)
            env.record_fault("kill", victim)
            victim.kill()
            env.wait_for("the other to have all", lambda: _n_owners(env) == 1, 60)
            wait(env, Later(), 2.0)
            victim.start()
        env.finish()
        if figures.worst_recovery_s is None:
            figures.vacuous.append("nothing was taken over")
        elif figures.worst_recovery_s > limit_s:
            figures.problems.append(f"{figures.worst_recovery_s:.1f} s until a takeover; {limit_s} are allowed")
        require(figures)
    return figures


def _n_owners(env: Environment) -> int:
    return len(env.deployment.fetch("SELECT DISTINCT owner FROM source_partition"))
