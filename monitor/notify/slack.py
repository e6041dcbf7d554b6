"""Slack-shaped webhooks: Slack itself, Mattermost, Rocket.Chat and others that take its blocks.

Input: a notification. Output: one POST of `text` and `blocks`. Invariant: text of the plant cannot address people or
make links, because &, < and > are escaped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from monitor.notify.http_receiver import HttpReceiver
from monitor.notify.rendering import message_of

MAX_SECTION = 2_900
"""Characters of a text block: Slack takes 3,000."""
MAX_BUTTON = 75


class Slack(HttpReceiver):
    """The receiver of one channel of kind `slack`."""

    def content(self, body: bytes) -> bytes:
        """Return the body of the request."""
        message = message_of(body, self._template, self._zone)
        text = _escape(message.lead) if message.is_own_text else message.lead
        blocks: list[dict[str, Any]] = [
            {"type": "header", "text": {"type": "plain_text", "text": message.title}},
            {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_SECTION] or "–"}},
        ]
        if message.facts:
            fields = [{"type": "mrkdwn", "text": f"*{label}*\n{_escape(value)}"} for label, value in message.facts]
            blocks.append({"type": "section", "fields": fields[:10]})
        if message.links:
            blocks.append({"type": "actions", "elements": [_button(*link) for link in message.links]})
        return msgspec.json.encode({"text": _escape(message.title), "blocks": blocks})


def _button(label: str, url: str) -> dict[str, Any]:
    return {"type": "button", "text": {"type": "plain_text", "text": label[:MAX_BUTTON]}, "url": url}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
