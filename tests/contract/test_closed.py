"""Internal networks on real namespaces: what gets out of one, and what still works inside."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.dataplane import container_rules, host_rules, paths, vxlan
from afterswarm.model.network import NetworkSpec

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

INNER = replace(net.BACKEND, spec=NetworkSpec(name="backend", internal=True))
WEB = net.web(net.target(1, "n1"), net.target(2, "n2"))
GATEWAYS = net.BACKEND.gateways


class Closed:
    """A container on each of two hosts. The engines of this lab close nothing: what is closed, our rules close.

    The first is in the network alone, and has given itself a route to everywhere; the second is published.
    """

    def __init__(self) -> None:
        self.lab = net.Lab()
        self.one, self.two = self.lab.container("n1", 1), self.lab.container("n2", 2)
        self.one.run("ip", "link", "del", "eth1")
        self.two.run("ip", "route", "replace", "default", "via", net.INGRESS.gateways["n2"])
        for name, where in (("one", self.one), ("two", self.two), ("world", self.lab.outside)):
            self.lab.serve(name, where)
        for node in ("n1", "n2"):
            self.lab.serve(node, self.lab.hosts[node])

    async def become(self, network: Any) -> None:
        networks = [net.INGRESS, network]
        routes = [WEB, msgspec.structs.replace(WEB, service_id="other", ports=[])]
        for node in ("n1", "n2"):
            kernel = self.lab.kernels[node]
            alone = frozenset({"10.200.0.12"}) if network is INNER else frozenset()
            links = vxlan.links(node_id=node, networks=networks, routes=routes, peers=net.PEERS)
            await kernel.sync_links([msgspec.to_builtins(link) for link in links])
            rules = host_rules.host(
                node_id=node, networks=networks, routes=routes, peers=net.PEERS, confined=alone if node == "n2" else ()
            )
            await kernel.apply(rules)
            await kernel.sync_returns([msgspec.to_builtins(way) for way in paths.returns(networks, node)])
        for number, node, where in ((1, "n1", self.one), (2, "n2", self.two)):
            attached = net.target(number, node).addresses
            if where is self.one:
                attached = {net.BACKEND.id: attached[net.BACKEND.id]}
            rules = container_rules.container(
                task_id=f"t{number}", attached=attached, networks=networks, routes=routes, source=""
            )
            await self.lab.kernels[node].apply(rules, netns_pid=where.pid)


@pytest.fixture(scope="module")
def swarm() -> Iterator[Closed]:
    made = Closed()
    yield made
    made.lab.close()


def reached(where: Any, address: str, port: int = 80, *, udp: bool = False) -> str:
    try:
        return str(net.ask(where, address, port, udp=udp, timeout=0.4)).split()[0]
    except OSError:
        return ""


def outward(swarm: Closed) -> dict[str, tuple[Any, str, int, str]]:
    """What a container may try: from where, to where, and who would answer."""
    one, two = swarm.one, swarm.two
    return {
        "the world": (one, "10.177.0.9", 80, "world"),
        "its host": (one, "10.177.0.1", 80, "n1"),
        "its host's address in the network": (one, GATEWAYS["n1"], 80, "n1"),
        "its host's address in another network": (one, net.INGRESS.gateways["n1"], 80, "n1"),
        "another host's address in the network": (one, GATEWAYS["n2"], 80, "n2"),
        "another host": (one, "10.177.0.2", 80, "n2"),
        "another network": (one, "10.200.0.12", 80, "two"),
        "a published port": (one, "10.177.0.1", 8080, "two"),
        "the world, of one that is published": (two, "10.177.0.9", 80, "world"),
        "its host, of one that is published": (two, "10.177.0.2", 80, "n2"),
        "the ingress network's other host, of one that is published": (two, net.INGRESS.gateways["n1"], 80, "n1"),
    }


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
async def test_nothing_gets_out(swarm: Closed, udp: bool) -> None:  # noqa: FBT001
    """Each of these works in a network that is not internal, so that the way is there."""
    only_two = {"a published port"}
    await swarm.become(net.BACKEND)
    ways = outward(swarm)
    if udp:  # a host answers a datagram from whichever of its addresses, and is not heard then
        ways = {what: way for what, way in ways.items() if way[3] not in swarm.lab.hosts or "the network" in what}
        assert len(ways) >= 6
    for what, (where, address, port, who) in ways.items():
        found = {reached(where, address, port, udp=udp) for _ in range(4 if what in only_two else 1)}
        assert who in found, f"{what}, before"
    await swarm.become(INNER)
    for what, (where, address, port, _) in ways.items():
        assert reached(where, address, port, udp=udp) == "", what


async def test_inside_all_is_well(swarm: Closed) -> None:
    await swarm.become(INNER)
    for udp in (False, True):
        assert reached(swarm.one, "10.200.1.12", udp=udp) == "two"
        assert reached(swarm.two, "10.200.1.11", udp=udp) == "one"
        assert {reached(swarm.one, net.VIP, udp=udp) for _ in range(4)} == {"one", "two"}
        assert reached(swarm.lab.hosts["n1"], "10.200.1.11", udp=udp) == "one", "its host may begin"
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with swarm.lab.hosts["n1"].socket(kind) as resolver, swarm.one.socket(kind) as asking:
            resolver.bind((GATEWAYS["n1"], 53))
            if kind == socket.SOCK_STREAM:
                resolver.listen()
            asking.settimeout(2)
            asking.connect((GATEWAYS["n1"], 53))
            asking.send(b"?")
            resolver.settimeout(2)
            heard = resolver.accept()[0] if kind == socket.SOCK_STREAM else resolver
            with contextlib.closing(heard):
                heard.settimeout(2)
                assert heard.recv(9) == b"?"


async def test_a_published_port_works_all_the_same(swarm: Closed) -> None:
    """As with Docker: it comes in by the ingress network."""
    await swarm.become(INNER)
    only = net.web(net.target(2, "n2"))
    for node in ("n1", "n2"):
        networks = [net.INGRESS, INNER]
        confined = {"10.200.0.12"} if node == "n2" else ()
        rules = host_rules.host(node_id=node, networks=networks, routes=[only], peers=net.PEERS, confined=confined)
        await swarm.lab.kernels[node].apply(rules)
    for entry in ("10.177.0.1", "10.177.0.2"):
        assert net.ask(swarm.lab.outside, entry, 8080) == "two 10.177.0.9"
        assert net.ask(swarm.lab.outside, entry, 8080, udp=True) == "two 10.177.0.9"


async def test_an_address_that_only_the_cable_has_leads_nowhere_either(swarm: Closed) -> None:
    """Link-local IPv6, which a container may give itself."""
    bridge = vxlan.bridge_name(INNER.id)
    host = swarm.lab.hosts["n1"]
    host.run("sysctl", "-qw", f"net.ipv6.conf.{bridge}.disable_ipv6=0")
    host.run("ip", "address", "replace", "fe80::1/64", "dev", bridge, "nodad")
    swarm.one.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
    swarm.one.run("ip", "address", "replace", "fe80::2/64", "dev", "eth0", "nodad")
    for network, expected in ((net.BACKEND, True), (INNER, False)):
        await swarm.become(network)
        with contextlib.ExitStack() as stack:
            with net.inside(host.pid):
                service = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                service.bind(("::", 5353))
            with net.inside(swarm.one.pid):
                client = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                scope = socket.if_nametoindex("eth0")
            service.settimeout(0.5)
            client.sendto(b"?", ("fe80::1", 5353, 0, scope))
            heard = False
            with contextlib.suppress(TimeoutError):
                heard = service.recv(9) == b"?"
            assert heard is expected
