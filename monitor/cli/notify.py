"""`monitor notify`: does a letter reach those who are to be told?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output import emit
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.terminal import Styled, echo

if TYPE_CHECKING:
    from monitor.config import Config, NotifyConfig


@click.group()
@config_option
def notify() -> None:
    """Try the channels that are told of alerts."""


@notify.command("test")
@click.argument("name", required=False)
@config_option
@json_option
def test_channels(name: str | None, as_json: bool) -> None:
    """Send a test letter to the channel NAME, or to all.

    It goes straight to the webhook, past the outbox, and says that it is a test. Exit code 1: it did not arrive.
    """
    config = load_config()
    channels = _choose(config, name)

    import asyncio

    found = asyncio.run(_send(channels))
    if as_json:
        emit(found)
    for row in found if not as_json else ():
        sign = Styled("✓", "green") if row["arrived"] else Styled("✗", "bold red")
        outcome = f"took it, {row['took_s']:.2f} s" if row["arrived"] else row["reason"]
        echo(sign, " ", Styled(row["name"], "bold"), f" {row['url']}: {outcome}")
    if not all(row["arrived"] for row in found):
        click.get_current_context().exit(1)


def _choose(config: Config, name: str | None) -> list[NotifyConfig]:
    if not config.notify:
        raise click.UsageError(f"{config.path} has no [[notify]]: nobody is told of alerts.")
    chosen = [channel for channel in config.notify if name in (None, channel.name)]
    if not chosen:
        names = ", ".join(channel.name for channel in config.notify)
        raise click.UsageError(f"{config.path} has no channel {name}. There are {names}.")
    return chosen


async def _send(channels: list[NotifyConfig]) -> list[dict[str, Any]]:
    import msgspec

    from monitor.clock import SystemClock
    from monitor.notify.webhook import Webhook

    found = []
    for channel in channels:
        key = f"{channel.name}:test:{SystemClock().now_us()}"
        document = {"key": key, "step": "test", "text": "A test of monitor's: alerts will be told here."}
        began_s = time.monotonic()
        failure = await Webhook(channel).send(key, msgspec.json.encode(document))
        found.append(
            {
                "name": channel.name,
                "url": channel.shown_url,
                "arrived": failure is None,
                "reason": failure and failure.reason,
                "took_s": round(time.monotonic() - began_s, 3),
            }
        )
    return found
