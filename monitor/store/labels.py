"""Labels: an operator's word on an alert, or on a time of an asset.

Input: a label, inside its transaction. Output: `alert.label`, rows of `interval_label`, and the history. Invariant: a
word is never deleted. A label that is taken back stays in the history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import ConfigError, NotFound, WrongState
from monitor.printable import escape_unprintable, normal_name
from monitor.store import acts
from monitor.types import Act

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.acts import Actor
    from monitor.types import Label

MAX_INTERVAL_US = 10 * 366 * 86_400_000_000

_LABEL = text("UPDATE alert SET label = :label, label_note = :note WHERE id = :id AND class = 'process'")
_ASSETS = text("SELECT id, fleet, name FROM asset WHERE name = :name ORDER BY fleet")
_PUT = text("""
    INSERT INTO interval_label (asset_id, from_us, to_us, label, note, actor, made_us)
    VALUES (:asset_id, :from_us, :to_us, :label, :note, :actor, :now_us) RETURNING id
""")
_REMOVE = text("""
    UPDATE interval_label SET removed_us = :now_us WHERE id = :id AND removed_us IS NULL
    RETURNING asset_id, label, from_us, to_us
""")
_IS_KNOWN = text("SELECT 1 FROM interval_label WHERE id = :id")
_NAME = text("SELECT fleet, name FROM asset WHERE id = :id")


def label_alert(
    connection: Connection, alert_id: int, label: Label | None, note: str, actor: Actor, now_us: int
) -> None:
    """Label an alert, or remove its label. Saying the same again changes nothing. Raises NotFound, WrongState."""
    note = acts.clean_note(note)
    alert = acts.alert_row(connection, alert_id)
    value = None if label is None else str(label)
    if alert.alert_class != "process":
        raise WrongState(
            f"alert {alert_id} is of class {alert.alert_class}: labels are about the readings of machines; "
            "acknowledge it, or close it with a reason"
        )
    if (alert.label, alert.label_note or "") == (value, note):
        return
    if label is None and alert.label is None:
        raise WrongState(f"alert {alert_id} has no label")
    connection.execute(_LABEL, {"id": alert_id, "label": value, "note": note if value else None})
    detail = {"label": value, "before": alert.label}
    acts.record(connection, Act.LABEL, actor, now_us, alert_id=alert_id, fleet=alert.fleet, asset=alert.asset,
                note=note, detail=detail)  # fmt: skip


def label_interval(
    connection: Connection,
    fleet: str | None,
    asset: str,
    from_us: int,
    to_us: int,
    label: Label,
    note: str,
    actor: Actor,
    now_us: int,
) -> int:
    """Label a time of an asset, (from_us, to_us] in event time. Return the label's id. Raises NotFound, ConfigError."""
    note = acts.clean_note(note)
    if to_us <= from_us:
        raise ConfigError("the labelled time must end after it begins; swap the two times")
    if to_us - from_us > MAX_INTERVAL_US:
        raise ConfigError("the labelled time is longer than ten years; label less")
    found = _asset(connection, fleet, asset)
    values = {"asset_id": found[0], "from_us": from_us, "to_us": to_us, "label": str(label), "note": note,
              "actor": escape_unprintable(actor.name)[: acts.MAX_ACTOR], "now_us": now_us}  # fmt: skip
    label_id: int = connection.execute(_PUT, values).scalar_one()
    acts.record(connection, Act.LABEL, actor, now_us, fleet=found[1], asset=found[2], note=note,
                detail=_detail(label_id, str(label), from_us, to_us))  # fmt: skip
    return label_id


def remove_interval_label(connection: Connection, label_id: int, actor: Actor, now_us: int) -> None:
    """Take a label back. Raises NotFound, WrongState."""
    row = connection.execute(_REMOVE, {"id": label_id, "now_us": now_us}).one_or_none()
    if row is None:
        if connection.execute(_IS_KNOWN, {"id": label_id}).first() is None:
            raise NotFound(f"label {label_id}; monitor alerts labels shows their numbers")
        raise WrongState(f"label {label_id} was taken back already")
    fleet, asset = connection.execute(_NAME, {"id": row.asset_id}).one()
    detail = _detail(label_id, None, row.from_us, row.to_us) | {"before": row.label}
    acts.record(connection, Act.LABEL, actor, now_us, fleet=fleet, asset=asset, detail=detail)


def _detail(label_id: int, label: str | None, from_: int, to: int) -> dict[str, object]:
    return {"interval_label": label_id, "label": label, "from": from_us(from_).isoformat(),
            "to": from_us(to).isoformat()}  # fmt: skip


def _asset(connection: Connection, fleet: str | None, asset: str) -> tuple[int, str, str]:
    """Return id, fleet and name of an asset. Raises NotFound, also where several fleets have one of this name."""
    name = normal_name(asset)
    found = connection.execute(_ASSETS, {"name": name}).all()
    here = [row for row in found if fleet is None or row.fleet == fleet]
    if not here:
        where = f" of fleet {fleet}" if fleet else ""
        raise NotFound(f"asset {escape_unprintable(name)}{where}; monitor scores show names those with scores")
    if len(here) > 1:
        raise NotFound(f"asset {escape_unprintable(name)} is in {', '.join(row.fleet for row in here)}; name --fleet")
    return here[0].id, here[0].fleet, here[0].name
