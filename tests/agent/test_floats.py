"""Floating addresses as a host's agent and a manager keep them, over a post in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from afterswarm.agent.floating.floats import Floats
from afterswarm.control.cache import Cache
from afterswarm.control.floating import Votes
from afterswarm.core.floating import OPEN, SETTLE
from afterswarm.model.base import Change
from afterswarm.model.floating import Ask, Choice, Floating, Letters
from afterswarm.model.node import Node, NodeState, Role
from afterswarm.model.session import Peer, Wanted
from afterswarm.sim.addresses import SimAddresses
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.looptime

ADDRESS = "192.0.2.9"
PLACE = f"{ADDRESS}/24"


class Pair:
    """Two hosts, the first of them the manager."""

    def __init__(self, path: Path) -> None:
        self.clock = LoopClock()
        self.path = path
        self.deaf: set[str] = set()
        self.kernels = {
            name: SimAddresses({"eth0": [f"192.0.2.{n}/24"]}, self.clock.monotonic)
            for n, name in enumerate(("n1", "n2"), 1)
        }
        self.hosts = {name: self.host(name) for name in self.kernels}
        self.votes: Votes | None = None

    def host(self, name: str, boot: str = "1") -> Floats:
        made = Floats(
            node_id=name,
            boot=f"{name}/{boot}",
            clock=self.clock,
            addresses=self.kernels[name],
            tell=lambda to, letter: self.tell(name, to, letter),
            file=self.path / name,
        )
        made.want(wanted())
        return made

    def tell(self, sender: str, to: str, letter: Letters) -> None:
        if sender != to and self.deaf & {sender, to}:
            return
        asyncio.get_running_loop().call_later(0.001, self.deliver, sender, to, letter)

    def deliver(self, sender: str, to: str, letter: Letters) -> None:
        if not isinstance(letter, Ask | Choice):
            self.hosts[to].take(sender, letter)
        elif self.votes and to == "n1":
            self.votes.take(sender, letter)

    def answering(self) -> list[str]:
        return [name for name, kernel in self.kernels.items() if kernel.answers(ADDRESS)]


def wanted(*, barred: bool = False, addresses: tuple[str, ...] = (PLACE,)) -> Wanted:
    peers = [Peer(node_id="n1", manager=True), Peer(node_id="n2")]
    return Wanted(peers=peers, floating=Floating(addresses=list(addresses), barred=barred))


@asynccontextmanager
async def running(pair: Pair) -> AsyncIterator[None]:
    store = SimStore()
    cache = Cache(store, pair.clock)
    node = Node(id="n1", role=Role.MANAGER, state=NodeState.READY)
    await store.commit([Change(None, node), Change(None, Node(id="n2"))], seen=0)
    pair.votes = Votes(cache, me="n1", clock=pair.clock, heard={}, tell=lambda to, letter: pair.tell("n1", to, letter))
    async with asyncio.TaskGroup() as group:
        parts = [cache.run(), pair.votes.run(), *(host.run() for host in pair.hosts.values())]
        tasks = [group.create_task(part) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def within(pair: Pair, seconds: float, *names: str) -> None:
    ends = pair.clock.now() + seconds
    while pair.answering() != list(names):
        assert pair.clock.now() < ends, f"{pair.answering()} instead of {names}"
        await asyncio.sleep(0.01)
        assert len(pair.answering()) <= 1


BEGIN = SETTLE + 3.0  # seconds until the manager votes


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


async def test_one_of_the_hosts_takes_it_and_tells_its_network(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
        [name] = pair.answering()
        assert pair.kernels[name].announced.count(f"{ADDRESS}@eth0") >= 2
        assert pair.votes
        assert pair.votes.holders() == {ADDRESS: name}
        assert sorted(found.here for host in pair.hosts.values() for found in host.whereabouts()) == ["held", "ready"]


async def test_a_host_that_is_cut_off_lets_go_before_the_other_takes_it(pair: Pair) -> None:
    pair.hosts["n1"].want(wanted(barred=True))
    async with running(pair):
        await within(pair, BEGIN, "n2")
        pair.hosts["n1"].want(wanted())
        await asyncio.sleep(1.5)
        pair.deaf.add("n2")
        await within(pair, 1.0, "n1")
        await asyncio.sleep(1.0)
        assert ADDRESS not in pair.kernels["n2"].here


async def test_what_is_barred_hands_it_over_at_once(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
        [before] = pair.answering()
        pair.hosts[before].want(wanted(barred=True))
        await within(pair, 0.3, *({"n1", "n2"} - {before}))


async def test_a_daemon_that_ends_gives_it_away(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
    assert not any(kernel.here or kernel.guarded for kernel in pair.kernels.values())


async def test_what_an_earlier_life_held_is_taken_away_before_anybody_votes(pair: Pair) -> None:
    (pair.path / "n2").write_text(f"{ADDRESS} eth0\n")
    pair.kernels["n2"].here[ADDRESS] = "eth0"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pair.hosts["n2"].run())
        await asyncio.sleep(0.01)
        assert pair.answering() == []
        task.cancel()


async def test_one_that_is_there_and_floats_is_taken_away_though_nobody_noted_it(pair: Pair) -> None:
    pair.kernels["n2"].here[ADDRESS] = "eth0"
    async with running(pair):
        await asyncio.sleep(0.1)
        assert pair.answering() == []


async def test_a_host_whose_own_address_it_is_keeps_it_and_says_so(pair: Pair) -> None:
    pair.kernels["n2"].own["eth0"].append(PLACE)
    async with running(pair):
        await within(pair, BEGIN, "n1")
        assert [found.here for found in pair.hosts["n2"].whereabouts()] == ["this host has that address by itself"]
        assert pair.kernels["n2"].own["eth0"] == ["192.0.2.2/24", PLACE]


async def test_what_others_break_is_put_right(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
        [name] = pair.answering()
        del pair.kernels[name].here[ADDRESS]
        pair.kernels[name].lost, pair.kernels[name].guarded = True, set()
        await within(pair, 6.0, name)
        assert pair.kernels[name].guarded == {(ADDRESS, "eth0")}


async def test_the_kernel_lets_it_go_when_nobody_refreshes_it(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
        [name] = pair.answering()
    pair.kernels[name].guarded = {(ADDRESS, "eth0")}  # as if the daemon had been killed at that moment
    pair.kernels[name].here[ADDRESS] = "eth0"
    await asyncio.sleep(OPEN)
    assert pair.answering() == []


async def test_an_address_that_is_not_asked_for_any_more_goes(pair: Pair) -> None:
    async with running(pair):
        await asyncio.sleep(BEGIN)
        for host in pair.hosts.values():
            host.want(wanted(addresses=()))
        await within(pair, 0.1)
        assert not any(kernel.here or kernel.guarded for kernel in pair.kernels.values())
        assert not any(host.whereabouts() for host in pair.hosts.values())
