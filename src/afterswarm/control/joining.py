"""How a host becomes part of the swarm, stays, and says good-bye: `/ca`, `/join`, `/renew`, `/leave`.

Every manager can do it: the authority's key rests sealed in the store. A node's id is derived from its key, so that a
host which asks again, because the answer was lost, gets the same one.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from contextlib import suppress

import msgspec

from afterswarm import ids
from afterswarm.control import ca
from afterswarm.control.founding import enrol
from afterswarm.control.keys import ca_key
from afterswarm.core.payloads import Unseal
from afterswarm.core.trust import roots, token
from afterswarm.core.trust.certificate import holder
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.cluster import Cluster
from afterswarm.model.enrolment import Enrolment, JoinRequest, RenewRequest, Root, where
from afterswarm.model.node import Node, NodeSpec, Role
from afterswarm.model.refused import NO_LEADER, Refused
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

PENALTY = 0.3  # seconds that a wrong secret costs; wrong ones are judged one after the other
ATTEMPTS = 10

BAD_TOKEN = "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"  # noqa: S105

log = logging.getLogger(__name__)


class Joining:
    """Handlers for a manager's port 2377."""

    def __init__(self, replica: Replica, clock: Clock, unseal: Unseal, cluster_key: bytes) -> None:
        self._replica = replica
        self._clock = clock
        self._unseal = unseal
        self._cluster_key = cluster_key
        self._penalty = asyncio.Lock()

    async def ca(self, _request: Request) -> Response:
        """The root certificate. Whoever asks must check it against the digest in his token."""
        cluster = self._replica.snapshot().cluster
        if cluster is None:
            return Response.error(503, NO_LEADER)
        return Response.json(Root(certificate=cluster.ca_cert))

    async def join(self, request: Request) -> Response:
        """Take in a host that knows a secret."""
        try:
            wish = msgspec.json.decode(await request.read(65_536), type=JoinRequest)
            address = _address(wish.address or (request.peer.address if request.peer else ""))
            role = await self._role_for(wish.secret)
            enrolment = await self._admit(wish, role, address)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ca.BadRequest) as error:
            return Response.error(400, f"rpc error: code = InvalidArgument desc = {error}")
        except Refused as refused:
            return Response.error(refused.status, refused.message)
        except (Conflict, Unavailable):
            return Response.error(503, NO_LEADER)
        log.info("%s joined as %s from %s: %s", wish.hostname or "a host", role.value, address, enrolment.node_id)
        return Response.json(enrolment)

    async def renew(self, request: Request) -> Response:
        """A new certificate for a node of the swarm, in the role that it should have now."""
        who = holder(request.peer.certificate) if request.peer else None
        snap = self._replica.snapshot()
        cluster = snap.cluster
        if who is None:
            return Response.error(403, "a certificate of this swarm is needed")
        if cluster is None or not self._replica.healthy:  # an old view may not know that the role has changed
            return Response.error(503, NO_LEADER)
        node = snap.nodes.get(who.node_id)
        if node is None:
            return Response.error(410, f"node {who.node_id} is not part of this swarm")
        report = snap.node_reports.get(node.id)
        try:
            wish = msgspec.json.decode(await request.read(65_536), type=RenewRequest)
            address = _address(wish.address or (report.address if report else ""))
            return Response.json(self._enrol(cluster, node, wish.csr, address))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ca.BadRequest) as error:
            return Response.error(400, f"rpc error: code = InvalidArgument desc = {error}")
        except Refused as refused:
            return Response.error(refused.status, refused.message)

    async def leave(self, request: Request) -> Response:
        """A node whose containers have ended leaves: nobody need wait until its silence is noticed."""
        who = holder(request.peer.certificate) if request.peer else None
        if who is None:
            return Response.error(403, "a certificate of this swarm is needed")
        for _ in range(ATTEMPTS):
            report = self._replica.snapshot().node_reports.get(who.node_id)
            if report is None or report.left:
                return Response(200)
            try:
                await self._replica.commit([Change(report, msgspec.structs.replace(report, left=True))])
            except Conflict as lost:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._replica.reach(lost.rev)
            except Unavailable:
                break
            else:
                log.info("%s leaves", report.description.hostname or who.node_id)
                return Response(200)
        return Response.error(503, NO_LEADER)

    async def _role_for(self, secret: str) -> Role:
        """The role whose token has this secret."""
        cluster = self._replica.snapshot().cluster
        if cluster is None:
            raise Refused(503, NO_LEADER)
        role = None
        for candidate, text in ((Role.WORKER, cluster.tokens.worker), (Role.MANAGER, cluster.tokens.manager)):
            if hmac.compare_digest(token.parse(text).secret.encode(), secret.encode()):
                role = candidate
        if role is None:
            async with self._penalty:
                await self._clock.sleep(PENALTY)
            raise Refused(400, BAD_TOKEN)
        return role

    async def _admit(self, wish: JoinRequest, role: Role, address: str) -> Enrolment:
        key = ca.fingerprint(wish.csr)
        for _ in range(ATTEMPTS):
            snap = self._replica.snapshot()
            if snap.cluster is None:
                raise Refused(503, NO_LEADER)
            node_id = ids.derive("node", snap.cluster.id, key)
            known = snap.nodes.get(node_id)
            node = known or Node(id=node_id, spec=NodeSpec(role=role, availability=wish.availability))
            enrolment = self._enrol(snap.cluster, node, wish.csr, address)
            if known:
                return enrolment
            try:
                # The guard of the cluster: a token that is rotated meanwhile is no longer good.
                await self._replica.commit([Change(None, node)], reads=["cluster"], seen=snap.rev)
                return enrolment
            except Conflict as lost:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._replica.reach(lost.rev)
                if await self._role_for(wish.secret) != role:
                    raise Refused(400, BAD_TOKEN) from lost
        raise Refused(503, NO_LEADER)

    def _enrol(self, cluster: Cluster, node: Node, csr: str, address: str) -> Enrolment:
        cert, sealed = roots.issuing(cluster)
        authority = ca.Authority(cert=cert, key=self._unseal(ca_key(cluster.id), sealed).decode())
        enrolment = enrol(cluster, authority, node, csr, address=address, now=self._clock.now())
        return msgspec.structs.replace(
            enrolment,
            managers=self._managers(),
            cluster_key=self._cluster_key if enrolment.role == Role.MANAGER else b"",
        )

    def _managers(self) -> list[str]:
        snap = self._replica.snapshot()
        reports = (snap.node_reports.get(n.id) for n in snap.nodes.values() if n.role == Role.MANAGER)
        return sorted(where(r.address, r.port) for r in reports if r and r.address)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Refused(400, f"rpc error: code = InvalidArgument desc = {text!r} is not an IP address") from None
