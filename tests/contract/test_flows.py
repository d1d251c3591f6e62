"""What becomes of connections, associations and flows of datagrams, in the kernel's own tables and on the wire."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.adapters.kernel.namespaces import inside
from afterswarm.core.dataplane import paths, vxlan
from afterswarm.core.dataplane.container_rules import container
from afterswarm.core.dataplane.host_rules import host
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Route

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

IDLE = 15 * 60  # seconds after which Docker Swarm's mesh forgets an idle connection
SCTP = 132
CLIENT = "10.177.0.9"


class Stage:
    """Three hosts; a container on the first and on the second, and its server."""

    def __init__(self) -> None:
        self.lab = net.Lab()
        self.hosts, self.kernels, self.outside = self.lab.hosts, self.lab.kernels, self.lab.outside
        self.one, self.two = self.lab.container("n1", 1), self.lab.container("n2", 2)
        self.servers = {"one": self.lab.serve("one", self.one), "two": self.lab.serve("two", self.two)}

    async def say(self, *routes: Route) -> None:
        for node, kernel in self.kernels.items():
            links = vxlan.links(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS)
            await kernel.sync_links([msgspec.to_builtins(link) for link in links])
            await kernel.apply(host(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS))
            await kernel.sync_returns([msgspec.to_builtins(way) for way in paths.returns(net.NETWORKS, node)])
        for number, where in ((1, self.one), (2, self.two)):
            attached = net.target(number, "").addresses
            ruleset = container(
                task_id=f"t{number}",
                attached=attached,
                networks=net.NETWORKS,
                routes=routes,
                source=attached[net.BACKEND.id],
            )
            await self.kernels[f"n{number}"].apply(ruleset, netns_pid=where.pid)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.lab.close()


def dial(where: Any, address: str, port: int, *, source: tuple[str, int] | None = None, udp: bool = False) -> Any:
    dialled = where.socket(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    dialled.settimeout(3)
    if source:
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dialled.bind(source)
    dialled.connect((address, port))
    return dialled


def asked(dialled: socket.socket) -> str:
    """Who answers this datagram."""
    dialled.send(b"?")
    return dialled.recv(200).decode().split()[0]


def served_by(name: str, where: Any, address: str) -> Any:
    """A connection to this task of two."""
    for _ in range(4):
        dialled = dial(where, address, 8080)
        if dialled.recv(99).decode().split()[0] == name:
            return dialled
        dialled.close()
    raise AssertionError(f"{name} is not chosen")


async def test_a_client_may_use_one_port_towards_two_hosts(stage: Stage) -> None:
    """To the one container that both chose, these look like one connection: each needs its own all the same."""
    server = stage.servers["two"]
    await stage.say(net.web(net.target(2, "n2")))
    for order, port in ((("10.177.0.1", "10.177.0.3"), 40001), (("10.177.0.2", "10.177.0.1"), 40002)):
        with dial(stage.outside, order[0], 8080, source=(CLIENT, port)) as first:
            assert first.recv(99) == b"two 10.177.0.9\n"
            with dial(stage.outside, order[1], 8080, source=(CLIENT, port)) as second:
                assert second.recv(99) == b"two 10.177.0.9\n"
                server.say(b"still here")
                assert (first.recv(99), second.recv(99)) == (b"still here", b"still here")
                first.send(b"and I am")
                server.say(b"once more")
                assert (first.recv(99), second.recv(99)) == (b"once more", b"once more")
        server.drop()
        with (
            dial(stage.outside, order[0], 8080, source=(CLIENT, port), udp=True) as first,
            dial(stage.outside, order[1], 8080, source=(CLIENT, port), udp=True) as second,
        ):
            assert [asked(first), asked(second), asked(first)] == ["two"] * 3


async def test_such_connections_are_forgotten_with_their_target(stage: Stage) -> None:
    await stage.say(net.web(net.target(2, "n2")))
    with dial(stage.outside, "10.177.0.1", 8080, source=(CLIENT, 40005)) as kept:
        assert kept.recv(99)
        address = net.target(2, "n2").addresses[net.INGRESS.id]
        assert "sport=40005" in stage.hosts["n2"].run("conntrack", "-L", "-p", "tcp")
        await stage.kernels["n2"].forget_flows([address], datagrams=True)
        assert "sport=40005" in stage.hosts["n2"].run("conntrack", "-L", "-p", "tcp"), "it is none of datagrams"
        await stage.kernels["n2"].forget_flows([address])
        assert "sport=40005" not in stage.hosts["n2"].run("conntrack", "-L", "-p", "tcp")


async def test_what_has_ended_is_left_and_its_port_is_balanced_anew(stage: Stage) -> None:
    """Its entry is deleted by name: that would be the next connection's by then, if the client uses the port again."""
    server, client = stage.servers["one"], (CLIENT, 40007)
    stage.servers["two"].drop()
    await stage.say(net.web(net.target(1, "n1")))
    with dial(stage.outside, "10.177.0.3", 8080, source=client) as first:
        assert first.recv(99) == b"one 10.177.0.9\n"
        server.drop()  # ends it
        assert first.recv(99) == b""

    def entry() -> str:
        lines = stage.hosts["n3"].run("conntrack", "-L", "-p", "tcp").splitlines()
        return next((line for line in lines if "sport=40007" in line), "")

    assert "TIME_WAIT" in entry()
    await stage.say(net.web(net.target(2, "n2")))
    await stage.kernels["n3"].forget_flows(net.target(1, "n1").addresses.values())
    assert "TIME_WAIT" in entry()
    with dial(stage.outside, "10.177.0.3", 8080, source=client) as second:
        assert second.recv(99) == b"two 10.177.0.9\n"
        assert "ESTABLISHED" in entry()
        await stage.kernels["n3"].forget_flows(net.target(1, "n1").addresses.values())
        stage.servers["two"].say(b"still here")
        assert second.recv(99) == b"still here"
        await stage.kernels["n3"].forget_flows(net.target(2, "n2").addresses.values())
        assert not entry(), "a connection that has not ended is forgotten"
    stage.servers["two"].drop()


