"""What holds for every planner of tasks, whatever it finds: also after a commit that was cut short."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.orchestrate import drain, enforce, everywhere, jobs, reap, replicated, restart, slots, update
from afterswarm.model.base import Obj
from afterswarm.model.node import Availability, NodeReport, NodeState
from afterswarm.model.service import SECOND, JobStatus, RestartPolicy, Service, UpdateConfig, UpdateState, UpdateStatus
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g
from afterswarm.sim import rules

PLANNERS = [replicated, everywhere, jobs, enforce, drain, restart, update, reap]
FINAL = (TaskState.COMPLETE, TaskState.FAILED, TaskState.SHUTDOWN, TaskState.REJECTED)
STATES = (
    TaskState.NEW,
    TaskState.PENDING,
    TaskState.ASSIGNED,
    TaskState.READY,
    TaskState.STARTING,
    TaskState.RUNNING,
    *FINAL,
)
GOAL = TaskState.RUNNING  # of a job: COMPLETE
DESIRED = (TaskState.READY, GOAL, TaskState.SHUTDOWN, TaskState.REMOVE)
delays = st.sampled_from([None, 0, SECOND])


@st.composite
def update_configs(draw: st.DrawFn) -> UpdateConfig:
    return UpdateConfig(
        parallelism=draw(st.integers(0, 2)),
        order=draw(st.sampled_from(["", "start-first"])),
        failure_action=draw(st.sampled_from(["", "continue", "rollback"])),
        max_failure_ratio=draw(st.sampled_from([0.0, 0.5])),
        delay=draw(st.sampled_from([0, SECOND])),
    )


@st.composite
def services(draw: st.DrawFn) -> Service:
    of = g.service(
        draw(st.one_of(st.none(), st.integers(0, 4))),
        "app:2",
        update=draw(st.none() | update_configs()),
        restart=draw(
            st.none()
            | st.builds(
                RestartPolicy,
                condition=st.sampled_from(["any", "on-failure", "none"]),
                delay=delays,
                max_attempts=st.sampled_from([None, 1]),
                window=delays,
            )
        ),
        spec_version=5,
        pending_delete=draw(st.sampled_from([False, False, False, True])),
    )
    if draw(st.booleans()):
        return _as_job(of, draw(st.none() | st.integers(0, 4)), draw(st.integers(0, 3)), draw(st.integers(0, 1)))
    state = draw(st.none() | st.sampled_from(UpdateState))
    before = draw(st.none() | st.just(g.service(2).spec))
    return replace(of, update_status=state and UpdateStatus(state=state, started_at=900.0), previous_spec=before)


def _as_job(of: Service, total: int | None, at_once: int, iteration: int) -> Service:
    made = g.job(total, at_once, iteration=iteration)
    spec = replace(of.spec, mode=made.spec.mode, update_config=None)
    return replace(of, spec=spec, job_status=made.job_status)


@st.composite
def swarms(draw: st.DrawFn) -> Snapshot:
    """Any mess of tasks in a few slots on a few nodes, of two versions."""
    of = draw(services())
    old = replace(g.service(), spec_version=1, job_status=of.job_status and JobStatus(iteration=7))
    objects: list[Obj] = [of]
    for node_id in "abc":
        state = draw(st.sampled_from([NodeState.READY, NodeState.READY, NodeState.DOWN]))
        objects += [g.node(node_id, state, draw(st.sampled_from(Availability))), NodeReport(id=node_id)]
    for n in range(draw(st.integers(0, 7))):
        node_id = draw(st.sampled_from(["a", "b", "c", "gone", ""]))
        if of.spec.mode.per_node:
            slot, node_id = 0, node_id or "a"
        else:
            slot = draw(st.integers(1, 3))
        state = draw(st.sampled_from(STATES[:2] if not node_id else STATES))
        desired = draw(st.sampled_from(DESIRED))
        objects += g.task(
            f"t{n}",
            draw(st.sampled_from([of, old])),
            slot,
            node_id,
            state,
            since=draw(st.sampled_from([g.NOW - 20, g.NOW - 1])),
            desired=slots.goal(of) if desired == GOAL else desired,
            replaces=draw(st.sampled_from(["", f"t{n - 1}"])),
            start_after=draw(st.sampled_from([0.0, g.NOW + 5])),
            restarts=draw(st.sampled_from([[], [g.NOW - 50]])),
        )
    return g.swarm(objects)


def living(snap: Snapshot) -> Counter[slots.Slot]:
    return Counter(slots.slot_of(t) for t in snap.tasks.values() if slots.alive(snap, t))


@pytest.mark.parametrize("planner", PLANNERS)
@given(snap=swarms())
@settings(max_examples=150, deadline=None)
def test_rounds_end_and_the_next_changes_nothing(planner, snap: Snapshot) -> None:
    after = g.settled(snap, planner.plan)
    assert planner.plan(after, "s") == planner.plan(after, "s")


@pytest.mark.parametrize("planner", PLANNERS)
@given(snap=swarms(), done=st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_every_part_of_a_plan_keeps_the_rules(planner, snap: Snapshot, done: int) -> None:
    """States only grow, nobody else's are written, no plan adds a live task to a slot that has two."""
    changes = planner.plan(snap, "s").changes[:done]
    for change in changes:
        rules.after_change(change)
    before, after = living(snap), living(g.applied(snap, changes))
    for slot, count in after.items():
        assert count <= max(before[slot], 2)
        assert count - before[slot] <= 1
    g.settled(g.applied(snap, changes), planner.plan)


