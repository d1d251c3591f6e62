"""Jobs: which slots are opened, and what becomes of earlier executions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.orchestrate import enforce, jobs, reap, restart, slots
from afterswarm.model.base import Plan
from afterswarm.model.node import Availability, NodeState
from afterswarm.model.service import RestartPolicy
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g

NOW = g.NOW
DONE, FAILED, RUNNING = TaskState.COMPLETE, TaskState.FAILED, TaskState.RUNNING


def added(plan: Plan) -> list[Task]:
    return [c.new for c in plan.changes if c.old is None and isinstance(c.new, Task)]


def all_of_it(snap: Snapshot, key: str) -> Plan:
    """What the planners that jobs have to do with come to, one after the other."""
    for planner in (jobs, restart, enforce, reap):
        if (plan := planner.plan(snap, key)).changes:
            return plan
    return Plan()


def ran(snap: Snapshot, state: TaskState, *task_ids: str) -> Snapshot:
    """These tasks have come to this state."""
    objects = [o for o in g.everything(snap) if o.id not in task_ids]
    of = snap.services["s"]
    made = [
        obj
        for task_id in task_ids
        for obj in g.task(task_id, of, snap.tasks[task_id].slot, "a", state, desired=snap.tasks[task_id].desired)
    ]
    return g.swarm(objects, made, rev=snap.rev + 1)


def test_no_more_at_once_than_may_be_and_no_more_in_all() -> None:
    snap = g.swarm(g.job(5, 2), *g.nodes("a"))
    first = added(jobs.plan(snap, "s"))
    assert [(t.slot, t.number, t.desired, t.job_iteration) for t in first] == [(1, 0, DONE, 0), (2, 1, DONE, 0)]
    finished: list[int] = []
    for _ in range(9):
        snap = g.settled(snap, all_of_it)
        active = [t for t in snap.tasks.values() if slots.alive(snap, t)]
        assert len(active) <= 2
        if not active:
            break
        finished.append(active[0].slot)
        snap = ran(snap, DONE, active[0].id)
    assert sorted(finished) == [1, 2, 3, 4, 5]
    assert jobs.completed(snap, snap.services["s"]) == 5
    assert [t.place for t in snap.tasks_of("s")] == ["a", "1", "2", "3", "4"]


def test_a_failed_try_is_followed_and_a_completed_one_never() -> None:
    of = g.job(2, 2, restart=RestartPolicy(condition="any"))
    snap = g.swarm(of, *g.nodes("a"), g.task("t1", of, 1, state=DONE), g.task("t2", of, 2, state=FAILED, since=NOW - 1))
    assert jobs.plan(snap, "s").changes == []
    [new] = added(restart.plan(snap, "s"))
    assert (new.slot, new.replaces, new.desired, new.start_after) == (2, "t2", TaskState.READY, NOW + 4)
    later = replace(g.applied(snap, restart.plan(snap, "s").changes), now=NOW + 4)
    [change] = restart.plan(later, "s").changes
    assert isinstance(change.new, Task)
    assert change.new.desired == DONE


def test_a_slot_that_is_given_up_stays_empty_and_takes_nobodys_place() -> None:
    of = g.job(3, 1, restart=RestartPolicy(condition="none"))
    snap = g.settled(g.swarm(of, *g.nodes("a"), g.task("t1", of, 1, state=FAILED)), all_of_it)
    assert [(t.slot, t.desired) for t in snap.tasks_of("s")] == [(1, TaskState.SHUTDOWN), (2, DONE)]


def test_another_execution_stops_the_tasks_of_the_one_before_and_waits_for_them() -> None:
    before = g.job(3, 3)
    of = g.job(2, 2, iteration=1)
    tasks = [g.task("t1", before, 1), g.task("t2", before, 2, state=DONE), g.task("t3", before, 3, state=DONE)]
    snap = g.swarm(of, *g.nodes("a"), *tasks)
    assert slots.outdated(snap, of, snap.tasks["t2"])
    after = g.applied(snap, jobs.plan(snap, "s").changes)
    told = [after.tasks[t].desired for t in ("t1", "t2", "t3")]
    assert told == [TaskState.SHUTDOWN, TaskState.SHUTDOWN, TaskState.REMOVE]
    new = [t for t in after.tasks.values() if t.job_iteration == 1]
    assert sorted((t.slot, t.desired) for t in new) == [(1, TaskState.READY), (2, DONE)]
    assert jobs.completed(after, of) == 0
    stopped = g.settled(ran(after, TaskState.SHUTDOWN, "t1"), all_of_it)
    assert {t.desired for t in stopped.tasks.values() if t.id in {n.id for n in new}} == {DONE}


def test_a_lost_node_has_unfinished_tasks_run_elsewhere_and_finished_ones_not() -> None:
    of = g.job(2, 2)
    for node in (g.node("a", NodeState.DOWN), g.node("a", availability=Availability.DRAIN)):
        snap = g.swarm(of, node, *g.nodes("b"), g.task("t1", of, 1), g.task("t2", of, 2, state=DONE))
        [new] = added(enforce.plan(snap, "s"))
        assert (new.slot, new.replaces) == (1, "t1")
        after = g.settled(snap, all_of_it)
        assert after.tasks["t1"].desired == TaskState.SHUTDOWN
        assert after.tasks["t2"].desired == DONE


def test_once_on_each_node_that_was_there() -> None:
    of = g.job(None)
    late = replace(g.node("c"), created=NOW)
    drained = g.node("d", availability=Availability.DRAIN)
    snap = g.swarm(of, *g.nodes("a", "b"), late, drained)
    assert [t.node_id for t in added(jobs.plan(snap, "s"))] == ["a", "b"]
    done = g.swarm(g.everything(snap), g.task("t1", of, 0, "a", DONE), g.task("t2", of, 0, "b"))
    assert jobs.plan(done, "s").changes == []
    back = g.swarm(g.everything(done), g.node("d"), g.node("b", NodeState.DOWN))
    after = g.settled(back, all_of_it)
    assert after.tasks["t2"].desired == TaskState.SHUTDOWN
    assert [t.node_id for t in after.tasks.values() if t.id not in ("t1", "t2")] == ["d"]
    returned = g.settled(g.swarm(g.everything(after), g.node("b")), all_of_it)
    assert sorted(t.node_id for t in returned.tasks.values() if slots.alive(returned, t)) == ["b", "d"]


@given(
    total=st.integers(0, 6), at_once=st.integers(0, 4), outcomes=st.lists(st.sampled_from([DONE, FAILED]), max_size=30)
)
@settings(max_examples=60, deadline=None)
def test_a_job_completes_whatever_fails_meanwhile(total: int, at_once: int, outcomes: list[TaskState]) -> None:
    snap = g.swarm(g.job(total, at_once), *g.nodes("a"))
    for outcome in [*outcomes, *[DONE] * total]:
        snap = g.settled(replace(snap, now=snap.now), all_of_it)
        active = [t for t in snap.tasks.values() if slots.alive(snap, t)]
        assert len(active) <= at_once
        if active:
            snap = ran(snap, outcome, active[0].id)
    snap = g.settled(snap, all_of_it)
    assert jobs.completed(snap, snap.services["s"]) == (total if at_once else 0)
    assert not [t for t in snap.tasks.values() if slots.alive(snap, t)]
