"""Managers come and go: the shell that carries out `core.membership`, on a simulated list of members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.control.cache import Cache
from afterswarm.control.quorum import Quorum
from afterswarm.core.cluster.quorum import Member
from afterswarm.http.message import Peer, Request, Response
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.enrolment import MemberReply, MemberRequest
from afterswarm.model.node import Leader, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Unavailable
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.looptime(end=36000)

W, M = Role.WORKER, Role.MANAGER


class Members:
    """etcd's list, as far as this matters."""

    def __init__(self, *names: str) -> None:
        self.found = {f"m-{n}": Member(id=f"m-{n}", name=n, peer_url=url(n)) for n in names}
        self.behind = False
        self.down = False
        self.calls: list[str] = []

    async def members(self) -> list[Member]:
        if self.down:
            raise Unavailable
        return list(self.found.values())

    async def add_learner(self, peer_url: str) -> str:
        if any(m.learner for m in self.found.values()):
            raise Refused(503, "etcdserver: too many learner members in cluster")
        member = Member(id=f"m-{peer_url[-6]}", peer_url=peer_url, learner=True)
        self.found[member.id] = member
        return member.id

    async def promote(self, member_id: str) -> None:
        self.calls.append(f"promote {member_id}")
        if self.behind:
            raise Refused(412, "etcdserver: can only promote a learner member which is in sync with leader")
        self.found[member_id] = replace(self.found[member_id], learner=False)

    async def remove(self, member_id: str) -> None:
        self.calls.append(f"remove {member_id}")
        del self.found[member_id]

    def start(self, name: str) -> None:
        self.found[f"m-{name}"] = replace(self.found[f"m-{name}"], name=name)


def url(name: str) -> str:
    return f"https://10.0.0.{name}:2380"


def node(node_id: str, wish: Role, role: Role) -> Node:
    return Node(id=node_id, spec=NodeSpec(role=wish), role=role, state=NodeState.READY)


class Swarm:
    def __init__(self, members: Members, nodes: list[Node]) -> None:
        said = [NodeReport(id=n.id, address=f"10.0.0.{n.id}") for n in nodes]
        objects: list[Obj] = [Cluster(id="swarm"), Leader(id="leader", node_id="1"), *nodes, *said]
        self.store = SimStore(1)
        self.store.apply([Change(None, o) for o in objects], seen=self.store.rev)
        self.cache = Cache(self.store.client("m"), LoopClock(1000.0))
        self.members = members
        self.alive = {n.id for n in nodes}
        self.managers = {
            i: Quorum(
                self.cache,
                me=i,
                members=members,
                alive=lambda: self.alive,
                clock=LoopClock(1000.0),
                cluster_key=b"key",
            )
            for i in ("1", "2")
        }

    async def add(self, node_id: str, role: str = "swarm-manager", via: str = "1") -> Response:
        subject = ((("commonName", node_id),), (("organizationalUnitName", role),))
        body = msgspec.json.encode(MemberRequest(peer_url=url(node_id)))
        peer = Peer(address="10.0.0.9", certificate={"subject": subject})
        return await self.managers[via].add(Request("POST", "/member/add", body=body, peer=peer))

    def wish(self, node_id: str, role: Role) -> None:
        old = self.store.objects["node", node_id]
        assert isinstance(old, Node)
        self.store.apply([Change(old, replace(old, spec=replace(old.spec, role=role)))], seen=self.store.rev)

    def role(self, node_id: str) -> Role:
        return self.cache.snapshot().nodes[node_id].role


@asynccontextmanager
async def swarm(members: Members, *nodes: Node) -> AsyncIterator[Swarm]:
    made = Swarm(members, list(nodes))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.cache.run())]
        tasks += [group.create_task(m.run()) for m in made.managers.values()]
        await asyncio.sleep(0.1)
        yield made
        for task in tasks:
            task.cancel()


async def test_a_promotion() -> None:
    members = Members("1")
    async with swarm(members, node("1", M, M), node("2", W, W)) as s:
        assert (await s.add("2")).status == 503  # nobody asked for it to be a manager
        s.wish("2", M)
        await asyncio.sleep(0.1)
        assert (await s.add("2", role="swarm-worker")).status == 403
        answer = await s.add("2")
        assert answer.status == 200
        reply = msgspec.json.decode(answer.body, type=MemberReply)
        assert reply.initial_cluster == "1=https://10.0.0.1:2380,2=https://10.0.0.2:2380"
        assert reply.cluster_key == b"key"
        assert (await s.add("2")).body == answer.body  # asked again: the same place
        await asyncio.sleep(5)
        assert s.role("2") == W
        members.behind = True
        members.start("2")
        await asyncio.sleep(5)
        assert s.role("2") == W
        members.behind = False
        await asyncio.sleep(1)
        assert s.role("2") == M
        assert members.calls[-1] == "promote m-2"


async def test_two_newcomers_take_turns() -> None:
    members = Members("1")
    async with swarm(members, node("1", M, M), node("2", M, W), node("3", M, W)) as s:
        assert [(await s.add("2")).status, (await s.add("3")).status] == [200, 503]
        members.start("2")
        await asyncio.sleep(3)
        assert (await s.add("3")).status == 200
        members.start("3")
        await asyncio.sleep(3)
        assert [s.role(i) for i in "123"] == [M, M, M]


async def test_a_demotion() -> None:
    members = Members("1", "2", "3")
    async with swarm(members, *(node(i, M, M) for i in "123")) as s:
        s.wish("3", W)
        await asyncio.sleep(1)
        assert set(members.found) == {"m-1", "m-2"}
        assert s.role("3") == W


async def test_the_leader_is_demoted_by_another() -> None:
    members = Members("1", "2", "3")
    async with swarm(members, *(node(i, M, M) for i in "123")) as s:
        s.wish("1", W)
        await asyncio.sleep(1)
        assert set(members.found) == {"m-2", "m-3"}
        assert s.role("1") == W
        assert members.calls == ["remove m-1"]


async def test_a_removed_node_loses_its_place_after_a_moment() -> None:
    members = Members("1", "2", "3")
    async with swarm(members, *(node(i, M, M) for i in "123")) as s:
        s.store.apply([Change(s.store.objects["node", "3"], None)], seen=s.store.rev)
        await asyncio.sleep(1)
        assert set(members.found) == {"m-1", "m-2", "m-3"}
        await asyncio.sleep(9)
        assert set(members.found) == {"m-1", "m-2"}


async def test_no_change_while_it_would_cost_the_majority() -> None:
    members = Members("1", "2", "3")
    async with swarm(members, *(node(i, M, M) for i in "123")) as s:
        s.alive = {"1", "3"}
        s.wish("3", W)
        await asyncio.sleep(30)
        assert set(members.found) == {"m-1", "m-2", "m-3"}
        s.alive = {"1", "2", "3"}
        await asyncio.sleep(3)
        assert s.role("3") == W


async def test_an_unavailable_store_is_waited_for() -> None:
    members = Members("1", "2", "3")
    async with swarm(members, *(node(i, M, M) for i in "123")) as s:
        members.down = True
        s.wish("3", W)
        await asyncio.sleep(30)
        assert (await s.add("2")).status == 503
        members.down = False
        await asyncio.sleep(1)
        assert s.role("3") == W
