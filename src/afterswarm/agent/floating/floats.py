"""Floating addresses on this host: asks the managers, and holds an address while a majority of them votes for it.

`core.floating.holder` decides. What the kernel does is slow (a few ms), so it happens beside the asking: `_plumbing`
brings addresses to where they belong, `_survey` looks every few seconds which interfaces there are and whether all is
in place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

from afterswarm.agent.floating.one import Float, Note
from afterswarm.core.floating import OPEN, holder, place
from afterswarm.core.floating.holder import Counted
from afterswarm.core.floating.place import Place
from afterswarm.model.floating import Ask, Call, Floating, Letters, Vote, Whereabouts
from afterswarm.model.refused import Refused
from afterswarm.model.session import Wanted
from afterswarm.ports import Addresses, Clock

TICK = 0.05  # seconds between looks
REFRESH = 0.08  # seconds between two refreshes of what the kernel answers for
SURVEY = 5.0  # seconds between looks at the interfaces
FAILED = 3.0  # seconds that a host does not want an address that it could not put in place

log = logging.getLogger(__name__)


class Floats:
    """`run` it while the host is in a swarm. `given` are those of the daemon's own flag; `tell` sends to a node."""

    def __init__(
        self,
        *,
        node_id: str,
        boot: str,
        clock: Clock,
        addresses: Addresses,
        tell: Callable[[str, Letters], None],
        file: Path,
        given: Sequence[Place] = (),
    ) -> None:
        self._node_id = node_id
        self._boot = boot
        self._clock = clock
        self._addresses = addresses
        self._tell = tell
        self._note = Note(file)
        self._given = list(given)
        self._floating = Floating()
        self._told = self._tidied = False  # a manager has spoken; what was of an earlier life is gone
        self._managers: list[str] = []
        self._floats: dict[str, Float] = {}
        self._guarded: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()  # there is something to plumb
        self._due = asyncio.Event()  # … to survey
        self._moving = asyncio.Lock()  # who holds it may move addresses
        self._said: dict[str, str] = {}

    def want(self, wanted: Wanted) -> None:
        """`None` is unchanged."""
        if wanted.peers is not None:
            self._managers = [peer.node_id for peer in wanted.peers if peer.manager]
        if wanted.floating is not None and (wanted.floating != self._floating or not self._told):
            self._floating, self._told = wanted.floating, True
            self._due.set()

    def take(self, sender: str, letter: Vote | Call) -> None:
        """What a manager said. Who is none is not listened to."""
        found = self._floats.get(letter.address)
        if found is None or sender not in self._managers:
            return
        now = self._clock.monotonic()
        match letter:
            case Vote(boot=boot, asked=asked, electorate=electorate, size=size):
                if boot == self._boot:
                    found.mind = holder.voted(found.mind, sender, Counted(asked, electorate, size), now)
                    self._look(found)
            case Call():
                if found.willing:
                    found.mind = holder.called(found.mind, now)
                    self._look(found)

    def whereabouts(self) -> list[Whereabouts]:
        """Each address as this host has it; who else holds it, it does not know."""
        return [
            Whereabouts(address=text, here="held" if found.present else found.why or "ready", holder="")
            for text, found in sorted(self._floats.items())
        ]

    async def run(self) -> None:
        """Until cancelled; then this host holds nothing any more, and says so."""
        try:
            await self._remove(self._note.read())  # what an earlier life held is held by no vote now
            self._note.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._surveying(), name="interfaces")
                group.create_task(self._plumbing(), name="addresses")
                while True:
                    for found in list(self._floats.values()):
                        self._look(found)
                    await self._clock.sleep(TICK if self._floats else SURVEY / 10)
        finally:
            await self._end()

    # ---- what is done often and takes no time ------------------------------------------------------------------------

    def _look(self, found: Float) -> None:
        now = self._clock.monotonic()
        address = found.where.address
        if found.byes and not found.present:
            found.byes -= 1
            self._ask(found, now, leaving=True)
        if found.present != self._wants(found, now):
            self._changed.set()
        if not found.willing:
            return
        if found.present and holder.may_open(found.mind, now) and now >= found.opened + REFRESH:
            try:
                self._addresses.open(address)
                found.opened = now
                if found.announces(now):
                    found.announced += 1
                    self._addresses.announce(address, found.device)
            except OSError as error:
                self._say(f"floating address {address}", str(error))
                self._due.set()
            if holder.overshot(found.mind, self._clock.monotonic()):  # it was held up between looking and doing
                found.mind = holder.leave(found.mind, now)
                self._changed.set()
        if holder.due(found.mind, now, holding=found.present):
            self._ask(found, now)

    def _wants(self, found: Float, now: float) -> bool:
        """Whether the address belongs on the interface. It is put there only when there is time to use it."""
        if not found.willing:
            return False
        return now < holder.until(found.mind) if found.present else holder.may_open(found.mind, now)

    def _ask(self, found: Float, now: float, *, leaving: bool = False) -> None:
        found.mind = holder.leave(found.mind, now) if leaving else holder.ask(found.mind, now)
        ask = Ask(
            address=found.where.address,
            boot=self._boot,
            asked=found.mind.asked,
            again=holder.rate(found.mind, now, holding=found.present),
            willing=not leaving,
            holding=found.present and now < found.opened + OPEN,
            last=self._floating.last,
        )
        for manager in self._managers:
            self._tell(manager, ask)

    # ---- what takes time ---------------------------------------------------------------------------------------------

    async def _plumbing(self) -> None:
        while await self._changed.wait():
            self._changed.clear()
            for found in list(self._floats.values()):
                async with self._moving:
                    now = self._clock.monotonic()
                    if found.present != self._wants(found, now) and now >= found.failed_until:
                        await self._move(found)

    async def _move(self, found: Float) -> None:
        """Onto the interface, or off it."""
        address, begun = found.where.address, self._clock.monotonic()
        try:
            if found.present:
                await self._addresses.remove(address, found.device)
                found.present, found.byes = False, 3
                self._note.write(each for each in self._floats.values() if each.present)
                log.warning("floating address %s: not here any more", address)
            else:
                self._note.write(each for each in self._floats.values() if each.present or each is found)
                await self._addresses.add(address, found.device)
                found.present, found.announced, found.opened = True, 0, -inf
                found.came = self._clock.monotonic()
                log.warning("floating address %s: held by this host now, on %s", address, found.device)
            self._said.pop(f"floating address {address}", None)
        except OSError as error:
            self._say(f"floating address {address}", str(error))
            found.failed_until, found.why = begun + FAILED, f"it could not be moved: {error}"
            found.byes = 3
        self._look(found)

    async def _surveying(self) -> None:
        while True:
            try:
                async with self._moving:
                    await self._survey()
            except OSError as error:
                self._say("floating addresses", str(error))
                for found in self._floats.values():
                    found.why = found.why if found.present else f"the kernel: {error}"
            with suppress(TimeoutError):
                async with asyncio.timeout(SURVEY):
                    await self._due.wait()
            self._due.clear()

    async def _survey(self) -> None:
        places = self._places()
        if not places and not self._floats:
            if self._told and not self._tidied:  # rules of an earlier life would be in the way of who has it now
                self._tidied = await self._addresses.guard([], anew=True)
            return
        interfaces = await self._addresses.interfaces()
        present = {(address, found.device) for address, found in self._floats.items() if found.present}
        await self._remove(set(place.strays([p.address for p in places], interfaces)) - present)
        devices = {p.address: place.device(p, interfaces) for p in places}
        for address in self._floats.keys() - devices.keys():
            self._floats[address].why = "not asked for any more"
            await self._withdraw(self._floats[address])
            del self._floats[address]
        for where in places:
            device, why = devices[where.address]
            found = self._floats.get(where.address) or Float(where)
            self._floats[where.address] = found
            if found.present and (device != found.device or why):
                found.why = why or "it moves to another interface"
                await self._withdraw(found)
            found.device, found.where = device, where
        guarded = {(a, found.device) for a, found in self._floats.items() if found.device}
        if guarded or self._guarded:
            await self._addresses.guard(sorted(guarded), anew=guarded != self._guarded)
            self._guarded = guarded
        barred = "this host is not to hold any (drained, or by its label)" if self._floating.barred else ""
        now = self._clock.monotonic()
        here = {text.partition("/")[0] for texts in interfaces.values() for text in texts}
        for address, found in self._floats.items():
            found.opened = -inf  # the rules may be new: open what may be
            if now >= found.failed_until:
                found.why = devices[address][1] or barred
            if found.present and address not in here and found.willing:
                await self._addresses.add(address, found.device)  # somebody has taken it away
            self._look(found)

    def _places(self) -> list[Place]:
        """Of the flag and the swarm; what the flag says of an address counts more."""
        found: dict[str, Place] = {}
        for text in self._floating.addresses:
            try:
                where = place.one(text)
            except Refused as refused:  # of a version to come
                self._say(text, refused.message)
                continue
            found[where.address] = where
        return list((found | {where.address: where for where in self._given}).values())

    async def _withdraw(self, found: Float) -> None:
        """It may not be here any more: off the interface, and everybody may know."""
        if found.present:
            await self._move(found)
        self._ask(found, self._clock.monotonic(), leaving=True)

    # ---- from one life of the daemon to the next ---------------------------------------------------------------------

    async def _end(self) -> None:
        """Nothing is held any more; who waits for it need not wait for the votes to end."""
        held = [(address, found.device) for address, found in self._floats.items() if found.present]
        await self._remove(held)
        self._note.clear()
        for found in self._floats.values():
            if found.willing or found.present:
                self._ask(found, self._clock.monotonic(), leaving=True)
        if self._guarded:
            try:
                await self._addresses.guard([], anew=True)
            except OSError as error:
                self._say("rules of floating addresses", str(error))

    async def _remove(self, there: Collection[tuple[str, str]]) -> None:
        for address, device in there:
            try:
                await self._addresses.remove(address, device)
                log.warning("floating address %s: not here any more", address)
            except OSError as error:
                self._say(f"floating address {address}", str(error))

    def _say(self, what: str, why: str) -> None:
        if self._said.get(what) != why:
            log.warning("%s: %s", what, why)
        self._said[what] = why
