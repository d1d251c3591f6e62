"""Large packets on wires of any size: between containers, and from outside through the mesh."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.dataplane import container_rules, host_rules, paths, sizes, vxlan, wireguard
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.session import Peer

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

NODES = ("n1", "n2")
BULK = bytes(range(256)) * 2000
DATAGRAM = bytes(range(250)) * 32  # 8000: in fragments on all wires but the largest
SEALED = NetworkSpec(name="backend", options={"encrypted": ""})
NEVER_FRAGMENT = 2  # IP_PMTUDISC_DO
MTU_DISCOVER, KNOWN_MTU = 10, 14


class Wire:
    """A lab whose cables have a size each, and a container on each host that has what it is given."""

    def __init__(self) -> None:
        self.lab = net.Lab()
        self.containers = {node: self.lab.container(node, n) for n, node in enumerate(NODES, start=1)}
        self.route = net.web(net.target(1, "n1"), net.target(2, "n2"))

    async def become(self, sizes_: dict[str, int], *, sealed: bool) -> None:
        lab = self.lab
        networks = [replace(n, spec=SEALED) if sealed and not n.spec.ingress else n for n in net.NETWORKS]
        for name, number, where in (("n1", 1, lab.hosts["n1"]), ("n2", 2, lab.hosts["n2"]), ("", 9, lab.outside)):
            size = str(sizes_.get(name) or max(sizes_.values()))
            lab.wire.run("ip", "link", "set", f"v{number}", "mtu", size)
            where.run("ip", "link", "set", "eth0", "mtu", size)
        keys = {node: await lab.kernels[node].key_pair() for node in NODES}
        mtus = {n: await lab.kernels[n].underlay(f"10.177.0.{n[1]}") for n in NODES}
        assert mtus == sizes_
        known = [p for p in net.PEERS if p.node_id in NODES]
        peers = [replace(p, mtu=mtus[p.node_id], wireguard=keys[p.node_id][1]) for p in known]
        for number, node in enumerate(NODES, start=1):
            await self._host(node, networks, peers, keys[node][0])
            await self._container(node, number, networks)
            for index, network in enumerate(reversed(networks)):
                size = str(sizes.of_containers(network, peers))
                self.containers[node].run("ip", "link", "set", f"eth{index}", "mtu", size)
                lab.hosts[node].run("ip", "link", "set", f"c{number}-{index}", "mtu", size)

    async def _host(self, node: str, networks: list[Network], peers: list[Peer], private: str) -> None:
        kernel = self.lab.kernels[node]
        tunnel = wireguard.tunnel(node_id=node, networks=networks, peers=peers)
        await kernel.sync_wireguard(tunnel and msgspec.to_builtins(tunnel), private)
        links = vxlan.links(node_id=node, networks=networks, routes=[self.route], peers=peers)
        await kernel.sync_links([msgspec.to_builtins(link) for link in links])
        await kernel.apply(host_rules.host(node_id=node, networks=networks, routes=[self.route], peers=peers))
        await kernel.sync_returns([msgspec.to_builtins(way) for way in paths.returns(networks, node)])

    async def _container(self, node: str, number: int, networks: list[Network]) -> None:
        addresses = net.target(number, node).addresses
        rules = container_rules.container(
            task_id=f"t{number}",
            attached=addresses,
            networks=networks,
            routes=[self.route],
            source=addresses[net.BACKEND.id],
        )
        await self.lab.kernels[node].apply(rules, netns_pid=self.containers[node].pid)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.lab.close()


def exchanged(client: Any, server: Any, address: str, port: int = 80) -> bool:
    """Whether half a megabyte gets there and back by TCP."""

    def answer() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(4)
                peer.sendall(received(peer))

    with server.socket() as listener, client.socket() as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", 80))
        listener.listen()
        listener.settimeout(4)
        answering = threading.Thread(target=answer)
        answering.start()
        caller.settimeout(4)
        try:
            caller.connect((address, port))
            caller.sendall(BULK)
            return received(caller) == BULK
        finally:
            answering.join()


def received(peer: socket.socket) -> bytes:
    found = bytearray()
    while len(found) < len(BULK) and (more := peer.recv(65536)):
        found += more
    return bytes(found)


def datagram(client: Any, server: Any, address: str, port: int = 80) -> bool:
    """Whether a large one gets there, in fragments, and the like of it back."""
    with server.socket(socket.SOCK_DGRAM) as ear, client.socket(socket.SOCK_DGRAM) as mouth:
        ear.bind(("0.0.0.0", 80))
        ear.settimeout(3)
        mouth.settimeout(3)
        mouth.connect((address, port))
        mouth.send(DATAGRAM)
        said, who = ear.recvfrom(9999)
        ear.sendto(said, who)
        return mouth.recv(9999) == said == DATAGRAM


@pytest.mark.parametrize("sealed", [False, True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("mtus", [(1500, 1500), (1300, 1300), (9000, 9000), (9000, 1500)], ids=str)
async def test_nothing_hangs(wire: Wire, mtus: tuple[int, int], sealed: bool) -> None:  # noqa: FBT001
    await wire.become(dict(zip(NODES, mtus, strict=True)), sealed=sealed)
    one, two = wire.containers.values()
    assert exchanged(one, two, "10.200.1.12")
    assert exchanged(two, one, "10.200.1.11")
    assert datagram(one, two, "10.200.1.12")
    assert datagram(two, one, "10.200.1.11")
    if mtus[0] == mtus[1]:  # else the client has a wire that its switch would not let it use with the smaller host
        for number, there in ((1, one), (2, two)):
            wire.route = net.web(net.target(number, f"n{number}"))
            await wire.become(dict(zip(NODES, mtus, strict=True)), sealed=sealed)
            for entry in ("10.177.0.1", "10.177.0.2"):  # with and without a task of its own
                assert exchanged(wire.lab.outside, there, entry, 8080), f"through {entry} to n{number}"
                assert datagram(wire.lab.outside, there, entry, 8080), f"through {entry} to n{number}"
        wire.route = net.web(net.target(1, "n1"), net.target(2, "n2"))


async def test_who_sends_too_much_is_told(wire: Wire) -> None:
    """A client that forbids fragments learns from the host it dialled what its container takes."""
    wire.route = net.web(net.target(2, "n2"))
    await wire.become(dict.fromkeys(NODES, 1500), sealed=False)
    for entry in ("10.177.0.1", "10.177.0.2"):
        with closing(wire.lab.outside.socket(socket.SOCK_DGRAM)) as client:
            client.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, NEVER_FRAGMENT)
            client.settimeout(0.5)
            client.connect((entry, 8080))
            with pytest.raises(OSError, match="Message too long"):
                nag(client)
            assert client.getsockopt(socket.IPPROTO_IP, KNOWN_MTU) == 1450


def nag(client: socket.socket) -> None:
    """The kernel says so as often as its limit of such messages lets it."""
    for _ in range(8):
        client.send(bytes(1472))
        with suppress(TimeoutError):
            client.recv(1)
