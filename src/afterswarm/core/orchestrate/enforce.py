"""Tasks of replicated services and jobs that cannot stay where they are: their node is down, drained, gone, or unfit.

Such a task is told to stop and gets a replacement in the same commit, without the restart delay: that one is for tasks
that fail, not for hosts. (A running task on a drained node can be moved at leisure: see `drain`. Tasks of global
services and jobs are bound to their node: see `everywhere` and `jobs`.)
"""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.orchestrate import slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState


def plan(snap: Snapshot, key: str) -> Plan:
    """Move slots off nodes that cannot keep them. `key`: service id or `node/<id>`.

    The old task is stopped first: were the commit cut short, `core.replicated` would fill the empty slot.
    """
    return tasks.over_services(snap, key, _plan)


def _plan(snap: Snapshot, service: Service) -> Plan:
    if service.spec.mode.per_node or service.pending_delete:
        return Plan()
    changes: list[Change] = []
    reasons: list[str] = []
    for slot, here in slots.by_slot(snap.tasks_of(service.id)).items():
        leaving = {
            t.id: why
            for t in here
            if slots.alive(snap, t) and not slots.moves(snap, service, t) and (why := slots.misplaced(snap, service, t))
        }
        if not leaving or (service.job_status and all(slots.outdated(snap, service, t) for t in here)):
            continue
        reasons += leaving.values()
        changes += [Change(t, _leaving(snap, t, leaving[t.id])) for t in here if t.id in leaving]
        if not any(slots.wanted(t) for t in here if t.id not in leaving):
            after = [_leaving(snap, t, leaving[t.id]) if t.id in leaving else t for t in here]
            before = _inherited(snap, service, here)
            restarts, failed_on = (before.restarts, before.failed_on) if before else ([], [])
            new = tasks.new(snap, service, slot, after, restarts=restarts, failed_on=failed_on)
            changes.append(Change(None, new))
    why = f"{service.name}: {len(reasons)} moved, {reasons[0]}" if reasons else ""
    return Plan(changes=changes, why=why)


def _leaving(snap: Snapshot, task: Task, why: str) -> Task:
    gone = task.node_id not in snap.nodes
    state = TaskState.ORPHANED if gone else task.state
    since = snap.now if gone else task.since
    err = why if why == slots.UNFIT else task.err
    return replace(task, desired=TaskState.SHUTDOWN, state=state, since=since, message=why, err=err)


def _inherited(snap: Snapshot, service: Service, here: list[Task]) -> Task | None:
    """The task whose restarts go on counting: a node's failure neither adds to those of a slot nor clears them."""
    last = slots.newest(here)
    return None if last is None or slots.outdated(snap, service, last) else last
