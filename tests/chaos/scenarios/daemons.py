"""The daemons suffer: killed, frozen, blocked, replaced, with other models and with a clock that lies."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

from tests.chaos import journal
from tests.chaos.figures import Figures
from tests.chaos.inside import SESSION_S
from tests.chaos.scenarios.common import Later, vacuity, wait
from tests.chaos.stage import Servers, Stage, tree_commit
from tests.chaos.wrong_clock import WrongClock, find_library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.stage import Daemon


REPLICA_FAULTS = ("kill", "kill", "zombie", "ambush", "ambush", "pause", "terminate")


def replicas(
    servers: Servers, seed: int, *, n_records: int = 100_000, n_faults: int = 14, n_replicas: int = 3,
    inside: Sequence[str] = (), pause_s: tuple[float, float] = (2.0, 6.0), kinds: Sequence[str] = REPLICA_FAULTS,
) -> Figures:  # fmt: skip
    """Several daemons on one PostgreSQL: kill -9, and SIGSTOP for longer than the session, at random moments."""
    rng = random.Random(f"replicas/{seed}")
    figures = Figures("replicas", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=("ambushed", *inside)) as stage:
        daemons = [stage.daemon(f"daemon-{number}") for number in range(n_replicas)]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        stage.begin_pour(n_records, seconds=n_faults * sum(pause_s) * 0.75)
        later = Later()
        deadline = time.monotonic() + 3 * n_faults * pause_s[1]
        while len(stage.faults) < n_faults and time.monotonic() < deadline:
            wait(stage, later, rng.uniform(*pause_s))
            _hit(stage, rng, later, daemons, kinds)
        wait(stage, later, 2.0)
        while any(not daemon.is_up for daemon in daemons):
            wait(stage, later, 0.2)
        stage.finish()
        vacuity(figures, of=("rebuilt", "fenced", "late", "quarantined", "duplicate", "alerts"))
    return figures


def _hit(
    stage: Stage, rng: random.Random, later: Later, daemons: Sequence[Daemon], kinds: Sequence[str]
) -> None:  # fmt: skip
    """Something happens to one of those that have work, and usually only while the others are well."""
    n_down = sum(not daemon.is_up for daemon in daemons)
    up = stage.holders()
    if not up or (n_down and rng.random() < 0.6):
        return
    victim = rng.choice(up)
    # First what surely makes a zombie with a batch in its hands: a short run must see one fenced, too.
    kind = rng.choice(kinds) if stage.faults else "ambush"
    if kind == "ambush" and not victim.ambush(signal.SIGUSR1):
        return
    stage.note(kind, victim)
    if kind == "kill":
        victim.kill()
        later.at(rng.uniform(0, 3), victim.start)
    elif kind == "ambush":
        later.at(SESSION_S + rng.uniform(2, 6), victim.go_on)
    elif kind == "zombie":  # longer than the session: somebody else has its partitions when it wakes
        victim.stop()
        later.at(SESSION_S + rng.uniform(2, 6), victim.go_on)
    elif kind == "pause":  # shorter
        victim.stop()
        later.at(rng.uniform(0.2, SESSION_S * 0.6), victim.go_on)
    else:
        victim.terminate()
        later.at(rng.uniform(0, 2), victim.start)


def models(
    servers: Servers, seed: int, *, n_records: int = 80_000, n_retrainings: int = 4, inside: Sequence[str] = ()
) -> Figures:
    """Models are trained and change hands while replicas die, the one that trains among them."""
    rng = random.Random(f"models/{seed}")
    figures = Figures("models", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=("ambushed", *inside)) as stage:
        daemons = [stage.daemon(f"daemon-{number}") for number in range(3)]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        stage.begin_pour(n_records, seconds=n_retrainings * 25)
        stage.wait_for("something to learn from", lambda: stage.records() > n_records // 10, 60)
        later, n_refused = Later(), 0
        for _ in range(n_retrainings):
            n_refused += stage.site.command("retrain").returncode != 0  # one is under way: that is said, and right
            for _ in range(2):
                wait(stage, later, rng.uniform(1, 7))
                _hit(stage, rng, later, daemons, REPLICA_FAULTS)
            wait(stage, later, rng.uniform(4, 10))
        while any(not daemon.is_up for daemon in daemons):
            wait(stage, later, 0.2)
        stage.finish()
        [(n_versions,)] = stage.site.fetch("SELECT COUNT(DISTINCT version_id) FROM score")
        figures.measured |= {
            "versions": n_versions,
            "refused": n_refused,
            "scored_again": sum(len(daemon.events("scoring_again")) for daemon in daemons),
        }
        vacuity(figures)
        if n_versions < 2:
            figures.vacuous.append("no model changed hands")
    return figures


def clocks(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 8, inside: Sequence[str] = ()
) -> Figures:
    """As `replicas`, while the machine's clock jumps by up to a day under every daemon.

    With libfaketime it is the C library's clock, for Python and all others in the process alike; else SystemClock's.
    """
    size: dict[str, Any] = {"n_records": n_records, "n_faults": n_faults}
    library = find_library()
    if library is None:
        figures = replicas(servers, seed, inside=("clock_jumps", *inside), **size)
    else:
        with WrongClock(library, servers.new_folder("clock"), seed) as clock, servers.other_nursery(clock.environment):
            figures = replicas(servers, seed, inside=inside, **size)
        figures.measured["jumps"] = clock.n_jumps
    figures.scenario = "clocks"
    if "clocks_apart_s" not in figures.measured:
        figures.vacuous.append("no daemon saw another time")
    return figures


def blocked(
    servers: Servers, seed: int, *, n_records: int = 40_000, seconds: float = 60.0, inside: Sequence[str] = ()
) -> Figures:
    """The event loop of one of two replicas stands still, with its threads and sockets alive."""
    figures = Figures("blocked", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=(f"blocked:{seconds}", *inside)) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("both to have partitions", lambda: len(stage.holders()) == 2, 60)
        stage.begin_pour(n_records, seconds=2 * seconds + 20)
        for daemon in daemons:
            wait(stage, Later(), 3.0)
            daemon.suffer(signal.SIGUSR2)
            stage.note("loop_blocked", daemon)
            wait(stage, Later(), seconds + 4)
        stage.finish()
        vacuity(figures)
    return figures


def recovery(servers: Servers, seed: int, *, n_faults: int = 5, inside: Sequence[str] = ()) -> Figures:
    """kill -9 and a start by hand: the first new score within 10 s. No imports are spared here."""
    rng = random.Random(f"recovery/{seed}")
    figures = Figures("recovery", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=4, database="sqlite", inside=inside) as stage:
        daemon = stage.daemon("daemon")
        daemon.start(as_operator=True)
        stage.begin_pour(20_000 + 4_000 * n_faults, seconds=20 + 20 * n_faults)
        stage.wait_for("a first record", stage.records, 60)
        for _ in range(n_faults):
            wait(stage, Later(), rng.uniform(2, 5))
            stage.note("kill", daemon)
            daemon.kill()
            before = stage.records()
            daemon.start(as_operator=True)
            stage.wait_for("a new record", lambda at=before: stage.records() > at, 60, 0.1)
        stage.finish()
        moves = journal.moves(stage.site.fetch)
        waits = [_first_score(moves, began) for _, began in daemon.lives[1:]]
        figures.worst_recovery_s = max(waits)
        figures.measured |= {"restarts": len(waits), "worst_first_score_s": round(max(waits), 2)}
        figures.measured["mean_first_score_s"] = round(sum(waits) / len(waits), 2)
        if max(waits) > 10:
            figures.problems.append(f"{max(waits):.1f} s from a start to the first new score; 10 are allowed")
        vacuity(figures)
    return figures


def _first_score(moves: Sequence[journal.Move], since: float) -> float:
    """Seconds until the first save that stored a window."""
    n_windows: dict[tuple[str, int], int] = {}
    for move in moves:
        if move.at > since and move.is_save and move.n_windows > n_windows.get(move.partition, 0):
            return move.at - since
        n_windows[move.partition] = move.n_windows
    return float("inf")


def takeover(servers: Servers, seed: int, *, n_faults: int = 4, inside: Sequence[str] = ()) -> Figures:
    """One of two replicas dies and stays dead: the other has its partitions within the session timeout + 10 s."""
    rng = random.Random(f"takeover/{seed}")
    figures = Figures("takeover", seed, commit=tree_commit())
    limit_s = SESSION_S + 10
    with Stage.set_up(servers, figures, n_partitions=6, inside=inside) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.begin_pour(n_faults * 9_000, seconds=n_faults * 40)
        for _ in range(n_faults):
            stage.wait_for("both to have partitions", lambda: len(stage.holders()) == 2, 60)
            wait(stage, Later(), rng.uniform(2, 4))
            victim = rng.choice(daemons)
            stage.note("kill", victim)
            victim.kill()
            stage.wait_for("the other to have all", lambda: _n_owners(stage) == 1, 60)
            wait(stage, Later(), 2.0)
            victim.start()
        stage.finish()
        if figures.worst_recovery_s is None:
            figures.vacuous.append("nothing was taken over")
        elif figures.worst_recovery_s > limit_s:
            figures.problems.append(f"{figures.worst_recovery_s:.1f} s until a takeover; {limit_s} are allowed")
        vacuity(figures)
    return figures


def _n_owners(stage: Stage) -> int:
    return len(stage.site.fetch("SELECT DISTINCT owner FROM source_partition"))
