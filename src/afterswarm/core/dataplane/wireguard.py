"""The one WireGuard device of a host, through which its encrypted overlay networks reach the other hosts.

Each host has an address there that follows from its node's id, link-local on purpose: a VXLAN device with such an
address takes packets that came through the device below it and no others, and sends through that one and no other. So
neither a missing rule nor a route can let a packet of an encrypted network out, or a forged one in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

import msgspec

from afterswarm.core.dataplane import sizes
from afterswarm.model.network import Network
from afterswarm.model.session import Peer

DEVICE = "as-wireguard"
PORT = 7948  # UDP
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")  # what others say goes into a configuration: nothing else may
_LINK_LOCAL = b"\xfe\x80" + bytes(6)


class End(msgspec.Struct, frozen=True, order=True):
    """Another host: its public key, its address in the tunnel, and where it is."""

    key: str
    address: str
    host: str


class Tunnel(msgspec.Struct, frozen=True):
    """As JSON (`msgspec.to_builtins`) it is what `Kernel.sync_wireguard` takes. The private key is said apart."""

    address: str
    mtu: int
    port: int = PORT
    ends: tuple[End, ...] = ()  # sorted


def tunnel(*, node_id: str, networks: Iterable[Network], peers: Iterable[Peer]) -> Tunnel | None:
    """This host's. None while none of its networks is encrypted."""
    if not any(n.encrypted and n.subnet and node_id in n.gateways for n in networks):
        return None
    known = {peer.node_id: peer for peer in peers}
    ends = {
        peer.wireguard: End(peer.wireguard, address_of(node), peer.data_path or peer.address)
        for node, peer in sorted(known.items())
        if node != node_id and able(peer)
    }
    return Tunnel(
        address=address_of(node_id), mtu=sizes.of_wireguard(known.get(node_id)), ends=tuple(sorted(ends.values()))
    )


def able(peer: Peer) -> bool:
    """Whether packets can be encrypted for this host."""
    return bool(_KEY.fullmatch(peer.wireguard)) and _is_address(peer.data_path or peer.address)


def addresses(peers: Iterable[Peer]) -> Mapping[str, str]:
    """Node id -> address in the tunnel, of all that can be reached there."""
    return {peer.node_id: address_of(peer.node_id) for peer in peers if able(peer)}


def address_of(node_id: str) -> str:
    return str(IPv6Address(_LINK_LOCAL + sha256(node_id.encode()).digest()[:8]))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
