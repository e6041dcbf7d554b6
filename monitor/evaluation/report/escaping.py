"""Text from outside as text of a page."""

from __future__ import annotations

import html

from monitor.printable import escape_unprintable


def escape(text: str) -> str:
    """Return the text without markup, and without characters that change the direction of writing."""
    return html.escape(escape_unprintable(text))
