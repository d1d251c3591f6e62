"""The resolver on the loopback: asked over real sockets, with an upstream of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSRecord

from afterswarm.agent.network import upstream
from afterswarm.agent.network.resolver import Resolver, host_nameservers
from afterswarm.core.dns import Zone
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.service import ContainerSpec, DNSConfig, TaskSpec
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Attachment, Task
from afterswarm.sim.clock import LoopClock

GATEWAY, CONTAINER, STRANGER = "127.0.1.254", "127.0.1.50", "127.0.9.9"
FREE_SERVER, OWN_SERVER = "127.0.7.1", "127.0.7.2"
TASK = Task(id="t", attachments=[Attachment(network_id="n", address=f"{CONTAINER}/24")])


def zone(*, many: int = 2, nameservers: tuple[str, ...] = ()) -> Zone:
    network = Network(id="n", spec=NetworkSpec(name="n"), subnet="127.0.1.0/24", gateways={"n1": GATEWAY})
    targets = [
        Target(task_id=f"t{i}", node_id="n1", name=f"db.{i}.t{i}", slot=i, addresses={"n": f"127.0.1.{i}"}, ready=True)
        for i in range(1, many + 1)
    ]
    routes = [
        Route(service_id="s1", name="web", vips={"n": "127.0.1.200"}),
        Route(service_id="s2", name="db", mode="dnsrr", targets=targets),
    ]
    spec = TaskSpec(container_spec=ContainerSpec(dns_config=DNSConfig(nameservers=list(nameservers))))
    task = Task(id=TASK.id, attachments=TASK.attachments, spec=spec)
    return Zone.of(networks=[network], routes=routes, tasks=[task])


class Upstream(asyncio.DatagramProtocol):
    """Answers everything with one address, or nothing; counts."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = DNSRecord.parse(data)
        self.asked.append(str(question.q.qname))
        if self.address:
            reply = question.reply()
            reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A(self.address), ttl=60))
            self.transport.sendto(reply.pack(), addr)  # type: ignore[attr-defined]


class Place:
    """The resolver under test and its surroundings."""

    def __init__(self) -> None:
        self.zone = zone()
        self.addresses = [GATEWAY]
        self.port = free_port()
        self.servers = {FREE_SERVER: Upstream("192.0.2.7"), OWN_SERVER: Upstream("192.0.2.9")}
        self.upstream = [FREE_SERVER]
        self.upstream_port = free_port()
        self.resolver = Resolver(
            zone=lambda: self.zone,
            addresses=lambda: self.addresses,
            clock=LoopClock(),
            upstream=lambda: self.upstream,
            port=self.port,
            upstream_port=self.upstream_port,
        )

    async def ask(self, name: str, kind: str = "A", *, source: str = CONTAINER, edns: int = 0) -> DNSRecord:
        question = DNSRecord.question(name, kind)
        if edns:
            question.add_ar(EDNS0(udp_len=edns))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            out.bind((source, 0))
            out.connect((GATEWAY, self.port))
            await loop.sock_sendall(out, question.pack())
            async with asyncio.timeout(10):
                reply = DNSRecord.parse(await loop.sock_recv(out, 65535))
        assert reply.header.id == question.header.id
        return reply


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def values(reply: DNSRecord) -> list[str]:
    return [str(answer.rdata) for answer in reply.rr]


@asynccontextmanager
async def running() -> AsyncIterator[Place]:
    place = Place()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        transports = []
        for address, server in place.servers.items():
            made = await loop.create_datagram_endpoint(
                lambda server=server: server, local_addr=(address, place.upstream_port)
            )
            transports.append(made[0])
        task = group.create_task(place.resolver.run())
        while GATEWAY not in place.resolver._listening:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield place
        task.cancel()
        for transport in transports:
            transport.close()


async def test_a_service_and_its_time_to_live() -> None:
    async with running() as place:
        reply = await place.ask("web")
        assert values(reply) == ["127.0.1.200"]
        assert [answer.ttl for answer in reply.rr] == [0]
        assert reply.header.aa
        assert reply.header.ra
        assert values(await place.ask("WEB.")) == ["127.0.1.200"]


