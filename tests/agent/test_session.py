"""The agent's end of its session, in virtual time: it finds a manager, and another at once, and forgets nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from afterswarm.agent.session import Session
from afterswarm.http.errors import ConnectFailed, HttpError
from afterswarm.model.session import (
    EPOCH,
    SEEN,
    SILENCE,
    Down,
    Hello,
    Peer,
    Reports,
    ToManager,
    Up,
    Wanted,
    Welcome,
)
from afterswarm.model.task import Report, TaskState
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.pipe import Pipe, pipes

pytestmark = pytest.mark.looptime(end=36000)


class Manager:
    """A manager at an address: accepts, refuses, or (`dead`) does not even refuse."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.status = 101
        self.dead = False
        self.lost = False  # nothing listens there
        self.rev = 7
        self.epoch = 0.0
        self.attempts: list[float] = []
        self.heard: list[Hello | Reports | Up] = []
        self.headers: dict[str, str] = {}
        self.end: Pipe | None = None

    async def upgrade(self, method: str, target: str, *, headers: list[tuple[str, str]], protocol: str) -> Pipe:
        assert (method, target, protocol) == ("POST", "/session", "afterswarm-session")
        self.attempts.append(asyncio.get_running_loop().time())
        self.headers = dict(headers)
        if self.lost:
            raise ConnectFailed("nobody there")
        if self.dead:
            await asyncio.sleep(100)
        await asyncio.sleep(0.01)
        if self.status != 101:
            raise HttpError(self.status, "no")
        ours, theirs = pipes()
        self.end = theirs
        await self.say(Welcome(node_id="me", manager_id=f"id-{self.address}", epoch=self.epoch))
        await self.say(Wanted(rev=self.rev, tasks=[], peers=PEERS))
        return ours

    async def say(self, message: Welcome | Wanted | Down) -> None:
        assert self.end is not None
        await self.end.write(msgspec.json.encode(message) + b"\n")

    async def run(self) -> None:
        """Beat, and listen."""
        while True:
            await asyncio.sleep(0.1)
            end = self.end
            if end is None or end.closed or self.dead:
                continue
            try:
                await self.say(Down())
            except ConnectionError:
                end.close()
            while not end._lines.empty():
                line = await end.readline()
                if line:
                    self.heard.append(msgspec.json.decode(line, type=ToManager))

    def cut(self) -> None:
        """The power."""
        self.dead = True
        if self.end:
            self.end.cut()

    def reports(self) -> list[Report]:
        return [r for m in self.heard if isinstance(m, Reports) for r in m.reports]


PEERS = [Peer(node_id=a, address=a, manager=a != "d") for a in "abcd"]


class World:
    def __init__(self, addresses: str = "abc", local: str = "", seed: int = 4) -> None:
        self.managers = {a: Manager(a) for a in addresses}
        self.known = list(addresses)
        self.local = local
        self.wanted: list[Wanted] = []
        self.told: list[list[str]] = []
        self.removed = False
        self.current = {"t": Report(id="t", state=TaskState.RUNNING)}
        self.session = Session(
            connect=self.managers.__getitem__,
            managers=lambda: self.known,
            local=lambda: self.local,
            hello=lambda: Hello(address="me"),
            reports=lambda: list(self.current.values()),
            on_wanted=self.wanted.append,
            on_managers=self.told.append,
            removed=self.remove,
            renewed=lambda: self.told.append(["anew"]),
            clock=LoopClock(),
            rng=random.Random(seed),  # noqa: S311 - repeatable
        )

    def remove(self) -> None:
        self.removed = True

    @property
    def now_with(self) -> Manager:
        return self.managers[self.session.manager_id.removeprefix("id-")]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(m.run()) for m in self.managers.values()]
            tasks.append(group.create_task(self.session.run()))
            await asyncio.sleep(1)
            yield
            for task in tasks:
                task.cancel()


async def test_says_who_it_is_and_all_states_and_hears_what_is_wanted() -> None:
    world = World()
    async with world.running():
        with_whom = world.now_with
        assert isinstance(with_whom.heard[0], Hello)
        assert [r.id for r in with_whom.reports()] == ["t"]
        assert world.wanted[0].tasks == []
        assert world.told == [["a", "b", "c"]]
        assert sum(len(m.attempts) for m in world.managers.values()) == 1
        world.session.send(Report(id="u", state=TaskState.STARTING))
        world.session.send(Report(id="u", state=TaskState.RUNNING))
        world.session.greet()
        await asyncio.sleep(0.2)
        assert [(r.id, r.state) for r in with_whom.reports()][1:] == [("u", TaskState.RUNNING)]
        assert sum(isinstance(m, Hello) for m in with_whom.heard) == 2


