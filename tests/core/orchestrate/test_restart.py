"""What follows a task that ended by itself, and when."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.orchestrate import restart, slots
from afterswarm.model.node import NodeState
from afterswarm.model.service import SECOND, ContainerSpec, Mount, RestartPolicy, TaskSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.sim import given as g

NOW = g.NOW


def after_end(
    policy: RestartPolicy | None = None, state: TaskState = TaskState.FAILED, **fields: object
) -> tuple[Snapshot, Task | None]:
    of = g.service(restart=policy)
    snap = g.swarm(of, *g.nodes("a"), g.task("t", of, state=state, since=NOW - 1, **fields))
    after = g.applied(snap, restart.plan(snap, "s").changes)
    return after, next((t for t in after.tasks.values() if t.id != "t"), None)


def test_another_one_is_prepared_and_started_after_the_delay() -> None:
    after, new = after_end()
    assert after.tasks["t"].desired == TaskState.SHUTDOWN
    assert new is not None
    assert (new.desired, new.start_after, new.replaces, new.restarts) == (TaskState.READY, NOW + 4, "t", [NOW - 1])
    assert new.failed_on == ["a"]
    planned = restart.plan(after, "s")
    assert (planned.changes, planned.wake_at) == ([], NOW + 4)
    [change] = restart.plan(replace(after, now=NOW + 4), "s").changes
    assert isinstance(change.new, Task)
    assert (change.new.id, change.new.desired) == (new.id, TaskState.RUNNING)


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        ("any", TaskState.COMPLETE, True),
        ("any", TaskState.FAILED, True),
        ("any", TaskState.REJECTED, True),
        ("on-failure", TaskState.COMPLETE, False),
        ("on-failure", TaskState.FAILED, True),
        ("none", TaskState.COMPLETE, False),
        ("none", TaskState.FAILED, False),
    ],
)
def test_the_condition_decides(condition: str, state: TaskState, restarts: bool) -> None:  # noqa: FBT001
    after, new = after_end(RestartPolicy(condition=condition), state)
    assert after.tasks["t"].desired == TaskState.SHUTDOWN
    assert (new is not None) == restarts


def test_no_delay_is_no_delay() -> None:
    _, new = after_end(RestartPolicy(delay=0))
    assert new is not None
    assert (new.desired, new.start_after) == (TaskState.RUNNING, 0.0)


@pytest.mark.parametrize(("before", "wait"), [(0, 5), (2, 5), (3, 10), (4, 20), (6, 80), (30, 80)])
def test_the_delay_is_constant_at_first_and_then_doubles(before: int, wait: float) -> None:
    times = [NOW - 1 - 10 * n for n in range(before, 0, -1)]
    _, new = after_end(restarts=times[-slots.REMEMBERED :])
    assert new is not None
    assert new.start_after == NOW - 1 + wait


def test_a_calm_run_starts_that_anew() -> None:
    _, new = after_end(restarts=[NOW - 400 + n for n in range(8)])
    assert new is not None
    assert new.start_after == NOW + 4


@pytest.mark.parametrize(
    ("window", "times", "restarts"),
    [
        (None, [1.0], True),
        (None, [1.0, 2.0], False),
        (20, [NOW - 900, NOW - 800], True),
        (20, [NOW - 25, NOW - 12], False),
        (1, [NOW - 12, NOW - 6], False),  # shorter than the delay: Docker would never stop trying
    ],
)
def test_attempts_are_used_up(window: int | None, times: list[float], restarts: bool) -> None:  # noqa: FBT001
    policy = RestartPolicy(max_attempts=2, window=None if window is None else window * SECOND)
    _, new = after_end(policy, restarts=times)
    assert (new is not None) == restarts


def test_a_new_version_counts_from_the_beginning() -> None:
    policy = RestartPolicy(max_attempts=2)
    of = g.service(image="app:2", spec_version=5, restart=policy)
    old = g.task("t", g.service(restart=policy), state=TaskState.FAILED, restarts=[NOW - 50])
    changes = restart.plan(g.swarm(of, *g.nodes("a"), old), "s").changes
    assert isinstance(changes[0].new, Task)
    assert changes[0].new.restarts == []
    assert changes[0].new.spec == of.spec.task_template


def test_one_that_fails_before_its_time_is_not_followed_at_once() -> None:
    """Its image cannot be pulled: its successor would try, and fail, right away."""
    of = g.service()
    snap = g.swarm(
        of, g.task("t", of, state=TaskState.REJECTED, desired=TaskState.READY, start_after=NOW + 3, since=NOW - 1)
    )
    assert restart.plan(snap, "s").wake_at == NOW + 3
    assert restart.plan(snap, "s").changes == []
    later = g.applied(snap, restart.plan(replace(snap, now=NOW + 3), "s").changes)
    assert max(t.start_after for t in later.tasks.values()) == NOW + 3 + 5


def prepared(old_desired: TaskState = TaskState.SHUTDOWN, **fields: object) -> Snapshot:
    of = g.service()
    state = fields.pop("node_state", NodeState.READY)
    node_id = fields.pop("node_id", "b")
    return g.swarm(
        of,
        g.node("a", state),  # type: ignore[arg-type]
        *g.nodes("b"),
        g.task("old", of, desired=old_desired, since=NOW - 1, **fields),
        g.task(
            "new", of, 1, str(node_id), TaskState.ASSIGNED if node_id else TaskState.PENDING, desired=TaskState.READY
        ),
    )


def test_a_prepared_task_waits_until_the_old_one_has_stopped() -> None:
    assert restart.plan(prepared(), "s").changes == []
    assert len(restart.plan(prepared(state=TaskState.SHUTDOWN), "s").changes) == 1


def test_nobody_waits_for_a_node_that_is_down() -> None:
    assert len(restart.plan(prepared(node_state=NodeState.DOWN), "s").changes) == 1


def test_but_the_new_one_must_have_a_node_first() -> None:
    """Pinned to the node that is down, it would start there beside the old one as soon as that node is back."""
    assert restart.plan(prepared(node_state=NodeState.DOWN, node_id=""), "s").changes == []


def test_one_that_does_not_stop_is_given_up_unless_it_has_data() -> None:
    assert restart.plan(prepared(), "s").wake_at == NOW - 1 + 10 + 60
    data = TaskSpec(container_spec=ContainerSpec(mounts=[Mount(source="data", target="/data")]))
    assert restart.plan(prepared(spec=data), "s").wake_at == float("inf")
