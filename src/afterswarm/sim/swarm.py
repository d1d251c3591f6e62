"""A whole swarm in one process and in virtual time, from a seed, with everything that can go wrong.

Managers are the real ones (cache, leadership, observers, all controllers), each with its own delayed view of one
store; hosts, users and faults are simulated. Every commit and every start of a container is checked (`sim.rules`), and
after a quiet time so is what has become of it all. A failure names its seed and tells the story of what it is about.

    python -m afterswarm.sim.swarm --seeds 1000 [--first 0] [--seed-story 17]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from random import Random
from time import perf_counter

import looptime

from afterswarm.control.cache import Cache
from afterswarm.control.controllers import CONTROLLERS
from afterswarm.control.leader import lead, observe
from afterswarm.core.orchestrate import slots
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.node import Description, Node, NodeReport, NodeSpec, Role
from afterswarm.model.service import Resources, Service
from afterswarm.model.snapshot import KIND_OF, KINDS, Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Batch, Replica
from afterswarm.sim import rules
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.host import SimHost
from afterswarm.sim.store import SimClient, SimStore
from afterswarm.sim.users import User

NODES = ("m1", "m2", "m3", "w1", "w2")
EPOCH = 1_000_000_000.0
MOST_NODES = 8  # that ever were
TROUBLE = 60.0  # seconds in which things happen
QUIET = 240.0  # seconds after which all must have come right
PACE = 3.0  # how much slower than in life the managers' loops look around, ...
IDLE_PACE = 15.0  # ... also while nothing happens: a poll costs as much as a second of swarm


class SimClock(LoopClock):
    """Sleeps `pace` times as long as it is told to."""

    pace = PACE

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.pace)


class Ears(Mapping[str, float]):
    """When `me` last heard the beat of each node."""

    def __init__(self, world: World, me: str) -> None:
        self.world, self.me = world, me

    def __getitem__(self, node_id: str) -> float:
        return self.world.silent.get((node_id, self.me), self.world.clock.now() - 0.05)

    def __iter__(self) -> Iterator[str]:
        return iter(self.world.hosts)

    def __len__(self) -> int:
        return len(self.world.hosts)


class CheckedStore(SimStore):
    """Checks every commit as it is made, whoever made it."""

    def __init__(self, world: World, rng: Random, latency: float) -> None:
        super().__init__(rng, latency)
        self.world = world

    def apply(self, changes: object, **given: object) -> int:
        before = self.rev
        rev = super().apply(changes, **given)  # type: ignore[arg-type]
        if rev > before and self.log:
            self.world.check(self.log[-1])
        return rev


class Manager:
    """The control plane of one host."""

    def __init__(self, world: World, node_id: str) -> None:
        self.world, self.id = world, node_id
        self.client: SimClient = world.store.client(node_id)
        self.cache = Cache(self.client, world.clock)
        self.ears = Ears(world, node_id)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cache.run())
            await self.cache.synced.wait()
            group.create_task(self._wake_hosts())
            group.create_task(lead(self.cache, self.id, self.ears, self.world.clock, CONTROLLERS))
            group.create_task(observe(self.cache, self.id, self.ears, self.world.clock))

    async def _wake_hosts(self) -> None:
        async for changes in self.cache.changes():
            for change in changes:
                for obj in (change.old, change.new):
                    if isinstance(obj, Task) and (host := self.world.hosts.get(obj.node_id)):
                        host.woken.set()


class World:
    """One swarm and its misfortunes."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - repeatable, not secret
        self.seed = seed
        self.clock = SimClock(EPOCH)
        self.store = CheckedStore(self, self._fork(), latency=self.rng.choice((0.01, 0.05, 0.3)))
        self.kinds: dict[str, dict[str, Obj]] = {kind: {} for kind in KINDS}
        self.history: list[tuple[float, Change]] = []
        self.events: list[tuple[float, str]] = []
        self.silent: dict[tuple[str, str], float] = {}  # (who, for whom) -> since when
        self.reachable: set[str] = set()
        self.managers: dict[str, Manager] = {}
        self.running: dict[str, asyncio.Task[None]] = {}  # managers
        self.lives: dict[str, asyncio.Task[None]] = {}  # hosts
        self.names = list(NODES)  # every node that ever was
        self.user = User(self._fork())
        self.start_first: set[str] = set()  # services of which two tasks may live in a slot
        self.hosts = {n: SimHost(n, self.clock, self._fork(), partial(self.session, n)) for n in NODES}

    def _fork(self) -> Random:
        return Random(self.rng.random())  # noqa: S311

    # ---- what is checked ---------------------------------------------------------------------------------------

    def check(self, batch: Batch) -> None:
        for change in batch.changes:
            kind = self.kinds[KIND_OF[type(change.obj)]]
            if change.new:
                kind[change.obj.id] = change.new
            else:
                kind.pop(change.obj.id, None)
            self.history.append((self.clock.now(), change))
            if isinstance(change.new, Service) and rules.may_start_first(change.new):
                self.start_first.add(change.new.id)
        for change in batch.changes:
            rules.after_change(change)
        snap = self.snapshot()
        for service_id in rules.touched_services(batch.changes):
            rules.in_service(snap, service_id, 1 + (service_id in self.start_first))
        for network_id in rules.touched_networks(batch.changes):
            rules.addresses(snap, network_id)
        for change in batch.changes:
            if isinstance(change.new, Report) and change.new.state in (TaskState.STARTING, TaskState.RUNNING):
                task = snap.tasks.get(change.new.id)
                if task is not None:
                    limit = 1 + (task.service_id in self.start_first)
                    rules.after_start(snap, self.hosts.values(), task.service_id, slots.slot_of(task), limit)

    def snapshot(self) -> Snapshot:
        return Snapshot.from_kinds(self.kinds, rev=self.store.rev, now=self.clock.now())

    # ---- who reaches whom --------------------------------------------------------------------------------------

    def session(self, node_id: str) -> Replica | None:
        """A manager's view: the host's own manager first. None while the host is cut off."""
        if node_id not in self.reachable and node_id not in self.managers:
            return None
        order = [node_id, *sorted(self.managers)] if node_id in self.managers else sorted(self.managers)
        for name in order:
            manager = self.managers[name]
            both = name == node_id or {name, node_id} <= self.reachable
            if name in self.running and both and manager.client.up and manager.cache.synced.is_set():
                return manager.cache
        return None

    def cut_off(self, node_id: str) -> None:
        """Nobody hears the node, and it hears nobody."""
        now = self.clock.now()
        self.reachable.discard(node_id)
        for other in self.hosts:
            if other != node_id:
                self.silent.setdefault((node_id, other), now)
                self.silent.setdefault((other, node_id), now)
        if node_id in self.managers:
            self.managers[node_id].client.cut()

    def heal(self, node_id: str) -> None:
        self.reachable.add(node_id)
        for other in self.hosts:
            if other in self.reachable:
                self.silent.pop((node_id, other), None)
                self.silent.pop((other, node_id), None)
        if node_id in self.managers:
            self.managers[node_id].client.heal()
        for host in self.hosts.values():
            host.woken.set()

    # ---- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. Raises `rules.Broken`, alone or in a group."""
        await self._found()
        async with asyncio.TaskGroup() as group:
            self.lives = {name: group.create_task(host.run()) for name, host in self.hosts.items()}
            for name in self.managers:
                self._start(group, name)
            await self._trouble(group)
            await self._calm(group)
            for task in [*self.lives.values(), *self.running.values()]:
                task.cancel()

    async def _found(self) -> None:
        created: list[Obj] = [Cluster(id="c")]
        for name in self.hosts:
            self.reachable.add(name)
            role = Role.MANAGER if name.startswith("m") else Role.WORKER
            created += self._member(name, role)
            if role == Role.MANAGER:
                self.managers[name] = Manager(self, name)
        await self.store.commit([Change(None, obj) for obj in created], seen=self.store.rev)

    def _member(self, name: str, role: Role) -> list[Obj]:
        spec = NodeSpec(role=role, labels={"zone": self.rng.choice("ab")})
        resources = Resources(nano_cpus=4_000_000_000, memory_bytes=8 << 30)
        description = Description(hostname=name, resources=resources)
        address = f"10.77.0.{self.names.index(name) + 1}"
        return [
            Node(id=name, role=role, spec=spec, created=self.clock.now()),
            NodeReport(id=name, description=description, address=address),
        ]

    def _start(self, group: asyncio.TaskGroup, name: str) -> None:
        manager = self.managers[name] = Manager(self, name)
        if name not in self.reachable:
            manager.client.cut()
        self.running[name] = group.create_task(manager.run())

    def _stop(self, name: str) -> None:
        if task := self.running.pop(name, None):
            task.cancel()

    async def _trouble(self, group: asyncio.TaskGroup) -> None:
        end = self.clock.now() + TROUBLE
        while self.clock.now() < end:
            await asyncio.sleep(self.rng.choice((0.05, 1.0, 4.0)) * self.rng.random())
            if self.rng.random() < 0.7:
                replicas = [m.cache for n, m in sorted(self.managers.items()) if n in self.running and m.client.up]
                if replicas and (replica := self.rng.choice(replicas)).synced.is_set():
                    await self.user.act(replica)
            else:
                await self._misfortune(group)

    async def _misfortune(self, group: asyncio.TaskGroup) -> None:
        node_id = self.rng.choice(sorted(self.hosts))
        host = self.hosts[node_id]
        kind = self.rng.choice(("power", "cut", "heal", "heal", "lag", "loss", "deaf", "restart", "remove"))
        self.events.append((self.clock.now(), f"{kind} {node_id}"))
        enough = sum(n in self.reachable for n in self.managers) > len(self.managers) // 2 + (node_id in self.managers)
        match kind:
            case "power" if host.on and enough:
                host.power_cut()
                self._stop(node_id)
                self.cut_off(node_id)
            case "cut" if enough:
                self.cut_off(node_id)
            case "heal":
                self._bring_back(group, node_id)
            case "lag" if node_id in self.managers:
                self.managers[node_id].client.latency = self.rng.choice((0.0, 0.02, 0.5, 2.0))
            case "loss" if node_id in self.managers:
                self.managers[node_id].client.loss = self.rng.choice((0.0, 0.1, 0.5))
            case "remove" if node_id not in self.managers and len(self.names) < MOST_NODES:
                self._replace(group, node_id)
            case "deaf" if node_id in self.managers:
                for other in self.hosts:
                    self.silent.setdefault((other, node_id), self.clock.now())
            case "restart" if node_id in self.running:
                self._stop(node_id)
                await asyncio.sleep(self.rng.random())
                self._start(group, node_id)
            case _:
                pass

    def _replace(self, group: asyncio.TaskGroup, node_id: str) -> None:
        """The host burns down, is removed from the swarm, and another one joins."""
        self.cut_off(node_id)
        self.hosts.pop(node_id).power_cut()
        self.lives.pop(node_id).cancel()
        joined = f"w{len(self.names) + 1}"
        self.names.append(joined)
        self.hosts[joined] = SimHost(joined, self.clock, self._fork(), partial(self.session, joined))
        self.reachable.add(joined)
        self.lives[joined] = group.create_task(self.hosts[joined].run())
        changes = [Change(self.kinds["node"][node_id], None)]
        changes += [Change(None, obj) for obj in self._member(joined, Role.WORKER)]
        self.store.apply(changes, seen=self.store.rev, guards=[f"node/{node_id}"])

    def _bring_back(self, group: asyncio.TaskGroup, node_id: str) -> None:
        host = self.hosts[node_id]
        if not host.on:
            host.boot()
        self.heal(node_id)
        if node_id in self.managers:
            self.managers[node_id].client.latency = None
            self.managers[node_id].client.loss = 0.0
            if node_id not in self.running:
                self._start(group, node_id)

    async def _calm(self, group: asyncio.TaskGroup) -> None:
        for node_id, host in self.hosts.items():
            host.calm = True
            self._bring_back(group, node_id)
        await asyncio.sleep(10)
        self.clock.pace = IDLE_PACE
        await asyncio.sleep(QUIET)
        for host in self.hosts.values():
            host.woken.set()
        await asyncio.sleep(1)
        rules.at_last(self.snapshot(), self.hosts.values())

    def story(self, objects: list[str]) -> str:
        """What happened to these objects, and what happened to the hosts meanwhile."""
        lines = [(when, f"** {what}") for when, what in self.events]
        for when, change in self.history:
            if change.obj.id in objects:
                lines.append((when, _told(change)))
        lines.sort(key=lambda line: line[0])
        return "\n".join(f"{when - EPOCH:8.2f} {what}" for when, what in lines)


