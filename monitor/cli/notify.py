"""`monitor notify`: a test of the notification channels, and their state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output import print_json, print_json_list, timestamp
from monitor.cli.params import config_option, json_option, load_config, local_option, open_store
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.wording import number

if TYPE_CHECKING:
    from monitor.config import Config, NotifyConfig


@click.group()
@config_option
def notify() -> None:
    """Test the notification channels, and show their state."""


@notify.command("test")
@click.argument("name", required=False)
@click.option("--dry-run", "--show", "is_dry", is_flag=True, help="Show what an alert would send. Nothing is sent.")
@config_option
@json_option
def test_channels(name: str | None, is_dry: bool, as_json: bool) -> None:
    """Send a test notification to channel NAME, or to all channels.

    It goes directly to the receiver instead of through the outbox, and is marked as a test. Exit code 1: a channel did
    not accept it. With --dry-run an example alert is shown as each channel would send it.
    """
    import asyncio

    config = load_config()
    channels = _chosen_channels(config, name)
    if is_dry:
        _show_examples(config, channels, as_json=as_json)
        return
    results = asyncio.run(_send(config, channels))
    if as_json:
        print_json(results)
    else:
        for row in results:
            sign = Styled("✓", "green") if row["arrived"] else Styled("✗", "bold red")
            outcome = f"accepted in {row['took_s']:.2f} s" if row["arrived"] else row["reason"]
            echo(sign, " ", Styled(row["name"], "bold"), f" {row['url']}: {outcome}")
    if not all(row["arrived"] for row in results):
        click.get_current_context().exit(1)


@notify.command("status")
@config_option
@local_option
@json_option
def show_status(local: bool, as_json: bool) -> None:
    """Show how many notifications of each channel wait, fail and were given up.

    Delivered ones are counted for a week.
    """
    config = load_config()
    with open_store() as store:
        found = {row["name"]: row for row in store.channels()}
    configured = {channel.name: channel for channel in config.notify}
    rows = [
        {
            "name": name,
            "kind": configured[name].kind if name in configured else None,
            **{key: row.get(key, 0) for key in ("waiting", "failing", "given_up", "delivered")},
            **{key: row.get(key) for key in ("oldest_waiting_at", "last_delivered_at", "error")},
        }
        for name in sorted(configured.keys() | found.keys())
        for row in (found.get(name, {}),)
    ]
    if as_json:
        print_json_list(rows)
        return
    if not rows:
        echo_prose(f"{config.path} has no [[notify]]: no notifications are sent.")
        return
    table = Table("channel", "kind", "waiting:right", "failing:right", "given up:right", "delivered:right", "last")
    for row in rows:
        counts = (row["waiting"], row["failing"], row["given_up"], row["delivered"])
        kind, last = row["kind"] or "not configured", timestamp(row["last_delivered_at"], local=local)
        table.add(Styled(row["name"], "bold"), kind, *(number(n, 0) for n in counts), last)
    table.print()
    for row in rows:
        if row["error"]:
            since = f" since {timestamp(row['oldest_waiting_at'], local=local)}" if row["oldest_waiting_at"] else ""
            echo_prose(f"{row['name']}: {row['error']}{since}")


def _chosen_channels(config: Config, name: str | None) -> list[NotifyConfig]:
    if not config.notify:
        raise click.UsageError(f"{config.path} has no [[notify]]: no notifications are sent.")
    chosen = [channel for channel in config.notify if name in (None, channel.name)]
    if not chosen:
        names = ", ".join(channel.name for channel in config.notify)
        raise click.UsageError(f"{config.path} has no channel {name}; its channels are {names}.")
    return chosen


def _show_examples(config: Config, channels: list[NotifyConfig], *, as_json: bool) -> None:
    from monitor.clock import SystemClock
    from monitor.notify.channels import sender_of
    from monitor.notify.example import example_alert, sent_body, shown

    now_us = SystemClock().now_us()
    rows = []
    for channel in channels:
        payload = example_alert(channel, config.fleets[0].name, now_us)
        body = sent_body(channel, payload, config.console.public_url, now_us)
        content = sender_of(channel, config).content(body)
        rows.append(
            {"name": channel.name, "kind": channel.kind, "url": channel.shown_url, "key": payload["key"],
             "content": shown(content)}
        )  # fmt: skip
    if as_json:
        print_json(rows)
        return
    for row in rows:
        echo(Styled(row["name"], "bold"), f" ({row['kind']}) → {row['url']}")
        if isinstance(row["content"], str):
            echo(row["content"])
        else:
            print_json(row["content"])
        echo()


async def _send(config: Config, channels: list[NotifyConfig]) -> list[dict[str, Any]]:
    import logging

    from monitor.clock import SystemClock
    from monitor.notify.channels import sender_of
    from monitor.notify.example import sent_body, test_body

    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # the failure is reported once, below
    results = []
    for channel in channels:
        now_us = SystemClock().now_us()
        payload = test_body(channel, now_us)
        sender = sender_of(channel, config)
        started_s = time.monotonic()
        failure = await sender.send(payload["key"], sent_body(channel, payload, config.console.public_url, now_us))
        results.append(
            {
                "name": channel.name,
                "url": channel.shown_url,
                "arrived": failure is None,
                "reason": failure and failure.reason,
                "took_s": round(time.monotonic() - started_s, 3),
            }
        )
        await sender.close()
    return results
