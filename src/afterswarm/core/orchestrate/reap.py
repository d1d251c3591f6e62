"""Everything that goes away at last: old tasks, removed services and networks, what belonged to a removed node.

- A task with desired REMOVE is deleted, with its report, soon after it has stopped, or once it cannot run: it was never
  given to a node, or its node is down or gone (an agent that comes back removes containers that no task stands for).
- Of the tasks in a slot, the cluster's history limit says how many stay; the oldest stopped ones go first.
- A removed service (`pending_delete`) goes when its last task has gone, a removed network when no service refers to it
  and no container may be in it.
- Older data of a secret or config goes when no service could come back to it and no task may start with it.
- A task that is not wanted any more, on a node that is gone or has been down for a day, is orphaned.
- Reports without a task go, and so do volumes, guests, reports and suspicions of nodes that are no longer in the swarm.

Keys: a service id, `node/<id>`, `report/<id>`, `network/<id>`, `cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from msgspec.structs import replace

from afterswarm.core import payloads
from afterswarm.core.orchestrate import slots, tasks
from afterswarm.model.base import Change, Obj, Plan
from afterswarm.model.cluster import Orchestration
from afterswarm.model.network import Network
from afterswarm.model.node import NodeState
from afterswarm.model.service import Service, UpdateState
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

REPORT = "report/"
NETWORK = "network/"
ORPHANED_AFTER = 24 * 3600.0  # seconds that a node may be down until its tasks are given up, as in Docker
HISTORY = 5  # tasks in a slot, Docker's default
SHOWN = 1.0  # seconds for which a removed task that has ended is still shown


def plan(snap: Snapshot, key: str) -> Plan:
    """Delete what nobody needs."""
    if key.startswith(REPORT):
        report = snap.reports.get(key.removeprefix(REPORT))
        return _deleted([report] if report and report.id not in snap.tasks else [])
    planned = Plan() if key.startswith(NETWORK) else _of_services(snap, key)
    if planned.changes:
        return planned
    going = [network for _, network in sorted(snap.networks.items()) if network.pending_delete]
    spare = [*payloads.unused(snap), *(network for network in going if not _used(snap, network))]
    return replace(_deleted(spare), wake_at=planned.wake_at)


def _of_services(snap: Snapshot, key: str) -> Plan:
    if key.startswith(tasks.NODE) and (gone := key.removeprefix(tasks.NODE)) not in snap.nodes:
        left = _left_by(snap, gone)
        if left:
            return Plan(changes=_deleted(left[: tasks.AT_ONCE]).changes, wake_at=snap.now)
    if not key.startswith(tasks.NODE) and key != tasks.CLUSTER and key not in snap.services:
        return _plan_tasks(snap, None, snap.tasks_of(key))
    return tasks.over_services(snap, key, _service)


def _service(snap: Snapshot, service: Service) -> Plan:
    here = snap.tasks_of(service.id)
    if not service.pending_delete:
        return _plan_tasks(snap, service, here)
    if not here:
        return Plan(changes=[Change(service, None)], why=f"{service.name}: removed")
    return _plan_tasks(snap, None, here)


def _plan_tasks(snap: Snapshot, service: Service | None, here: Sequence[Task]) -> Plan:
    """`service` is `None` when none of its tasks is to stay."""
    changes: list[Change] = []
    wake_at = inf
    surplus = _surplus(snap, service, here) if service else set()
    for task in here:
        if len(changes) >= tasks.AT_ONCE:
            return Plan(changes=changes, wake_at=snap.now)
        removed = task.desired == TaskState.REMOVE
        idle = not slots.may_run(snap, task) and not slots.alive(snap, task)
        if removed and slots.state_is_over(snap, task) and (shown := _shown_until(snap, task)) > snap.now:
            wake_at = min(wake_at, shown)
        elif (removed and not slots.may_run(snap, task)) or (task.id in surplus and idle):
            report = snap.reports.get(task.id)
            changes += [Change(report, None)] if report else []
            changes.append(Change(task, None))
        elif service is None and not removed:
            changes.append(Change(task, replace(task, desired=TaskState.REMOVE)))
        elif (lost := _lost_at(snap, task)) <= snap.now:
            changes.append(Change(task, replace(task, state=TaskState.ORPHANED, since=snap.now)))
        else:
            wake_at = min(wake_at, lost)
    return Plan(changes=changes, wake_at=wake_at)


def _shown_until(snap: Snapshot, task: Task) -> float:
    """`docker stack rm --detach=false` counts how often it sees tasks that have ended, up to how many there are: one
    that goes at once is never counted, and then the command line does not come back."""
    return max(slots.reached(snap, task), task.updated) + SHOWN


def _lost_at(snap: Snapshot, task: Task) -> float:
    """When nobody expects to hear of the task any more: its node is gone, or has been down for a day."""
    if not task.node_id or slots.wanted(task) or snap.state_of(task) > TaskState.RUNNING:
        return inf
    node = snap.nodes.get(task.node_id)
    if node is None:
        return snap.now
    return node.state_since + ORPHANED_AFTER if node.state == NodeState.DOWN else inf


def _surplus(snap: Snapshot, service: Service, here: Sequence[Task]) -> set[str]:
    """Stopped tasks beyond what the history of their slot may hold. The last task in a slot always stays."""
    orchestration = snap.cluster.spec.orchestration if snap.cluster else Orchestration()
    limit = orchestration.task_history_retention_limit
    limit = HISTORY if limit is None else limit
    if limit < 0:
        return set()
    found: set[str] = set()
    for in_slot in slots.by_slot(here).values():
        last = slots.newest(in_slot)
        going = [
            t
            for t in in_slot
            if t is not last and not slots.wanted(t) and not slots.may_run(snap, t) and not _counted(service, t)
        ]
        going.sort(key=lambda t: (t.created, t.id))
        found.update(t.id for t in going[: max(len(in_slot) - max(limit, 1), 0)])
    return found


def _counted(service: Service, task: Task) -> bool:
    """Whether the update under way counts this task's failure."""
    state = service.update_status.state if service.update_status else None
    updating = state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
    return updating and task.spec_version == service.spec_version and not task.restarts


def _used(snap: Snapshot, network: Network) -> bool:
    referred = (
        n.target
        for service in snap.services.values()
        for n in (*service.spec.task_template.networks, *service.spec.networks)
    )
    held = (a.network_id for t in snap.tasks.values() if snap.state_of(t) <= TaskState.RUNNING for a in t.attachments)
    guests = (g.attachment.network_id for g in snap.guests.values())
    return network.id in referred or network.id in held or network.id in guests


def _left_by(snap: Snapshot, node_id: str) -> list[Obj]:
    volumes = [v for _, v in sorted(snap.volumes.items()) if v.node_id == node_id]
    guests = [g for _, g in sorted(snap.guests.items()) if g.node_id == node_id]
    of_node = (snap.node_reports.get(node_id), snap.suspicions.get(node_id))
    return [*volumes, *guests, *(obj for obj in of_node if obj is not None)]


def _deleted(objects: Sequence[Obj]) -> Plan:
    return Plan(changes=[Change(obj, None) for obj in objects])