def _told(change: Change) -> str:
    new = change.new
    if new is None:
        return f"{KIND_OF[type(change.obj)]} {change.obj.id[:8]} deleted"
    before = change.old
    fields = [
        f"{name}={getattr(new, name)!s:.300}"
        for name in new.__struct_fields__
        if name not in ("id", "created", "updated", "spec", "previous_spec", "endpoint")
        and (getattr(before, name) != getattr(new, name) if before else getattr(new, name))
    ]
    return f"{KIND_OF[type(new)]} {new.id[:8]} {'' if before else 'created '}{' '.join(fields)}"


class _Loop(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    pass


class Failure(Exception):
    """A rule was broken: which seed, what, and the story."""


def run(seed: int) -> World:
    """One swarm, from beginning to end. Raises `Failure`."""
    loop = _Loop()
    loop.setup_looptime(start=0, end=36_000, noop_cycles=1)
    world = World(seed)
    try:
        loop.run_until_complete(world.run())
    except BaseException as error:
        broken = _broken(error)
        if broken is None:
            raise
        raise Failure(f"seed {seed}: {broken.rule}\n{world.story(broken.objects)}") from None
    finally:
        loop.close()
    return world


def _broken(error: BaseException) -> rules.Broken | None:
    if isinstance(error, rules.Broken):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for e in error.exceptions if (found := _broken(e))), None)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate whole swarms in virtual time.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    began, failed, commits = perf_counter(), 0, 0
    for seed in range(given.first, given.first + given.seeds):
        try:
            commits += run(seed).store.rev
        except Failure as failure:
            failed += 1
            sys.stdout.write(f"{failure}\n")
    took = perf_counter() - began
    sys.stdout.write(f"{given.seeds} swarms, {failed} broken, {commits} commits, {took:.1f} s\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
