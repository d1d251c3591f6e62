"""A node that says good-bye is down at once, and is no reason to doubt the silence of others."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.cluster import liveness
from afterswarm.core.cluster.reports import accepted_node
from afterswarm.model.node import Leader, Node, NodeReport, NodeState, Role, Suspicion
from afterswarm.model.snapshot import Snapshot


def swarm(*, left: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> Snapshot:
    nodes = {n: Node(id=n, role=Role.MANAGER if n == "a" else Role.WORKER, state=NodeState.READY) for n in "abc"}
    return Snapshot(
        nodes=nodes,
        node_reports={n: NodeReport(id=n, left=n in left) for n in nodes},
        leaders={"leader": Leader(id="leader", node_id="a")},
        suspicions={"a": Suspicion(id="a", nodes=silent)},
        now=100.0,
    )


def down(snap: Snapshot) -> dict[str, str]:
    changed = (c.new for c in liveness.plan(snap, "nodes").changes)
    return {n.id: n.message for n in changed if isinstance(n, Node) and n.state == NodeState.DOWN}


def test_who_left_is_down_without_being_silent() -> None:
    assert down(swarm(left=("b",))) == {"b": liveness.LEFT}


def test_all_may_leave() -> None:
    assert set(down(swarm(left=("b", "c")))) == {"b", "c"}


def test_who_left_is_not_called_back_by_a_late_beat() -> None:
    snap = swarm(left=("b",))
    snap = replace(snap, nodes={**snap.nodes, "b": replace(snap.nodes["b"], state=NodeState.DOWN)})
    assert not liveness.plan(snap, "nodes").changes


def test_one_of_two_that_stay_is_still_called_down() -> None:
    """Two of three seem down, which is where the brake holds, but one of them said so."""
    assert set(down(swarm(left=("b",), silent=("b", "c")))) == {"b", "c"}
    assert not down(swarm(silent=("b", "c")))


def test_a_greeting_under_way_does_not_take_it_back() -> None:
    snap = swarm(left=("b",))
    late = accepted_node(snap, NodeReport(id="b", address="10.0.0.2"))
    assert late is not None
    assert late.left
