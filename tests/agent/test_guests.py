"""Guests of one host, on a simulated engine and kernel, with a manager that decides as the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.agent.network.guests import Guests
from afterswarm.agent.network.network import Network
from afterswarm.core import wanted
from afterswarm.core.admit import guest as admit
from afterswarm.core.dataplane.container_rules import Names, container
from afterswarm.model.guest import Admission, Guest, Said, Wish
from afterswarm.model.network import Network as Overlay
from afterswarm.model.network import NetworkSpec
from afterswarm.model.node import Node, NodeReport, NodeState
from afterswarm.model.refused import Refused
from afterswarm.model.service import Endpoint, Service, ServiceSpec, VirtualIP
from afterswarm.model.session import Wanted
from afterswarm.model.snapshot import Snapshot
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.engine import SimEngine
from afterswarm.sim.kernel import SimKernel

pytestmark = pytest.mark.looptime

OPEN = Overlay(
    id="open" + "0" * 21,
    spec=NetworkSpec(name="open", attachable=True),
    subnet="10.0.1.0/24",
    vni=4097,
    gateways={"n1": "10.0.1.254"},
)
WEB = Service(
    id="web",
    spec=ServiceSpec(name="web"),
    endpoint=Endpoint(virtual_ips=[VirtualIP(network_id=OPEN.id, addr="10.0.1.2/24")]),
)


class Host:
    """One host, and a manager that tells it its part at once."""

    def __init__(self) -> None:
        self.clock = LoopClock(1_700_000_000)
        self.engine = SimEngine(clock=self.clock)
        self.engine.images.add("x")
        self.kernel = SimKernel(processes=range(1000))
        self.guests: dict[str, Guest] = {}
        self.rev = 1
        self.away = False
        self.slow = 0.0
        self.begin()

    def begin(self) -> None:
        """A new daemon."""
        self.network = Network(
            engine=self.engine, kernel=self.kernel, node_id="n1", clock=self.clock, heard={}, hold=self.hold
        )
        self.agent = Guests(engine=self.engine, network=self.network, clock=self.clock, ask=self.ask)

    def hold(self, addresses: frozenset[str]) -> None:
        self.held = addresses

    def snap(self) -> Snapshot:
        node, report = Node(id="n1", state=NodeState.READY), NodeReport(id="n1", address="10.77.0.1")
        return Snapshot.of([OPEN, WEB, node, report, *self.guests.values()], rev=self.rev)

    async def ask(self, path: str, body: bytes) -> bytes:
        await asyncio.sleep(0.01)
        if self.away:
            raise Refused(503, "no manager")
        self.rev += 1
        if path == "/guest/admit":
            network, guest = admit.admit(self.snap(), "n1", msgspec.json.decode(body, type=Wish))
            assert guest
            self.guests[guest.id] = guest
            self.tell()
            await asyncio.sleep(0.05)  # the answer is slower than the session
            return msgspec.json.encode(Admission(guest=guest, network=network))
        for change in admit.reported(self.snap(), "n1", msgspec.json.decode(body, type=Said)):
            self.guests.pop(change.obj.id)
            if isinstance(change.new, Guest):
                self.guests[change.new.id] = change.new
        self.tell()
        return b""

    def tell(self) -> None:
        parts = wanted.wanted(self.snap(), "n1")
        news = Wanted(
            rev=self.rev, networks=parts.networks, routes=parts.routes, guests=parts.guests, peers=parts.peers, tasks=[]
        )
        self.network.want(news)
        self.agent.want(news)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.tell()
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(self.network.run()), group.create_task(self.agent.run())]
            yield
            for life in lives:
                life.cancel()

    async def run(self, name: str, *, start: bool = True) -> Guest:
        """As the API does it."""
        guest, network, endpoint, _ = await self.agent.admit(Wish(network="open"))
        await asyncio.sleep(self.slow)
        body: dict[str, Any] = {"Image": "x", "NetworkingConfig": {"EndpointsConfig": {network: endpoint}}}
        await self.engine.create(name, body)
        self.agent.made([guest.id])
        if start:
            await self.engine.start(name)
        return guest

    async def events(self) -> None:
        """Something happens all the time."""
        while True:
            self.agent._look_again.set()
            await asyncio.sleep(0.01)

    def names(self) -> dict[str, bool]:
        return {guest.name: guest.running for guest in self.guests.values()}


@pytest.fixture
def host() -> Host:
    return Host()


async def test_the_life_of_a_guest(host: Host) -> None:
    async with host.running():
        assert not host.engine.nets, "a host without guests is in no network"
        guest = await host.run("solo", start=False)
        assert host.held == {guest.attachment.address.partition("/")[0]}, "its questions wait until its rules are there"
        await host.engine.start("solo")
        assert [n["Name"] for n in host.engine.nets.values()] == ["open"]
        await asyncio.sleep(0.5)
        assert host.names() == {"solo": True}
        pid = (await host.engine.inspect("solo"))["State"]["Pid"]
        assert "10.0.1.2 : goto" in host.kernel.rulesets[pid]
        assert host.held == set()
        host.engine.exit("solo")
        await asyncio.sleep(0.5)
        assert host.names() == {"solo": False}, "it keeps its address until it is removed"
        await host.engine.start("solo")
        await asyncio.sleep(0.5)
        assert "10.0.1.2 : goto" in host.kernel.rulesets[(await host.engine.inspect("solo"))["State"]["Pid"]]
        await host.engine.remove("solo")
        await asyncio.sleep(0.5)
        assert not host.guests
        await asyncio.sleep(10)
        assert not host.engine.nets


async def test_what_is_not_made_gives_its_address_back(host: Host) -> None:
    async with host.running():
        guest, *_ = await host.agent.admit(Wish(network="open"))
        await asyncio.sleep(30)
        assert guest.id in host.guests, "the engine may be slow"
        await host.agent.dismiss([guest.id])
        assert not host.guests
        await host.agent.admit(Wish(network="open"))
        await asyncio.sleep(200)
        assert not host.guests, "a client that never came back"


async def test_a_daemon_that_was_away(host: Host) -> None:
    async with host.running():
        stays, goes = await host.run("stays"), await host.run("goes")
        await asyncio.sleep(0.5)
    await host.engine.remove("goes")
    host.kernel.rulesets.clear()
    host.begin()
    assert set(host.guests) == {stays.id, goes.id}
    async with host.running():
        await asyncio.sleep(1)
        assert host.names() == {"stays": True}
        assert (await host.engine.inspect("stays"))["State"]["Pid"] in host.kernel.rulesets


async def test_without_a_manager_nobody_comes_in_and_nobody_is_lost(host: Host) -> None:
    async with host.running():
        await host.run("one")
        await asyncio.sleep(0.5)
        host.away = True
        with pytest.raises(Refused, match="no manager"):
            await host.run("two")
        await host.engine.remove("one")
        await asyncio.sleep(5)
        assert host.names() == {"one": True}
        host.away = False
        await asyncio.sleep(2)
        assert not host.guests


async def test_what_is_made_while_the_engine_is_asked_stays(host: Host) -> None:
    """The engine's answer is of before; seen on real hosts as one address given twice."""
    host.engine.latency = host.slow = 0.2
    async with host.running():
        async with asyncio.TaskGroup() as group:
            events = group.create_task(host.events())
            for n in range(6):
                guest = await host.run(f"more-{n}", start=False)
                await asyncio.sleep(0.07 * n)
                assert guest.id in host.guests
            await asyncio.sleep(5)
            events.cancel()
        assert len(host.guests) == 6
        assert len({g.attachment.address for g in host.guests.values()}) == 6


