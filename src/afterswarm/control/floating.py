"""A manager's votes on floating addresses. `core.floating` decides; here is when it may vote at all.

It may while its view of the store is not old, by a question to the quorum once a second, and while it knows for sure
which managers there are. Nothing is asked while no host wants an address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import inf

from afterswarm.core.floating import FRESH, SETTLE, electorate, place, voter
from afterswarm.core.floating.electorate import Electorate
from afterswarm.core.floating.voter import MISSING, View, Voter
from afterswarm.model.floating import Ask, Call, Choice, Letters, Vote
from afterswarm.model.node import Node, Role
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

TICK = 0.05  # seconds between looks whom to call
SAY = 0.1  # seconds between what it says to the same
CONFIRM = 1.0  # seconds between questions whether the view of the store is fresh
WANTED = 10.0  # seconds after a host has asked that this goes on
MOST = 64  # addresses that are voted on
READ = ("floating-address",)  # no commit moves it: asking for it costs a round through the quorum and no more

log = logging.getLogger(__name__)


class Votes:
    """`run` it on a manager. `heard`: node id -> `Clock.now()` of its last beat. `tell` sends to a node."""

    def __init__(
        self,
        replica: Replica,
        *,
        me: str,
        clock: Clock,
        heard: Mapping[str, float],
        tell: Callable[[str, Letters], None],
    ) -> None:
        self._replica = replica
        self._me = me
        self._clock = clock
        self._heard = heard
        self._tell = tell
        self._voters: dict[str, Voter] = {}
        self._members: set[str] = set()
        self._electorate: Electorate | None = None
        self._fresh = -inf
        self._asked = -inf
        self._missing: frozenset[str] = frozenset()
        self._told = -inf
        self._holders: dict[str, str] = {}

    def holders(self) -> dict[str, str]:
        """Address -> node id of its holder, "" for nobody, as far as this manager sees."""
        now = self._clock.monotonic()
        return {address: voter.holder(mind, now) for address, mind in self._voters.items()}

    def take(self, sender: str, letter: Ask | Choice) -> None:
        """What a host or another manager said."""
        now = self._clock.monotonic()
        address = letter.address
        mind = self._voters.get(address)
        if mind is None:
            if len(self._voters) >= MOST or isinstance(letter, Choice):
                return
            mind = Voter()
        self._asked = now
        if isinstance(letter, Choice):
            self._voters[address] = voter.told(mind, sender, letter.node, now)
            return
        found = self._voting(now)
        if found is None:
            self._voters.setdefault(address, mind)
            return
        self._voters[address], given = voter.asked(mind, sender, letter, now, self._view(address, found))
        if given:
            vote = Vote(
                address=address,
                boot=letter.boot,
                asked=letter.asked,
                electorate=found.name,
                size=len(found.members),
            )
            self._tell(sender, vote)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="who votes")
            group.create_task(self._confirm(), name="whether the view is fresh")
            while True:
                self._look()
                busy = self._clock.monotonic() < self._asked + WANTED
                await self._clock.sleep(TICK if busy else CONFIRM / 2)

    # ---- whether it may vote -----------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Every list of managers, in order: none is left out, however fast they follow each other."""
        async for changes in self._replica.changes():
            for change in changes:
                if isinstance(change.obj, Node):
                    manager = isinstance(change.new, Node) and change.new.role == Role.MANAGER
                    (self._members.add if manager else self._members.discard)(change.obj.id)
            now = self._clock.monotonic()
            if self._electorate is None:
                self._electorate = electorate.begin(self._members, now)
            self._electorate = electorate.follow(self._electorate, self._members, now)

    async def _confirm(self) -> None:
        while True:
            begun = self._clock.monotonic()
            if begun < self._asked + WANTED and await self._reached():
                found = self._electorate
                if found and place.managers(self._replica.snapshot()) == found.members:
                    if begun > self._fresh + FRESH:  # it was out of touch, and may have missed something
                        log.info("floating addresses: this manager votes in %.0f s", SETTLE)
                        self._electorate = electorate.begin(found.members, self._clock.monotonic())
                    self._fresh = begun
            await self._clock.sleep(CONFIRM)

    async def _reached(self) -> bool:
        """Whether the quorum answered, and the view shows all that it had by then."""
        try:
            async with asyncio.timeout(FRESH):
                try:
                    await self._replica.commit([], reads=READ)
                except Conflict as moved:
                    await self._replica.reach(moved.rev)
        except (Unavailable, TimeoutError):
            return False
        return True

    def _voting(self, now: float) -> Electorate | None:
        found = self._electorate
        if found is None or self._me not in found.members or now < found.votes_from or now > self._fresh + FRESH:
            return None
        return found

    # ---- whom to call ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        now, found = self._clock.monotonic(), self._voting(self._clock.monotonic())
        wall = self._clock.now()
        self._missing = frozenset(node for node, at in self._heard.items() if wall - at > MISSING)
        say = now >= self._told + SAY
        for address, mind in list(self._voters.items()):
            self._note(address, voter.holder(mind, now))
            if all(now - asker.at > WANTED for asker in mind.askers.values()) and not voter.bound(mind, now):
                del self._voters[address]
            elif found:
                view = self._view(address, found)
                self._voters[address], whom = voter.call(mind, now, view)
                chosen = "" if voter.holder(mind, now) else voter.choice(mind, now, view)
                if say or self._voters[address].calling != mind.calling:
                    self._say(address, whom, chosen, found)
        self._told = now if say else self._told

    def _say(self, address: str, whom: str, chosen: str, found: Electorate) -> None:
        if whom:
            self._tell(whom, Call(address=address))
        for manager in sorted(found.members - {self._me} if chosen else ()):
            self._tell(manager, Choice(address=address, node=chosen))

    def _view(self, address: str, found: Electorate) -> View:
        return View(address=address, missing=self._missing, before=[m for m in found.members if m < self._me])

    def _note(self, address: str, now: str) -> None:
        before = self._holders.get(address)
        if now and now != before:
            log.info("floating address %s: held by %s", address, now)
            self._holders[address] = now
