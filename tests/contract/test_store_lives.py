"""Random sequences of pipeline changes, operators' acts and ticks: the laws of an alert's life.

The machine runs each sequence twice at once: with acts, and in a second database without any. The pipeline's columns
and transitions must be equal in both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, text

from monitor.errors import ConfigError, Conflict, NotFound
from monitor.store import assets, labels, life, maintenance_windows, outbox, releases, shelves
from monitor.store.acts import Actor
from monitor.store.matching import Target, Window
from monitor.store.outbox import Channel
from monitor.types import AlertChange, AlertState, Label, Partition, Severity
from tests.simulation.store import Database

FIRING, RECOVERING, CLOSED = AlertState.FIRING, AlertState.RECOVERING, AlertState.CLOSED
NEXT = {FIRING: (FIRING, RECOVERING, CLOSED), RECOVERING: (FIRING, CLOSED)}
NAMES = ("a", "b", "c[1]")
MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000
CHANNELS = (Channel("people", by_incident=True), Channel("machine"))
ANN = Actor("ann", "cli")
ALERTS = st.integers(1, 3)
PIPELINE = """
    SELECT asset_id, opened_us, state, severity, updated_us, closed_us, peak_score, peak_us, n_anomalous
    FROM alert ORDER BY asset_id, opened_us
"""
TRANSITIONS = """
    SELECT asset_id, opened_us, seq, alert_transition.state, at_us FROM alert_transition
    JOIN alert ON alert.id = alert_id ORDER BY 1, 2, 3
