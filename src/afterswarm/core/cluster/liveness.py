"""Which nodes are up: what one observer hears, and the verdict of all of them.

Every manager hears the beats of every node, and writes down who is silent (`suspects` -> `Suspicion`). The leader turns
these into a verdict: a node is DOWN when the leader and a majority of the managers that the leader hears suspect it.
The brake: while more than half of all nodes would be down, no further one is declared so; then it is more likely the
observers' network. A node that said good-bye is down at once, and counts neither way. Verdicts on single nodes are
independent, but which observers count is not: a plan looks at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from msgspec.structs import replace

from afterswarm.model.base import Change, Plan
from afterswarm.model.node import Node, NodeState, Role
from afterswarm.model.snapshot import Snapshot

THRESHOLD = 2.0  # seconds of silence; a blip that is shorter restarts nothing
NEWCOMER = 15.0  # seconds that a node has to be heard for the first time before it is called down
FAILURE = "heartbeat failure"  # Docker's words
LEFT = "node left the swarm"


def suspects(  # noqa: PLR0917 - all that an observer knows
    heard: Mapping[str, float],
    nodes: Iterable[str],
    me: str,
    now: float,
    since: float,
    threshold: float = THRESHOLD,
) -> tuple[str, ...]:
    """Of `nodes`, those that the observer `me`, listening since `since`, has not heard from for `threshold` seconds."""
    return tuple(sorted(n for n in nodes if n != me and now - heard.get(n, since) >= threshold))


def plan(snap: Snapshot, key: str) -> Plan:
    """Mark nodes READY and DOWN. `key`: a node id; any other: all nodes."""
    suspected, cleared = _verdicts(snap)
    looked_at = [snap.nodes[key]] if key in snap.nodes else [node for _, node in sorted(snap.nodes.items())]
    changes: list[Change] = []
    wake_at = inf
    for node in looked_at:
        state = node.state
        if _left(snap, node.id):
            state = NodeState.DOWN
        elif node.id in cleared and node.id in snap.node_reports:
            state = NodeState.READY
        elif node.id in suspected and node.state != NodeState.UNKNOWN:
            state = NodeState.DOWN
        elif node.id in suspected:
            patience = node.created + NEWCOMER
            if patience > snap.now:
                wake_at = min(wake_at, patience)
            else:
                state = NodeState.DOWN
        if state != node.state:
            changes.append(Change(node, _marked(node, state, snap.now, left=_left(snap, node.id))))
    if _too_many(snap, suspected):
        changes = [c for c in changes if c.obj.id not in suspected or _left(snap, c.obj.id)]
    return Plan(changes=changes, wake_at=wake_at, why=_why(changes))


def _verdicts(snap: Snapshot) -> tuple[set[str], set[str]]:
    """Nodes that are suspected by the leader and a majority, and those that are by neither."""
    leader = snap.leader.node_id if snap.leader else ""
    own = _suspected_by(snap, leader)
    observers = [
        node.id
        for node in snap.nodes.values()
        if node.role == Role.MANAGER and (node.id == leader or node.id not in own) and not _left(snap, node.id)
    ]
    votes = {n: sum(n in _suspected_by(snap, o) for o in observers) for n in snap.nodes}
    suspected = {n for n, count in votes.items() if n in own and count * 2 > len(observers)}
    cleared = {n for n, count in votes.items() if n not in own and count * 2 <= len(observers)}
    return suspected, cleared


def _suspected_by(snap: Snapshot, observer: str) -> Sequence[str]:
    suspicion = snap.suspicions.get(observer)
    return suspicion.nodes if suspicion else ()


def _too_many(snap: Snapshot, suspected: set[str]) -> bool:
    staying = {n: node for n, node in snap.nodes.items() if not _left(snap, n)}
    seem_down = sum(
        node.state == NodeState.DOWN or (n in suspected and node.state != NodeState.UNKNOWN)
        for n, node in staying.items()
    )
    return seem_down * 2 > len(staying)


def _left(snap: Snapshot, node_id: str) -> bool:
    report = snap.node_reports.get(node_id)
    return report is not None and report.left


def _marked(node: Node, state: NodeState, now: float, *, left: bool) -> Node:
    message = (LEFT if left else FAILURE) if state == NodeState.DOWN else ""
    return replace(node, state=state, message=message, state_since=now)


def _why(changes: Sequence[Change]) -> str:
    marked = [c.new for c in changes if isinstance(c.new, Node)]
    return "; ".join(f"node {node.id} is {node.state.value}" for node in marked)
