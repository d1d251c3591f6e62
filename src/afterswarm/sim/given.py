"""Short ways to say what a swarm looks like, and to see what becomes of it under plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from afterswarm.core.orchestrate import slots
from afterswarm.model.base import Change, Obj, Plan
from afterswarm.model.node import Availability, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.service import (
    ContainerSpec,
    JobStatus,
    ReplicatedJob,
    ReplicatedService,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from afterswarm.model.snapshot import KIND_OF, KINDS, Snapshot
from afterswarm.model.task import Report, Task, TaskState

NOW = 1000.0


def node(
    node_id: str,
    state: NodeState = NodeState.READY,
    availability: Availability = Availability.ACTIVE,
    *,
    role: Role = Role.WORKER,
    labels: dict[str, str] | None = None,
) -> Node:
    spec = NodeSpec(availability=availability, role=role, labels=labels or {})
    return Node(id=node_id, state=state, role=role, spec=spec)


def nodes(*node_ids: str) -> list[Obj]:
    """Nodes that are up, with their reports."""
    return [obj for node_id in node_ids for obj in (node(node_id), NodeReport(id=node_id))]


def job(total: int | None, at_once: int = 1, *, iteration: int = 0, **fields: object) -> Service:
    """Service "s" as a job; `total=None`: once on each node."""
    replicated = ReplicatedJob(max_concurrent=at_once, total_completions=total)
    mode = ServiceMode(global_job={}) if total is None else ServiceMode(replicated_job=replicated)
    status = JobStatus(iteration=iteration, last_execution=NOW - 200)
    return service(mode=mode, job_status=status, **fields)  # type: ignore[arg-type]


def template(image: str = "app:1", **fields: object) -> TaskSpec:
    return TaskSpec(container_spec=ContainerSpec(image=image), **fields)  # type: ignore[arg-type]


def service(
    replicas: int | None = 1,
    image: str = "app:1",
    *,
    update: UpdateConfig | None = None,
    restart: RestartPolicy | None = None,
    spec_version: int = 0,
    rev: int = 1,
    mode: ServiceMode | None = None,
    **fields: object,
) -> Service:
    """Service "s"; `replicas=None` makes it global. `mode` is instead of both."""
    replicated = ServiceMode(replicated=ReplicatedService(replicas=replicas))
    mode = mode or (ServiceMode(global_={}) if replicas is None else replicated)
    spec = ServiceSpec(
        name="web", mode=mode, task_template=template(image, restart_policy=restart), update_config=update
    )
    return Service(id="s", spec=spec, spec_version=spec_version, rev=rev, **fields)  # type: ignore[arg-type]


def task(
    task_id: str,
    of: Service,
    slot: int = 1,
    node_id: str = "a",
    state: TaskState = TaskState.RUNNING,
    *,
    since: float = NOW - 100,
    **fields: object,
) -> list[Obj]:
    """A task of this service as it is now, and the report that goes with its state."""
    own = min(state, TaskState.ASSIGNED if node_id else TaskState.PENDING)
    given = {
        "slot": slot,
        "spec": of.spec.task_template,
        "spec_version": of.spec_version,
        "job_iteration": of.job_status.iteration if of.job_status else None,
        "desired": slots.goal(of),
        "created": since,
        "updated": since,
        "since": since,
        **fields,
    }
    made = Task(id=task_id, service_id=of.id, node_id=node_id, state=own, **given)  # type: ignore[arg-type]
    started = since if TaskState.RUNNING <= state < TaskState.REJECTED else 0.0
    report = Report(
        id=task_id, node_id=node_id, service_id=of.id, state=state, since=since, updated=since, started=started
    )
    return [made, report] if state > own else [made]


def swarm(*objects: Obj | Iterable[Obj], now: float = NOW, rev: int = 10) -> Snapshot:
    flat = [o for given in objects for o in ([given] if isinstance(given, Obj) else given)]
    return Snapshot.of(flat, now=now, rev=rev)


def everything(snap: Snapshot) -> list[Obj]:
    return [obj for kind in KINDS for obj in getattr(snap, kind.replace("-", "_") + "s").values()]


def applied(snap: Snapshot, changes: Iterable[Change], *, now: float | None = None) -> Snapshot:
    """What is stored after these changes, as the store and the cache would stamp it."""
    rev = snap.rev + 1
    found = {(KIND_OF[type(obj)], obj.id): obj for obj in everything(snap)}
    for change in changes:
        key = KIND_OF[type(change.obj)], change.obj.id
        found.pop(key, None)
        if change.new is not None:
            created = change.old.created if change.old else snap.now
            found[key] = replace(change.new, rev=rev, created=created, updated=snap.now)
    return Snapshot.of(found.values(), rev=rev, now=snap.now if now is None else now)


def settled(snap: Snapshot, plan: Callable[[Snapshot, str], Plan], key: str = "s", rounds: int = 20) -> Snapshot:
    """After as many rounds of a planner as it takes until it changes nothing. Fails when that does not come."""
    for _ in range(rounds):
        changes = plan(snap, key).changes
        if not changes:
            return snap
        snap = applied(snap, changes)
    raise AssertionError(f"still {changes}")
