"""A task that is to end: until nobody sends it anything new, and for a while after.

The managers have told every host that the task takes no new connections; each host says in its beats which revision
its kernel routes by. So it is known here, without asking anybody, when the last one has followed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from afterswarm.model.session import Peer
from afterswarm.model.task import Task
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds; a host that beats but does not follow keeps no task for longer
SILENT = 2.0  # seconds; a host that is not heard is not waited for. A busy one, or a busy reader, is not silent yet
LOOK = 0.05  # seconds


class Drains:
    """`heard` and `routed` are what the beats of other hosts tell, by node id."""

    def __init__(self, clock: Clock, node_id: str, *, heard: Mapping[str, float], routed: Mapping[str, int]) -> None:
        self.own = 0  # the revision that this host's kernel routes by
        self.unacknowledged = 0  # how often a task ended although another host had not followed
        self._clock = clock
        self._node_id = node_id
        self._heard = heard
        self._routed = routed

    async def drain(self, task: Task, peers: Iterable[Peer], delay: float) -> None:
        """Return when the task may be told to end: `delay` seconds after the last host has followed."""
        ends = self._clock.now() + PATIENCE
        names = {peer.node_id: peer.hostname or peer.node_id for peer in peers}
        while behind := self._behind(task.rev, names):
            if self._clock.now() >= ends:
                late = ", ".join(sorted(names[node] for node in behind))
                self.unacknowledged += 1
                log.warning("task %s ends although %s may still send to it", task.id, late)
                break
            await self._clock.sleep(LOOK)
        await self._clock.sleep(delay)

    def _behind(self, rev: int, nodes: Iterable[str]) -> list[str]:
        """Hosts that are heard, this one included, and do not route by this revision yet."""
        return [node for node in nodes if self._follows(node) and self._revision(node) < rev]

    def _follows(self, node: str) -> bool:
        return node == self._node_id or self._clock.now() - self._heard.get(node, 0.0) < SILENT

    def _revision(self, node: str) -> int:
        return self.own if node == self._node_id else self._routed.get(node, 0)
