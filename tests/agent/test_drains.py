"""When a task may be told to end: what the beats of other hosts tell decides, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from afterswarm.agent.network.drains import PATIENCE, SILENT, Drains
from afterswarm.model.session import Peer
from afterswarm.model.task import Task
from afterswarm.sim.clock import LoopClock

pytestmark = pytest.mark.looptime

PEERS = [Peer(node_id=n, hostname=n) for n in ("n1", "n2", "n3")]
TASK = Task(id="t1", rev=50)


class Host:
    """n1, where the task is. n2 and n3 beat until they are silenced."""

    def __init__(self) -> None:
        self.clock = LoopClock(1_700_000_000)
        self.heard: dict[str, float] = {}
        self.routed = {"n2": 49, "n3": 49}
        self.silent: set[str] = set()
        self.drains = Drains(self.clock, "n1", heard=self.heard, routed=self.routed)
        self.drains.own = 50

    async def beat(self) -> None:
        while True:
            for node in {"n2", "n3"} - self.silent:
                self.heard[node] = self.clock.now()
            await asyncio.sleep(0.1)

    async def drained(self, delay: float = 0.0) -> float:
        """Seconds that it takes."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self.beat())
            await asyncio.sleep(0)
            began = self.clock.now()
            await self.drains.drain(TASK, PEERS, delay)
            beating.cancel()
        return self.clock.now() - began


@pytest.fixture
def host():
    return Host()


async def after(seconds: float, act) -> None:
    await asyncio.sleep(seconds)
    act()


async def test_the_last_host_to_follow_is_waited_for(host):
    async with asyncio.TaskGroup() as group:
        took = group.create_task(host.drained())
        group.create_task(after(0.4, lambda: host.routed.update(n2=50)))
        group.create_task(after(1.2, lambda: host.routed.update(n3=51)))
    assert 1.2 <= took.result() < 1.3


async def test_connections_get_their_time_after_the_last_host_has_followed(host):
    host.routed.update(n2=50, n3=50)
    assert await host.drained(3.0) == pytest.approx(3.0, abs=0.01)


async def test_this_host_itself_must_have_followed(host):
    host.routed.update(n2=50, n3=50)
    host.drains.own = 49
    async with asyncio.TaskGroup() as group:
        took = group.create_task(host.drained())
        group.create_task(after(0.7, lambda: setattr(host.drains, "own", 50)))
    assert 0.7 <= took.result() < 0.8


async def test_a_host_that_is_not_heard_is_not_waited_for(host):
    host.routed.update(n2=50)
    async with asyncio.TaskGroup() as group:
        took = group.create_task(host.drained())
        group.create_task(after(0.2, lambda: host.silent.add("n3")))
    assert SILENT + 0.1 <= took.result() < SILENT + 0.4


async def test_a_host_that_never_follows_keeps_no_task_for_ever_and_is_named(host, caplog):
    host.routed.update(n2=50)
    assert await host.drained() == pytest.approx(PATIENCE, abs=0.1)
    assert host.drains.unacknowledged == 1
    assert caplog.messages == ["task t1 ends although n3 may still send to it"]
