"""How large a packet may be: from the devices that carry the hosts' data paths.

What containers get is the same on all hosts, by the smallest of them: a larger packet would be lost on its way without
a word. The links themselves take what their own host's device does, so that containers from before a smaller host
came still reach those who are as large.
"""

from __future__ import annotations

from collections.abc import Iterable

from afterswarm.model.network import MTU as OPTION
from afterswarm.model.network import Network
from afterswarm.model.session import Peer

UNKNOWN = 1500  # what a host has that has not said
VXLAN = 50  # outer Ethernet, IPv4, UDP and VXLAN headers
WIREGUARD = 80  # outer IPv6, UDP and WireGuard headers
INSIDE = 70  # VXLAN in WireGuard: outer Ethernet, IPv6, UDP and VXLAN headers
IPV6 = 1280  # a device with less has no IPv6
LEAST = 68  # a device takes no less


def of_containers(network: Network, peers: Iterable[Peer]) -> int:
    """By the user's choice, if he made one: as with Docker that is the MTU of what carries the network."""
    asked = network.spec.options.get(OPTION, "")
    carries = int(asked) if asked.isdigit() else min((_of(peer) for peer in peers), default=UNKNOWN)
    return max(carries - _overhead(network), LEAST)


def of_link(network: Network, node_id: str, peers: Iterable[Peer]) -> int:
    """Of a host's VXLAN device."""
    peers = list(peers)
    own = next((_of(peer) for peer in peers if peer.node_id == node_id), UNKNOWN)
    return max(own - _overhead(network), of_containers(network, peers))


def of_wireguard(own: Peer | None) -> int:
    """Of the device that carries the encrypted networks. With less it could not have its addresses."""
    return max((_of(own) if own else UNKNOWN) - WIREGUARD, IPV6)


def _of(peer: Peer) -> int:
    return peer.mtu or UNKNOWN


def _overhead(network: Network) -> int:
    return WIREGUARD + INSIDE if network.encrypted else VXLAN
