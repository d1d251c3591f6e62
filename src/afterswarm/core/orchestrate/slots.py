"""What the orchestrators ask of the tasks in one slot.

A slot is a number for a replicated service or job and a node for a global one. Of all tasks that ever were in it, those
with `desired` up to RUNNING (of a job: COMPLETE) are *wanted*: one normally, two while an update starts the new one
before it stops the old one (or prepares it meanwhile). A slot without a wanted task is free, unless the last one there
ended by itself and its restart policy leaves it at that: then the slot is *finished* and is not filled again. A task of
a job that has completed stays wanted: it has what was wanted of it, and is *done*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from afterswarm.core import constraint, publishing
from afterswarm.core.options.table import chosen
from afterswarm.model.node import Availability, NodeState
from afterswarm.model.service import SECOND, Placement, PortConfig, RestartPolicy, Service, TaskSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

Slot = int | str

UNFIT = "assigned node no longer meets constraints"  # Docker's words, which it shows as an error

ENDED_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})
RESTART_DELAY = 5.0  # seconds, Docker's default
CONSTANT = (
    3  # so many restarts in a row wait the policy's delay; each further one waits twice as long as the one before
)
LONGEST = 16  # times the delay: where doubling ends
CALM = 60.0  # seconds that a task must have run for what was before not to count for the delay
REMEMBERED = 8  # restarts that are kept for the delay; more when the policy counts more


def slot_of(task: Task) -> Slot:
    return task.slot or task.node_id


def by_slot(tasks: Iterable[Task]) -> dict[Slot, list[Task]]:
    """Tasks by slot, in order of slots and, in a slot, of ids."""
    found: dict[Slot, list[Task]] = {}
    for task in sorted(tasks, key=lambda t: (t.slot, "" if t.slot else t.node_id, t.id)):
        found.setdefault(slot_of(task), []).append(task)
    return found


def goal(service: Service) -> TaskState:
    """How far a task of the service is to go."""
    return TaskState.COMPLETE if service.spec.mode.is_job else TaskState.RUNNING


def wanted(task: Task) -> bool:
    return task.desired <= TaskState.COMPLETE


def done(snap: Snapshot, task: Task) -> bool:
    """Whether it is a job's and has completed."""
    return task.job_iteration is not None and wanted(task) and snap.state_of(task) == TaskState.COMPLETE


def alive(snap: Snapshot, task: Task) -> bool:
    """Wanted, and not over."""
    return wanted(task) and snap.state_of(task) <= TaskState.RUNNING


def state_is_over(snap: Snapshot, task: Task) -> bool:
    return snap.state_of(task) > TaskState.RUNNING


def stopped(snap: Snapshot, task: Task) -> bool:
    """Whether no container of an unwanted task is there or can come, whatever becomes of its node."""
    state = snap.state_of(task)
    return state > TaskState.RUNNING or state < TaskState.ASSIGNED or task.node_id not in snap.nodes


def out_of_the_way(snap: Snapshot, task: Task) -> bool:
    """Whether a new task in the same slot need not wait for this one."""
    return not alive(snap, task) and stopped(snap, task)


def may_run(snap: Snapshot, task: Task) -> bool:
    """Whether a container of an unwanted task is to be reckoned with. Not on a node that is down."""
    return not stopped(snap, task) and snap.nodes[task.node_id].state != NodeState.DOWN


def newest(tasks: Sequence[Task]) -> Task | None:
    """The task that no other one has replaced."""
    replaced = {task.replaces for task in tasks}
    return max(tasks, key=lambda t: (t.id not in replaced, t.created, t.id), default=None)


def reached(snap: Snapshot, task: Task) -> float:
    """When the task came to be in its state, by the managers' clocks rather than the agents'."""
    report = snap.reports.get(task.id)
    if report and report.state >= task.state:
        return min(report.updated or report.since, snap.now)
    return min(task.since, snap.now)


# ---- up to date ------------------------------------------------------------------------------------------------


def outdated(snap: Snapshot, service: Service, task: Task) -> bool:
    """Whether the task was made from another template, in a way that matters: what an update replaces.

    An equal template with equal ports is up to date whatever its version (a rollback finds tasks that were not
    touched yet), and so is one that differs in constraints only when the task's node meets the new ones, as in Docker.
    A job's task belongs to the execution that it was made in.
    """
    if service.job_status is not None:
        return task.job_iteration != service.job_status.iteration
    if task.spec_version == service.spec_version:
        return False
    template = service.spec.task_template
    if task.ports != host_ports(service) or not _reachable(snap, service, task):
        return True
    if chosen(task.service_labels) != chosen(service.spec.labels):
        return True
    if publishing.on_host(task.service_labels, task.ports) != publishing.on_host(service.spec.labels, task.ports):
        return True
    if task.spec == template:
        return False
    node = snap.nodes.get(task.node_id)
    if node is None or _unconstrained(task.spec) != _unconstrained(template):
        return True
    return constraint.unmet(constraints_of(template), node, snap.node_reports.get(node.id)) is not None


