"""Terms: taking the lead, losing it, coming back, and never two who both get something stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from afterswarm.control.cache import Cache
from afterswarm.control.leader import lead, observe
from afterswarm.model.base import Change, Plan
from afterswarm.model.node import Node, NodeSpec, Role
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report
from afterswarm.ports import Fenced
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimClient, SimStore

pytestmark = pytest.mark.looptime(end=36000)

NAMES = ("m1", "m2", "m3")


class Signing(msgspec.Struct, frozen=True):
    """A controller that leaves its name four times a second, in objects that nothing but the fence protects."""

    me: str
    name: str = "sign"

    def keys_of(self, change: Change) -> Sequence[str]:
        return [change.obj.id] if isinstance(change.obj, Node) else []

    def plan(self, snap: Snapshot, key: str) -> Plan:
        signed = Report(id=f"{self.me}-{snap.now:.3f}-{key}", node_id=self.me)
        return Plan([Change(None, signed)] if key == self.me else [], wake_at=snap.now + 0.25)


class Manager:
    """`heard` follows who is up, as beats would."""

    def __init__(self, store: SimStore, me: str) -> None:
        self.me = me
        self.client: SimClient = store.client(me)
        self.clock = LoopClock(1000.0)
        self.cache = Cache(self.client, self.clock)
        self.heard: dict[str, float] = {}


class World:
    def __init__(self, seed: int) -> None:
        self.store = SimStore(seed, latency=0.02)
        self.managers = {name: Manager(self.store, name) for name in NAMES}
        self.silent: set[str] = set()  # cut off from everybody

    def cut(self, name: str) -> None:
        self.silent.add(name)
        self.managers[name].client.cut()

    def heal(self, name: str) -> None:
        self.silent.discard(name)
        self.managers[name].client.heal()

    @property
    def leader(self) -> str:
        leader = self.store.objects.get(("leader", "leader"))
        return leader.node_id if leader else ""

    def written_by(self, *, since: int = 0) -> set[str]:
        """The managers whose controllers stored something after a revision."""
        return {r.node_id for r in self.store.objects.values() if isinstance(r, Report) and r.rev > since}

    async def beats(self) -> None:
        while True:
            for name, manager in self.managers.items():
                for other in NAMES:
                    if name == other or not {name, other} & self.silent:
                        manager.heard[other] = manager.clock.now()
            await asyncio.sleep(0.1)


@asynccontextmanager
async def world(seed: int = 0) -> AsyncIterator[World]:
    made = World(seed)
    nodes = [Node(id=name, role=Role.MANAGER, spec=NodeSpec(role=Role.MANAGER)) for name in NAMES]
    await made.store.commit([Change(None, node) for node in nodes], seen=1)

    async def manage(manager: Manager) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(manager.cache.run())
            await manager.cache.synced.wait()
            group.create_task(observe(manager.cache, manager.me, manager.heard, manager.clock))
            group.create_task(lead(manager.cache, manager.me, manager.heard, manager.clock, [Signing(me=manager.me)]))

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(manage(manager)) for manager in made.managers.values()]
        running.append(group.create_task(made.beats()))
        yield made
        for task in running:
            task.cancel()


async def test_the_first_leads_alone_and_its_controllers_run() -> None:
    async with world() as w:
        await asyncio.sleep(3)
        assert w.leader == "m1"
        assert w.written_by() == {"m1"}
        term = w.store.objects["leader", "leader"].rev
        await asyncio.sleep(60)
        assert w.store.objects["leader", "leader"].rev == term


@pytest.mark.parametrize("seed", range(5))
async def test_a_silent_leader_is_replaced_and_nothing_it_decides_is_stored(seed: int) -> None:
    async with world(seed) as w:
        await asyncio.sleep(3)
        w.cut("m1")
        await asyncio.sleep(2.5)
        assert w.leader == "m2"
        term = w.store.objects["leader", "leader"].rev
        assert w.written_by(since=term) == {"m2"}
        w.heal("m1")
        await asyncio.sleep(5)
        assert w.store.objects["leader", "leader"].rev == term
        assert w.written_by(since=term) == {"m2"}


async def test_a_leader_that_only_lost_the_store_for_a_moment_goes_on() -> None:
    async with world() as w:
        await asyncio.sleep(3)
        term = w.store.objects["leader", "leader"].rev
        w.managers["m1"].client.cut()
        await asyncio.sleep(0.5)
        w.managers["m1"].client.heal()
        await asyncio.sleep(10)
        assert w.store.objects["leader", "leader"].rev == term
        assert w.written_by(since=w.store.rev - 3) == {"m1"}


@pytest.mark.parametrize("seed", range(5))
async def test_every_write_of_a_controller_was_made_in_the_term_of_its_writer(seed: int) -> None:
    async with world(seed) as w:
        await asyncio.sleep(3)
        rng = w.store.rng
        for _ in range(16):
            if w.silent:
                w.heal(next(iter(w.silent)))
            else:
                w.cut(w.leader if rng.random() < 0.7 else rng.choice(NAMES))
            await asyncio.sleep(1 + rng.random() * 4)
        leading, terms = "", 0
        for batch in w.store.log:
            for change in batch.changes:
                if change.obj.id == "leader":
                    leading, terms = change.new.node_id, terms + 1
                elif isinstance(change.new, Report):
                    assert change.new.node_id == leading, batch.rev
        assert terms > 3


async def test_suspicions_are_written_when_they_change_and_only_then() -> None:
    async with world() as w:
        await asyncio.sleep(10)
        assert not any(kind == "suspicion" for kind, _ in w.store.objects)
        w.cut("m3")
        await asyncio.sleep(2.5)
        assert {key[1]: s.nodes for key, s in w.store.objects.items() if key[0] == "suspicion"} == {
            "m1": ("m3",),
            "m2": ("m3",),
        }
        revs = [w.store.objects["suspicion", name].rev for name in ("m1", "m2")]
        await asyncio.sleep(60)
        assert [w.store.objects["suspicion", name].rev for name in ("m1", "m2")] == revs
        w.heal("m3")
        await asyncio.sleep(3)
        assert all(w.store.objects["suspicion", name].nodes == () for name in ("m1", "m2"))


class Writing(msgspec.Struct, frozen=True):
    """A controller that writes once, in an object of its name."""

    name: str

    def keys_of(self, _change: Change) -> Sequence[str]:
        return ["key"]

    def plan(self, _snap: Snapshot, _key: str) -> Plan:
        return Plan([Change(None, Report(id=self.name))])


async def test_a_manager_that_is_to_end_ends_although_it_is_just_losing_its_term() -> None:
    async with world() as w:
        manager = w.managers["m1"]
        await asyncio.sleep(3)
        assert w.leader == "m1"

        class Replica(Cache):
            async def commit(self, changes: Sequence[Change], **_: object) -> int:
                if changes[0].obj.id == "fenced":
                    await asyncio.sleep(1)
                    raise Fenced
                try:
                    await asyncio.sleep(3600)
                finally:
                    await asyncio.sleep(1)  # the term is lost, and takes a moment to end
                return 0

        replica = Replica(manager.client, manager.clock)
        following = asyncio.ensure_future(replica.run())
        await replica.synced.wait()
        both = [Writing("fenced"), Writing("slow")]
        leading = asyncio.ensure_future(lead(replica, "m1", manager.heard, manager.clock, both))
        await asyncio.sleep(1.5)
        leading.cancel()
        await asyncio.wait([leading], timeout=10)
        following.cancel()
        assert leading.cancelled(), "it went on as if nobody had told it to end"
        await asyncio.gather(following, return_exceptions=True)