async def test_datagrams_of_one_socket_go_to_another_task_when_theirs_is_to_end(stage: Stage) -> None:
    targets = {"one": net.target(1, "n1"), "two": net.target(2, "n2")}
    await stage.say(net.web(*targets.values()))
    for entry in ("n1", "n3"):
        with dial(stage.outside, f"10.177.0.{entry[1]}", 8080, udp=True) as client:
            before = asked(client)
            after = next(name for name in targets if name != before)
            with served_by(before, stage.outside, f"10.177.0.{entry[1]}") as kept:
                await stage.say(net.web(replace(targets[before], draining=True), targets[after]))
                assert asked(client) == before, "rules alone move nothing"
                for kernel in stage.kernels.values():
                    await kernel.forget_flows(targets[before].addresses.values(), datagrams=True)
                assert {asked(client) for _ in range(3)} == {after}, f"through {entry}"
                stage.servers[before].say(b"still here")
                assert kept.recv(99) == b"still here", "a connection goes on until it ends"
        for server in stage.servers.values():
            server.drop()
        await stage.say(net.web(*targets.values()))


async def test_idle_connections_are_remembered_and_outlive_new_rules(stage: Stage) -> None:
    """Through this host, through another one, and to a virtual address. The kernel says when it would forget them."""
    client, server = stage.one, stage.servers["two"]
    web = net.web(net.target(2, "n2"))
    await stage.say(web)
    local, remote = (dial(stage.outside, f"10.177.0.{n}", 8080, source=(CLIENT, 40010 + n)) for n in (2, 3))
    inner = dial(client, net.VIP, 80)
    kept = (local, remote, inner)
    assert {each.recv(99).decode().split()[0] for each in kept} == {"two"}

    def forgotten_in(where: Any, port: int) -> int:
        lines = where.run("conntrack", "-L", "-p", "tcp").splitlines()
        seconds = [re.search(rf"tcp +6 (\d+) ESTABLISHED .*\bsport={port} ", line) for line in lines]
        [found] = [int(match[1]) for match in seconds if match]
        return found

    places = [
        (stage.hosts["n2"], 40012),
        (stage.hosts["n3"], 40013),
        (stage.hosts["n2"], 40013),
        (client, inner.getsockname()[1]),
    ]
    assert min(forgotten_in(*place) for place in places) > IDLE
    both = net.web(net.target(1, "n1"), net.target(2, "n2"))
    await stage.say(both)
    assert min(forgotten_in(*place) for place in places) > IDLE
    server.say(b"still here")
    assert [each.recv(99) for each in kept] == [b"still here"] * 3
    for each in kept:
        each.close()
    server.drop()


