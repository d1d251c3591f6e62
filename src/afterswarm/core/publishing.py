"""On which of a host's addresses a service's ports answer: the service label `afterswarm.publish-ip`.

    127.0.0.1                  all its ports, there only
    127.0.0.1:8080, 10.0.0.0/8:9090/udp, 192.0.2.1:0

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
_ITEM = re.compile(r"(?P<address>[0-9./]+?)(?::(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp|sctp))?)?")


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
    try:
        network = IPv4Network(found["address"]) if found else None
    except (AddressValueError, NetmaskValueError, ValueError):
        network = None
    if found is None or network is None or int(found["port"] or 0) > 65535:
        raise Refused(400, f"invalid label {LABEL}: '{item}' is not ADDRESS[:PORT[/PROTOCOL]], with an IPv4 address")
    address = str(network.network_address) if network.prefixlen == 32 else str(network)
    port = int(found["port"]) if found["port"] else None
    return Place(address, port, found["protocol"] or ("tcp" if port is not None else None))


def addresses(labels: Mapping[str, str], port: PortConfig, *, drawn: bool = False) -> list[str]:
    """Where the port answers; [] is everywhere. `drawn`: the swarm chose its number."""
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
    return {key: there for key, there in found.items() if there}
