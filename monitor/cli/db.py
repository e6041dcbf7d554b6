"""`monitor db`: the database itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from monitor.cli.params import TIME, config_option, load_config, store_url
from monitor.clock import to_us
from monitor.config.values import mask_url
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.store.engine import AsyncStore


@click.group()
@config_option
def db() -> None:
    """Look after the database."""


@db.command()
@config_option
def upgrade() -> None:
    """Create the tables, or bring them to this program's version."""
    import asyncio

    from monitor.store import schema

    url = store_url()
    before, after = asyncio.run(schema.upgrade(url))
    what = f"is at revision {after} already" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    click.echo(f"{mask_url(url)} {what}.")


@db.command()
@config_option
@click.option("--before", type=TIME, metavar="TIME", help="Instead of [store] keep_scores ago.")
def prune(before: datetime | None) -> None:
    """Delete old scores and records in quarantine; alerts are kept.

    A daemon may run meanwhile.
    """
    import asyncio

    config = load_config()
    if before is None:
        if config.store.keep_scores is None:
            raise ConfigError('[store] keep_scores = "forever"; say --before TIME')
        before = datetime.now(UTC) - config.store.keep_scores
    n_scores, n_records = asyncio.run(_prune(config.store.url, to_us(before)))
    click.echo(
        f"Deleted {n_scores:,} scores and {n_records:,} records in quarantine from before {before:%Y-%m-%d %H:%M} UTC."
    )


async def _prune(url: str, before_us: int) -> tuple[int, int]:
    from monitor.store import quarantine, scores
    from monitor.store.engine import AsyncStore

    async with AsyncStore(url) as store:
        return await _until_done(store, scores.prune, before_us), await _until_done(store, quarantine.prune, before_us)


async def _until_done(store: AsyncStore, step: Callable[..., int], before_us: int) -> int:
    """Delete in small transactions, so that a daemon never waits long for its turn."""
    total = 0
    while n := await store.run(step, before_us):
        total += n
    return total
