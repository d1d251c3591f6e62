"""The links that make an engine's bridge one segment with its twins on other hosts.

Per network of this host: the engine's bridge, and on it a VXLAN device whose forwarding entries are all written by
us (nothing is learned from the wire): one per container and gateway elsewhere, and one per peer for broadcasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

import msgspec

from afterswarm.core import families
from afterswarm.core.dataplane import sizes, wireguard
from afterswarm.model.network import Network
from afterswarm.model.session import Peer, Route

PORT = 4789
EVERYBODY = "00:00:00:00:00:00"  # where the VXLAN driver looks for broadcasts and unknown addresses
PREFIX = "asx"
BRIDGE_PREFIX = "asw"


class Link(msgspec.Struct, frozen=True):
    """One VXLAN device and what goes with it. As JSON (`msgspec.to_builtins`) it is what `Kernel.sync_links` takes."""

    name: str
    vni: int
    local: str  # source of its packets; left to the kernel, a host with two addresses picks the wrong one
    bridge: str
    bridge_mac: str
    via: str = ""  # the device that it goes through, come what may; "": by the routes to the other hosts
    port: int = PORT
    mtu: int = sizes.UNKNOWN - sizes.VXLAN
    ingress: bool = False
    fdb: tuple[tuple[str, str], ...] = ()  # (MAC, host), sorted
    addresses: tuple[str, ...] = ()  # of the bridge, with the length of their prefix

    @property
    def ipv6(self) -> list[str]:
        """Those of its addresses; none: the network has IPv4 alone."""
        return [address for address in self.addresses if ":" in address]


def bridge_name(network_id: str) -> str:
    """Of the engine's bridge. 13 characters; the kernel takes 15."""
    return BRIDGE_PREFIX + network_id[:10]


def device_name(network_id: str) -> str:
    return PREFIX + network_id[:10]


def container_mac(address: str) -> str:
    return "02:42:" + IPv4Address(address).packed.hex(":")


def gateway_mac(address: str) -> str:
    """Of a host's bridge. Another prefix than containers': who sees a frame knows that a host sent it."""
    return "02:af:" + IPv4Address(address).packed.hex(":")


def _addresses(network: Network, node_id: str) -> tuple[str, ...]:
    """Of a host's bridge. It asks for IPv6 neighbours by the last one: engines give all of theirs fe80::1."""
    gateway = network.gateways[node_id]
    own = [f"{gateway}/{network.subnet.partition('/')[2]}"]
    if network.subnet6:
        link_local = IPv6Address(b"\xfe\x80" + bytes(8) + b"\x02\xaf" + IPv4Address(gateway).packed)
        own += [f"{families.twin(network, gateway)}/{network.subnet6.partition('/')[2]}", f"{link_local}/64"]
    return tuple(own)


def links(
    *,
    node_id: str,
    networks: Iterable[Network],
    routes: Iterable[Route],
    peers: Iterable[Peer],
    port: int = PORT,
) -> list[Link]:
    """Every link of this host, by name. None before the swarm has told this host its own address."""
    peers, routes = list(peers), list(routes)
    in_clear = {peer.node_id: peer.data_path or peer.address for peer in peers}
    sealed = wireguard.addresses(peers)
    found = [
        Link(
            name=device_name(network.id),
            vni=network.vni,
            local=hosts[node_id],
            via=wireguard.DEVICE if network.encrypted else "",
            bridge=bridge_name(network.id),
            bridge_mac=gateway_mac(network.gateways[node_id]),
            port=port,
            mtu=sizes.of_link(network, node_id, peers),
            ingress=network.spec.ingress,
            addresses=_addresses(network, node_id),
            fdb=_fdb(network, routes, {n: host for n, host in hosts.items() if host and n != node_id}, node_id),
        )
        for network in networks
        if network.subnet
        and network.vni
        and node_id in network.gateways
        and (hosts := sealed if network.encrypted else in_clear).get(node_id)
    ]
    return sorted(found, key=lambda link: link.name)


def _fdb(
    network: Network, routes: Iterable[Route], hosts: Mapping[str, str], node_id: str
) -> tuple[tuple[str, str], ...]:
    everybody = {(EVERYBODY, host) for host in hosts.values()}
    owners = {gateway_mac(ip): hosts[node] for node, ip in network.gateways.items() if node in hosts}
    targets = [t for route in routes for t in route.targets if network.id in t.addresses]
    for target in sorted(
        targets, key=lambda t: (t.ready, t.task_id, t.node_id)
    ):  # the last one is right, should two share one
        mac = container_mac(target.addresses[network.id])
        if target.node_id in hosts:
            owners[mac] = hosts[target.node_id]
        elif target.node_id == node_id:
            owners.pop(mac, None)
    return tuple(sorted({*everybody, *owners.items()}))
