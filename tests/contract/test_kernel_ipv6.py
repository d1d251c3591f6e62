"""IPv6 through real namespaces: virtual addresses and published ports in networks of both families."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.adapters.kernel.namespaces import inside
from afterswarm.core import families
from afterswarm.core.dataplane import container_rules, host_rules, paths, vxlan
from afterswarm.core.dataplane.vxlan import bridge_name, container_mac
from afterswarm.model.session import Route, Target

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

INGRESS = replace(net.INGRESS, subnet6="fd00:200::/64")
BACKEND = replace(net.BACKEND, subnet6="fd00:201::/64")
NETWORKS = {n.id: n for n in (INGRESS, BACKEND)}
PEERS = [replace(peer, ipv6=[f"fd77::{peer.node_id[1:]}"]) for peer in net.PEERS]
HOSTS = {"n1": "fd77::1", "n2": "fd77::2", "n3": "fd77::3"}
OUTSIDE = "fd77::9"
VIP6 = families.twin(BACKEND, net.VIP)


def target(number: int, node: str, *, ready: bool = True) -> Target:
    made: Target = net.target(number, node, ready=ready)
    return replace(made, addresses6=families.twins(NETWORKS, made.addresses))


def web(*targets: Target) -> Route:
    made: Route = net.web(*targets)
    return replace(made, vips6=families.twins(NETWORKS, made.vips))


def at(number: int, network: Any) -> str:
    return families.twin(network, target(number, "").addresses[network.id])


def six(where: Any, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    with inside(where.pid):
        return socket.socket(socket.AF_INET6, kind)


class Server:
    """Answers on port 80, TCP and UDP, on all addresses, with its name and the client's address."""

    def __init__(self, name: str, where: Any) -> None:
        self._stream, self._datagrams = six(where), six(where, socket.SOCK_DGRAM)
        for used in (self._stream, self._datagrams):
            used.bind(("::", 80))
        self._stream.listen()
        self._name = name
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve, self._echo)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, client = self._stream.accept()
                with accepted:
                    accepted.sendall(f"{self._name} {client[0]}".encode())

    def _echo(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, client = self._datagrams.recvfrom(99)
                if not question:
                    return
                self._datagrams.sendto(f"{self._name} {client[0]}".encode(), client)

    def close(self) -> None:
        for used in (self._stream, self._datagrams):
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._stream.close()
        self._datagrams.close()


class Lab:
    """`kernel_lab`'s, with IPv6 as engines make it: no filter, and the same link-local address on every bridge."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.below = self._made(net.Lab())
        self.hosts, self.kernels, self.outside = self.below.hosts, self.below.kernels, self.below.outside
        for where, address in ((self.outside, OUTSIDE), *((self.hosts[n], a) for n, a in HOSTS.items())):
            where.run("ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        for node, host in self.hosts.items():
            for network in NETWORKS.values():
                bridge, gateway = bridge_name(network.id), families.twin(network, network.gateways[node])
                host.run("ip", "addr", "add", f"{gateway}/64", "dev", bridge)
                host.run("ip", "addr", "add", "fe80::1/64", "dev", bridge)

    def _made(self, thing: Any) -> Any:
        self._stack.callback(thing.close)
        return thing

    def container(self, node: str, number: int, *, default: bool = True) -> Any:
        made = self.below.container(node, number)
        made.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
        for index, network in enumerate((BACKEND, INGRESS)):
            made.run("ip", "addr", "add", f"{at(number, network)}/64", "dev", f"eth{index}", "nodad")
        if default:
            gateway = families.twin(BACKEND, BACKEND.gateways[node])
            made.run("ip", "-6", "route", "add", "default", "via", gateway)
        return made

    def serve(self, name: str, where: Any) -> None:
        self._made(Server(name, where))

    async def say(self, containers: list[tuple[Any, str, str]], *routes: Route) -> None:
        networks = list(NETWORKS.values())
        for node, kernel in self.kernels.items():
            await kernel.forward_ipv6()
            links = vxlan.links(node_id=node, networks=networks, routes=routes, peers=PEERS)
            await kernel.sync_links([msgspec.to_builtins(link) for link in links])
            await kernel.apply(host_rules.host(node_id=node, networks=networks, routes=routes, peers=PEERS))
            await kernel.sync_returns([msgspec.to_builtins(way) for way in paths.returns(networks, node)])
        for where, node, task_id in containers:
            attached = target(int(task_id[1:]), "").addresses
            gateway = families.twin(INGRESS, INGRESS.gateways[node])
            rules = container_rules.container(
                task_id=task_id,
                attached=attached,
                networks=networks,
                routes=routes,
                source=attached[BACKEND.id],
                source6=await self.kernels[node].lead_out(gateway, netns_pid=where.pid),
            )
            await self.kernels[node].apply(rules, netns_pid=where.pid)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    made = Lab()
    yield made
    made.close()


def ask(where: Any, address: str, port: int, *, udp: bool = False, timeout: float = 3) -> str:
    with six(where, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        if udp:
            client.send(b"?")
        return client.recv(200).decode()


def seen(where: Any, address: str, port: int, *, udp: bool = False) -> set[str]:
    return {ask(where, address, port, udp=udp) for _ in range(6)}


async def test_traffic(lab: Any) -> None:
    """Replicas on two hosts, a third host without one, and a client container."""
    one, two, other = lab.container("n1", 1), lab.container("n2", 2, default=False), lab.container("n1", 3)
    lab.serve("one", one)
    lab.serve("two", two)
    inner = [(one, "n1", "t1"), (two, "n2", "t2"), (other, "n1", "t3")]
    both = web(target(1, "n1"), target(2, "n2"))
    await lab.say(inner, both)

    assert seen(other, at(2, BACKEND), 80) == {f"two {at(3, BACKEND)}"}, "from host to host"
    for udp in (False, True):
        client = at(3, BACKEND)
        assert seen(other, VIP6, 80, udp=udp) == {f"one {client}", f"two {client}"}, f"virtual address, udp: {udp}"
        for node, address in HOSTS.items():
            found = seen(lab.outside, address, 8080, udp=udp)
            assert found == {f"one {OUTSIDE}", f"two {OUTSIDE}"}, f"through {node}, udp: {udp}"
    for node, address in HOSTS.items():
        assert {said.split()[0] for said in seen(lab.hosts["n3"], address, 8080)} == {"one", "two"}, f"n3 by {node}"
        assert {said.split()[0] for said in seen(lab.hosts["n1"], address, 8080)} == {"one", "two"}, f"n1 by {node}"
        assert {said.split()[0] for said in seen(other, address, 8080)} == {"one", "two"}, f"a container by {node}"

    with pytest.raises(ConnectionRefusedError):  # so a program that dials localhost goes on to 127.0.0.1
        ask(lab.hosts["n1"], "::1", 8080)

    # a service whose ports answer on one IPv4 address is not to be had by IPv6
    await lab.say(inner, replace(both, published_on={"tcp/8080": ["127.0.0.1"]}))
    with pytest.raises(ConnectionRefusedError):
        ask(lab.outside, HOSTS["n3"], 8080)
    assert seen(lab.outside, HOSTS["n3"], 8080, udp=True)

    # one is gone: what was led to it is balanced anew
    with six(lab.outside, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect((HOSTS["n3"], 8080))
        for _ in range(2):
            client.send(b"?")
            first = client.recv(99).split()[0].decode()
        left = {"one": target(2, "n2"), "two": target(1, "n1")}[first]
        gone = target({"one": 1, "two": 2}[first], "").addresses6.values()
        await lab.say(inner, web(left))
        await lab.kernels["n3"].forget_flows(gone)
        client.send(b"?")
        assert client.recv(99).split()[0].decode() == {"one": "two", "two": "one"}[first]
    await lab.say(inner, web(target(1, "n1", ready=False)))
    for where, address, port in ((lab.outside, HOSTS["n2"], 8080), (two, VIP6, 80)):
        with pytest.raises(ConnectionRefusedError):
            ask(where, address, port)


async def test_a_service_without_tasks_refuses_at_once(lab: Any) -> None:
    """Also where no rule translates anything, so that nothing else has the kernel track connections."""
    asker = lab.container("n3", 9)
    empty = container_rules.container(
        task_id="t9",
        attached=target(9, "").addresses,
        networks=list(NETWORKS.values()),
        routes=[web(target(1, "n1", ready=False))],
    )
    assert "dnat" not in empty.full()
    await lab.kernels["n3"].apply(empty, netns_pid=asker.pid)
    with pytest.raises(ConnectionRefusedError):
        ask(asker, VIP6, 80)
    with inside(asker.pid):
        four = socket.socket()
    with four:
        four.settimeout(3)
        with pytest.raises(ConnectionRefusedError):
            four.connect((net.VIP, 80))


async def test_networks_are_closed_to_who_is_not_in_them(lab: Any) -> None:
    """A neighbour of a host might send it packets for its containers; published ports are the only way in."""
    container = lab.container("n1", 8)
    lab.serve("closed", container)
    await lab.say([(container, "n1", "t8")], web(target(8, "n1")))
    lab.outside.run("ip", "-6", "route", "replace", "fd00:200::/31", "via", HOSTS["n1"])
    for network in NETWORKS.values():
        with pytest.raises(TimeoutError):
            ask(lab.outside, at(8, network), 80, timeout=0.5)
    assert ask(lab.outside, HOSTS["n1"], 8080) == f"closed {OUTSIDE}"
    with six(lab.outside, socket.SOCK_DGRAM) as server:  # and out they go, as their host
        server.bind((OUTSIDE, 99))
        server.settimeout(3)
        with six(container, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", (OUTSIDE, 99))
        assert server.recvfrom(9)[1][0] == HOSTS["n1"]


async def test_a_host_that_forwards_still_listens_to_routers(lab: Any) -> None:
    host = lab.hosts["n2"]
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.eth0.accept_ra=1")
    await lab.kernels["n2"].forward_ipv6()
    assert host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.eth0.accept_ra").split() == [
        "1",
        "2",
    ]
    assert await lab.kernels["n2"].ipv6() == [HOSTS["n2"]]


def test_a_bridge_asks_by_an_address_of_its_own(lab: Any) -> None:
    """Engines give every bridge fe80::1: whoever answered that one could not know which host had asked."""
    shown = lab.hosts["n1"].run("ip", "-6", "addr", "show", "dev", bridge_name(BACKEND.id))
    local = [word for word in shown.split() if word.startswith("fe80::")]
    assert local[-1] != "fe80::1/64", "the oldest is the one"
    assert "fe80::2af:ac8:1fe/64" in local
    assert "fe80::1/64" in local, "an engine that starts looks for it"
    assert "tentative" not in shown
    assert container_mac("10.200.1.11") == "02:42:0a:c8:01:0b"