"""


@dataclass
class Plant:
    """A database and its open alerts."""

    open: dict[int, AlertChange] = field(default_factory=dict)
    """By asset."""

    def __post_init__(self) -> None:
        self._database = Database()
        found = self.run(assets.register, "f", NAMES, Partition("t", 0))
        self.ids = [found[name].id for name in NAMES]
        self.close = self._database.close

    def run(self, fn: Any, *args: Any) -> Any:
        return self._database.transact(fn, *args)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._database.rows(sql)]


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.acted, self.plain = Plant(), Plant()
        self.minute = 0
        self.history: list[tuple[Any, ...]] = []

    def teardown(self) -> None:
        self.acted.close()
        self.plain.close()

    @property
    def now_us(self) -> int:
        """Event time and processing time run together."""
        return START_US + self.minute * MINUTE_US

    # ------------------------------------------------------------------ the pipeline

    @rule(changes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([1.5, 2.9, 3.1, 8.0])),
                           min_size=1, max_size=4))  # fmt: skip
    def change(self, changes: list[tuple[int, int, float]]) -> None:
        """Several changes at once: acts are rarer than windows."""
        for asset, step, peak in changes:
            self.change_one(asset, step, peak, minutes=20 if step == 0 else 1)

    def change_one(self, asset: int, step: int, peak: float, minutes: int) -> None:
        self.minute += minutes
        last = self.acted.open.get(asset)
        if last is None:
            severity = Severity.CRITICAL if peak >= 3 else Severity.WARNING
            change = AlertChange("f", asset, self.now_us, self.now_us, FIRING, severity, peak, self.now_us, 3, (), "v")
        else:
            choices = NEXT[last.state]
            state = choices[step % len(choices)]
            peak = max(peak, last.peak_score) if state is FIRING else last.peak_score
            severity = Severity.CRITICAL if peak >= 3 else Severity.WARNING
            change = replace(last, at_us=self.now_us, state=state, peak_score=peak, severity=severity,
                             is_transition=state is not last.state)  # fmt: skip
        for plant in (self.acted, self.plain):
            plant.run(_commit, plant.ids[asset], change)
            plant.open[asset] = change
            if change.state is CLOSED:
                del plant.open[asset]

    # ------------------------------------------------------------------ operators

    def act(self, fn: Any, *args: Any) -> None:
        """Act. A refusal changes nothing."""
        before = self.acted.rows("SELECT * FROM act")
        try:
            self.acted.run(fn, *args, ANN, self.now_us)
        except (Conflict, NotFound, ConfigError):
            assert self.acted.rows("SELECT * FROM act") == before

    @rule(alert=ALERTS)
    def acknowledge(self, alert: int) -> None:
        self.act(life.acknowledge, alert, "")

    @rule(alert=ALERTS, is_closed=st.booleans())
    def end_answer(self, alert: int, is_closed: bool) -> None:
        self.act(life.close if is_closed else life.unacknowledge, alert, "known")

    @rule(alert=ALERTS, label=st.sampled_from([*Label, None]))
    def label(self, alert: int, label: Label | None) -> None:
        self.act(labels.label_alert, alert, label, "")

    @rule(what=st.sampled_from([Target(1), Target(2), Target(asset="a"), Target(asset="c[1]"), Target(fleet="f")]),
          until=st.sampled_from(["30m", "recovered", "worse:2x", "2x/1d", "worse:2x or 1h"]))  # fmt: skip
    def shelve(self, what: Target, until: str) -> None:
        self.act(shelves.shelve, what, until, "because")

    @rule(number=st.integers(1, 3), is_shelf=st.booleans())
    def end(self, number: int, is_shelf: bool) -> None:
        if is_shelf:
            self.act(shelves.end_by_hand, number, "")
        else:
            self.act(maintenance_windows.end, number)

    @rule(asset=st.sampled_from(["a", "c[1]", "*"]), minutes=st.integers(1, 60))
    def plan_maintenance(self, asset: str, minutes: int) -> None:
        window = Window("f", asset, self.now_us, self.now_us + minutes * MINUTE_US)
        self.act(maintenance_windows.plan, window, "oil")

    # ------------------------------------------------------------------ the daemon

    @rule()
    def tick(self) -> None:
        self.acted.run(releases.release, CHANNELS, self.now_us)
        assert not self.acted.run(releases.is_due, CHANNELS, self.now_us)

    @precondition(lambda self: self.minute < 10_000)
    @rule()
    def let_a_month_pass(self) -> None:
        """Every shelf ends, and what still fires without maintenance is notified."""
        self.minute += 31 * 1440
        for plant in (self.acted, self.plain):
            plant.run(_move_clock, self.now_us)
        self.acted.run(releases.release, CHANNELS, self.now_us)
        assert self.acted.rows("SELECT id FROM shelf WHERE ended_us IS NULL") == []
        open_ = "state <> 'closed' AND closed_by_hand_us IS NULL"
        assert self.acted.rows(f"SELECT id FROM alert WHERE {open_} AND suppressed_by IS NOT NULL") == []

    # ------------------------------------------------------------------ the laws

    @invariant()
    def acts_never_change_the_pipeline(self) -> None:
        for sql in (PIPELINE, TRANSITIONS):
            assert self.acted.rows(sql) == self.plain.rows(sql)

    @invariant()
    def no_closed_alert_is_acknowledged(self) -> None:
        closed = "(state = 'closed' OR closed_by_hand_us IS NOT NULL)"
        assert self.acted.rows(f"SELECT id FROM alert WHERE {closed} AND acknowledged_by IS NOT NULL") == []
        halves = "(acknowledged_by IS NULL) <> (acknowledged_us IS NULL)"
        assert self.acted.rows(f"SELECT id FROM alert WHERE {halves}") == []

    @invariant()
    def the_history_only_grows_and_explains_each_state(self) -> None:
        history = self.acted.rows("SELECT * FROM act ORDER BY id")
        assert history[: len(self.history)] == self.history
        self.history = history
        acts = self.acted.rows("SELECT alert_id, act FROM act WHERE alert_id IS NOT NULL ORDER BY id")
        for alert_id, by, by_hand_us in self.acted.rows("SELECT id, acknowledged_by, closed_by_hand_us FROM alert"):
            own = [act for number, act in acts if number == alert_id]
            n = {name: own.count(name) for name in ("acknowledge", "unacknowledge", "close", "reopen")}
            is_acknowledged = by is not None
            # A closing by hand ends an acknowledgement, too.
            assert n["acknowledge"] - n["unacknowledge"] in range(is_acknowledged, is_acknowledged + n["close"] + 1)
            assert n["close"] - n["reopen"] == (by_hand_us is not None)

    @invariant()
    def every_alert_is_in_an_incident_that_is_open_with_it(self) -> None:
        assert self.acted.rows("SELECT id FROM alert WHERE incident_id IS NULL") == []
        sql = """
            SELECT incident.id, closed_us IS NULL, n_alerts, (
                SELECT COUNT(*) FROM alert WHERE incident_id = incident.id), (
                SELECT COUNT(*) FROM alert WHERE incident_id = incident.id AND state <> 'closed'
                    AND closed_by_hand_us IS NULL)
            FROM incident
        """
        for number, is_open, n_alerts, n_found, n_open in self.acted.rows(sql):
            assert (n_alerts, bool(is_open)) == (n_found, n_open > 0), number

    @invariant()
    def shelves_have_an_end(self) -> None:
        assert self.acted.rows("SELECT id FROM shelf WHERE until_us <= made_us OR until_us IS NULL") == []
        assert self.acted.rows("SELECT id FROM shelf WHERE (ended_us IS NULL) <> (ended_why IS NULL)") == []


def _commit(connection: Connection, asset_id: int, change: AlertChange) -> None:
    _move_clock(connection, change.at_us)
    outbox.write_change(connection, CHANNELS, asset_id, change, change.at_us)


def _move_clock(connection: Connection, at_us: int) -> None:
    connection.execute(text("DELETE FROM last_window"))
    connection.execute(
        text("INSERT INTO last_window (asset_id, start_us, end_us) SELECT id, :start_us, :end_us FROM asset"),
        {"start_us": at_us - 10 * MINUTE_US, "end_us": at_us},
    )


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
