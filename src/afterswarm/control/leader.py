"""Who leads, without leases: the object leader/leader names the manager, and its revision is the term.

A term begins with a compare-and-swap of that object and is over as soon as somebody else wins one. Every commit of a
controller carries the term as its fence, so a leader that was cut off, or slept, can decide what it likes: nothing of
it is stored. Who may take over and when is decided in `core.leadership`; that a peer is silent, in `core.liveness`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from afterswarm.control.loop import KeysOf, Planner, drive
from afterswarm.core.cluster import leadership, liveness
from afterswarm.http.children import apart
from afterswarm.model.base import Change
from afterswarm.model.node import Leader, Role, Suspicion
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Clock, Conflict, Fenced, Replica, Unavailable

LOOK = 0.1  # seconds between looks at who leads
OBSERVE = 0.2  # seconds between looks at who is silent

Decide = Callable[..., bool]
Suspects = Callable[..., tuple[str, ...]]

log = logging.getLogger(__name__)


class Controller(Protocol):
    """What `control.controllers` lists."""

    @property
    def name(self) -> str: ...
    @property
    def keys_of(self) -> KeysOf: ...
    @property
    def plan(self) -> Planner: ...


async def lead(
    replica: Replica,
    me: str,
    heard: Mapping[str, float],
    clock: Clock,
    controllers: Iterable[Controller],
    *,
    decide: Decide = leadership.decide,
) -> None:
    """Run every controller while this manager leads, for ever. Losing the term cancels them all.

    `heard`: node id -> when its last beat came (seconds since the epoch). Starts once the replica shows something.
    """
    controllers = tuple(controllers)
    since = clock.now()
    over = 0  # the last term that ended, in case the view still shows it
    while True:
        snap = replica.snapshot()
        leader = snap.leader
        if leader and leader.node_id == me and leader.rev != over:
            over = leader.rev
            await apart(_term(replica, leader, clock, controllers))
        elif decide(leader.node_id if leader else "", me, managers(snap), heard, clock.now(), since):
            if not await _take_over(replica, leader, me):
                await clock.sleep(LOOK)
        else:
            await clock.sleep(LOOK)


async def observe(
    replica: Replica,
    me: str,
    heard: Mapping[str, float],
    clock: Clock,
    *,
    suspects: Suspects = liveness.suspects,
) -> None:
    """Keep this manager's `Suspicion` true, for ever. Written only when it changes."""
    since = clock.now()
    known: dict[str, float] = {}  # when each node was first seen: a new one is given as long as one that fell silent
    while True:
        snap = replica.snapshot()
        old = snap.suspicions.get(me)
        before = old.nodes if old else ()  # suspected in an earlier life: until it is heard in this one
        known = {node: known.get(node, 0.0 if node in before else clock.now()) for node in snap.nodes}
        nodes = tuple(suspects({**known, **heard}, sorted(snap.nodes), me, clock.now(), since))
        if me in snap.nodes and nodes != (old.nodes if old else ()):
            with suppress(Conflict, Unavailable):  # looked at again in a moment, in a newer view
                await replica.commit([Change(old, Suspicion(id=me, nodes=nodes))])
        await clock.sleep(OBSERVE)


def managers(snap: Snapshot) -> list[str]:
    """Node ids of the managers there are, in order."""
    return sorted(node.id for node in snap.nodes.values() if node.role == Role.MANAGER)


async def _take_over(replica: Replica, old: Leader | None, me: str) -> bool:
    try:
        await replica.commit([Change(old, Leader(id="leader", node_id=me))])
    except (Conflict, Unavailable) as error:
        log.info("did not take over the lead: %r", error)  # the view will show who did
        return False
    return True


async def _term(replica: Replica, leader: Leader, clock: Clock, controllers: Iterable[Controller]) -> None:
    log.info("this manager leads, term %d", leader.rev)
    try:
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(
                    drive(replica, c.keys_of, c.plan, fence=leader.rev, name=c.name), name=f"controller {c.name}"
                )
                for c in controllers
            ]
            while (now := replica.snapshot().leader) and now.rev == leader.rev:
                await clock.sleep(LOOK)
            for task in running:
                task.cancel()
    except* Fenced:
        pass
    log.info("term %d is over", leader.rev)
