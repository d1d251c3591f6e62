"""The way back of a connection that came in through another host: through that host again, so that the client's address
can be kept.

The host that the client dialled (the entry) changes only the destination. The frame reaches the container's host over
the overlay with the entry's gateway as its sender; that host notes by connection mark who it was, and answers with the
mark are routed to that gateway, which undoes its translation. One rule and one table of one route for each other host.

A client may use one port of its own towards two hosts, and both may choose the same container: to that these would be
one connection. So what each entry sends is kept apart (a conntrack zone for its direction); answers are in one zone,
for which the kernel finds the second one another port.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

import msgspec

from afterswarm.core import families
from afterswarm.core.dataplane.ruleset import Piece, chain, collection
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX, bridge_name, gateway_mac
from afterswarm.model.network import Network

MARK = 0x5A000000  # the highest byte of our marks; the rest is the entry's place in the ingress network
MASK = 0xFF000000
PRIORITY = 5377  # of our routing rules; no other rule has it


class Return(msgspec.Struct, frozen=True, order=True):
    """Answers from `source` with `mark` leave by `gateway` on `device`. The mark is the number of the table, too.

    As JSON (`msgspec.to_builtins`) it is what `Kernel.sync_returns` takes. `source` keeps the tunnel's own packets,
    which inherit the mark, out of the tunnel.
    """

    mark: int
    source: str  # the subnet
    gateway: str
    device: str


def entries(network: Network, node_id: str) -> dict[str, int]:
    """Who may have sent a frame -> the mark: MAC of the gateway of each other host in the ingress network."""
    return {gateway_mac(address): _mark(network, address) for address in _others(network, node_id)}


def returns(networks: Iterable[Network], node_id: str) -> list[Return]:
    """Every way back of this host, in both families alike."""
    return sorted(
        Return(mark=_mark(n, address), source=source, gateway=gateway, device=bridge_name(n.id))
        for n in networks
        if n.spec.ingress and n.subnet and node_id in n.gateways
        for address in _others(n, node_id)
        for source, gateway in ((n.subnet, address), (n.subnet6, families.twin(n, address)))
        if source
    )


def zone(mark: int) -> int:
    """The conntrack zone of what came through the host with this mark; there are 65,536."""
    return mark & 0xFFFF


def place(network: Network, address: str) -> int:
    """Which of the addresses of a network it is, from 0."""
    return int(IPv4Address(address)) - int(IPv4Network(network.subnet).network_address)


def notes(ingress: Network) -> list[str]:
    """For a chain that packets pass before they are routed: who sent the first one, and where answers go."""
    return [
        f'iifname "{bridge_name(ingress.id)}" ct direction original ct mark set ether saddr map @entry',
        f'iifname "{BRIDGE_PREFIX}*" ct direction reply ct mark and {MASK:#x} == {MARK:#x} meta mark set ct mark',
    ]


def rules(ingress: Network, node_id: str) -> Piece:
    """What a host's table has for this besides `notes`: parts of its shape, and the elements that go with them."""
    bridge = bridge_name(ingress.id)
    shape = [
        collection("entry", "type ether_addr : mark", kind="map"),
        collection("zones", "typeof ether saddr : ct zone", kind="map"),
        chain(  # before connections are looked up, at -200
            "apart",
            "type filter hook prerouting priority -300; policy accept",
            f'iifname != "{bridge}" accept',
            # 127.0.0.1:port needs route_localnet on this bridge; nobody on it may use that to reach our loopback
            "ip daddr 127.0.0.0/8 drop",
            "ct original zone set ether saddr map @zones",
        ),
        chain(  # we route between two hosts of one bridge: a container must not learn a way past us from it
            "redirects",
            "type filter hook output priority 0; policy accept",
            f'oifname "{bridge}" icmp type redirect drop',
            f'oifname "{bridge}" icmpv6 type nd-redirect drop',
        ),
    ]
    who = entries(ingress, node_id)
    return shape, {
        "entry": {mac: f"{mark:#x}" for mac, mark in who.items()},
        "zones": {mac: str(zone(mark)) for mac, mark in who.items()},
    }


def _others(network: Network, node_id: str) -> list[str]:
    return sorted((a for node, a in network.gateways.items() if node != node_id), key=IPv4Address)


def _mark(network: Network, address: str) -> int:
    return MARK | place(network, address) & ~MASK
