"""Rolling updates, step by step."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.orchestrate import update
from afterswarm.model.base import Obj, Plan
from afterswarm.model.service import (
    SECOND,
    EndpointSpec,
    PortConfig,
    RestartPolicy,
    Service,
    UpdateConfig,
    UpdateState,
    UpdateStatus,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g

NOW = g.NOW
OLD = g.service(3)
READY, RUNNING, SHUTDOWN = TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN
BECAUSE = "due to failure or early termination of task"


def updating(config: UpdateConfig | None = None, state: UpdateState | None = UpdateState.UPDATING) -> Service:
    of = g.service(3, "app:2", update=config, spec_version=5, previous_spec=OLD.spec)
    status = state and UpdateStatus(state=state, started_at=NOW - 60, message="update in progress")
    return replace(of, update_status=status)


def old(slot: int, **fields: object) -> list[Obj]:
    return g.task(f"old{slot}", OLD, slot, "a", **fields)


def new(of: Service, slot: int, state: TaskState = RUNNING, since: float = NOW - 1, **fields: object) -> list[Obj]:
    node_id = "" if state < TaskState.ASSIGNED else "b"
    return g.task(f"new{slot}", of, slot, node_id, state, since=since, replaces=f"old{slot}", **fields)


def swarm(*objects: object) -> Snapshot:
    return g.swarm(*g.nodes("a", "b"), *objects)  # type: ignore[arg-type]


def told(plan: Plan) -> dict[str, TaskState]:
    """What existing tasks are told to become."""
    return {c.new.id: c.new.desired for c in plan.changes if isinstance(c.new, Task) and c.old}


def made(plan: Plan) -> list[tuple[int, TaskState]]:
    return [(c.new.slot, c.new.desired) for c in plan.changes if isinstance(c.new, Task) and not c.old]


def status(plan: Plan) -> UpdateStatus | None:
    return next((c.new.update_status for c in plan.changes if isinstance(c.new, Service)), None)


def planned(*objects: object) -> Plan:
    return update.plan(swarm(*objects), "s")


# ---- one slot --------------------------------------------------------------------------------------------------


def test_it_begins_with_the_first_slot() -> None:
    plan = planned(updating(state=None), old(1), old(2), old(3))
    assert made(plan) == [(1, READY)]
    assert told(plan) == {}
    begun = status(plan)
    assert begun is not None
    assert (begun.state, begun.message, begun.started_at) == (UpdateState.UPDATING, "update in progress", NOW)


def test_stop_first_prepares_before_it_stops() -> None:
    of = updating()
    assert planned(of, old(1), new(of, 1, TaskState.PREPARING, desired=READY)).changes == []
    assert told(planned(of, old(1), new(of, 1, READY, desired=READY))) == {"old1": SHUTDOWN}


def test_nothing_is_lost_by_stopping_what_does_not_run() -> None:
    of = updating()
    plan = planned(of, old(1, state=TaskState.PREPARING), new(of, 1, TaskState.PENDING, desired=READY))
    assert told(plan) == {"old1": SHUTDOWN}


def test_start_first_stops_once_the_new_one_runs() -> None:
    of = updating(UpdateConfig(order="start-first"))
    assert made(planned(of, old(1))) == [(1, RUNNING)]
    assert planned(of, old(1), new(of, 1, TaskState.STARTING)).changes == []
    assert told(planned(of, old(1), new(of, 1))) == {"old1": SHUTDOWN}


def test_a_host_port_cannot_be_had_twice() -> None:
    of = updating(UpdateConfig(order="start-first"))
    port = PortConfig(target_port=80, published_port=80, publish_mode="host")
    of = replace(of, spec=replace(of.spec, endpoint_spec=EndpointSpec(ports=[port])))
    assert made(planned(of, old(1))) == [(1, READY)]


def test_a_slot_is_not_emptied_while_its_new_task_fails() -> None:
    of = updating(UpdateConfig(failure_action="continue"))
    assert told(planned(of, old(1), new(of, 1, TaskState.REJECTED, desired=SHUTDOWN))) == {}


def test_a_new_update_stops_what_the_last_one_had_begun() -> None:
    between = replace(g.service(3, "app:1.5"), spec_version=3)
    begun = g.task("begun", between, 1, "b", TaskState.PREPARING, desired=READY)
    plan = planned(updating(state=None), old(1), begun)
    assert told(plan) == {"begun": SHUTDOWN}
    assert made(plan) == [(1, READY)]


def test_equal_templates_are_not_replaced() -> None:
    of = replace(g.service(3), spec_version=9)
    assert planned(of, old(1), old(2)).changes == []


# ---- pace ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallelism", "slots"), [(None, [1]), (2, [1, 2]), (0, [1, 2, 3])])
def test_so_many_at_once(parallelism: int | None, slots: list[int]) -> None:
    plan = planned(updating(UpdateConfig(parallelism=parallelism)), old(1), old(2), old(3))
    assert [slot for slot, _ in made(plan)] == slots


def test_the_next_slot_comes_when_the_last_one_runs_and_the_delay_is_over() -> None:
    of = updating(UpdateConfig(delay=10 * SECOND))
    assert made(planned(of, old(2), new(of, 1, TaskState.STARTING))) == []
    plan = planned(of, old(2), new(of, 1, since=NOW - 4))
    assert (made(plan), plan.wake_at) == ([], NOW + 6)
    assert made(planned(of, old(2), new(of, 1, since=NOW - 10))) == [(2, READY)]


def test_what_does_not_run_is_updated_first() -> None:
    plan = planned(updating(), old(1), old(2), old(3, state=TaskState.PENDING))
    assert made(plan) == [(3, READY)]


def test_tries_after_a_failure_keep_to_the_restart_policy() -> None:
    of = updating(UpdateConfig(failure_action="continue"))
    failed = {"state": TaskState.REJECTED, "desired": SHUTDOWN, "since": NOW - 1}
    snap = swarm(of, old(1), new(of, 1, **failed))
    [change] = update.plan(snap, "s").changes
    assert isinstance(change.new, Task)
    assert (change.new.desired, change.new.start_after, change.new.restarts) == (READY, NOW + 4, [NOW - 1])
    early = planned(of, old(1), new(of, 1, **failed, start_after=NOW + 3))
    assert (early.changes, early.wake_at) == ([], NOW + 3)
    never = updating(UpdateConfig(failure_action="continue"))
    template = replace(never.spec.task_template, restart_policy=RestartPolicy(condition="none"))
    never = replace(never, spec=replace(never.spec, task_template=template))
    assert made(planned(never, old(1), new(never, 1, **failed))) == []


# ---- the end ---------------------------------------------------------------------------------------------------


def test_it_is_complete_after_the_monitor_period() -> None:
    of = updating()
    running = [new(of, 1, since=NOW - 20), new(of, 2, since=NOW - 3)]
    assert planned(of, *running).wake_at == NOW + 2
    ended = status(planned(of, new(of, 1, since=NOW - 20), new(of, 2, since=NOW - 5)))
    assert ended is not None
    assert (ended.state, ended.message) == (UpdateState.COMPLETED, "update completed")
    assert (ended.started_at, ended.completed_at) == (NOW - 60, NOW)


def test_it_is_not_complete_while_something_starts() -> None:
    of = updating()
    assert planned(of, new(of, 1, TaskState.STARTING)).changes == []


def test_a_delay_longer_than_the_monitor_period_lengthens_it() -> None:
    of = updating(UpdateConfig(delay=30 * SECOND, monitor=5 * SECOND))
    assert planned(of, new(of, 1, since=NOW - 6)).wake_at == NOW - 6 + 31


def test_too_many_failures_pause() -> None:
    of = updating()
    paused = status(planned(of, old(2), old(3), new(of, 1, TaskState.FAILED, desired=SHUTDOWN)))
    assert paused is not None
    assert (paused.state, paused.message) == (UpdateState.PAUSED, f"update paused {BECAUSE} new1")


def test_so_many_failures_are_borne() -> None:
    of = updating(UpdateConfig(max_failure_ratio=0.4))
    failed = {"state": TaskState.FAILED, "desired": SHUTDOWN}
    assert status(planned(of, old(2), old(3), new(of, 1, **failed))) is None
    paused = status(planned(of, old(3), new(of, 1, **failed), new(of, 2, since=NOW, **failed)))
    assert paused is not None
    assert paused.message.endswith("new2")


def test_a_failure_after_the_monitor_period_does_not_count() -> None:
    of = updating()
    task, report = new(of, 1, TaskState.FAILED, desired=SHUTDOWN)
    late = replace(report, started=NOW - 7)  # type: ignore[call-arg]
    assert status(planned(of, old(2), task, late)) is None
    soon = replace(report, started=NOW - 5)  # type: ignore[call-arg]
    assert status(planned(of, old(2), task, soon)) is not None


@pytest.mark.parametrize(("condition", "paused"), [("any", True), ("on-failure", False), ("none", False)])
def test_one_that_need_not_start_again_may_complete(condition: str, *, paused: bool) -> None:
    of = updating()
    template = replace(of.spec.task_template, restart_policy=RestartPolicy(condition=condition))
    of = replace(of, spec=replace(of.spec, task_template=template))
    found = status(planned(of, new(of, 1, TaskState.COMPLETE), old(2), old(3)))
    assert (found is not None and found.state == UpdateState.PAUSED) is paused


def test_what_was_stopped_did_not_fail() -> None:
    of = updating()
    assert status(planned(of, old(2), new(of, 1, SHUTDOWN, desired=SHUTDOWN))) is None


def test_a_paused_update_finishes_what_it_had_begun_and_no_more() -> None:
    of = updating(UpdateConfig(parallelism=2), UpdateState.PAUSED)
    plan = planned(of, old(1), new(of, 1, READY, desired=READY), old(2))
    assert told(plan) == {"old1": SHUTDOWN}
    assert (made(plan), status(plan)) == ([], None)


# ---- back ------------------------------------------------------------------------------------------------------


def rolled_back() -> Snapshot:
    of = updating(UpdateConfig(failure_action="rollback"))
    snap = swarm(of, old(1), old(2), new(of, 3, TaskState.FAILED, desired=SHUTDOWN))
    return g.applied(snap, update.plan(snap, "s").changes)


def test_rollback_takes_the_previous_specification() -> None:
    snap = rolled_back()
    back = snap.services["s"]
    assert back.spec == OLD.spec
    assert back.previous_spec is None
    assert back.update_status is not None
    assert back.update_status.state == UpdateState.ROLLBACK_STARTED
    assert back.update_status.message == f"update rolled back {BECAUSE} new3"
    assert back.spec_version not in (0, 5)


def test_rollback_leaves_alone_what_was_not_touched() -> None:
    plan = update.plan(rolled_back(), "s")
    assert (told(plan), made(plan)) == ({}, [])
    completed = status(plan)
    assert completed is not None
    assert (completed.state, completed.message) == (UpdateState.ROLLBACK_COMPLETED, "rollback completed")


def test_rollback_replaces_what_was() -> None:
    of = replace(OLD, spec_version=7, update_status=UpdateStatus(state=UpdateState.ROLLBACK_STARTED))
    plan = planned(of, old(1), g.task("bad", updating(), 2))
    assert made(plan) == [(2, READY)]


@pytest.mark.parametrize(("action", "verb"), [("rollback", "rollback"), ("pause", "update"), ("", "update")])
def test_a_rollback_is_never_rolled_back(action: str, verb: str) -> None:
    of = updating(state=UpdateState.ROLLBACK_STARTED)
    of = replace(of, spec=replace(of.spec, rollback_config=UpdateConfig(failure_action=action)))
    paused = status(planned(of, old(2), new(of, 1, TaskState.FAILED, desired=SHUTDOWN)))
    assert paused is not None
    assert (paused.state, paused.message) == (UpdateState.ROLLBACK_PAUSED, f"{verb} paused {BECAUSE} new1")


def test_without_a_previous_specification_it_pauses() -> None:
    of = replace(updating(UpdateConfig(failure_action="rollback")), previous_spec=None)
    paused = status(planned(of, old(2), new(of, 1, TaskState.FAILED, desired=SHUTDOWN)))
    assert paused is not None
    assert paused.state == UpdateState.PAUSED


# ---- global services -------------------------------------------------------------------------------------------


def test_global_tasks_are_updated_in_place() -> None:
    before, of = g.service(None), g.service(None, "app:2", spec_version=5)
    plan = planned(of, g.task("x", before, 0, "a"))
    tasks = [c.new for c in plan.changes if isinstance(c.new, Task)]
    assert [(t.node_id, t.slot, t.desired) for t in tasks] == [("a", 0, READY)]


def test_nodes_that_take_no_new_tasks_are_left_out() -> None:
    before, of = g.service(None), g.service(None, "app:2", spec_version=5)
    snap = g.swarm(g.node("a"), of, g.task("x", before, 0, "a"))
    paused = replace(snap.nodes["a"], spec=replace(snap.nodes["a"].spec, availability="pause"))
    assert update.plan(g.swarm(paused, of, g.task("x", before, 0, "a")), "s").changes == []


def test_a_slot_whose_new_task_went_with_its_node_is_updated_all_the_same() -> None:
    policy = RestartPolicy(condition="none")
    of = updating()
    of = replace(of, spec=replace(of.spec, task_template=g.template("app:2", restart_policy=policy)))
    lost = new(of, 1, SHUTDOWN, desired=SHUTDOWN)
    assert made(planned(of, old(1), lost)) == [(1, READY)]
    assert made(planned(of, old(1), new(of, 1, TaskState.FAILED, desired=SHUTDOWN))) == []
