"""The numbers under which a service's ports are published."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from afterswarm.model.service import PortConfig, Service
from afterswarm.model.snapshot import Snapshot

FIRST = 30000
LAST = 32767

Number = tuple[str, int]  # protocol and port


def published(snap: Snapshot, service: Service) -> list[PortConfig] | None:
    """The ports of the service's specification, with a number drawn where it asks for none; `None` when all are taken.

    A number that the service has stays as long as its port does. Host-mode ports without a number are the engine's.
    """
    ports = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    open_ = [p for p in ports if p.publish_mode == "ingress" and not p.published_port]
    if not open_:
        return ports
    had = service.endpoint.ports if service.endpoint else []
    kept = {_place(p): p.published_port for p in had if p.published_port}
    taken = {(p.protocol, p.published_port) for p in ports}
    taken |= {number for other in snap.services.values() if other.id != service.id for number in numbers_of(other)}
    given: list[PortConfig] = []
    for port in ports:
        number = port.published_port
        if port in open_:
            old = kept.get(_place(port), 0)
            number = old if old and (port.protocol, old) not in taken else _draw(port.protocol, taken)
            if not number:
                return None
            taken.add((port.protocol, number))
        given.append(replace(port, published_port=number))
    return given


def numbers_of(service: Service) -> Iterator[Number]:
    """Every number that the service asks for or has, in either mode."""
    asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    for port in (*asked, *(service.endpoint.ports if service.endpoint else ())):
        if port.published_port:
            yield port.protocol, port.published_port


def _draw(protocol: str, taken: set[Number]) -> int:
    """The number after the highest in use, so that one just given back is not given on at once; 0 when none is free."""
    start = max((n + 1 for p, n in taken if p == protocol and FIRST <= n < LAST), default=FIRST)
    return next((n for n in (*range(start, LAST + 1), *range(FIRST, start)) if (protocol, n) not in taken), 0)


def _place(port: PortConfig) -> tuple[str, str, int, str]:
    return port.name, port.protocol, port.target_port, port.publish_mode
