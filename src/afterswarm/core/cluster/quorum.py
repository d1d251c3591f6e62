"""Which managers vote in the store: the next change to make, one at a time.

    promote:  node asks for a learner -> learner has caught up -> voter -> Node.role = manager
    demote:   member removed -> Node.role = worker (the node then stops its store)
    removed:  the member of a node that is no more goes at once

Adding the learner is asked for by the new manager itself (it must hold a manager's certificate by then); `may_add` says
whether it can be done now. Everything else is one manager's business, `actor` says whose.

Two rules stand above all: the last voter is never removed, and no change may leave the voters that are known to be
alive without a majority.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from afterswarm.model.node import Node, NodeState, Role
from afterswarm.model.snapshot import Snapshot


class Member(msgspec.Struct, frozen=True):
    """One member of the store's cluster. `name` is the node id; "" until the member has started once."""

    id: str  # hexadecimal
    name: str = ""
    peer_url: str = ""  # "https://10.0.0.1:2380"
    learner: bool = False

    @property
    def address(self) -> str:
        """Host of the peer URL."""
        return urlsplit(self.peer_url).hostname or ""


class PromoteMember(msgspec.Struct, frozen=True):
    """Make a learner a voter. The store refuses while it has not caught up: try again."""

    member_id: str
    node_id: str


class RemoveMember(msgspec.Struct, frozen=True):
    member_id: str
    node_id: str  # "" when nobody knows whose it is


class SetRole(msgspec.Struct, frozen=True):
    """Record what the node has become."""

    node_id: str
    role: Role


Step = PromoteMember | RemoveMember | SetRole


def next_step(
    nodes: Mapping[str, Node],
    addresses: Mapping[str, str],
    members: Sequence[Member],
    alive: Collection[str],
) -> Step | None:
    """The one thing to do now, or nothing.

    `addresses`: node id -> advertise address, to recognise members that have not started yet. `alive`: node ids that
    are heard.
    """
    owned = {member.id: owner(member, nodes, addresses) for member in members}
    for node in sorted(nodes.values(), key=lambda n: n.id):
        mine = [m for m in members if owned[m.id] == node.id]
        if node.spec.role == Role.WORKER and node.role == Role.MANAGER and not mine:
            return SetRole(node.id, Role.WORKER)
        if node.spec.role == Role.MANAGER and node.role == Role.WORKER and any(not m.learner for m in mine):
            return SetRole(node.id, Role.MANAGER)
    for member in sorted(members, key=lambda m: (not m.learner, m.id)):
        node_id = owned[member.id]
        if node_id in nodes and nodes[node_id].spec.role == Role.MANAGER:
            continue
        if may_remove(member, members, owned, alive):
            return RemoveMember(member.id, node_id)
    for member in sorted(members, key=lambda m: m.id):
        node_id = owned[member.id]
        started = member.learner and member.name
        if started and node_id in alive and _safe([*_voters(members), member], owned, alive):
            return PromoteMember(member.id, node_id)
    return None


def may_add(
    nodes: Mapping[str, Node],
    addresses: Mapping[str, str],
    members: Sequence[Member],
    node_id: str,
) -> bool:
    """Whether a learner may be added for this node now: it is to be a manager, and no other change is under way."""
    node = nodes.get(node_id)
    if node is None or node.spec.role != Role.MANAGER or node_id not in addresses:
        return False
    return not any(m.learner and owner(m, nodes, addresses) != node_id for m in members)


def may_remove(member: Member, members: Sequence[Member], owned: Mapping[str, str], alive: Collection[str]) -> bool:
    """Whether the others can do without this member."""
    if member.learner:
        return True
    others = [m for m in _voters(members) if m.id != member.id]
    return bool(others) and _safe(others, owned, alive)


def may_demote(snap: Snapshot, node_id: str) -> bool:
    """Whether the managers that would remain are a working majority, as far as the snapshot tells."""
    others = [n for n in snap.nodes.values() if n.role == Role.MANAGER and n.id != node_id]
    return sum(n.state == NodeState.READY for n in others) > len(others) / 2


def actor(snap: Snapshot) -> str:
    """Node id of the manager that carries out the steps: the leader, unless it is itself to go."""
    staying = {n.id for n in snap.nodes.values() if n.role == n.spec.role == Role.MANAGER}
    leader = snap.leader.node_id if snap.leader else ""
    if leader in staying:
        return leader
    ready = [i for i in staying if snap.is_ready(i)]
    return min(ready or staying, default=leader)


def owner(member: Member, nodes: Mapping[str, Node], addresses: Mapping[str, str]) -> str:
    """Node id of a member: its name or, before its first start, the node that has its address; "" when unknown."""
    if member.name:
        return member.name

    def likely(node_id: str) -> tuple[bool, bool, bool, float]:
        """A host that left and joined again has two nodes at its address: it is the one that is on its way."""
        node = nodes[node_id]
        wanted = node.spec.role == Role.MANAGER
        return wanted, node.role == Role.WORKER, node.state != NodeState.DOWN, node.created

    candidates = sorted(i for i, address in addresses.items() if address == member.address and i in nodes)
    return max(candidates, key=likely, default="")


def _voters(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if not m.learner]


def _safe(voters: Sequence[Member], owned: Mapping[str, str], alive: Collection[str]) -> bool:
    return sum(owned[m.id] in alive for m in voters) > len(voters) / 2
