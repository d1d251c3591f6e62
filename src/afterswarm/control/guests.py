"""What hosts ask of managers for their guests on port 2377: `/guest/admit`, `/guest/report`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from afterswarm.core.admit import guest as admit
from afterswarm.core.trust.certificate import holder
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.guest import Admission, Said, Wish
from afterswarm.model.refused import NO_LEADER, Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

T = TypeVar("T")

ATTEMPTS = 20
CATCH_UP = 1.0  # seconds for the own view to see what a commit lost to
PATIENCE = 5.0  # seconds for the leader to allocate a network that was made just now
LOOK = 0.05
LARGEST = 4 * 1024 * 1024  # bytes of a request


class Guests:
    """Handlers. Who asks is in the certificate: a host can speak for its own guests only."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock

    async def admit(self, request: Request) -> Response:
        try:
            wish = msgspec.json.decode(await request.read(LARGEST), type=Wish)
            return Response.json(await self.let_in(_who(request), wish))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Response.error(400, f"invalid JSON: {error}")
        except Refused as refused:
            return Response.error(refused.status, refused.message)
        except (Conflict, Unavailable):
            return Response.error(503, NO_LEADER)

    async def report(self, request: Request) -> Response:
        try:
            said = msgspec.json.decode(await request.read(LARGEST), type=Said)
            await self.take(_who(request), said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Response.error(400, f"invalid JSON: {error}")
        except Refused as refused:
            return Response.error(refused.status, refused.message)
        except (Conflict, Unavailable):
            return Response.error(503, NO_LEADER)
        return Response(200)

    async def let_in(self, node_id: str, wish: Wish) -> Admission:
        """Give an address. Waits for a network that has none to give yet."""

        def decide(snap: Snapshot) -> tuple[list[Change], Admission | None]:
            network, guest = admit.admit(snap, node_id, wish)
            if guest is None:
                return [], None
            return [Change(None, guest)] if guest.id else [], Admission(guest=guest, network=network)

        deadline = self._clock.now() + PATIENCE
        while (admission := await self._settle(decide)) is None:
            if self._clock.now() >= deadline:
                raise Refused(503, f"network {wish.network} has not been allocated yet")
            await self._clock.sleep(LOOK)
        return admission

    async def take(self, node_id: str, said: Said) -> None:
        await self._settle(lambda snap: (admit.reported(snap, node_id, said), None))

    async def _settle(self, decide: Callable[[Snapshot], tuple[Sequence[Change], T]]) -> T:
        for _ in range(ATTEMPTS):
            changes, answer = decide(self._replica.snapshot())
            try:
                await self._replica.commit(changes)
            except Conflict as lost:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CATCH_UP):
                        await self._replica.reach(lost.rev)
            else:
                return answer
        raise Refused(503, NO_LEADER)


def _who(request: Request) -> str:
    who = holder(request.peer.certificate) if request.peer else None
    if who is None:
        raise Refused(403, "a certificate of this swarm is needed")
    return who.node_id
