"""The key of the links in notifications, and the links that were used.

Input: an open transaction. Output: the key, made at its first need, and the promise that a link serves once.
`monitor/links.py` signs and verifies.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.errors import Conflict
from monitor.links import KEY_BYTES, VALID_FOR_US
from monitor.store import labels, life
from monitor.types import Label

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.links import Link
    from monitor.store.acts import Actor

_MAKE_KEY = text("UPDATE identity SET link_key = :key WHERE link_key IS NULL")
_READ_KEY = text("SELECT link_key FROM identity")
_FORGET = text("DELETE FROM used_link WHERE used_us < :before_us")
_USE = text("INSERT INTO used_link (nonce, used_us) VALUES (:nonce, :now_us) ON CONFLICT DO NOTHING")


def key(connection: Connection) -> bytes:
    """Return the key that signs the links of this database. Of two processes that make one, the first wins."""
    stored = connection.execute(_READ_KEY).scalar_one()
    if stored is None:
        new = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        connection.execute(_MAKE_KEY, {"key": new})
        stored = connection.execute(_READ_KEY).scalar_one()
    return base64.b64decode(stored)


def use_nonce(connection: Connection, nonce: str, now_us: int) -> None:
    """Mark a link as used. Raises Conflict the second time, also for two requests at once.

    Call it in the transaction of the act. Links that have expired since are forgotten.
    """
    if not connection.execute(_USE, {"nonce": nonce, "now_us": now_us}).rowcount:
        raise Conflict("the link was used already; open the alert's page")
    connection.execute(_FORGET, {"before_us": now_us - 2 * VALID_FOR_US})


def use(connection: Connection, link: Link, note: str, actor: Actor, now_us: int) -> None:
    """Do what a link is for, once. Raises Conflict for a used one, and what the act raises."""
    use_nonce(connection, link.nonce, now_us)
    if link.act == "acknowledge":
        life.acknowledge(connection, link.alert_id, note, actor, now_us)
    else:
        label = Label(link.act.removeprefix("label-"))
        labels.label_alert(connection, link.alert_id, label, note, actor, now_us)
