"""Which addresses a webhook is never sent to: those where a cloud hands out its machines' credentials, and nobody's.

Law: what is judged is the address that the connection is made to, after names were resolved; so neither a name nor a
number written in another way gets past. Private networks and this machine are allowed: webhooks live there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Metadata services that are not on a link-local address: AWS (IPv6), Google (IPv6), Alibaba, Oracle, Azure's host.
METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
# Prefixes that carry an IPv4 address in their last 32 bits: the old "compatible" form, and NAT64 (RFC 6052, 8215).
_CARRIERS = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/96")))
_THIS_NETWORK = 0  # 0.0.0.0/8, which Linux takes for this machine


def why_never(address: str) -> str | None:
    """Say why an address is never connected to; None = it may be."""
    for meant in _meanings(ip_address(address)):
        if meant.is_link_local or meant in METADATA:
            return "is link-local or a cloud's metadata service"
        is_nobodys = meant.is_multicast or meant.is_unspecified
        if isinstance(meant, IPv4Address) and not is_nobodys:
            is_nobodys = meant.packed[0] == _THIS_NETWORK or meant.is_reserved
        if is_nobodys:
            return "is no machine's address"
    return None


def is_loopback(address: str) -> bool:
    """Say whether an address is this machine's own."""
    found = ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def _meanings(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the address, and any IPv4 address that it stands for."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    bare = IPv6Address(int(address))  # without the scope, which no network contains
    if int(bare) > 1 and any(bare in carrier for carrier in _CARRIERS):  # ::1 is this machine, not 0.0.0.1
        yield IPv4Address(int(bare) & 0xFFFFFFFF)