async def test_a_container_reaches_itself_through_its_own_published_port(stage: Stage) -> None:
    """Also when it goes out by the network that it is reached in, as one does that is in no other."""
    await stage.say(net.web(net.target(1, "n1")))
    for network in (net.INGRESS, net.BACKEND):
        stage.one.run("ip", "route", "replace", "default", "via", network.gateways["n1"])
        for address in ("10.177.0.1", "10.177.0.3"):
            assert net.ask(stage.one, address, 8080).startswith("one "), (network.spec.name, address)


async def test_a_port_may_be_published_through_one_interface(stage: Stage) -> None:
    web = net.web(net.target(1, "n1"))
    for through, answered in ((["eth0"], True), (["eth7"], False), ([], True)):
        await stage.say(replace(web, published_through={"tcp/8080": through}))
        if answered:
            assert net.ask(stage.outside, "10.177.0.1", 8080) == f"one {CLIENT}"
        else:
            with pytest.raises(ConnectionRefusedError):
                net.ask(stage.outside, "10.177.0.1", 8080)


def checksum(data: bytes) -> int:
    """CRC32c, as SCTP has it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def chunk(source: int, target: int, tag: int, kind: int, said: bytes) -> bytes:
    body = struct.pack("!BBH", kind, 0, 4 + len(said)) + said
    head = struct.pack("!HHI", source, target, tag)
    return head + struct.pack("<I", checksum(head + bytes(4) + body)) + body


def taken(where: socket.socket) -> tuple[str, int, int, bytes]:
    """From whom, its port, our port, and what was said; its checksum is right."""
    packet, (address, _) = where.recvfrom(2048)
    said = packet[(packet[0] & 15) * 4 :]
    source, target, _ = struct.unpack("!HHI", said[:8])
    assert struct.unpack("<I", said[8:12])[0] == checksum(said[:8] + bytes(4) + said[12:])
    return address, source, target, said[12:]


async def test_sctp_finds_its_task_and_its_way_back(stage: Stage) -> None:
    """As packets, for kernels whose sockets have no SCTP: a client asks for an association and is answered."""
    port = PortConfig(protocol="sctp", target_port=80, published_port=8080)
    await stage.say(replace(net.web(net.target(2, "n2")), ports=[port]))
    init = struct.pack("!IIHHI", 0x1234, 65536, 1, 1, 1)
    for number, entry in enumerate(("10.177.0.2", "10.177.0.3")):
        with raw(stage.outside) as client, raw(stage.two) as inner:
            inner.bind((net.target(2, "").addresses[net.INGRESS.id], 0))  # and answers from the address that was asked
            client.sendto(chunk(50000 + number, 8080, 0, 1, init), (entry, 0))
            assert taken(inner) == (CLIENT, 50000 + number, 80, struct.pack("!BBH", 1, 0, 20) + init)
            inner.sendto(chunk(80, 50000 + number, 0x1234, 2, init), (CLIENT, 0))
            assert taken(client) == (entry, 8080, 50000 + number, struct.pack("!BBH", 2, 0, 20) + init)


def raw(where: Any) -> socket.socket:
    with inside(where.pid):
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP)
    made.settimeout(3)
    return made