async def test_the_names_of_many_take_turns() -> None:
    async with running() as place:
        answers = [values(await place.ask("db")) for _ in range(4)]
        assert all(sorted(a) == ["127.0.1.1", "127.0.1.2"] for a in answers)
        assert len({tuple(a) for a in answers}) == 2


async def test_no_address_of_version_6_is_no_error() -> None:
    async with running() as place:
        reply = await place.ask("web", "AAAA")
        assert reply.header.rcode == RCODE.NOERROR
        assert reply.rr == []
        assert place.servers[FREE_SERVER].asked == []


async def test_addresses_have_names() -> None:
    async with running() as place:
        assert values(await place.ask("200.1.0.127.in-addr.arpa", "PTR")) == ["web."]
        assert (await place.ask("9.1.0.127.in-addr.arpa", "PTR")).header.rcode == RCODE.NXDOMAIN


async def test_other_names_are_passed_on() -> None:
    async with running() as place:
        assert values(await place.ask("example.org")) == ["192.0.2.7"]
        assert place.servers[FREE_SERVER].asked == ["example.org."]


async def test_a_service_may_bring_its_own_nameserver() -> None:
    async with running() as place:
        place.zone = zone(nameservers=(OWN_SERVER,))
        assert values(await place.ask("example.org")) == ["192.0.2.9"]
        assert values(await place.ask("web")) == ["127.0.1.200"]


async def test_the_next_server_is_asked_when_one_is_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PATIENCE", 0.2)
    async with running() as place:
        place.servers[FREE_SERVER].address = ""
        place.upstream = [FREE_SERVER, OWN_SERVER]
        assert values(await place.ask("example.org")) == ["192.0.2.9"]


@pytest.mark.parametrize("servers", [[], ["127.0.7.99"], [GATEWAY]])
async def test_nobody_to_ask_is_an_honest_failure(servers: list[str]) -> None:
    """No server, one that refuses, and ourselves, whom we must not ask."""
    async with running() as place:
        place.upstream = servers
        assert (await place.ask("example.org")).header.rcode == RCODE.SERVFAIL


async def test_strangers_are_refused() -> None:
    async with running() as place:
        assert (await place.ask("web", source=STRANGER)).header.rcode == RCODE.REFUSED
        assert (await place.ask("example.org", source=STRANGER)).header.rcode == RCODE.REFUSED
        assert place.servers[FREE_SERVER].asked == []


async def test_long_answers_are_cut_and_whole_by_tcp() -> None:
    async with running() as place:
        place.zone = zone(many=60)
        assert (await place.ask("db")).header.tc
        assert len(values(await place.ask("db", edns=4096))) == 60
        reader, writer = await asyncio.open_connection(GATEWAY, place.port, local_addr=(CONTAINER, 0))
        for _ in range(2):  # one connection, several questions
            question = DNSRecord.question("db").pack()
            writer.write(len(question).to_bytes(2) + question)
            reply = DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
            assert len(values(reply)) == 60
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)


async def test_noise_is_not_answered() -> None:
    async with running() as place:
        assert await place.resolver.answer(b"noise", CONTAINER, stream=False) == b""
        reply = DNSRecord.question("web").reply().pack()
        assert await place.resolver.answer(reply, CONTAINER, stream=False) == b""
        assert values(await place.ask("web")) == ["127.0.1.200"]


async def test_it_listens_where_it_should(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as place:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.1.253", place.port))
            place.addresses = [GATEWAY, "127.0.1.253", "10.99.99.99"]  # one is taken, one no bridge has yet
            await asyncio.sleep(1.2)
            assert set(place.resolver._listening) == {GATEWAY, "10.99.99.99"}
            assert len([r for r in caplog.records if "127.0.1.253" in r.message]) == 1
        await asyncio.sleep(0.6)
        assert set(place.resolver._listening) == set(place.addresses)
        place.addresses = ["127.0.1.253"]
        await asyncio.sleep(0.6)
        assert set(place.resolver._listening) == {"127.0.1.253"}


def test_the_hosts_own_nameservers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 1.1.1.1\nsearch lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver\n")
    assert host_nameservers(path) == ["192.0.2.1"]
    assert host_nameservers(tmp_path / "missing") == []
