"""A swarm that is alive, in one process: the real controllers and dispatcher over a view of the store, and real agents
on engines in memory. Clients that know nothing of this see services converge within moments (`sim.images` says how
containers fare).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from afterswarm.control.controllers import CONTROLLERS
from afterswarm.control.dispatch import Dispatcher
from afterswarm.control.leader import lead, managers, observe
from afterswarm.core.payloads import Unseal
from afterswarm.model.base import Change
from afterswarm.model.node import Node
from afterswarm.ports import Clock, Conflict, Replica
from afterswarm.sim.agent import SimAgent


class Ears(Mapping[str, float]):
    """When the last beat of each node came: just now, of those that have power."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def __getitem__(self, node_id: str) -> float:
        return self._live.off.get(node_id, self._live.clock.now())

    def __iter__(self) -> Iterator[str]:
        return iter(self._live.agents)

    def __len__(self) -> int:
        return len(self._live.agents)


class Live:
    """Every node that the view shows, with `me` as the manager whose store it is. `run` it."""

    def __init__(self, replica: Replica, me: str, *, unseal: Unseal, clock: Clock, folder: Path) -> None:
        self.clock = clock
        self.off: dict[str, float] = {}  # nodes without power, and since when
        self.ready = asyncio.Event()
        self._replica = replica
        self._me = me
        self._dispatcher = Dispatcher(replica, me, unseal, clock)
        self._ears = Ears(self)
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        routed: dict[str, int] = {}  # what beats would tell everybody
        self.agents = {
            node_id: SimAgent(
                said,
                manager=self._dispatcher.session,
                heard=self._ears,
                routed=routed,
                clock=clock,
                run_dir=folder / node_id,
            )
            for node_id, said in sorted(replica.snapshot().node_reports.items())
        }

    def agent(self, hostname: str) -> SimAgent:
        return next(a for a in self.agents.values() if a.said.description.hostname == hostname)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._dispatcher.run())
            group.create_task(lead(self._replica, self._me, self._ears, self.clock, CONTROLLERS))
            for node_id in managers(self._replica.snapshot()):
                group.create_task(observe(self._replica, node_id, self._ears, self.clock))
            group.create_task(self._roles())
            for node_id in self.agents:
                self._begin(node_id)
            while self._dispatcher.connected != set(self.agents):
                await self.clock.sleep(0.01)
            self.ready.set()

    def power_cut(self, hostname: str) -> None:
        """The host of the manager itself had better not be named."""
        agent = self.agent(hostname)
        self.off[agent.said.id] = self.clock.now()
        self._lives.pop(agent.said.id).cancel()
        agent.engine.crash()

    def boot(self, hostname: str) -> None:
        agent = self.agent(hostname)
        agent.engine.boot()
        del self.off[agent.said.id]
        self._begin(agent.said.id)

    def _begin(self, node_id: str) -> None:
        assert self._group  # noqa: S101 - `run` has set it
        self._lives[node_id] = self._group.create_task(self.agents[node_id].run())

    async def _roles(self) -> None:
        """In place of the store's members: whoever is to be a manager becomes one, and the other way round."""
        async for changes in self._replica.changes():
            for node in [c.new for c in changes if isinstance(c.new, Node)]:
                if node.role != node.spec.role:
                    try:
                        await self._replica.commit([Change(node, replace(node, role=node.spec.role))])
                    except Conflict:
                        continue  # whoever was first is looked at next
