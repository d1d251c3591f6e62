"""What a user may change of a node, and when a node may be removed. Docker's words throughout."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.model.base import Change
from afterswarm.model.node import Node, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot


def update(snap: Snapshot, node: Node, spec: NodeSpec) -> Node:
    """The node with this specification. A demotion that would cost the last manager, or the quorum, is refused."""
    if node.spec.role == Role.MANAGER and spec.role == Role.WORKER:
        _may_demote(snap, node)
    return replace(node, spec=spec)


def remove(snap: Snapshot, node: Node, *, force: bool) -> list[Change]:
    """Everything that goes with the node. One that was demoted, or never became a manager, leaves the store by itself
    (`core.cluster.quorum`). Its local volumes are forgotten: whoever removes a node gives up its disk."""
    if node.spec.role == node.role == Role.MANAGER:
        raise Refused(
            400,
            f"rpc error: code = FailedPrecondition desc = node {node.id} is a cluster manager and is a member of the "
            "raft cluster. It must be demoted to worker before removal",
        )
    if not force and node.state == NodeState.READY:
        raise Refused(
            400, f"rpc error: code = FailedPrecondition desc = node {node.id} is not down and can't be removed"
        )
    report = snap.node_reports.get(node.id)
    volumes = sorted((v for v in snap.volumes.values() if v.node_id == node.id), key=lambda v: v.id)
    return [Change(node, None), *([Change(report, None)] if report else []), *(Change(v, None) for v in volumes)]


def managers(snap: Snapshot) -> list[Node]:
    """Nodes that are, or are about to stop being, members of the quorum."""
    return [n for n in snap.nodes.values() if n.role == Role.MANAGER]


def reachable(node: Node) -> bool:
    return node.state == NodeState.READY


def _may_demote(snap: Snapshot, node: Node) -> None:
    wanted = [n for n in snap.nodes.values() if n.spec.role == Role.MANAGER]
    if len(wanted) == 1:
        raise Refused(
            400, "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm"
        )
    members = managers(snap)
    if node not in members:  # promoted a moment ago and not a member yet: nothing to lose
        return
    # Demotions that are under way count as done: two at once must not cost the quorum together.
    staying = [n for n in members if n.id != node.id and n.spec.role == Role.MANAGER]
    if sum(map(reachable, staying)) < len(staying) // 2 + 1:
        raise Refused(
            400,
            "rpc error: code = FailedPrecondition desc = can't remove member from the raft: "
            "this would result in a loss of quorum",
        )
