"""The label `afterswarm.publish-ip`: where ports answer, on every host and on a task's own."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core import publishing, wanted
from afterswarm.core.admit.service_spec import outdates
from afterswarm.core.dataplane.host_rules import host
from afterswarm.core.host import host_config
from afterswarm.core.publishing import Place
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.refused import Refused
from afterswarm.model.service import Endpoint, EndpointSpec, PortConfig, Service
from afterswarm.model.task import Task
from afterswarm.sim.given import service, swarm

DRAWN = PortConfig(target_port=81)
FIXED = PortConfig(target_port=80, published_port=8080)
HOST = PortConfig(target_port=82, published_port=8082, publish_mode="host")


def made(text: str) -> Service:
    endpoint = EndpointSpec(ports=[FIXED, DRAWN, HOST])
    spec = replace(service().spec, labels={publishing.LABEL: text}, endpoint_spec=endpoint)
    given = Endpoint(ports=[FIXED, replace(DRAWN, published_port=30000), HOST])
    return replace(service(), spec=spec, endpoint=given)


def test_what_it_says() -> None:
    assert publishing.parse("127.0.0.1, 10.0.0.0/8:80,192.0.2.1:0/udp,") == [
        Place("127.0.0.1"),
        Place("10.0.0.0/8", 80, "tcp"),
        Place("192.0.2.1", 0, "udp"),
    ]


@pytest.mark.parametrize(
    "bad", ["localhost", "127.0.0.1:http", "1.2.3:80", "10.0.0.1/8", "127.0.0.1:80/x", "::1", "1.2.3.4:99999"]
)
def test_what_cannot_be_read_is_refused(bad: str) -> None:
    with pytest.raises(Refused, match=r"invalid label afterswarm\.publish-ip") as refused:
        publishing.parse(bad)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", {}),
        ("127.0.0.1", {"tcp/8080": ["127.0.0.1"], "tcp/30000": ["127.0.0.1"]}),
        ("127.0.0.1:8080,10.0.0.0/8:8080", {"tcp/8080": ["10.0.0.0/8", "127.0.0.1"]}),
        ("127.0.0.1:0", {"tcp/30000": ["127.0.0.1"]}),
        ("127.0.0.1:8080/udp", {}),
    ],
)
def test_ports_of_the_mesh(text: str, places: dict[str, list[str]]) -> None:
    found = made(text)
    assert wanted.route(swarm(found), found).published_on == places


def test_the_kernel_obeys() -> None:
    found = made("127.0.0.1:8080")
    spec = NetworkSpec(name="ingress", ingress=True)
    ingress = Network(id="i", subnet="10.0.0.0/24", gateways={"a": "10.0.0.2"}, spec=spec)
    route = wanted.route(swarm(found), found)
    [_, part] = host(node_id="a", networks=[ingress], routes=[route], peers=[]).parts.values()
    assert part.elements["published"] == {"tcp . 8080": "goto at_tcp_8080", "tcp . 30000": "goto refuse"}
    assert part.chains["at_tcp_8080"] == ["ip daddr != { 127.0.0.1 } return", "goto refuse"]


def test_the_kernel_obeys_for_interfaces() -> None:
    found = made("eth1:8080,wg0.7:8080,127.0.0.1:8080,eth1:0")
    spec = NetworkSpec(name="ingress", ingress=True)
    ingress = Network(id="i", subnet="10.0.0.0/24", gateways={"a": "10.0.0.2"}, spec=spec)
    route = wanted.route(swarm(found), found)
    [_, part] = host(node_id="a", networks=[ingress], routes=[route], peers=[]).parts.values()
    assert part.chains["at_tcp_8080"] == [
        'iifname "eth1" goto refuse',
        'iifname "wg0.7" goto refuse',
        "ip daddr != { 127.0.0.1 } return",
        "goto refuse",
    ]
    assert part.chains["at_tcp_30000"] == ['iifname "eth1" goto refuse']


def test_an_interface_is_not_for_ports_of_one_host() -> None:
    publishing.check({publishing.LABEL: "eth1:8080"}, [FIXED, HOST])
    with pytest.raises(Refused, match="'eth1' is an interface, and the engine publishes"):
        publishing.check({publishing.LABEL: "eth1"}, [FIXED, HOST])


def test_the_engine_of_a_task_s_host_obeys() -> None:
    task = Task(id="t", ports=[HOST], service_labels={publishing.LABEL: "127.0.0.1,192.0.2.1"})
    assert host_config._port_bindings(task) == {
        "82/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8082"}, {"HostIp": "192.0.2.1", "HostPort": "8082"}]
    }


def test_tasks_are_replaced_only_for_ports_of_their_own_host() -> None:
    assert outdates(made("").spec, made("127.0.0.1").spec)
    assert not outdates(made("").spec, made("127.0.0.1:8080").spec)
