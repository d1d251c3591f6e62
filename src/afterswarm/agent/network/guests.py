"""This host's guests: single containers in overlay networks, whose addresses managers give and take back.

`admit` asks a manager for an address before the API lets the engine make the container. From then on one loop compares
what the managers know with what the engine shows (`core.host.guests`): after events, after news, and every few seconds.
So an address is given back also when its container ended while this daemon did not run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from afterswarm.agent.names.nameservers import of_host
from afterswarm.agent.network.network import Network
from afterswarm.core.host import guests
from afterswarm.core.host.guests import Found
from afterswarm.model.guest import Admission, Guest, Said, Wish
from afterswarm.model.network import LABEL
from afterswarm.model.network import Network as Overlay
from afterswarm.model.refused import Refused
from afterswarm.model.session import Wanted
from afterswarm.model.task import Task
from afterswarm.ports import Clock, Engine, EngineError, EngineGone, Json

log = logging.getLogger(__name__)

RESYNC = 10.0  # seconds between looks at all containers, in case an event was missed
RETRY = 1.0
MAKING = 120.0  # seconds that the engine may take to make a container whose address is there
EVENTS = {
    "type": ["container", "network"],
    "event": ["start", "die", "destroy", "rename", "connect", "disconnect"],
}
_PUBLIC = ["8.8.8.8", "8.8.4.4"]  # what the engine gives a container whose host has nameservers on loopback only

Ask = Callable[[str, bytes], Awaitable[bytes]]  # path and body -> body; raises `Refused` with a manager's words


class Guests:
    """`ask` reaches any manager. `run` it; one for one membership."""

    def __init__(self, *, engine: Engine, network: Network, clock: Clock, ask: Ask) -> None:
        self._engine = engine
        self._network = network
        self._clock = clock
        self._ask = ask
        self._guests: dict[str, Guest] | None = None  # None: no manager has said yet
        self._asking = 0  # of what is not expected, something may be the answer that is on its way
        self._expected: dict[str, float] = {}  # ids -> until when a container may still come
        self._running: dict[str, int] = {}  # container id -> pid, of those that have their rules
        self._look_again = asyncio.Event()

    def want(self, wanted: Wanted) -> None:
        if wanted.guests is not None:
            self._guests = {guest.id: guest for guest in wanted.guests}
            self._look_again.set()

    async def admit(self, wish: Wish) -> tuple[Guest, str, Json, str]:
        """The guest, the engine's network for it, its `EndpointSettings`, and who answers names there."""
        self._asking += 1
        try:
            answer = await self._ask("/guest/admit", msgspec.json.encode(wish))
            admission = msgspec.json.decode(answer, type=Admission)
            guest = admission.guest
            if not guest.id:
                return await self._to_own(admission.network)
            self._expected[guest.id] = self._clock.now() + MAKING
        finally:
            self._asking -= 1
        try:
            task = guests.as_tasks([guest])[0]
            [(name, endpoint)] = await self._network.prepare(task)
        except (EngineError, EngineGone) as why:
            await self.dismiss([guest.id])
            raise Refused(500, f"Could not attach to network {wish.network}: {why}") from why
        return guest, name, endpoint, self._network.dns(task)[0]

    async def _to_own(self, network: Overlay) -> tuple[Guest, str, Json, str]:
        """A network that every host has one of its own of: the engine gives addresses and answers names there."""
        try:
            await self._network.prepare_own(network)
        except (EngineError, EngineGone) as why:
            raise Refused(500, f"Could not attach to network {network.name}: {why}") from why
        return Guest(id=""), network.name, {}, ""

    def made(self, ids: Sequence[str]) -> None:
        """Their containers are there: from now on they are gone when the engine does not show them."""
        for key in ids:
            self._expected.pop(key, None)
        self._look_again.set()

    async def dismiss(self, ids: Sequence[str]) -> None:
        """Their containers were not made after all."""
        for key in ids:
            self._expected.pop(key, None)
        with suppress(Refused):  # the loop will find out
            await self._ask("/guest/report", msgspec.json.encode(Said(gone=list(ids))))

    async def run(self) -> None:
        """Until cancelled; containers keep their addresses."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="engine events of guests")
            group.create_task(self._follow(), name="guests")

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._engine.events(EVENTS):
                    self._look_again.set()
            except (EngineGone, EngineError) as why:
                log.debug("engine events: %s", why)
            await self._clock.sleep(RETRY)
            self._look_again.set()

    async def _follow(self) -> None:
        while True:
            self._look_again.clear()
            try:
                await self._look()
            except (EngineGone, EngineError, Refused) as why:
                log.warning("guests: %s", why)
                await self._clock.sleep(RETRY)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(RESYNC):
                    await self._look_again.wait()

    async def _look(self) -> None:
        here = list((self._guests or {}).values())
        if not here and not self._running:
            return
        now = self._clock.now()
        self._expected = {key: until for key, until in self._expected.items() if until > now}
        # As it was before the engine is asked: what is made meanwhile may not be in its answer.
        expected = {guest.id for guest in here if self._asking} | self._expected.keys()
        containers = await self._containers({guests.place(guest) for guest in here})
        await self._join(containers)
        said = guests.news(here, containers, expected)
        if said.changed or said.gone:
            await self._ask("/guest/report", msgspec.json.encode(said))

    async def _containers(self, places: set[guests.Place]) -> list[Found]:
        ours = {n["Name"]: n["Labels"][LABEL] for n in await self._engine.networks(LABEL)}
        found = []
        for listed in await self._engine.containers(""):
            networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
            if places.isdisjoint(guests.places(networks, ours)):
                continue
            try:
                found.append(guests.found(await self._engine.inspect(listed["Id"]), ours))
            except EngineError as why:
                if why.status != 404:  # else it has gone meanwhile
                    raise
        return found

    async def _join(self, containers: Sequence[Found]) -> None:
        """Rules for those that run; before others hear of them."""
        tasks = self._as_tasks(containers)
        running = {c.container_id: c.pid for c in containers if c.pid}
        self._network.reach_out(c.container_id for c in containers if c.outward)
        for gone in self._running.keys() - running.keys():
            await self._network.stopped(gone)
        for container in containers:
            if container.pid and (task := tasks.get(container.container_id)):
                own = container.name_servers or tuple(s for s in of_host() if ":" not in s) or tuple(_PUBLIC)
                await self._network.started(task, container.pid, redirect=own)
        self._running = running

    def _as_tasks(self, containers: Sequence[Found]) -> dict[str, Task]:
        """By container id, whether managers know already which container is whose or not."""
        owner = {place: c.container_id for c in containers for place in c.aliases}
        here = [
            msgspec.structs.replace(guest, container_id=owner[place])
            for guest in (self._guests or {}).values()
            if (place := guests.place(guest)) in owner
        ]
        return {task.id: task for task in guests.as_tasks(here)}
