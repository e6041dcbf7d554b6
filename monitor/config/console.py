"""`[console]`: the address of the console and who may use it.

Input: plain values. Output: frozen objects.
"""

from __future__ import annotations

from monitor.config.base import ConfigTable


class ConsoleConfig(ConfigTable):
    """`[console]`: the pages and the API of `monitor console`."""

    listen: str = "127.0.0.1:8420"
    """Address of the console."""
    public_url: str = ""
    """Address by which operators reach it, for the links in notifications. Default: no links."""
