"""Global services: one task on every node that may have one.

A node's tasks of the service are a slot of their own. As with replicated services, what goes on inside a slot belongs
to `restart` and `update`. A node that is paused keeps its task and gets no new one; one that is drained, down, removed,
or that does not meet the constraints any more loses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from afterswarm.core import constraint
from afterswarm.core.orchestrate import slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.node import Availability, Node, NodeState
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState


def plan(snap: Snapshot, key: str) -> Plan:
    """Give nodes their tasks and take them from nodes that may not have one. `key`: service id or `node/<id>`."""
    return tasks.over_services(snap, key, _plan)


def eligible(snap: Snapshot, service: Service, node: Node) -> bool:
    """Whether a new task of the service may be put on the node."""
    return (
        node.state == NodeState.READY and node.spec.availability == Availability.ACTIVE and _meets(snap, service, node)
    )


def _plan(snap: Snapshot, service: Service) -> Plan:
    if service.spec.mode.global_ is None or service.pending_delete:
        return Plan()
    found = slots.by_slot(snap.tasks_of(service.id))
    removed = [
        Change(task, _shut_down(task, why))
        for task in snap.tasks_of(service.id)
        if slots.wanted(task) and (why := slots.misplaced(snap, service, task))
    ]
    added = [
        Change(None, tasks.new(snap, service, node_id, found.get(node_id, [])))
        for node_id, node in sorted(snap.nodes.items())
        if eligible(snap, service, node) and not _in_use(snap, found.get(node_id, []))
    ]
    done = [f"{len(part)} {word}" for part, word in ((added, "added"), (removed, "removed")) if part]
    return Plan(changes=removed + added, why=f"{service.name}: tasks {' and '.join(done)}" if done else "")


def _in_use(snap: Snapshot, here: Sequence[Task]) -> bool:
    return any(slots.wanted(t) for t in here) or slots.finished(snap, here)


def _meets(snap: Snapshot, service: Service, node: Node) -> bool:
    rules = slots.constraints_of(service.spec.task_template)
    return constraint.unmet(rules, node, snap.node_reports.get(node.id)) is None


def _shut_down(task: Task, why: str) -> Task:
    return replace(task, desired=TaskState.SHUTDOWN, message=why, err=why if why == slots.UNFIT else task.err)
