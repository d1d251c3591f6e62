"""What a service waits for before its tasks start: the service label `afterswarm.depends-on`.

    db:healthy, migrate:completed, cache:started:optional

A name is looked for in the stack of the service first, then as it stands. The label orders deployments and nothing
else: it holds back the first tasks of a version of the service, and once one of them has been placed, all may start.
So a task that heals, or one more replica, never waits for a dependency that has meanwhile failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from afterswarm.core.orchestrate import slots
from afterswarm.model.refused import Refused
from afterswarm.model.service import Service, ServiceSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

LABEL = "afterswarm.depends-on"
STACK = "com.docker.stack.namespace"
_OPTIONAL = "optional"


class Condition(StrEnum):
    STARTED = "started"  # its containers are being started, healthy or not
    HEALTHY = "healthy"  # they run, and their health check, if any, has passed
    COMPLETED = "completed"  # they ended with exit code 0: a job, or a service with restart condition "none"


class Dependency(msgspec.Struct, frozen=True):
    """`optional`: as if it were not said while there is no such service."""

    name: str
    condition: Condition
    optional: bool = False


def parse(text: str) -> list[Dependency]:
    """Raises `Refused` (400). Without a condition: started."""
    return [_one(item) for item in (part.strip() for part in text.split(",")) if item]


def of(labels: Mapping[str, str]) -> list[Dependency]:
    return parse(labels.get(LABEL, ""))


def _one(item: str) -> Dependency:
    name, *rest = item.split(":")
    word = rest.pop(0) if rest else Condition.STARTED.value
    if not name or word not in set(Condition) or rest not in ([], [_OPTIONAL]):
        why = f"'{item}' is not NAME:{'|'.join(Condition)}[:{_OPTIONAL}]"
        raise Refused(400, f"invalid label {LABEL}: {why}")
    return Dependency(name, Condition(word), optional=bool(rest))


# ---- admission -------------------------------------------------------------------------------------------------


def check(snap: Snapshot, spec: ServiceSpec) -> None:
    """Refuses (400) what cannot be read, and a service that would wait for itself, over however many others."""
    if not of(spec.labels):
        return
    labels = {s.name: s.spec.labels for s in snap.services.values() if not s.pending_delete}
    labels[spec.name] = spec.labels
    came_from: dict[str, str] = {}
    waiting = [spec.name]
    while waiting:
        name = waiting.pop()
        for dependency in _readable(labels[name]):
            there = next((n for n in _names(labels[name], dependency.name) if n in labels), None)
            if there == spec.name:
                path = [there, name]
                while path[-1] != spec.name:
                    path.append(came_from[path[-1]])
                raise Refused(400, f"invalid label {LABEL}: {' -> '.join(reversed(path))} wait for each other")
            if there and there not in came_from:
                came_from[there] = name
                waiting.append(there)


def _readable(labels: Mapping[str, str]) -> list[Dependency]:
    """Those of a stored service, which had the label before it meant anything if it cannot be read."""
    try:
        return of(labels)
    except Refused:
        return []


def _names(labels: Mapping[str, str], name: str) -> list[str]:
    stack = labels.get(STACK, "")
    return [f"{stack}_{name}", name] if stack else [name]


# ---- waiting ---------------------------------------------------------------------------------------------------


def unmet(snap: Snapshot, task: Task) -> str:
    """What the task waits for, as `docker service ps` shows it; "" when nothing holds it back."""
    service = snap.services[task.service_id]
    if LABEL not in service.spec.labels or _begun(snap, task):
        return ""
    return next(filter(None, (_unmet(snap, service, d) for d in _readable(service.spec.labels))), "")


def _begun(snap: Snapshot, task: Task) -> bool:
    """Whether a task of the same version (and, of a job, execution) was placed before."""
    mine = (task.spec_version, task.job_iteration)
    same = (t for t in snap.tasks_of(task.service_id) if (t.spec_version, t.job_iteration) == mine)
    return any(t.state >= TaskState.ASSIGNED for t in same)


def _unmet(snap: Snapshot, service: Service, wanted: Dependency) -> str:
    verb = {Condition.STARTED: "start", Condition.HEALTHY: "be healthy", Condition.COMPLETED: "complete"}
    waiting = f"waiting for {wanted.name} to {verb[wanted.condition]}"
    names = _names(service.spec.labels, wanted.name)
    there = {s.name: s for s in snap.services.values() if s.name in names and not s.pending_delete}
    other = next((there[name] for name in names if name in there), None)
    if other is None:
        return "" if wanted.optional else f"{waiting}: there is no such service"
    many, done = _needed(snap, other, wanted.condition), _done(snap, other, wanted.condition)
    if done >= many:
        return ""
    if wanted.condition is Condition.COMPLETED and (failed := _failed(snap, other)):
        return f"{waiting}: it failed ({failed})"
    return f"{waiting} ({done} of {many})" if many > 1 else waiting


def _needed(snap: Snapshot, other: Service, condition: Condition) -> int:
    mode = other.spec.mode
    if mode.replicated is not None:
        return 1 if mode.replicated.replicas is None else mode.replicated.replicas
    if mode.replicated_job is not None:
        all_of_it = mode.replicated_job.total_completions or mode.replicated_job.max_concurrent
        return (1 if all_of_it is None else all_of_it) if condition is Condition.COMPLETED else 1
    return max(1, len({slots.slot_of(t) for t in _present(snap, other)}))


def _done(snap: Snapshot, other: Service, condition: Condition) -> int:
    """In how many slots of the service, at its present version, it is as it should be."""
    least = TaskState.STARTING if condition is Condition.STARTED else TaskState.RUNNING

    def good(task: Task) -> bool:
        state = snap.state_of(task)
        if state == TaskState.COMPLETE:  # whoever is through with its work has been all that it will be
            return condition is not Condition.HEALTHY or not slots.restarts(snap, task)
        return condition is not Condition.COMPLETED and least <= state <= TaskState.RUNNING

    return len({slots.slot_of(t) for t in _present(snap, other) if good(t)})


def _present(snap: Snapshot, other: Service) -> list[Task]:
    """The tasks that count: of this version, not told to stop unless they ended by themselves."""
    return [
        t
        for t in snap.tasks_of(other.id)
        if not slots.outdated(snap, other, t)
        and t.desired < TaskState.REMOVE
        and (slots.alive(snap, t) or snap.state_of(t) in slots.ENDED_BY_ITSELF)
    ]


def _failed(snap: Snapshot, other: Service) -> str:
    """The words of a try that no other one follows."""
    for here in slots.by_slot(_present(snap, other)).values():
        last = slots.newest(here)
        over = last and snap.state_of(last) in (TaskState.FAILED, TaskState.REJECTED)
        if last and over and not slots.restarts(snap, last):
            report = snap.reports.get(last.id)
            return (report.err if report else last.err) or snap.state_of(last).word
    return ""
