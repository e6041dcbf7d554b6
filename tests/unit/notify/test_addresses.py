"""Addresses that are never connected to, in any spelling, and addresses that are allowed."""

from __future__ import annotations

import pytest

from monitor.notify.addresses import forbidden_reason, is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    ],
)
def test_metadata_and_link_local_addresses_are_forbidden(address: str) -> None:
    assert forbidden_reason(address) == "is link-local or a cloud's metadata service"


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "240.0.0.1", "255.255.255.255"],
)
def test_unusable_addresses_are_forbidden(address: str) -> None:
    assert forbidden_reason(address) == "is no machine's address"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "fd12:3456::1",
        "100.64.0.1",
        "8.8.8.8",
        "2606:4700::1111",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_loopback_private_and_public_addresses_are_allowed(address: str) -> None:
    assert forbidden_reason(address) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::2", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_loopback_is_known_in_any_spelling(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
