"""Slots are moved off nodes that cannot keep them, at once and without the restart delay."""

from __future__ import annotations

import pytest

from afterswarm.core.orchestrate import enforce
from afterswarm.model.base import Obj
from afterswarm.model.node import Availability, NodeState
from afterswarm.model.service import Placement
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g


def planned(*objects: Obj) -> tuple[dict[str, Task], list[Task]]:
    changes = enforce.plan(g.swarm(*objects), "node/a").changes
    return {c.new.id: c.new for c in changes if c.old}, [c.new for c in changes if not c.old]


def test_node_down_means_another_task_now() -> None:
    of = g.service()
    old, [new] = planned(of, g.node("a", NodeState.DOWN), *g.task("t", of))
    assert old["t"].desired == TaskState.SHUTDOWN
    assert old["t"].message == "node is down"
    assert (new.slot, new.start_after, new.node_id, new.replaces) == (1, 0.0, "", "t")
    assert new.desired == TaskState.READY, "started when it has a node, unless the old one is back before"


def test_drained_means_another_task_for_one_that_does_not_run_yet() -> None:
    of = g.service()
    drained = g.node("a", availability=Availability.DRAIN)
    old, [new] = planned(of, drained, *g.task("t", of, state=TaskState.STARTING))
    assert old["t"].desired == TaskState.SHUTDOWN
    assert (new.desired, new.start_after) == (TaskState.READY, 0.0)
    assert planned(of, drained, *g.task("t", of)) == ({}, []), "one that runs is moved by `drain`"


def test_a_task_of_a_removed_node_is_orphaned() -> None:
    of = g.service()
    old, [new] = planned(of, *g.task("t", of))
    assert old["t"].state == TaskState.ORPHANED
    assert new.desired == TaskState.RUNNING, "nothing can come back"


def test_constraints_that_are_no_longer_met() -> None:
    of = g.service()
    rules = Placement(constraints=["node.labels.disk == ssd"])
    task = g.task("t", of, spec=g.template(placement=rules))
    old, [_] = planned(of, *g.nodes("a"), *task)
    assert old["t"].message == "assigned node no longer meets constraints"
    assert planned(of, g.node("a", labels={"disk": "ssd"}), *task) == ({}, [])
    assert planned(of, g.node("a", availability=Availability.PAUSE), *task) == ({}, []), "paused: left alone"


@pytest.mark.parametrize("state", [TaskState.COMPLETE, TaskState.FAILED])
def test_what_is_over_is_left_to_the_restart_policy(state: TaskState) -> None:
    of = g.service()
    assert planned(of, g.node("a", NodeState.DOWN), *g.task("t", of, state=state)) == ({}, [])


def test_restarts_stay_counted() -> None:
    of = g.service()
    _, [new] = planned(of, g.node("a", NodeState.DOWN), *g.task("t", of, restarts=[5.0, 6.0]))
    assert new.restarts == [5.0, 6.0]


def test_an_update_under_way_needs_no_third_task() -> None:
    of = g.service(image="app:2", spec_version=5)
    old, new = planned(
        of, g.node("a", NodeState.DOWN), *g.nodes("b"), *g.task("old", g.service()), *g.task("new", of, node_id="b")
    )
    assert list(old) == ["old"]
    assert new == []
