"""Names of ports: from the specification, and from the label `afterswarm.ports`."""

from __future__ import annotations

import pytest

from afterswarm.core.dns import named_ports
from afterswarm.model.refused import Refused
from afterswarm.model.service import Endpoint, PortConfig, Service, ServiceSpec


def named(label: str, *ports: PortConfig) -> dict[str, list[int]]:
    spec = ServiceSpec(name="web", labels={"afterswarm.ports": label})
    return named_ports.named(Service(id="s", spec=spec, endpoint=Endpoint(ports=list(ports))))


def test_names_of_ports() -> None:
    ports = (
        PortConfig(name="Web", target_port=80, published_port=8080),
        PortConfig(name="dns", protocol="udp", target_port=53, publish_mode="host"),
        PortConfig(target_port=9, published_port=9),
    )
    assert named("", *ports) == {"_web._tcp": [80], "_dns._udp": [53]}
    assert named("web=81, metrics=9100/tcp, dns=53/udp", *ports) == {
        "_web._tcp": [80, 81],
        "_metrics._tcp": [9100],
        "_dns._udp": [53],
    }
    assert named("what is this?") == {}, "of a service that was there before"


@pytest.mark.parametrize("label", ["web", "web=0", "web=65536", "web=80/icmp", "-a=1", "a b=1", "a.b=1", "web=80:81"])
def test_values_that_are_none(label: str) -> None:
    with pytest.raises(Refused, match=r"invalid label afterswarm\.ports: '.*' is not NAME=PORT\[/PROTOCOL\]"):
        named_ports.check({"afterswarm.ports": label})