async def test_a_container_of_another_network_asks_us_for_names(host: Host) -> None:
    async with host.running():
        await host.run("solo")
        found = host.engine.made[(await host.engine.inspect("solo"))["Id"]]
        found.body["HostConfig"] = {"Dns": ["9.9.9.9"]}
        host.agent._look_again.set()
        await asyncio.sleep(0.5)
        rules = host.kernel.rulesets[found.pid]
        assert "ip daddr { 9.9.9.9 } meta l4proto { tcp, udp } th dport 53 dnat ip to 10.0.1.254" in rules
        assert "snat ip to 10.0.1.3" in rules
        found.body["HostConfig"] = {"Dns": ["10.0.1.254"]}
        host.agent._look_again.set()
        await asyncio.sleep(0.5)
        assert "dport 53" not in host.kernel.rulesets[found.pid]


def test_rules_for_names_leave_loopback_alone() -> None:
    names = Names("10.0.1.254", "10.0.1.3", ("127.0.0.53", "fe80::1", "10.9.9.9"))
    rules = container(task_id="t", attached={OPEN.id: ""}, networks=[OPEN], routes=[], names=names)
    assert "ip daddr { 10.9.9.9 } meta" in rules.full()
    only = replace(names, servers=("127.0.0.53",))
    rules = container(task_id="t", attached={OPEN.id: ""}, networks=[OPEN], routes=[], names=only)
    assert "dport 53" not in rules.full()
