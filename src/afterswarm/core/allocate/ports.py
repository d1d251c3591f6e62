"""The numbers under which a service's ports are published."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from msgspec.structs import replace

from afterswarm.model.service import PortConfig, Service
from afterswarm.model.snapshot import Snapshot

FIRST = 30000
LAST = 32767

Number = tuple[str, int]  # protocol and port
_Place = tuple[str, str, int, str]  # what makes a port the same port after an update


def published(snap: Snapshot, service: Service, drawn: set[Number]) -> list[PortConfig] | None:
    """The ports of the service's specification, with a number drawn where it asks for none; `None` when all are taken.

    `drawn`: numbers that others got since the snapshot; those drawn here are added.
    A number that the service has stays as long as its port does. Host-mode ports without a number are the engine's.
    """
    ports = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    if all(p.published_port or p.publish_mode != "ingress" for p in ports):
        return ports
    taken = drawn | {(p.protocol, p.published_port) for p in ports}
    taken |= {number for other in snap.services.values() if other.id != service.id for number in numbers_of(other)}
    had: defaultdict[_Place, deque[int]] = defaultdict(deque)
    for port in service.endpoint.ports if service.endpoint else ():
        had[_place(port)].append(port.published_port)
    kept = [_kept(port, had, taken) for port in ports]  # before any is drawn, lest that be one of these
    given: list[PortConfig] = []
    for port, old in zip(ports, kept, strict=True):
        number = port.published_port or old
        if not number and port.publish_mode == "ingress":
            number = _draw(port.protocol, taken)
            if not number:
                return None
            taken.add((port.protocol, number))
            drawn.add((port.protocol, number))
        given.append(replace(port, published_port=number))
    return given


def numbers_of(service: Service) -> Iterator[Number]:
    """Every number that the service asks for or has, in either mode."""
    asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    for port in (*asked, *(service.endpoint.ports if service.endpoint else ())):
        if port.published_port:
            yield port.protocol, port.published_port


def _kept(port: PortConfig, had: defaultdict[_Place, deque[int]], taken: set[Number]) -> int:
    """The number drawn for the port before, which is then taken; 0 when there is none, or another has it now."""
    numbers = had[_place(port)]
    number = numbers.popleft() if numbers else 0
    if port.published_port or port.publish_mode != "ingress" or not number or (port.protocol, number) in taken:
        return 0
    taken.add((port.protocol, number))
    return number


def _draw(protocol: str, taken: set[Number]) -> int:
    """The number after the highest in use, so that one just given back is not given on at once; 0 when none is free."""
    start = max((n + 1 for p, n in taken if p == protocol and FIRST <= n < LAST), default=FIRST)
    return next((n for n in (*range(start, LAST + 1), *range(FIRST, start)) if (protocol, n) not in taken), 0)


def _place(port: PortConfig) -> _Place:
    return port.name, port.protocol, port.target_port, port.publish_mode
