"""`monitor notify`: a test of the notification channels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output import print_json
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.terminal import Styled, echo

if TYPE_CHECKING:
    from monitor.config import Config, NotifyConfig


@click.group()
@config_option
def notify() -> None:
    """Test the notification channels."""


@notify.command("test")
@click.argument("name", required=False)
@config_option
@json_option
def test_channels(name: str | None, as_json: bool) -> None:
    """Send a test notification to channel NAME, or to all channels.

    It goes directly to the webhook instead of through the outbox, and is marked as a test. Exit code 1: a channel did
    not accept it.
    """
    import asyncio

    results = asyncio.run(_send(_chosen_channels(load_config(), name)))
    if as_json:
        print_json(results)
    else:
        for row in results:
            sign = Styled("✓", "green") if row["arrived"] else Styled("✗", "bold red")
            outcome = f"accepted in {row['took_s']:.2f} s" if row["arrived"] else row["reason"]
            echo(sign, " ", Styled(row["name"], "bold"), f" {row['url']}: {outcome}")
    if not all(row["arrived"] for row in results):
        click.get_current_context().exit(1)


def _chosen_channels(config: Config, name: str | None) -> list[NotifyConfig]:
    if not config.notify:
        raise click.UsageError(f"{config.path} has no [[notify]]: no notifications are sent.")
    chosen = [channel for channel in config.notify if name in (None, channel.name)]
    if not chosen:
        names = ", ".join(channel.name for channel in config.notify)
        raise click.UsageError(f"{config.path} has no channel {name}; its channels are {names}.")
    return chosen


async def _send(channels: list[NotifyConfig]) -> list[dict[str, Any]]:
    import msgspec

    from monitor.clock import SystemClock
    from monitor.notify.webhook import Webhook

    results = []
    for channel in channels:
        key = f"{channel.name}:test:{SystemClock().now_us()}"
        document = {"key": key, "step": "test", "text": "A test of monitor: notifications of alerts arrive here."}
        started_s = time.monotonic()
        failure = await Webhook(channel).send(key, msgspec.json.encode(document))
        results.append(
            {
                "name": channel.name,
                "url": channel.shown_url,
                "arrived": failure is None,
                "reason": failure and failure.reason,
                "took_s": round(time.monotonic() - started_s, 3),
            }
        )
    return results
