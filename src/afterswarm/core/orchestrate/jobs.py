"""Jobs: tasks that are to complete once, so many in all and so many at a time, or one on each node.

Each update of a job begins another execution (`Service.job_status`), and tasks of earlier ones are told to stop. Here
slots are opened; what goes on inside one is up to `restart` and, when a node is lost, to `enforce`, as with services
that run for ever. A slot is

- done when a task of this execution has completed there,
- given up when one has failed there and the restart policy allows no other: then the job never completes,
- active otherwise, also while it waits for a restart.

A job on each node runs on the nodes that were there when the execution began, on those that could not take it then once
they can. One whose task was lost with it runs it again when it is back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from afterswarm.core.orchestrate import everywhere, slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import JobStatus, ReplicatedJob, Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

Found = Mapping[slots.Slot, Sequence[Task]]


def plan(snap: Snapshot, key: str) -> Plan:
    """End earlier executions, and open slots for this one. `key`: service id or `node/<id>`."""
    return tasks.over_services(snap, key, _plan)


def completed(snap: Snapshot, service: Service) -> int:
    """How many slots of this execution are done."""
    here = [t for t in snap.tasks_of(service.id) if slots.done(snap, t) and not slots.outdated(snap, service, t)]
    return len({slots.slot_of(t) for t in here})


def _plan(snap: Snapshot, service: Service) -> Plan:
    if service.job_status is None or service.pending_delete:
        return Plan()
    mode = service.spec.mode
    found = slots.by_slot(snap.tasks_of(service.id))
    mine = {
        slot: now for slot, here in found.items() if (now := [t for t in here if not slots.outdated(snap, service, t)])
    }
    changes = [Change(t, new) for t in snap.tasks_of(service.id) if (new := _ended(snap, service, t)) != t]
    opened = (
        _more(snap, mode.replicated_job, mine)
        if mode.replicated_job
        else _nodes(snap, service, service.job_status, mine)
    )
    added = [Change(None, tasks.new(snap, service, slot, found.get(slot, []))) for slot in opened]
    changes += added
    why = f"{service.name}: {len(added)} of execution {service.job_status.iteration} begun" if added else ""
    if len(changes) > tasks.AT_ONCE:
        return Plan(changes=changes[: tasks.AT_ONCE], wake_at=snap.now, why=why)
    return Plan(changes=changes, why=why)


def _ended(snap: Snapshot, service: Service, task: Task) -> Task:
    """The task as it should be now, if it cannot go on as it is."""
    most = service.spec.mode.replicated_job.total_completions if service.spec.mode.replicated_job else None
    if slots.outdated(snap, service, task):
        surplus = most is not None and task.slot > most
        wanted = TaskState.REMOVE if surplus else TaskState.SHUTDOWN
        return replace(task, desired=max(task.desired, wanted))
    if service.spec.mode.per_node and slots.alive(snap, task) and (why := slots.misplaced(snap, service, task)):
        return replace(task, desired=TaskState.SHUTDOWN, message=why)
    return task


def _more(snap: Snapshot, job: ReplicatedJob, mine: Found) -> list[int]:
    """Slots to open: the lowest free ones, so many that no more are active than may be."""
    total = job.total_completions or 0
    taken = {slot for slot, here in mine.items() if _taken(snap, here)}
    active = sum(_active(snap, mine[slot]) for slot in taken)
    free = (n for n in range(1, total + 1) if n not in taken)
    return list(islice(free, max((job.max_concurrent or 0) - active, 0)))


def _nodes(snap: Snapshot, service: Service, status: JobStatus, mine: Found) -> list[str]:
    return [
        node_id
        for node_id, node in sorted(snap.nodes.items())
        if node.created <= status.last_execution
        and everywhere.eligible(snap, service, node)
        and not _taken(snap, mine.get(node_id, []))
    ]


def _taken(snap: Snapshot, here: Sequence[Task]) -> bool:
    return any(slots.wanted(t) for t in here) or slots.finished(snap, here)


def _active(snap: Snapshot, here: Sequence[Task]) -> bool:
    return any(slots.wanted(t) for t in here) and not any(slots.done(snap, t) for t in here)
