"""Demoting and removing nodes: never the last manager, never the quorum, never a node that is up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.admit import node as admit
from afterswarm.model.base import Obj
from afterswarm.model.node import Availability, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.volume import Volume


def manager(name: str, state: NodeState = NodeState.READY, wanted: Role = Role.MANAGER) -> Node:
    return Node(id=name, spec=NodeSpec(role=wanted), role=Role.MANAGER, state=state)


def demoted(node: Node) -> NodeSpec:
    return replace(node.spec, role=Role.WORKER)


def snap(*objects: Obj) -> Snapshot:
    return Snapshot.of(objects)


def test_the_last_manager_stays() -> None:
    only = manager("a")
    with pytest.raises(Refused, match="attempting to demote the last manager of the swarm") as refused:
        admit.update(snap(only, Node(id="w")), only, demoted(only))
    assert refused.value.status == 400


def test_a_demotion_that_costs_the_quorum_is_refused() -> None:
    nodes = [manager("a"), manager("b", NodeState.DOWN), manager("c")]
    with pytest.raises(Refused, match="loss of quorum"):
        admit.update(snap(*nodes), nodes[0], demoted(nodes[0]))


def test_the_manager_that_is_down_may_be_demoted() -> None:
    nodes = [manager("a"), manager("b", NodeState.DOWN), manager("c")]
    assert admit.update(snap(*nodes), nodes[1], demoted(nodes[1])).spec.role == Role.WORKER


def test_a_demotion_under_way_counts() -> None:
    a, b = manager("a"), manager("b", wanted=Role.WORKER)
    with pytest.raises(Refused, match="last manager"):
        admit.update(snap(a, b), a, demoted(a))


def test_labels_and_availability_change_freely() -> None:
    only = manager("a")
    spec = replace(only.spec, labels={"disk": "ssd"}, availability=Availability.DRAIN)
    assert admit.update(snap(only), only, spec).spec == spec


def test_a_node_that_is_up_is_not_removed_without_force() -> None:
    node = Node(id="w", state=NodeState.READY)
    with pytest.raises(Refused, match="node w is not down and can't be removed"):
        admit.remove(snap(node), node, force=False)
    assert [change.old for change in admit.remove(snap(node), node, force=True)] == [node]


def test_a_manager_is_demoted_before_it_is_removed() -> None:
    node = manager("m")
    with pytest.raises(Refused, match="must be demoted to worker before removal"):
        admit.remove(snap(node), node, force=True)


@pytest.mark.parametrize("node", [manager("m", wanted=Role.WORKER), Node(id="m", spec=NodeSpec(role=Role.MANAGER))])
def test_who_is_on_the_way_to_another_role_can_be_removed(node: Node) -> None:
    assert [change.old for change in admit.remove(snap(node), node, force=True)] == [node]


def test_what_belongs_to_the_node_goes_with_it() -> None:
    node = Node(id="w", state=NodeState.DOWN)
    report, volume, other = NodeReport(id="w"), Volume(id="v", node_id="w"), Volume(id="o", node_id="x")
    changes = admit.remove(snap(node, report, volume, other), node, force=False)
    assert [change.old for change in changes] == [node, report, volume]
    assert all(change.new is None for change in changes)


states = st.sampled_from(list(NodeState))


@given(st.lists(st.tuples(states, st.booleans()), min_size=1, max_size=7), st.data())
def test_whoever_stays_keeps_a_quorum(those: list[tuple[NodeState, bool]], data: st.DataObject) -> None:
    nodes = [manager(str(i), s, Role.MANAGER if stays else Role.WORKER) for i, (s, stays) in enumerate(those)]
    node = data.draw(st.sampled_from(nodes))
    try:
        after = admit.update(snap(*nodes), node, demoted(node))
    except Refused:
        return
    staying = [n for n in nodes if n.spec.role == Role.MANAGER and n.id != after.id]
    if node.spec.role == Role.MANAGER:
        assert 2 * sum(n.state == NodeState.READY for n in staying) > len(staying) > 0
