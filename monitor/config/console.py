"""`[console]`: the address of the console and who may use it.

Input: plain values. Output: frozen objects.
"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from monitor.config.base import ConfigTable, Names, PositiveDuration, one_of, raise_problems
from monitor.config.values import check_web_address, is_loopback, listen_address

SCOPES = ("read", "act", "admin")
"""Rights in the console, each with those before it. act: answer alerts. admin: also train models."""


class ConsoleConfig(ConfigTable):
    """`[console]`: the pages and the API of `monitor console`."""

    listen: str = "127.0.0.1:8420"
    """Address of the console."""
    allow_remote: bool = False
    """Listen on addresses that other machines reach, unencrypted. Everybody then needs a token, or `user_header`."""
    public_url: str = ""
    """Address by which operators reach it, for the links in notifications. Default: no links."""
    hosts: Names | None = None
    """Further host names by which browsers may address the console, beside localhost and that of `public_url`."""
    user_header: Annotated[str, Field(pattern=r"^([A-Za-z0-9-]{1,64})?$")] = ""
    """Header in which a reverse proxy sends the name of the logged-in user: "X-Forwarded-User". Default: none."""
    user_scope: Annotated[str, one_of(SCOPES)] = "act"
    """Rights of users that the proxy names."""
    trusted_proxies: Names = ("127.0.0.1", "::1")
    """Addresses or networks of proxies with a trusted `user_header`."""
    session: PositiveDuration = timedelta(hours=12)
    """Time after which a browser must log in again."""

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        return check_web_address(value).rstrip("/") if value else value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems = {}
        address = listen_address(self.listen)
        if address is None:
            problems["listen"] = f'"{self.listen}" is not an address; write "127.0.0.1:8420", or "[::1]:8420"'
        elif not self.allow_remote and not ip_address(address[0]).is_loopback:
            problems["listen"] = (
                f'"{self.listen}" can be reached from other machines; use "127.0.0.1:{address[1]}" behind a proxy with '
                "TLS, or set allow_remote = true: tokens then cross the network unencrypted"
            )
        for host in self.hosts or ():
            if not re.fullmatch(r"[a-z0-9._-]{1,253}|\[[0-9a-f:.]+\]", host):
                problems["hosts"] = f'"{host}" is not a host name; write it in lower case, without a port'
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy)
            except ValueError:
                problems["trusted_proxies"] = f'"{proxy}" is not an address or network; write "10.0.0.0/8"'
        raise_problems(problems)
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return listen_address(self.listen) or ("127.0.0.1", 0)  # it was checked above

    @property
    def host_names(self) -> frozenset[str]:
        """Host names, without ports, by which the console may be addressed."""
        public = urlsplit(self.public_url).hostname if self.public_url else None
        own = self.address[0]
        shown = f"[{own}]" if ":" in own else own
        return frozenset({"localhost", "127.0.0.1", "[::1]", shown, *(self.hosts or ()), *([public] if public else [])})

    @property
    def is_private(self) -> bool:
        """True if only this machine is meant to reach the console, so that its users need no token."""
        is_local = ip_address(self.address[0]).is_loopback and not self.user_header
        return is_local and all(is_loopback(host.strip("[]")) for host in self.host_names)
