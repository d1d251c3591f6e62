"""New tasks, and plans that go through many services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from afterswarm import ids
from afterswarm.core.orchestrate import slots
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import Driver, Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

AT_ONCE = 40  # changes after which the rest is left to the next turn: a store takes only so many in one commit
NODE = "node/"  # a key that stands for all services with something on that node
CLUSTER = "cluster"  # a key that stands for all services


def new(
    snap: Snapshot,
    service: Service,
    slot: slots.Slot,
    before: Sequence[Task] = (),
    *,
    at_once: bool = False,
    start_after: float = 0.0,
    restarts: Sequence[float] = (),
    failed_on: Sequence[str] = (),
) -> Task:
    """A task for a slot in which the tasks `before` are or were.

    It is only prepared (desired READY) until they have stopped and the time has come, which `core.restart` sees to;
    `at_once`: it does not wait for anybody.
    """
    waits = start_after > snap.now or any(not slots.out_of_the_way(snap, t) for t in before)
    last = slots.newest(before)
    return Task(
        id=ids.derive(service.id, slot, snap.rev),
        service_id=service.id,
        service_name=service.name,
        service_labels=service.spec.labels,
        log_driver=_log_driver(snap, service),
        slot=slot if isinstance(slot, int) else 0,
        node_id=slot if isinstance(slot, str) else "",
        spec=service.spec.task_template,
        spec_version=service.spec_version,
        desired=TaskState.READY if waits and not at_once else slots.goal(service),
        since=snap.now,
        message="created",
        start_after=start_after,
        replaces=last.id if last else "",
        job_iteration=service.job_status.iteration if service.job_status else None,
        ports=slots.host_ports(service),
        restarts=list(restarts),
        failed_on=list(failed_on),
    )


def _log_driver(snap: Snapshot, service: Service) -> Driver | None:
    if service.spec.task_template.log_driver or snap.cluster is None:
        return None
    return snap.cluster.spec.task_defaults.log_driver


def over_services(snap: Snapshot, key: str, plan: Callable[[Snapshot, Service], Plan]) -> Plan:
    """The plan for a key: of one service, or of all services that a node or the cluster concerns, a part at a time."""
    changes: list[Change] = []
    wake_at = float("inf")
    why: list[str] = []
    for service in _services(snap, key):
        if len(changes) >= AT_ONCE:
            wake_at = snap.now
            break
        part = plan(snap, service)
        changes += part.changes
        wake_at = min(wake_at, part.wake_at)
        if part.why:
            why.append(part.why)
    return Plan(changes=changes, wake_at=wake_at, why="; ".join(why))


def _services(snap: Snapshot, key: str) -> Iterable[Service]:
    if key.startswith(NODE):
        here = {task.service_id for task in snap.tasks_on(key.removeprefix(NODE))}
        return [s for _, s in sorted(snap.services.items()) if s.id in here or s.spec.mode.per_node]
    if key == CLUSTER:
        return [s for _, s in sorted(snap.services.items())]
    service = snap.services.get(key)
    return [service] if service else []
