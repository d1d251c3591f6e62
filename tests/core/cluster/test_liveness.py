"""Who is silent, and what the leader makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.core.cluster import liveness
from afterswarm.model.node import Leader, NodeReport, NodeState, Role, Suspicion
from afterswarm.model.snapshot import Snapshot
from afterswarm.sim import given as g

MANAGERS = ("m1", "m2", "m3")


def swarm(suspected: dict[str, tuple[str, ...]], state: NodeState = NodeState.READY, workers: str = "ab") -> Snapshot:
    """`suspected`: by whom -> whom. m1 leads."""
    return g.swarm(
        Leader(id="leader", node_id="m1"),
        [g.node(n, state, role=Role.MANAGER) for n in MANAGERS],
        [g.node(n, state) for n in workers],
        [NodeReport(id=n) for n in (*MANAGERS, *workers)],
        [Suspicion(id=by, nodes=nodes) for by, nodes in suspected.items()],
    )


def changed(snap: Snapshot, key: str = "nodes") -> dict[str, tuple[NodeState, str]]:
    return {c.new.id: (c.new.state, c.new.message) for c in liveness.plan(snap, key).changes}


def test_silence_is_counted_from_the_last_beat_or_from_the_beginning() -> None:
    heard = {"a": 98.0, "b": 98.1}
    assert liveness.suspects(heard, ["a", "b", "c", "me"], "me", 100.0, 90.0) == ("a", "c")
    assert liveness.suspects({}, ["c"], "me", 100.0, 98.5) == ()


def test_down_takes_the_leader_and_a_majority() -> None:
    assert changed(swarm({"m1": ("a",), "m2": ("a",)})) == {"a": (NodeState.DOWN, "heartbeat failure")}
    assert changed(swarm({"m1": ("a",)})) == {}
    assert changed(swarm({"m2": ("a",), "m3": ("a",)})) == {}


def test_a_suspected_manager_has_no_vote() -> None:
    dead_leader = {"m1": ("m3", "a"), "m2": ("m3", "a")}
    assert set(changed(swarm(dead_leader))) == {"m3", "a"}
    assert changed(swarm({"m1": ("m3", "a"), "m3": ("a",)})) == {}, "m3 is not heard: it may be cut off itself"


def test_a_node_that_is_heard_again_is_ready() -> None:
    assert changed(swarm({}, NodeState.DOWN))["a"] == (NodeState.READY, "")
    assert "a" not in changed(swarm({"m1": ("a",)}, NodeState.DOWN)), "not while the leader does not hear it"


def test_the_brake() -> None:
    all_of_them = ("a", "b", "m3")
    assert changed(swarm({"m1": all_of_them, "m2": all_of_them})) == {}
    two = ("a", "m3")
    assert set(changed(swarm({"m1": two, "m2": two}))) == {"a", "m3"}


def test_a_newcomer_is_waited_for() -> None:
    snap = swarm({"m1": ("a",), "m2": ("a",)}, NodeState.UNKNOWN, "a")
    created = snap.nodes["a"].created
    fresh = g.swarm(g.everything(snap), now=created + 3)
    assert "a" not in changed(fresh)
    assert liveness.plan(fresh, "nodes").wake_at == created + liveness.NEWCOMER
    assert changed(snap)["a"][0] == NodeState.DOWN


def test_a_node_without_a_report_is_not_ready() -> None:
    snap = g.swarm(Leader(id="leader", node_id="m1"), g.node("m1", NodeState.UNKNOWN, role=Role.MANAGER))
    assert changed(snap) == {}


@given(
    suspected=st.dictionaries(
        st.sampled_from(MANAGERS), st.lists(st.sampled_from([*MANAGERS, "a", "b"]), unique=True).map(tuple)
    ),
    states=st.sampled_from(NodeState),
)
def test_the_next_round_changes_nothing_and_most_stay_up(
    suspected: dict[str, tuple[str, ...]], states: NodeState
) -> None:
    snap = swarm(suspected, states)
    after = g.applied(snap, liveness.plan(snap, "nodes").changes)
    assert liveness.plan(after, "nodes").changes == []
    if states == NodeState.READY:
        assert sum(n.state == NodeState.DOWN for n in after.nodes.values()) * 2 <= len(after.nodes)
    one_by_one = snap
    for node_id in snap.nodes:
        one_by_one = g.applied(one_by_one, liveness.plan(one_by_one, node_id).changes)
    if states == NodeState.READY:
        assert {n: o.state for n, o in one_by_one.nodes.items()} == {n: o.state for n, o in after.nodes.items()}


@pytest.mark.parametrize("leader", ["", "gone"])
def test_without_a_leader_nothing_is_said(leader: str) -> None:
    snap = g.swarm(Leader(id="leader", node_id=leader), [g.node("a")], [Suspicion(id="m1", nodes=("a",))])
    assert changed(snap) == {}