@pytest.mark.parametrize("planner", PLANNERS)
@given(snap=swarms(), seed=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_store_does_not_matter(planner, snap: Snapshot, seed) -> None:
    shuffled = g.everything(snap)
    seed.shuffle(shuffled)
    assert planner.plan(snap, "s") == planner.plan(g.swarm(shuffled), "s")


@pytest.mark.parametrize("planner", PLANNERS)
def test_what_is_not_there_has_an_empty_plan(planner) -> None:
    for key in ("nobody", "node/nobody", "cluster"):
        assert planner.plan(g.swarm(), key).changes == []


@given(snap=swarms())
@settings(max_examples=150, deadline=None)
def test_a_replicated_service_has_as_many_slots_in_use_as_replicas(snap: Snapshot) -> None:
    of = snap.services["s"]
    after = g.settled(snap, replicated.plan)
    if of.pending_delete or of.spec.mode.replicated is None:
        assert after.tasks == snap.tasks
        return
    in_slots = slots.by_slot(after.tasks.values())
    in_use = [n for n, here in in_slots.items() if any(map(slots.wanted, here)) or slots.finished(after, here)]
    assert len(in_use) == of.spec.mode.replicated.replicas


@given(snap=swarms())
@settings(max_examples=150, deadline=None)
def test_tasks_leave_nodes_that_cannot_keep_them(snap: Snapshot) -> None:
    of = snap.services["s"]
    planner = enforce if not of.spec.mode.per_node else everywhere if of.job_status is None else jobs
    after = g.settled(snap, planner.plan)
    for task in after.tasks.values():
        past = of.job_status is not None and slots.outdated(after, of, task)  # `jobs` has told it already
        if not of.pending_delete and slots.alive(after, task) and not past:
            assert not slots.misplaced(after, of, task)


@given(snap=swarms())
@settings(max_examples=150, deadline=None)
def test_two_tasks_of_one_version_are_not_started_in_one_slot(snap: Snapshot) -> None:
    after = g.settled(snap, restart.plan)
    of = after.services["s"]
    if of.pending_delete:
        return
    for here in slots.by_slot(after.tasks.values()).values():
        started = [t for t in here if slots.alive(after, t) and not slots.outdated(after, of, t)]
        ended = [t for t in here if slots.wanted(t) and not slots.alive(after, t)]
        assert len(started) <= 1 or ended
        for task in started:
            if task.desired == slots.goal(of) and snap.tasks.get(task.id, task).desired == TaskState.READY:
                assert not any(slots.may_run(after, t) for t in here if not slots.wanted(t)), "started too early"


@given(snap=swarms())
@settings(max_examples=150, deadline=None)
def test_what_is_deleted_had_stopped(snap: Snapshot) -> None:
    for change in reap.plan(snap, "s").changes:
        if isinstance(change.old, Task) and change.new is None:
            assert not slots.may_run(snap, change.old)
            assert change.old.desired == TaskState.REMOVE or not slots.alive(snap, change.old)


@given(snap=swarms())
@settings(max_examples=100, deadline=None)
def test_a_removed_service_goes_in_the_end(snap: Snapshot) -> None:
    of = replace(snap.services["s"], pending_delete=True)
    ended = [r for r in snap.reports.values() if r.state <= TaskState.RUNNING]
    after = g.swarm([o for o in g.everything(snap) if o not in ended and o.id != "s"], of)
    stopped = [replace(t, state=TaskState.ORPHANED) for t in after.tasks.values()]
    after = g.settled(g.swarm([o for o in g.everything(after) if not isinstance(o, Task)], stopped), reap.plan)
    after = g.settled(replace(after, now=after.now + reap.SHOWN), reap.plan)
    assert not after.services
    assert not after.tasks
