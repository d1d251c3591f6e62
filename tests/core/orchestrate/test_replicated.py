"""Replicated services: how many slots, and which ones go first."""

from __future__ import annotations

from afterswarm.core.orchestrate import replicated
from afterswarm.model.service import RestartPolicy
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g


def added(snap) -> list[Task]:
    return [c.new for c in replicated.plan(snap, "s").changes if c.old is None]


def removed(snap) -> list[str]:
    return [c.old.id for c in replicated.plan(snap, "s").changes if c.old is not None]


def test_missing_slots_are_filled_from_the_lowest() -> None:
    of = g.service(3)
    tasks = added(g.swarm(of, g.task("t2", of, slot=2)))
    assert [t.slot for t in tasks] == [1, 3]
    assert all((t.state, t.desired, t.service_name) == (TaskState.NEW, TaskState.RUNNING, "web") for t in tasks)
    assert len({t.id for t in tasks}) == 2


def test_the_second_copy_on_a_node_goes_first() -> None:
    of = g.service(2)
    snap = g.swarm(of, g.task("1", of, 1, "a"), g.task("2", of, 2, "a"), g.task("3", of, 3, "b"))
    assert removed(snap) == ["2"]


def test_what_does_not_run_goes_before_what_does() -> None:
    of = g.service(1)
    snap = g.swarm(of, g.task("1", of, 1, "a", TaskState.PREPARING), g.task("2", of, 2, "b"), g.task("3", of, 3, "b"))
    assert removed(snap) == ["1", "3"]


def test_history_goes_with_its_slot() -> None:
    of = g.service(1)
    dead = g.task("old", of, 2, "a", TaskState.FAILED, desired=TaskState.SHUTDOWN)
    assert removed(g.swarm(of, g.task("1", of, 1), g.task("2", of, 2, "b"), dead)) == ["2", "old"]


def test_a_slot_that_finished_is_not_filled_again() -> None:
    of = g.service(1, restart=RestartPolicy(condition="none"))
    done = g.task("1", of, 1, "a", TaskState.COMPLETE, desired=TaskState.SHUTDOWN)
    assert added(g.swarm(of, done)) == []
    again = g.service(1, restart=RestartPolicy(condition="any"))
    assert len(added(g.swarm(again, g.task("1", again, 1, "a", TaskState.COMPLETE, desired=TaskState.SHUTDOWN)))) == 1


def test_a_slot_in_which_something_still_stops_gets_a_task_that_waits() -> None:
    of = g.service(1)
    stopping = g.task("1", of, 1, "a", desired=TaskState.REMOVE)
    [task] = added(g.swarm(of, *g.nodes("a"), stopping))
    assert task.desired == TaskState.READY
    assert task.replaces == "1"


def test_one_replica_is_the_default_and_none_is_possible() -> None:
    assert len(added(g.swarm(g.service(0)))) == 0
    assert replicated.plan(g.swarm(g.service(None)), "s").changes == [], "a global service is not ours"