def constraints_of(spec: TaskSpec) -> list[str]:
    return spec.placement.constraints if spec.placement else []


def _unconstrained(spec: TaskSpec) -> TaskSpec:
    return replace(spec, placement=replace(spec.placement or Placement(), constraints=[]))


def host_ports(service: Service) -> list[PortConfig]:
    """The ports that each task's own host publishes."""
    ports = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    return [p for p in ports if p.publish_mode == "host"]


def fixed_host_ports(service: Service) -> bool:
    """Whether two tasks of the service cannot run on one host."""
    return any(p.published_port for p in host_ports(service))


def _reachable(snap: Snapshot, service: Service, task: Task) -> bool:
    """Whether the task is in the ingress network, if its service publishes ports there."""
    ports = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    if task.state == TaskState.NEW or all(p.publish_mode == "host" for p in ports):
        return True
    ingress = {network.id for network in snap.networks.values() if network.spec.ingress}
    return not ingress or any(a.network_id in ingress for a in task.attachments)


# ---- where a task may be ---------------------------------------------------------------------------------------


def misplaced(snap: Snapshot, service: Service, task: Task) -> str:
    """Why an assigned task cannot stay on its node; "" when it can."""
    if not task.node_id:
        return ""
    node = snap.nodes.get(task.node_id)
    if node is None:
        return "node was removed from the swarm"
    if node.state == NodeState.DOWN:
        return "node is down"
    if node.spec.availability == Availability.DRAIN:
        return "node is drained"
    if node.spec.availability == Availability.PAUSE:
        return ""
    rules = constraints_of(service.spec.task_template if service.spec.mode.per_node else task.spec)
    if constraint.unmet(rules, node, snap.node_reports.get(node.id)) is not None:
        return UNFIT
    return ""


def moves(snap: Snapshot, service: Service, task: Task) -> bool:
    """Whether the task has work to finish and a node to finish it on, but is to go: see `drain`."""
    if service.spec.mode.replicated is None or not alive(snap, task) or snap.state_of(task) != TaskState.RUNNING:
        return False
    node = snap.nodes.get(task.node_id)
    return node is not None and node.state == NodeState.READY and node.spec.availability == Availability.DRAIN


def misplaced_for_good(snap: Snapshot, service: Service, task: Task) -> bool:
    """Whether the slot itself is where it cannot be: a task of a global service is bound to its node."""
    return service.spec.mode.per_node and bool(misplaced(snap, service, task))


# ---- restart policy --------------------------------------------------------------------------------------------


def policy_of(task: Task) -> RestartPolicy:
    return task.spec.restart_policy or RestartPolicy()


def restarts(snap: Snapshot, task: Task) -> bool:
    """Whether a task that ended by itself is to be followed by another one, by its restart policy.

    A job's task that has completed never is: for jobs, `any` means `on-failure`.
    The window does not count the time spent waiting for restarts: with Docker a window shorter than the delay means
    that attempts are never used up (moby/swarmkit#2936).
    """
    policy = policy_of(task)
    never_again = policy.condition == "on-failure" or task.job_iteration is not None
    if policy.condition == "none" or (never_again and snap.state_of(task) == TaskState.COMPLETE):
        return False
    most = policy.max_attempts or 0
    if not most:
        return True
    if not policy.window:
        return len(task.restarts) < most
    base = base_delay(policy)
    waited = sum(backed_off(base, n) for n in range(most))
    oldest = reached(snap, task) - policy.window / SECOND - waited
    return sum(when >= oldest for when in task.restarts) < most


def base_delay(policy: RestartPolicy) -> float:
    """Seconds."""
    return RESTART_DELAY if policy.delay is None else policy.delay / SECOND


def backed_off(base: float, earlier: int) -> float:
    """Seconds to wait after `earlier` restarts in a row: Docker's constant delay at first, then doubling."""
    if earlier < CONSTANT:
        return base
    return max(base, 1.0) * min(2.0 ** (earlier - CONSTANT + 1), LONGEST)


def in_a_row(times: Sequence[float], base: float) -> int:
    """How many of the last restarts came without a calm run between them. The last time is that of the task itself."""
    count = 0
    longest = max(base, 1.0) * LONGEST
    for before, after in zip(reversed(times[:-1]), reversed(times[1:]), strict=True):
        if after - before > longest + CALM:
            break
        count += 1
    return count


def finished(snap: Snapshot, tasks: Sequence[Task]) -> bool:
    """Whether the slot of these tasks is to be left as it is (see the head of this file)."""
    if any(wanted(task) for task in tasks):
        return False
    last = newest(tasks)
    return (
        last is not None
        and last.desired < TaskState.REMOVE
        and snap.state_of(last) in ENDED_BY_ITSELF
        and not restarts(snap, last)
    )
