"""`control.members` on the real store: a second and a third manager, and a demotion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from afterswarm.adapters.etcd.server import EtcdServer, Removed
from afterswarm.control.cache import Cache
from afterswarm.control.quorum import Quorum
from afterswarm.model.base import Change
from afterswarm.model.enrolment import MemberReply
from afterswarm.model.node import Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Unavailable
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimStore

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

W, M = Role.WORKER, Role.MANAGER


async def until(what: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.05)


async def place(keeper: Quorum, name: str, url: str) -> MemberReply:
    """etcd wants its voters connected for five seconds before it takes another member."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await keeper._add(name, url)
            except (Unavailable, Refused):
                await asyncio.sleep(0.2)


async def until_removed(server: EtcdServer) -> None:
    with suppress(Removed):
        await server.run()


async def test_managers_come_and_go(member: Callable[..., Any]) -> None:
    names = ("m1", "m2", "m3")
    store = SimStore(1)
    for name in names:
        node = Node(id=name, spec=NodeSpec(role=M), role=M if name == "m1" else W, state=NodeState.READY)
        said = NodeReport(id=name, address=f"127.0.0.{name[1:]}")
        store.apply([Change(None, node), Change(None, said)], seen=store.rev)
    clock = LoopClock()
    cache = Cache(store, clock)
    first = member("m1")
    keeper = Quorum(cache, me="m1", members=first.members, alive=lambda: set(names), clock=clock, cluster_key=b"key")

    def role(name: str) -> Role:
        return cache.snapshot().nodes[name].role

    async with first.running(), asyncio.TaskGroup() as group:
        await first.ready()
        running = [group.create_task(cache.run()), group.create_task(keeper.run())]
        await cache.synced.wait()
        for name in names[1:]:
            next_one = member(name, existing=True)
            reply = await place(keeper, name, next_one.server.peer_url)
            next_one.server._initial_cluster = reply.initial_cluster
            running.append(group.create_task(until_removed(next_one.server)))
            await until(lambda name=name: role(name) == M)
        node = cache.snapshot().nodes["m2"]
        await cache.commit([Change(node, Node(id="m2", role=M, state=NodeState.READY))])
        await until(lambda: role("m2") == W)
        assert {m.name for m in await first.members.members()} == {"m1", "m3"}
        for task in running:
            task.cancel()
