"""A swarm made anew from one manager: nobody waits for the others."""

from __future__ import annotations

from afterswarm.core.cluster import anew, liveness
from afterswarm.model.base import Change
from afterswarm.model.cluster import Cluster
from afterswarm.model.node import Leader, Node, NodeReport, NodeSpec, NodeState, Role, Suspicion
from afterswarm.model.snapshot import Snapshot
from afterswarm.sim import given as g

MANAGER = NodeSpec(role=Role.MANAGER)


def swarm() -> Snapshot:
    managers = [Node(id=n, spec=MANAGER, role=Role.MANAGER, state=NodeState.READY) for n in "abc"]
    reports = [NodeReport(id=n) for n in "abcw"]
    worker = Node(id="w", state=NodeState.READY)
    return g.swarm(Cluster(id="x"), Leader(id="leader", node_id="a"), *managers, worker, *reports)


def test_the_others_are_down_and_no_managers_and_stay_so_until_heard() -> None:
    snap = g.applied(swarm(), anew.changes(swarm(), "c", 77.0))
    assert {n.id for n in snap.nodes.values() if n.role == Role.MANAGER} == {"c"}
    assert {n.id: n.state for n in snap.nodes.values()} == {
        "a": NodeState.DOWN, "b": NodeState.DOWN, "c": NodeState.READY, "w": NodeState.READY,
    }  # fmt: skip
    assert snap.cluster.epoch == 77.0
    leads = g.applied(snap, [Change(snap.leader, Leader(id="leader", node_id="c"))])
    assert liveness.plan(leads, "nodes").changes == []
    heard = g.applied(leads, [Change(leads.suspicions["c"], Suspicion(id="c", nodes=("b",)))])
    (change,) = liveness.plan(heard, "nodes").changes
    assert (change.new.id, change.new.state) == ("a", NodeState.READY)


def test_a_second_time_changes_nothing() -> None:
    snap = g.applied(swarm(), anew.changes(swarm(), "c", 77.0))
    assert anew.changes(snap, "c", 77.0) == []


def test_a_manager_about_to_be_made_a_worker_stays_one() -> None:
    snap = g.swarm(Cluster(id="x"), Node(id="c", role=Role.MANAGER))
    (_, change) = anew.changes(snap, "c", 5.0)
    assert change.new.spec.role == Role.MANAGER
