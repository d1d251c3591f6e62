"""On which of a host's addresses, or through which interfaces, a service's ports answer: `afterswarm.publish-ip`.

    127.0.0.1                  all its ports, there only
    127.0.0.1:8080, 10.0.0.0/8:9090/udp, 192.0.2.1:0
    eth1:8080                  what comes in through this interface, to whichever address; of the mesh only

A number is the published one; 0 stands for the ports whose number the swarm draws. A port that is not named answers
everywhere. Addresses are IPv4, as the mesh is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

import msgspec

from afterswarm.model.refused import Refused
from afterswarm.model.service import PortConfig, Service

LABEL = "afterswarm.publish-ip"
_ITEM = re.compile(
    r"(?P<address>[0-9./]+?|(?!localhost(?::|$))[A-Za-z][\w.@-]{0,14})(?::(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp|sctp))?)?"
)


class Place(msgspec.Struct, frozen=True):
    """`port` and `protocol`: `None` is any."""

    address: str
    port: int | None = None
    protocol: str | None = None


def parse(text: str) -> list[Place]:
    """Raises `Refused` (400)."""
    return [_one(item) for item in (part.strip() for part in text.split(",")) if item]


def _one(item: str) -> Place:
    found = _ITEM.fullmatch(item)
    port = int(found["port"]) if found and found["port"] else None
    protocol = (found["protocol"] if found else None) or ("tcp" if port is not None else None)
    if found and is_interface(found["address"]) and (port or 0) <= 65535:
        return Place(found["address"], port, protocol)
    try:
        network = IPv4Network(found["address"]) if found else None
    except (AddressValueError, NetmaskValueError, ValueError):
        network = None
    if found is None or network is None or (port or 0) > 65535:
        what = "ADDRESS[:PORT[/PROTOCOL]], with an IPv4 address or an interface"
        raise Refused(400, f"invalid label {LABEL}: '{item}' is not {what}")
    address = str(network.network_address) if network.prefixlen == 32 else str(network)
    return Place(address, port, protocol)


def is_interface(place: str) -> bool:
    """Whether it is a name, rather than an address or a network."""
    return not place[0].isdigit() and ":" not in place


def check(labels: Mapping[str, str], ports: Iterable[PortConfig]) -> None:
    """Raises `Refused` (400) for what cannot be read, or not be done."""
    parse(labels.get(LABEL, ""))
    for port in ports:
        there = addresses(labels, port, drawn=not port.published_port) if port.publish_mode == "host" else ()
        if name := next((place for place in there if is_interface(place)), ""):
            why = f"'{name}' is an interface, and the engine publishes ports in host mode on addresses only"
            raise Refused(400, f"invalid label {LABEL}: {why}")


def addresses(labels: Mapping[str, str], port: PortConfig, *, drawn: bool = False) -> list[str]:
    """Where the port answers, interfaces among it; [] is everywhere. `drawn`: the swarm chose its number."""
    try:
        places = parse(labels.get(LABEL, ""))
    except Refused:  # a service that was there before the label meant anything
        return []
    number = 0 if drawn else port.published_port
    return sorted({p.address for p in places if p.port in (None, number) and p.protocol in (None, port.protocol)})


def on_host(labels: Mapping[str, str], ports: Iterable[PortConfig]) -> list[list[str]]:
    """Where each of these ports answers, which their tasks' own hosts publish."""
    return [addresses(labels, port, drawn=not port.published_port) for port in ports]


def of_mesh(service: Service) -> dict[str, list[str]]:
    """Of the ports that every host answers: `tcp/8080` -> addresses, where not everywhere."""
    return _of_mesh(service, interfaces=False)


def through(service: Service) -> dict[str, list[str]]:
    """Likewise: the interfaces, besides these addresses."""
    return _of_mesh(service, interfaces=True)


def _of_mesh(service: Service, *, interfaces: bool) -> dict[str, list[str]]:
    if LABEL not in service.spec.labels or service.endpoint is None:
        return {}
    asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    chosen = {(p.protocol, p.published_port) for p in asked}
    found = {
        f"{port.protocol}/{port.published_port}": addresses(
            service.spec.labels, port, drawn=(port.protocol, port.published_port) not in chosen
        )
        for port in service.endpoint.ports
        if port.publish_mode == "ingress"
    }
    kept = {key: [place for place in there if is_interface(place) is interfaces] for key, there in found.items()}
    return {key: there for key, there in kept.items() if there}
