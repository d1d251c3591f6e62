"""What names floating addresses: `ADDRESS/PREFIX[@INTERFACE]`, several with commas; and where a host would put one.

The prefix is that of the subnet that people dial from, and finds the interface: the one that has an address there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_address, ip_interface, ip_network

import msgspec

from afterswarm.model.floating import LABEL, NEVER, Floating
from afterswarm.model.node import Availability, Role
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot

MOST = 32  # addresses of one swarm


class Place(msgspec.Struct, frozen=True):
    address: str
    subnet: str
    interface: str = ""  # "": the one with an address in the subnet

    @property
    def text(self) -> str:
        """As it was given."""
        at = f"@{self.interface}" if self.interface else ""
        return f"{self.address}/{ip_network(self.subnet).prefixlen}{at}"


def parse(text: str) -> list[Place]:
    """Raises `Refused` (400)."""
    places = [one(item) for item in (part.strip() for part in text.split(",")) if item]
    addresses = [place.address for place in places]
    for address in addresses:
        if addresses.count(address) > 1:
            raise Refused(400, f"floating address {address} is named twice")
    if len(places) > MOST:
        raise Refused(400, f"more than {MOST} floating addresses")
    return places


def one(item: str) -> Place:
    """Raises `Refused` (400)."""
    text, at, interface = item.partition("@")
    invalid = f"invalid floating address '{item}': "
    if at and not (0 < len(interface) < 16 and not set(interface) & set("/ \t\"';{}\\")):
        raise Refused(400, f"{invalid}'{interface}' is no name of an interface")
    if "/" not in text:
        raise Refused(400, f"{invalid}it is ADDRESS/PREFIX[@INTERFACE], with the prefix of the subnet, as 192.0.2.9/24")
    try:
        found = ip_interface(text)
    except ValueError:
        raise Refused(400, f"{invalid}it is ADDRESS/PREFIX[@INTERFACE], as 192.0.2.9/24 or fd00::9/64@eth1") from None
    why = _unfit(found)
    if why:
        raise Refused(400, invalid + why)
    if found.network.num_addresses == 1 and not interface:
        raise Refused(400, f"{invalid}without a subnet it needs an interface, as {text}@eth0")
    return Place(str(found.ip), str(found.network), interface)


def _unfit(found: IPv4Interface | IPv6Interface) -> str:
    address, network = found.ip, found.network
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        return "no host can answer others at such an address"
    ends = (network.network_address, network.broadcast_address)
    if isinstance(network, IPv4Network) and network.prefixlen < 31 and address in ends:
        return f"it stands for the subnet {network} itself"
    return ""


def named(labels: Mapping[str, str]) -> list[Place]:
    """Of the swarm; nothing when the label was there before it meant anything."""
    try:
        return parse(labels.get(LABEL, ""))
    except Refused:
        return []


def check(labels: Mapping[str, str], taken: Mapping[str, str]) -> None:
    """Refuse a label that cannot be, or names an address of a host. `taken`: address -> hostname."""
    for place in parse(labels.get(LABEL, "")):
        if place.address in taken:
            raise Refused(400, f"floating address {place.address} is the address of node {taken[place.address]}")


def taken(snap: Snapshot) -> dict[str, str]:
    """The addresses by which nodes know each other -> hostname."""
    found: dict[str, str] = {}
    for node_id, report in snap.node_reports.items():
        if node_id in snap.nodes:
            found |= dict.fromkeys({report.address, report.data_path} - {""}, report.description.hostname or node_id)
    return found


def floating(snap: Snapshot, node_id: str) -> Floating:
    """What this node is told. Which hosts have an interface in the subnet, they know themselves."""
    node = snap.nodes.get(node_id)
    hosts = taken(snap)
    places = named(snap.cluster.spec.labels) if snap.cluster else []
    return Floating(
        addresses=[place.text for place in places if place.address not in hosts],
        barred=node is None or node.spec.availability == Availability.DRAIN or node.spec.labels.get(LABEL) == NEVER,
        last=node is not None and node.spec.availability == Availability.PAUSE,
    )


def managers(snap: Snapshot) -> frozenset[str]:
    """Those whose votes count."""
    return frozenset(node.id for node in snap.nodes.values() if node.role == Role.MANAGER)


def strays(addresses: Collection[str], interfaces: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Where one of these floating addresses is, and on which interface: alone in its prefix, as no host's own is."""
    ours = {f"{address}/{ip_address(address).max_prefixlen}": address for address in addresses}
    return [
        (ours[text], name)
        for name, texts in sorted(interfaces.items())
        if name != "lo"
        for text in texts
        if text in ours
    ]


def device(place: Place, interfaces: Mapping[str, Iterable[str]]) -> tuple[str, str]:
    """The interface for it, or "" and why there is none. `interfaces`: name -> its addresses with their prefixes."""
    floating = {(name, address) for address, name in strays([place.address], interfaces)}
    here = {name: [ip_interface(text) for text in texts] for name, texts in interfaces.items()}
    address = ip_address(place.address)
    for name, there in here.items():
        if (name, place.address) not in floating and any(found.ip == address for found in there):
            return "", "this host has that address by itself"
    if place.interface:
        return (place.interface, "") if place.interface in here else ("", f"no interface {place.interface} here")
    subnet = ip_network(place.subnet)
    for name, addresses in sorted(here.items()):
        if any(found.ip in subnet and found.network.num_addresses > 1 for found in addresses):
            return name, ""
    return "", f"no interface in {subnet} here"


def order(address: str, node_id: str) -> bytes:
    """By which managers choose among equals: another one for each address, so that several spread."""
    return hashlib.sha256(f"{address} {node_id}".encode()).digest()
