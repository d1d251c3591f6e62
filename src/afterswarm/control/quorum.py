"""Carries out what `core.cluster.quorum` decides about the store's members, and takes in new ones (`/member/add`).

Every manager runs `Quorum`; only the one that `quorum.actor` names does anything, one step at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from afterswarm.core.cluster import quorum
from afterswarm.core.cluster.quorum import Member, PromoteMember, RemoveMember, SetRole, Step
from afterswarm.core.trust.certificate import holder
from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.enrolment import MemberReply, MemberRequest
from afterswarm.model.node import Node, Role
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

LOOK = 2.0  # seconds between looks when nothing seems to change
SOON = 0.2  # seconds between steps of a change under way
STRANGER = 2.0  # seconds until a member that nobody knows is removed: our view may be late

log = logging.getLogger(__name__)


class Members(Protocol):
    """The store's own list of its members. Raises `Unavailable`, and `Refused` in the store's words."""

    async def members(self) -> list[Member]: ...

    async def add_learner(self, peer_url: str) -> str:
        """Returns the member's id."""

    async def promote(self, member_id: str) -> None:
        """`Refused` while the learner has not caught up."""

    async def remove(self, member_id: str) -> None: ...


class Quorum:
    """`alive`: node ids of managers that this one hears, itself included."""

    def __init__(
        self,
        replica: Replica,
        *,
        me: str,
        members: Members,
        alive: Callable[[], Collection[str]],
        clock: Clock,
        cluster_key: bytes,
    ) -> None:
        self._replica = replica
        self._me = me
        self._members = members
        self._alive = alive
        self._clock = clock
        self._cluster_key = cluster_key
        self._woken = asyncio.Event()
        self._strangers: dict[str, float] = {}  # member id -> since when
        self._adding = asyncio.Lock()
        self._said: list[str] = []

    # ---- what every manager does -------------------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._steps())
            async for changes in self._replica.changes():
                if any(isinstance(change.obj, Node) for change in changes):
                    self._woken.set()

    async def _steps(self) -> None:
        while True:
            self._woken.clear()
            busy = False
            snap = self._replica.snapshot()
            if quorum.actor(snap) == self._me:
                busy = self._unsettled(snap)
                try:
                    busy = await self._step() or busy
                except (Conflict, Unavailable, Refused) as error:
                    self._say(f"not now: {error!r}")
                    busy = True
            with suppress(TimeoutError):
                async with asyncio.timeout(SOON if busy else LOOK):
                    await self._woken.wait()

    async def _step(self) -> bool:
        """One step; whether there was one."""
        members = await self._members.members()
        snap = self._replica.snapshot()
        if quorum.actor(snap) != self._me:
            return False
        step = quorum.next_step(snap.nodes, _addresses(snap), members, self._alive())
        if step is None or self._too_early(step, snap):
            return False
        self._say(str(step))
        match step:
            case PromoteMember(member_id=member_id):
                await self._members.promote(member_id)
            case RemoveMember(member_id=member_id):
                await self._members.remove(member_id)
            case SetRole(node_id=node_id, role=role):
                node = snap.nodes[node_id]
                await self._replica.commit([Change(node, msgspec.structs.replace(node, role=role))], seen=snap.rev)
        return True

    def _too_early(self, step: Step, snap: Snapshot) -> bool:
        if not isinstance(step, RemoveMember) or step.node_id in snap.nodes:
            return False
        since = self._strangers.setdefault(step.member_id, self._clock.now())
        return self._clock.now() < since + STRANGER

    def _unsettled(self, snap: Snapshot) -> bool:
        """Whether a node is on its way to another role. One that is down cannot become a manager now."""
        return any(
            node.spec.role != node.role and (node.spec.role == Role.WORKER or snap.is_ready(node.id))
            for node in snap.nodes.values()
        )

    def _say(self, what: str) -> None:
        if what not in self._said:  # a step that is refused and tried again is said once, and so is why
            log.info("managers: %s", what)
        self._said = [*(said for said in self._said if said != what), what][-2:]

    # ---- POST /member/add --------------------------------------------------------------------------------------

    async def add(self, request: Request) -> Response:
        """A node that is to be a manager gets its place. 503 means: ask again in a moment."""
        who = holder(request.peer.certificate) if request.peer else None
        if who is None or who.role != Role.MANAGER:
            return Response.error(403, "only managers of this swarm may ask this")
        try:
            wish = msgspec.json.decode(await request.read(65_536), type=MemberRequest)
            async with self._adding:
                return Response.json(await self._add(who.node_id, wish.peer_url))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Response.error(400, str(error))
        except Refused as refused:
            return Response.error(refused.status, refused.message)
        except Unavailable as error:
            return Response.error(503, f"the store takes no new member now: {error}")

    async def _add(self, node_id: str, peer_url: str) -> MemberReply:
        members = await self._members.members()
        snap = self._replica.snapshot()
        addresses = _addresses(snap)
        if addresses.get(node_id) != urlsplit(peer_url).hostname:
            raise Refused(503, "this node has not said yet that it is at that address")

        def owner(member: Member) -> str:
            asks = not member.name and member.peer_url == peer_url
            return node_id if asks else quorum.owner(member, snap.nodes, addresses)

        if node_id not in map(owner, members):
            if not quorum.may_add(snap.nodes, addresses, members, node_id):
                raise Refused(503, "another change of managers is under way, or this node is to be a worker")
            member_id = await self._members.add_learner(peer_url)
            log.info("managers: %s may join the store as member %s", node_id, member_id)
            members = await self._members.members()
        return MemberReply(
            initial_cluster=",".join(f"{owner(m)}={m.peer_url}" for m in sorted(members, key=lambda m: m.id)),
            cluster_key=self._cluster_key,
        )


async def ask(client: Client, peer_url: str) -> MemberReply:
    """From the node that is to be a manager. Raises `Refused` (503: again later) and `ConnectFailed`."""
    body = msgspec.json.encode(MemberRequest(peer_url=peer_url))
    reply = await client.request("POST", "/member/add", body=body, timeout=10.0)
    if reply.status != 200:
        raise Refused(reply.status, reply.message)
    return msgspec.json.decode(reply.body, type=MemberReply)


def _addresses(snap: Snapshot) -> dict[str, str]:
    return {i: report.address for i, report in snap.node_reports.items() if report.address}
