"""Global services: which nodes have a task."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.orchestrate import everywhere
from afterswarm.model.node import Availability, NodeReport, NodeState
from afterswarm.model.service import Placement
from afterswarm.model.task import TaskState
from afterswarm.sim import given as g


def test_every_node_that_is_up_gets_one() -> None:
    snap = g.swarm(g.service(None), *g.nodes("a", "b"), g.node("c", NodeState.DOWN), g.node("d", NodeState.UNKNOWN))
    new = [c.new for c in everywhere.plan(snap, "s").changes]
    assert [(t.node_id, t.slot, t.state) for t in new] == [("a", 0, TaskState.NEW), ("b", 0, TaskState.NEW)]
    assert everywhere.plan(g.applied(snap, everywhere.plan(snap, "s").changes), "s").changes == []


@pytest.mark.parametrize(
    ("state", "availability", "desired"),
    [
        (NodeState.READY, Availability.ACTIVE, TaskState.RUNNING),
        (NodeState.READY, Availability.PAUSE, TaskState.RUNNING),
        (NodeState.READY, Availability.DRAIN, TaskState.SHUTDOWN),
        (NodeState.DOWN, Availability.ACTIVE, TaskState.SHUTDOWN),
        (NodeState.UNKNOWN, Availability.ACTIVE, TaskState.RUNNING),
    ],
)
def test_what_a_node_may_keep(state: NodeState, availability: Availability, desired: TaskState) -> None:
    of = g.service(None)
    snap = g.swarm(of, g.node("a", state, availability), g.task("t", of, 0, "a"))
    assert g.settled(snap, everywhere.plan, "node/a").tasks["t"].desired == desired


def test_constraints_decide() -> None:
    of = g.service(None)
    template = replace(of.spec.task_template, placement=Placement(constraints=["node.labels.disk == ssd"]))
    of = replace(of, spec=replace(of.spec, task_template=template))
    ssd = [g.node("a", labels={"disk": "ssd"}), NodeReport(id="a")]
    snap = g.swarm(of, ssd, *g.nodes("b"), g.task("t", of, 0, "b"))
    after = g.settled(snap, everywhere.plan)
    assert after.tasks["t"].desired == TaskState.SHUTDOWN
    assert [t.node_id for t in after.tasks.values() if t.id != "t"] == ["a"]


def test_a_paused_node_gets_no_new_one() -> None:
    snap = g.swarm(g.service(None), g.node("a", availability=Availability.PAUSE))
    assert everywhere.plan(snap, "node/a").changes == []
