"""Several planners together: an update leaves a service as spread over the nodes as it was."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from afterswarm.core import allocate, schedule
from afterswarm.core.orchestrate import replicated, restart, update
from afterswarm.model.base import Change, Obj
from afterswarm.model.node import Description, NodeReport
from afterswarm.model.service import Resources, UpdateConfig, UpdateState
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.sim import given as g

PLANNERS = [(replicated, "s"), (allocate, "s"), (schedule, "all"), (update, "s"), (restart, "s")]
ENOUGH = Description(resources=Resources(nano_cpus=4 * 10**9, memory_bytes=2**32))


def agents(snap: Snapshot) -> list[Change]:
    """Every task comes to what is wanted of it at once."""
    changes = []
    for task in snap.tasks.values():
        if task.state < TaskState.ASSIGNED:
            continue
        old = snap.reports.get(task.id)
        state = min(task.desired, TaskState.SHUTDOWN)
        if old is None or old.state < state:
            report = Report(id=task.id, node_id=task.node_id, service_id="s", state=state, since=snap.now)
            changes.append(Change(old, report))
    return changes


def lived(snap: Snapshot, seconds: int) -> Snapshot:
    for _ in range(seconds):
        for planner, key in PLANNERS:
            snap = g.applied(snap, planner.plan(snap, key).changes)
        snap = g.applied(snap, agents(snap), now=snap.now + 1)
    return snap


def spread(snap: Snapshot) -> dict[str, int]:
    return Counter(t.node_id for t in snap.tasks.values() if snap.state_of(t) == TaskState.RUNNING)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
@pytest.mark.parametrize("parallelism", [1, 2, 0])
def test_an_update_leaves_a_service_as_spread_as_it_was(order: str, parallelism: int) -> None:
    there: list[Obj] = [o for n in "abc" for o in (g.node(n), NodeReport(id=n, description=ENOUGH))]
    of = g.service(6, update=UpdateConfig(order=order, parallelism=parallelism))
    snap = lived(g.swarm(there, of), 5)
    assert spread(snap) == {"a": 2, "b": 2, "c": 2}
    before = set(snap.tasks)
    now = snap.services["s"]
    spec = replace(now.spec, task_template=g.template("app:2"))
    snap = g.applied(snap, [Change(now, replace(now, spec=spec, previous_spec=now.spec, spec_version=99))])
    snap = lived(snap, 60)
    status = snap.services["s"].update_status
    assert status is not None
    assert status.state == UpdateState.COMPLETED
    assert spread(snap) == {"a": 2, "b": 2, "c": 2}
    running = [t for t in snap.tasks.values() if isinstance(t, Task) and snap.state_of(t) == TaskState.RUNNING]
    assert not before & {t.id for t in running}
