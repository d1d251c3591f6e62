"""Which members etcd has, and how the local one is, through its JSON gateway.

Ids are hexadecimal, as etcd's own tools print them.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from afterswarm.adapters.etcd.gateway import Header, call, result
from afterswarm.core.cluster.quorum import Member
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.ports import Unavailable

CHANGING = 5.0  # seconds for a change of the members, which waits for them to agree


class _Member(msgspec.Struct, frozen=True):
    ID: int
    name: str = ""
    peerURLs: list[str] = []  # noqa: N815 - etcd's spelling
    isLearner: bool = False  # noqa: N815


class _Members(msgspec.Struct, frozen=True):
    header: Header = Header()
    members: list[_Member] = []
    member: _Member | None = None


class _Status(msgspec.Struct, frozen=True):
    header: Header
    version: str = ""
    dbSize: int = 0  # noqa: N815
    leader: int = 0
    raftIndex: int = 0  # noqa: N815
    raftAppliedIndex: int = 0  # noqa: N815
    raftTerm: int = 0  # noqa: N815
    isLearner: bool = False  # noqa: N815


class _Blob(msgspec.Struct, frozen=True):
    blob: bytes = b""


class Status(msgspec.Struct, frozen=True):
    """How the local member is. `leader`: "" when it knows none, so that nothing can be written."""

    member_id: str
    leader: str
    term: int
    index: int  # last entry of its log
    applied: int  # of which it has applied
    learner: bool
    size: int  # bytes of its database
    version: str


class Members:
    """Raises `Unavailable`, and `Refused` in etcd's words."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def members(self) -> list[Member]:
        found = await call(self._client, "/v3/cluster/member/list", {}, _Members)
        return [
            Member(id=_hex(m.ID), name=m.name, peer_url=next(iter(m.peerURLs), ""), learner=m.isLearner)
            for m in found.members
        ]

    async def add_learner(self, peer_url: str) -> str:
        """Returns the new member's id. etcd takes one learner at a time."""
        body = {"peerURLs": [peer_url], "isLearner": True}
        added = await call(self._client, "/v3/cluster/member/add", body, _Members, CHANGING)
        if added.member is None:
            raise Unavailable("etcd did not say which member it added")
        return _hex(added.member.ID)

    async def promote(self, member_id: str) -> None:
        """Make a learner a voter. `Refused` while it has not caught up."""
        await self._change("promote", member_id)

    async def remove(self, member_id: str) -> None:
        """`Refused` when there is no such member, and when too few of the others are healthy."""
        await self._change("remove", member_id)

    async def move(self, member_id: str, peer_url: str) -> None:
        """Where the others reach a member."""
        body = {"ID": str(int(member_id, 16)), "peerURLs": [peer_url]}
        await call(self._client, "/v3/cluster/member/update", body, _Members, CHANGING)

    async def move_leader(self, member_id: str) -> None:
        """Have another member lead etcd. Only etcd's leader can be asked."""
        body = {"targetID": str(int(member_id, 16))}
        await call(self._client, "/v3/maintenance/transfer-leadership", body, _Members, CHANGING)

    async def status(self) -> Status:
        """Of the local member, also when there is no quorum."""
        found = await call(self._client, "/v3/maintenance/status", {}, _Status)
        return Status(
            member_id=_hex(found.header.member_id),
            leader=_hex(found.leader) if found.leader else "",
            term=found.raftTerm,
            index=found.raftIndex,
            applied=found.raftAppliedIndex,
            learner=found.isLearner,
            size=found.dbSize,
            version=found.version,
        )

    async def ready(self) -> bool:
        """Whether the local member runs and the quorum answers."""
        try:
            reply = await self._client.request("GET", "/health", timeout=2.0)
        except ConnectFailed:
            return False
        return reply.status == 200

    async def save(self, path: Path) -> None:
        """A copy of everything, as `etcdctl snapshot save` makes it; `etcdctl snapshot restore` takes it."""
        partial = path.with_name(path.name + ".part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                async with self._client.stream("POST", "/v3/maintenance/snapshot", body=b"{}") as reply:
                    async for line in reply.lines():
                        out.write(result(line, _Blob).blob)
                os.fsync(out.fileno())
            partial.replace(path)
        except ConnectFailed as error:
            raise Unavailable(str(error)) from error
        finally:
            partial.unlink(missing_ok=True)

    async def _change(self, what: str, member_id: str) -> None:
        body = {"ID": str(int(member_id, 16))}
        await call(self._client, f"/v3/cluster/member/{what}", body, _Members, CHANGING)


def _hex(member_id: int) -> str:
    return f"{member_id:x}"


__all__ = ["Member", "Members", "Status"]
