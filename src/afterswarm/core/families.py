"""IPv6 in networks that have both families: the same places as in IPv4, in a second subnet.

Whoever has the 7th address of a network's IPv4 subnet has the 7th of its IPv6 subnet (or of the range in it that the
user chose), so 10.0.1.7 goes with fd…::7. One of the two is allocated and stored; the other follows. Neither can be
given twice or be forgotten while the other is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from afterswarm.model.network import IPAMConfig, Network

SUBNET_SIZE = 64


def twin(network: Network, address: str) -> str:
    """The IPv6 address that goes with an IPv4 address there, plain or with its prefix as that is; "" without one."""
    if not network.subnet6 or not address or ":" in address:
        return ""
    plain, slash, _ = address.partition("/")
    found = _twin(network.subnet, network.range6 or network.subnet6, plain)
    return f"{found}/{network.subnet6.partition('/')[2]}" if slash else found


def both(network: Network, address: str) -> list[str]:
    """An address there and what goes with it."""
    return [a for a in (address, twin(network, address)) if a]


def place(network: Network, address: str) -> str:
    """The IPv4 address that goes with an IPv6 address there; "" when none does."""
    try:
        number = int(IPv6Address(address)) - int(_base(network.range6 or network.subnet6))
    except ValueError:
        return ""
    subnet = IPv4Network(network.subnet)
    return str(subnet[number]) if 0 <= number < subnet.num_addresses else ""


def twins(networks: Mapping[str, Network], addresses: Mapping[str, str]) -> dict[str, str]:
    """By network id, what goes with these addresses; without those of networks that have no IPv6."""
    return {n: found for n, a in addresses.items() if n in networks and (found := twin(networks[n], a))}


def pool(cluster_id: str) -> IPv6Network:
    """Where a cluster takes its IPv6 subnets from: addresses of its own that no other is likely to have (RFC 4193)."""
    number = b"\xfd" + sha256(f"ipv6 {cluster_id}".encode()).digest()[:5] + bytes(10)
    return IPv6Network((number, 48))


def asked(network: Network) -> IPAMConfig:
    """The user's own choice of IPv6 addresses; empty when there is none."""
    configs = network.spec.ipam.config if network.spec.ipam else []
    return next((c for c in configs if c.subnet and isinstance(ip_network(c.subnet, strict=False), IPv6Network)), _NONE)


@lru_cache(1 << 16)
def _twin(subnet: str, base: str, address: str) -> str:
    number = int(IPv4Address(address)) - int(_base(subnet))
    return str(IPv6Address(int(_base(base)) + number))


@lru_cache(1 << 10)
def _base(subnet: str) -> IPv4Address | IPv6Address:
    return ip_network(subnet, strict=False).network_address


_NONE = IPAMConfig()
