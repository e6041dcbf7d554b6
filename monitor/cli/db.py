"""`monitor db`: schema and size of the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from monitor.cli.params import TIME, config_option, load_config, store_url
from monitor.cli.terminal import echo
from monitor.clock import to_us
from monitor.config.database_url import mask_url
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from collections import Counter


@click.group()
@config_option
def db() -> None:
    """Upgrade and prune the database."""


@db.command()
@config_option
def upgrade() -> None:
    """Create the tables, or upgrade them to this version."""
    import asyncio

    from monitor.store import schema

    url = store_url()
    before, after = asyncio.run(schema.upgrade(url))
    change = f"is at revision {after} already" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    echo(f"{mask_url(url)} {change}.")


@db.command()
@config_option
@click.option("--before", type=TIME, metavar="TIME", help="Delete everything older [default: by [store] keep_scores].")
def prune(before: datetime | None) -> None:
    """Delete old scores and records in quarantine.

    Alerts are kept. Without --before the command deletes the same rows as the daemon would now. The age of a score
    counts from the newest window of its fleet that is not in the future, so a fleet that stopped keeps its last scores.
    The daemon may keep running.
    """
    import asyncio

    config = load_config()
    limit = before or config.store.keep_scores
    if limit is None:
        raise ConfigError('[store] keep_scores = "forever"; add --before TIME')
    deleted, n_records = asyncio.run(_prune(config.store.url, limit))
    by_fleet = f" ({', '.join(f'{fleet} {n:,}' for fleet, n in sorted(deleted.items()))})" if deleted else ""
    echo(f"Deleted {deleted.total():,} scores{by_fleet} and {n_records:,} records in quarantine.")


async def _prune(url: str, limit: datetime | timedelta) -> tuple[Counter[str], int]:
    from monitor.service import maintenance
    from monitor.store import assets
    from monitor.store.engine import AsyncStore

    async with AsyncStore(url) as store:
        if isinstance(limit, datetime):
            before = dict.fromkeys(await store.read(assets.fleets), to_us(limit))
        else:
            before, limit = await maintenance.expiry_by_fleet(store, limit), datetime.now(UTC) - limit
        return await maintenance.prune_scores(store, before), await maintenance.prune_quarantine(store, to_us(limit))
