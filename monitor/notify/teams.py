"""Microsoft Teams: an Adaptive Card for the webhook of a workflow.

Input: a notification. Output: one POST with the card. Invariant: text of the plant is shown as it is, because the signs
of Markdown are escaped.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from monitor.notify.http_receiver import HttpReceiver
from monitor.notify.rendering import message_of

MAX_CARD_TEXT = 6_000
"""Characters: a card may have 28 kB."""
_MARKDOWN = re.compile(r"([\\`*\[\]])")


class Teams(HttpReceiver):
    """The receiver of one channel of kind `teams`."""

    def content(self, body: bytes) -> bytes:
        """Return the body of the request."""
        message = message_of(body, self._template, self._zone)
        text = message.lead[:MAX_CARD_TEXT]
        colour = "good" if message.is_over else "attention" if message.severity == "critical" else "warning"
        blocks: list[dict[str, Any]] = [
            {
                "type": "TextBlock",
                "text": _escape(message.title),
                "size": "large",
                "weight": "bolder",
                "color": colour,
                "wrap": True,
            }
        ]
        for paragraph in text.splitlines() or [""]:
            shown = _escape(paragraph) if message.is_own_text else paragraph
            blocks.append({"type": "TextBlock", "text": shown, "wrap": True, "spacing": "small"})
        if message.facts:
            facts = [{"title": label, "value": _escape(value)} for label, value in message.facts]
            blocks.append({"type": "FactSet", "facts": facts})
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": blocks,
            "actions": [{"type": "Action.OpenUrl", "title": label, "url": url} for label, url in message.links],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return msgspec.json.encode({"type": "message", "attachments": [attachment]})


def _escape(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
