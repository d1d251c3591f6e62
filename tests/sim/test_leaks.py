"""A stack is deployed and removed a thousand times: nothing of it stays in the store, and no address runs out.

The real controllers, hosts in memory, virtual time. The pools are so small that a leak would end the run early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from afterswarm.control.cache import Cache
from afterswarm.control.controllers import CONTROLLERS
from afterswarm.control.leader import lead, observe
from afterswarm.core.admit import network as admit_network
from afterswarm.core.admit import service as admit
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import NetworkSpec
from afterswarm.model.node import Description, Node, NodeReport, NodeSpec, Role
from afterswarm.model.service import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    ReplicatedService,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from afterswarm.model.snapshot import KINDS, Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.ports import Conflict
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.host import SimHost
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.looptime

ROUNDS = 1000
NODES = ("m1", "w1")


class Heard(dict[str, float]):
    """Everybody, just now."""

    def __init__(self, clock: LoopClock) -> None:
        super().__init__(dict.fromkeys(NODES, 0.0))
        self._clock = clock

    def __getitem__(self, _node_id: str) -> float:
        return self._clock.now()

    def get(self, node_id: str, _default: Any = None) -> Any:
        return self[node_id]


class Swarm:
    def __init__(self) -> None:
        self.clock = LoopClock(1_700_000_000)
        self.store = SimStore()
        self.cache = Cache(self.store.client("m1"), self.clock)
        self.hosts = {n: SimHost(n, self.clock, Random(1), lambda: self.cache) for n in NODES}  # noqa: S311
        for host in self.hosts.values():
            host.calm = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        pool = Cluster(id="c", default_addr_pool=["10.1.0.0/25"], subnet_size=27)
        created: list[Obj] = [pool, ingress_network("10.0.0.0/27")]
        for number, name in enumerate(NODES, start=1):
            role = Role.MANAGER if name.startswith("m") else Role.WORKER
            here = Description(hostname=name, resources=Resources(nano_cpus=4_000_000_000, memory_bytes=8 << 30))
            created.append(Node(id=name, role=role, spec=NodeSpec(role=role), created=self.clock.now()))
            created.append(NodeReport(id=name, description=here, address=f"10.77.0.{number}"))
        await self.store.commit([Change(None, obj) for obj in created], seen=self.store.rev)
        heard = Heard(self.clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cache.run())
            await self.cache.synced.wait()
            group.create_task(lead(self.cache, "m1", heard, self.clock, CONTROLLERS))
            group.create_task(observe(self.cache, "m1", heard, self.clock))
            group.create_task(self._wake())
            for host in self.hosts.values():
                group.create_task(host.run())
            yield
            for task in group._tasks:
                task.cancel()

    async def _wake(self) -> None:
        async for changes in self.cache.changes():
            for obj in (change.obj for change in changes):
                if isinstance(obj, Task) and obj.node_id in self.hosts:
                    self.hosts[obj.node_id].woken.set()

    async def until(self, ready: Callable[[Snapshot], bool]) -> None:
        async with asyncio.timeout(60):  # of the loop's own time
            while not ready(self.cache.snapshot()):  # noqa: ASYNC110 - nothing says when
                await asyncio.sleep(0.2)

    async def say(self, decide: Callable[[Snapshot], list[Change]]) -> None:
        while True:
            try:
                await self.cache.commit(decide(self.cache.snapshot()))
            except Conflict as moved:
                await self.cache.reach(moved.rev)
            else:
                return

    async def deploy(self) -> None:
        await self.say(lambda snap: [Change(None, admit_network.create(snap, NetworkSpec(name="app_back")))])
        for name, port in (("app_web", 8080), ("app_db", 0)):
            await self.say(lambda snap: [Change(None, admit.create(snap, service(name, port)))])  # noqa: B023
        await self.until(lambda snap: [snap.state_of(t) for t in snap.tasks.values()] == [TaskState.RUNNING] * 3)

    async def remove(self) -> None:
        await self.say(lambda snap: [Change(s, admit.remove(snap, s)) for s in snap.services.values()])
        await self.say(
            lambda snap: [admit_network.remove(snap, n) for n in snap.networks.values() if not n.spec.ingress]
        )
        await self.until(lambda snap: not snap.services and not snap.tasks and len(snap.networks) == 1)


def service(name: str, port: int) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        mode=ServiceMode(replicated=ReplicatedService(replicas=2 if port else 1)),
        task_template=TaskSpec(
            container_spec=ContainerSpec(image="app:1"), networks=[NetworkAttachmentConfig(target="app_back")]
        ),
        # the second one gets a port of the dynamic range
        endpoint_spec=EndpointSpec(ports=[PortConfig(target_port=80, published_port=port)]),
    )


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_a_thousand_deploys_and_removals_leave_nothing_in_the_store() -> None:
    swarm = Swarm()
    async with swarm.running():
        await swarm.until(lambda snap: snap.leader is not None and all(n.subnet for n in snap.networks.values()))
        await swarm.deploy()
        await swarm.remove()
        before = held(swarm)
        for _ in range(ROUNDS):
            await swarm.deploy()
            await swarm.remove()
            swarm.store.compact()  # etcd does so, too
        await swarm.until(lambda _snap: held(swarm) == before)
    assert {kind for kind, _ in before} == {"cluster", "leader", "network", "node", "node-report", "suspicion"}


def held(swarm: Swarm) -> dict[tuple[str, str], object]:
    """Every object, and what was given away in networks."""
    snap = swarm.cache.snapshot()
    kinds = {kind: {obj.id for k, obj in swarm.store.objects.items() if k[0] == kind} for kind in KINDS}
    found: dict[tuple[str, str], object] = {(kind, each): True for kind, ids in kinds.items() for each in ids}
    for network in snap.networks.values():
        found["network", network.id] = (network.subnet, network.vni, dict(network.gateways))
    return found