async def test_the_manager_on_this_host_comes_first() -> None:
    for seed in range(10):
        world = World(local="c", seed=seed)
        async with world.running():
            assert world.session.manager_id == "id-c"


async def test_managers_share_the_agents() -> None:
    chosen = set()
    for seed in range(20):
        world = World(seed=seed)
        async with world.running():
            chosen.add(world.session.manager_id)
    assert chosen == {"id-a", "id-b", "id-c"}


async def test_a_power_cut_is_noticed_and_another_manager_has_it_all() -> None:
    world = World()
    async with world.running():
        dead = world.now_with
        dead.cut()
        world.current["t"] = Report(id="t", state=TaskState.FAILED)
        world.session.send(world.current["t"])  # nobody hears it
        await asyncio.sleep(SILENCE + 0.3)
        other = world.now_with
        assert other is not dead
        assert [r.state for r in other.reports()] == [TaskState.FAILED]
        assert len(world.wanted) == 2


async def test_a_closed_connection_is_replaced_at_once() -> None:
    world = World()
    async with world.running():
        first = world.now_with
        first.end.close()
        await asyncio.sleep(0.29)
        assert world.session.manager_id not in ("", f"id-{first.address}")
        assert len(world.wanted) == 2


async def test_dead_and_refusing_managers_cost_little() -> None:
    world = World(local="a")
    world.managers["a"].dead = True
    world.managers["b"].status = 503
    async with world.running():
        assert world.session.manager_id == "id-c"
        begun = min(t for m in world.managers.values() for t in m.attempts)
        assert world.managers["c"].attempts[0] - begun < 0.3


async def test_it_never_gives_up_and_never_hurries() -> None:
    world = World()
    for manager in world.managers.values():
        manager.lost = True
    async with world.running():
        await asyncio.sleep(60)
        attempts = sum(len(m.attempts) for m in world.managers.values())
        assert 100 < attempts < 1000
        world.managers["b"].lost = False
        await asyncio.sleep(1)
        assert world.session.manager_id == "id-b"


async def test_a_manager_that_accepts_and_says_nothing_is_not_hammered() -> None:
    world = World("a")
    world.managers["a"].rev = -1  # older than anything: such a beginning is not taken
    async with world.running():
        await asyncio.sleep(60)
        assert not world.wanted
        assert len(world.managers["a"].attempts) < 400


async def test_it_says_what_it_has_seen_and_takes_nothing_older() -> None:
    world = World("ab")
    async with world.running():
        first = world.now_with
        other = next(m for m in world.managers.values() if m is not first)
        await first.say(Wanted(rev=20))
        await asyncio.sleep(0.1)
        first.lost = True
        first.end.close()
        await asyncio.sleep(1)
        assert other.headers[SEEN] == "20"
        assert [w.rev for w in world.wanted] == [7, 20]
        other.rev = 21
        await asyncio.sleep(2)
        assert [w.rev for w in world.wanted] == [7, 20, 21]


async def test_a_swarm_made_anew_begins_again_at_a_lower_revision_and_the_old_one_is_refused() -> None:
    world = World("ab")
    async with world.running():
        first = world.now_with
        other = next(m for m in world.managers.values() if m is not first)
        await first.say(Wanted(rev=20))
        await asyncio.sleep(0.1)
        other.epoch, other.rev = 99.0, 3
        first.end.close()
        await asyncio.sleep(1)
        assert [w.rev for w in world.wanted] == [7, 20, 3]
        assert ["anew"] in world.told
        other.lost = True
        other.end.close()
        await asyncio.sleep(2)  # the first one is still of the swarm as it was
        assert (first.headers[SEEN], first.headers[EPOCH]) == ("3", "99.0")
        assert [w.rev for w in world.wanted] == [7, 20, 3]


async def test_removed_when_most_managers_say_so() -> None:
    world = World()
    for manager in world.managers.values():
        manager.status = 410
    world.managers["b"].lost = True
    async with world.running():
        assert world.removed


async def test_not_removed_when_one_still_knows_us_or_most_cannot_be_asked() -> None:
    world = World()
    world.managers["a"].status = world.managers["b"].status = 410
    async with world.running():
        assert world.session.manager_id == "id-c"
    world = World()
    world.managers["a"].status = 410
    world.managers["b"].lost = world.managers["c"].dead = True
    async with world.running():
        await asyncio.sleep(60)
        assert not world.removed
