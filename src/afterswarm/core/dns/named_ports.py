"""Names of a service's ports, for SRV: those of its specification, and those of the label `afterswarm.ports`.

    http=8080, dns=53/udp      where its tasks listen, published or not

The docker command line sends no names of ports, and ports that are not published are not in a specification at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from afterswarm.model.refused import Refused
from afterswarm.model.service import Service

LABEL = "afterswarm.ports"
_ITEM = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)=(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp|sctp))?"
)


def check(labels: Mapping[str, str]) -> None:
    """Raises `Refused` (400) for a value that is none."""
    _parse(labels.get(LABEL, ""))


def named(service: Service) -> dict[str, list[int]]:
    """`_http._tcp` -> the ports."""
    found: dict[str, set[int]] = {}
    for port in service.endpoint.ports if service.endpoint else ():
        if port.name:
            found.setdefault(_label(port.name, port.protocol), set()).add(port.target_port)
    try:
        given = _parse(service.spec.labels.get(LABEL, ""))
    except Refused:  # a service that was there before the label meant anything
        given = []
    for label, number in given:
        found.setdefault(label, set()).add(number)
    return {label: sorted(numbers) for label, numbers in sorted(found.items())}


def _parse(text: str) -> list[tuple[str, int]]:
    found = []
    for item in (part.strip() for part in text.split(",")):
        match = _ITEM.fullmatch(item)
        if item and (match is None or not 0 < int(match["port"]) < 65536):
            raise Refused(400, f"invalid label {LABEL}: '{item}' is not NAME=PORT[/PROTOCOL]")
        if match:
            found.append((_label(match["name"], match["protocol"] or "tcp"), int(match["port"])))
    return found


def _label(name: str, protocol: str) -> str:
    return f"_{name}._{protocol}".lower()
