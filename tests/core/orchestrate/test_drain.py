"""A drained node is emptied as an update would do it: by the service's order, so many slots at a time."""

from __future__ import annotations

import pytest

from afterswarm.core.orchestrate import drain, restart
from afterswarm.model.base import Obj
from afterswarm.model.node import Availability, NodeState
from afterswarm.model.service import UpdateConfig, UpdateState, UpdateStatus
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g

START_FIRST = UpdateConfig(order="start-first")
DRAINED = g.node("a", availability=Availability.DRAIN)
S = TaskState


def planned(*objects: Obj, now: float = g.NOW) -> tuple[dict[str, Task], list[Task]]:
    """Changed tasks by id, and new ones."""
    changes = drain.plan(g.swarm(DRAINED, *g.nodes("b"), *objects, now=now), "node/a").changes
    return {c.new.id: c.new for c in changes if c.old}, [c.new for c in changes if not c.old]


def test_the_new_task_is_there_before_the_old_one_goes() -> None:
    of = g.service(update=START_FIRST)
    old, [new] = planned(of, *g.task("t", of))
    assert old == {}
    assert (new.slot, new.desired, new.replaces, new.start_after) == (1, S.RUNNING, "t", 0.0)


@pytest.mark.parametrize(("order", "enough"), [("start-first", S.RUNNING), ("stop-first", S.READY)])
def test_the_old_task_goes_when_the_new_one_has_come_far_enough(order: str, enough: TaskState) -> None:
    of = g.service(update=UpdateConfig(order=order))
    states = [S.PENDING, S.PREPARING, S.READY, S.STARTING, S.RUNNING]
    for state in states:
        desired = S.RUNNING if order == "start-first" else S.READY
        told, _ = planned(of, *g.task("t", of), *g.task("new", of, 1, "b", state, desired=desired, replaces="t"))
        assert (told.keys() == {"t"}) == (state >= enough), state
        if told:
            assert (told["t"].desired, told["t"].message) == (S.SHUTDOWN, "node is drained")


def test_no_more_at_a_time_than_the_parallelism_of_updates() -> None:
    of = g.service(4, update=UpdateConfig(parallelism=2))
    tasks = [obj for n in range(1, 5) for obj in g.task(f"t{n}", of, n)]
    _, new = planned(of, *tasks)
    assert [t.slot for t in new] == [1, 2]
    _, new = planned(of, *tasks, *g.task("new", of, 1, "b", S.PREPARING, desired=S.READY))
    assert [t.slot for t in new] == [2]
    everything = g.service(4, update=UpdateConfig(parallelism=0))
    _, new = planned(everything, *tasks)
    assert len(new) == 4


def test_what_cannot_be_placed_anywhere_keeps_no_node_from_being_emptied() -> None:
    of = g.service(update=START_FIRST)
    waits = g.task("new", of, 1, "", S.PENDING, err="no suitable node (insufficient resources on 1 node)")
    told, new = planned(of, *g.task("t", of), *waits)
    assert (list(told), new) == (["t"], [])


def test_a_new_task_that_fails_is_tried_again_after_the_restart_delay() -> None:
    of = g.service(update=START_FIRST)
    failed = g.task("bad", of, 1, "b", S.FAILED, since=g.NOW - 1, desired=S.SHUTDOWN, replaces="t")
    told, [new] = planned(of, *g.task("t", of), *failed)
    assert (told, new.desired, new.start_after) == ({}, S.READY, g.NOW + 4)
    later = g.task("again", of, 1, "b", S.READY, desired=S.READY, replaces="bad", start_after=g.NOW + 4)
    assert planned(of, *g.task("t", of), *failed, *later) == ({}, [])
    told, _ = planned(of, *g.task("t", of), *failed, *later, now=g.NOW + 4)
    assert told["again"].desired == S.RUNNING


def test_the_two_of_a_move_are_no_doubles() -> None:
    of = g.service(update=START_FIRST)
    snap = g.swarm(of, DRAINED, *g.nodes("b"), *g.task("t", of), *g.task("new", of, 1, "b", replaces="t"))
    assert restart.plan(snap, of.id).changes == []


@pytest.mark.parametrize(
    ("of", "task"),
    [
        (g.service(None), {}),
        (g.service(), {"state": S.STARTING}),
        (g.service(pending_delete=True), {}),
        (g.job(1), {}),
    ],
)
def test_what_is_not_moved_at_leisure(of, task) -> None:
    assert planned(of, *g.task("t", of, **task)) == ({}, [])


def test_a_node_that_is_down_is_not_drained_at_leisure() -> None:
    of = g.service()
    down = g.node("a", NodeState.DOWN, Availability.DRAIN)
    assert drain.plan(g.swarm(down, of, *g.task("t", of)), "node/a").changes == []


@pytest.mark.parametrize("state", [UpdateState.UPDATING, UpdateState.PAUSED])
def test_an_update_that_waits_keeps_no_node_from_being_emptied(state: UpdateState) -> None:
    of = g.service(image="app:2", spec_version=5, update_status=UpdateStatus(state=state))
    _, [new] = planned(of, *g.task("t", g.service()))
    assert (new.spec_version, new.replaces) == (5, "t")


def test_of_two_on_drained_nodes_one_goes_at_once() -> None:
    of = g.service(update=START_FIRST)
    other = g.node("c", availability=Availability.DRAIN)
    told, new = planned(of, other, *g.task("t", of), *g.task("u", of, 1, "c", replaces="t"))
    assert (list(told), new) == (["t"], [])
