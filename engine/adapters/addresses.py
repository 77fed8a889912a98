"""Which addresses one may connect to: never those of this machine or of the network around it.

A name is resolved here, every address it has is looked at, and the connection goes to one of exactly
those: a name that answers otherwise a moment later changes nothing. Numbers in other spellings
(2130706433, 0177.1) are what the system's resolver makes of them, and are looked at as addresses.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_OUTSIDE = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    )
)
"""IANA's special-purpose registries, whatever this Python's `is_global` knows of them."""
_ALL_OUTSIDE_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


class RefusedAddress(Exception):
    """The address is of the inside, and nobody allowed it."""


class Allowed(msgspec.Struct, frozen=True):
    """What an operator allowed of the inside: hosts by name, and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def names_host(self, host: str) -> bool:
        return host.lower().rstrip(".") in self.names

    def holds(self, address: Address) -> bool:
        plain = _embedded(address) or address
        return any(a in network for network in self.networks for a in (address, plain))


NOTHING_ALLOWED = Allowed()


def allowed(entries: Iterable[str]) -> Allowed:
    """Host names, addresses and networks as a setting names them.

    Raises:
        ValueError: one of them is none.
    """
    names: set[str] = set()
    networks: list[Network] = []
    for entry in entries:
        try:
            networks.append(ip_network(entry))
            continue
        except ValueError as fault:
            if "/" in entry or ":" in entry or not any(c.isalpha() for c in entry):
                raise ValueError(f"{entry!r} is no address or network: {fault}") from None
        if not all(c.isalnum() or c in "-._" for c in entry):
            raise ValueError(f"{entry!r} is no host name")
        names.add(entry.lower().rstrip("."))
    return Allowed(frozenset(names), tuple(networks))


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address((int(address) >> 80) & 0xFFFF_FFFF)
    return None


def is_outside(address: Address) -> bool:
    """Whether it is an address of the public Internet."""
    plain = _embedded(address) or address
    if plain.is_multicast or not plain.is_global:
        return False
    if isinstance(plain, IPv6Address) and plain not in _ALL_OUTSIDE_6:
        return False
    return not any(plain in network for network in _NOT_OUTSIDE)


async def resolved(host: str, port: int, may: Allowed, *, inside_only: bool = False) -> list[str]:
    """The addresses behind a host, in the resolver's order, all of which one may connect to. With
    `inside_only` those of the public Internet are refused as well unless they are allowed.

    Raises:
        RefusedAddress: one of them is not to be connected to.
        OSError: there is no such host.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as fault:
        raise OSError("no host's name") from fault
    texts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if may.names_host(host):
        return texts
    for text in texts:
        address = ip_address(text.partition("%")[0])
        if not may.holds(address) and (inside_only or not is_outside(address)):
            raise RefusedAddress("an address of the inside" if not inside_only else "not an allowed host")
    return texts
