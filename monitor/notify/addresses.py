"""Addresses that a webhook request is never sent to: metadata services of clouds, link-local and unusable addresses.

A metadata service hands out the machine's credentials to any local request.

Input: an address that a host name was resolved to. Output: the reason why it is forbidden, or None.
Invariant: the check is made on the address that the connection goes to, so another spelling of it, or a name that
resolves to it, does not pass. Private networks and this machine are allowed, because webhooks run there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Metadata services that are not on a link-local address: AWS (IPv6), Google (IPv6), Alibaba, Oracle, Azure's host.
METADATA_SERVICES = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
# Prefixes that carry an IPv4 address in their last 32 bits: the old "compatible" form, and NAT64 (RFC 6052, 8215).
_IPV4_IN_LAST_32_BITS = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/96")))
_THIS_NETWORK = 0  # 0.0.0.0/8: Linux connects to this machine


def forbidden_reason(address: str) -> str | None:
    """Return the reason why no request is sent to an address; None = it is allowed."""
    for target in _targets(ip_address(address)):
        if target.is_link_local or target in METADATA_SERVICES:
            return "is link-local or a cloud's metadata service"
        is_unusable = target.is_multicast or target.is_unspecified
        if isinstance(target, IPv4Address) and not is_unusable:
            is_unusable = target.packed[0] == _THIS_NETWORK or target.is_reserved
        if is_unusable:
            return "is no machine's address"
    return None


def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own."""
    found = ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def _targets(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the address, and each IPv4 address that is embedded in it."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    without_scope = IPv6Address(int(address))  # a network contains no address with a scope
    if int(without_scope) > 1 and any(without_scope in prefix for prefix in _IPV4_IN_LAST_32_BITS):  # ::1 is loopback
        yield IPv4Address(int(without_scope) & 0xFFFFFFFF)
