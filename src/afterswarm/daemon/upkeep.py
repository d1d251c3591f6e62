"""What a manager does for its store besides using it: it gets a new root certificate to trust, and is swept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress

from afterswarm.adapters.etcd.members import Members
from afterswarm.adapters.etcd.server import EtcdServer
from afterswarm.agent.trust.identity import Credentials
from afterswarm.control.cache import Cache
from afterswarm.model.node import Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Clock, Store, Unavailable

SWEEP = 3600.0  # seconds between looks at how many guards there are
MOST_GUARDS = 2_000
TURNS = 1.0  # seconds between looks at whether the root certificate has changed
READY = 0.2  # seconds between looks at whether the store is back

log = logging.getLogger(__name__)


class Upkeep:
    """`trust`: digest of the root certificate that this host and its store count on."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        members: Members,
        credentials: Credentials,
        clock: Clock,
        me: str,
        alive: Callable[[], Collection[str]],
        greet: Callable[[], None],
    ) -> None:
        self.trust = credentials.trust
        self._cache = cache
        self._store = store
        self._members = members
        self._credentials = credentials
        self._clock = clock
        self._me = me
        self._alive = alive
        self._greet = greet

    async def run(self, etcd: EtcdServer) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_trust(etcd))
            group.create_task(self._sweep())

    async def hand_over(self) -> None:
        """Have another member lead the store, if this one does: nobody has to wait for an election then."""
        members, status = await self._members.members(), await self._members.status()
        staying = [m.id for m in members if m.name != self._me and m.name in self._alive() and not m.learner]
        if staying and status.leader == status.member_id:
            await self._members.move_leader(min(staying))

    async def _renew_trust(self, etcd: EtcdServer) -> None:
        """etcd reads certificates anew at each connection, but what it trusts only when it starts.

        Managers take turns, so that a majority of the store is always there. Until its turn a store gets along with
        the others all the same: their certificates bring the way from the former root to the new one.
        """
        while True:
            wanted = self._credentials.trust
            if wanted != self.trust and self._my_turn(wanted):
                log.info("the store starts again to trust the new root certificate")
                with suppress(Unavailable, Refused):
                    await self.hand_over()
                await etcd.restart()
                while not await self._members.ready():
                    await self._clock.sleep(READY)
                self.trust = wanted
                self._greet()
            await self._clock.sleep(TURNS)

    def _my_turn(self, trust: str) -> bool:
        snap = self._cache.snapshot()
        before = [
            n.id for n in snap.nodes.values() if n.role == Role.MANAGER and n.id < self._me and snap.is_ready(n.id)
        ]
        reports = (snap.node_reports.get(i) for i in before)
        return self._cache.healthy and all(report and report.trust == trust for report in reports)

    async def _sweep(self) -> None:
        """Guards of what is long gone are forgotten, with all others, when many have come together."""
        while True:
            await self._clock.sleep(SWEEP)
            leader = self._cache.snapshot().leader
            if leader and leader.node_id == self._me:
                with suppress(Unavailable):
                    if await self._store.sweep(MOST_GUARDS):
                        log.info("all guards are forgotten: there were more than %d", MOST_GUARDS)
