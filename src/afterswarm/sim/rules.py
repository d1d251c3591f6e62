"""What must hold in every swarm: after each commit, whenever a container starts, and once all has been quiet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from afterswarm.core import constraint, payloads
from afterswarm.core.orchestrate import everywhere, slots
from afterswarm.model.base import Change
from afterswarm.model.network import Network
from afterswarm.model.node import Availability, Node, NodeState
from afterswarm.model.service import Service, UpdateState
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import CONTROLLER_STATES, Report, Task, TaskState
from afterswarm.sim.host import SimHost


class Broken(Exception):
    """A rule does not hold. `objects`: ids of those it is about."""

    def __init__(self, rule: str, objects: Iterable[str] = ()) -> None:
        super().__init__(rule)
        self.rule = rule
        self.objects = list(objects)


def after_change(change: Change) -> None:
    """States only grow, are written by their owners, and a task never moves."""
    match change.old, change.new:
        case Task() as old, Task() as new:
            _hold(new.state >= old.state, f"state {old.state.word} -> {new.state.word}", new.id)
            _hold(new.desired >= old.desired, f"desired {old.desired.word} -> {new.desired.word}", new.id)
            _hold(old.node_id in ("", new.node_id), f"moved from {old.node_id} to {new.node_id}", new.id)
            same = (old.service_id, old.slot, old.spec, old.spec_version, old.replaces)
            _hold(
                same == (new.service_id, new.slot, new.spec, new.spec_version, new.replaces), "task rewritten", new.id
            )
            _hold(new.state in CONTROLLER_STATES, f"a controller wrote {new.state.word}", new.id)
        case Report() as old, Report() as new:
            _hold(new.state >= old.state, f"reported {old.state.word} -> {new.state.word}", new.id)
        case Task(desired=desired) as old, None:
            _hold(desired > TaskState.COMPLETE, f"deleted while desired {desired.word}", old.id)
        case _:
            pass


def in_service(snap: Snapshot, service_id: str, limit: int) -> None:
    """At most `limit` live tasks in a slot, and one more that is to take over."""
    for slot, here in slots.by_slot(snap.tasks_of(service_id)).items():
        living = [t for t in here if slots.alive(snap, t)]
        started = [t for t in living if t.desired >= TaskState.RUNNING]
        _hold(len(started) <= limit, f"{len(started)} live tasks in slot {slot}", [service_id, *(t.id for t in here)])
        _hold(len(living) <= 2, f"{len(living)} wanted tasks in slot {slot}", [service_id, *(t.id for t in here)])
        for task in living:
            for used in payloads.of(task.spec.container_spec):
                _hold(payloads.find(snap, used) is not None, f"no {used} for a task", [service_id, task.id, used[0]])


def addresses(snap: Snapshot, network_id: str) -> None:
    """No address is given twice in a network."""
    network = snap.networks.get(network_id)
    users: dict[str, list[str]] = {}
    for node_id, address in network.gateways.items() if network else ():
        users.setdefault(address, []).append(node_id)
    for service in snap.services.values():
        for vip in service.endpoint.virtual_ips if service.endpoint else ():
            if vip.network_id == network_id:
                users.setdefault(vip.addr.partition("/")[0], []).append(service.id)
    for task in snap.tasks.values():
        if snap.state_of(task) <= TaskState.RUNNING:
            for attachment in task.attachments:
                if attachment.network_id == network_id:
                    users.setdefault(attachment.address.partition("/")[0], []).append(task.id)
    for address, owners in users.items():
        _hold(len(owners) == 1, f"{address} given to {len(owners)}", [network_id, *owners])


def after_start(snap: Snapshot, hosts: Iterable[SimHost], service_id: str, slot: slots.Slot, limit: int) -> None:
    """At most `limit` containers run in a slot, but for those that were given to hosts which were given up since.

    Such a host may even start one when it is back, from what a manager shows that was cut off with it: for a moment.
    """
    found = []
    for host in hosts:
        node = snap.nodes.get(host.id)
        if node is None:
            continue
        for container in host.running():
            task = container.task
            given_up = node.state == NodeState.DOWN or node.state_since >= min(container.started, task.created)
            if (task.service_id, slots.slot_of(task)) == (service_id, slot) and not given_up and task.id in snap.tasks:
                found.append(task.id)
    _hold(len(found) <= limit, f"{len(found)} containers run in slot {slot}", [service_id, *found])


def at_last(snap: Snapshot, hosts: Iterable[SimHost]) -> None:
    """What a swarm comes to when nobody disturbs it."""
    for node in snap.nodes.values():
        _hold(node.state == NodeState.READY, f"node is {node.state.value}", [node.id])
    for service in snap.services.values():
        _hold(not service.pending_delete, "service is still there", [service.id])
        _settled(snap, service)
    for task in snap.tasks.values():
        _hold(task.service_id in snap.services, "task without a service", [task.id])
        _hold(task.desired < TaskState.REMOVE, "task was to be removed", [task.id, task.service_id])
        waits = bool(task.err) or task.start_after > snap.now - 2
        _hold(task.desired != TaskState.READY or waits, "prepared, never started", [task.id, task.service_id])
    for report in snap.reports.values():
        _hold(report.id in snap.tasks, "report without a task", [report.id])
    unused = [payload.id for payload in payloads.unused(snap)]
    _hold(not unused, "old data that nobody needs", unused)
    for volume in snap.volumes.values():
        _hold(volume.node_id in snap.nodes, "volume of a node that is gone", [volume.id])
    for network in snap.networks.values():
        held = any(
            a.network_id == network.id and snap.state_of(t) <= TaskState.RUNNING
            for t in snap.tasks.values()
            for a in t.attachments
        )
        referred = any(
            n.target == network.id for s in snap.services.values() for n in s.spec.task_template.networks
        )  # by a rollback to a time when it was there
        _hold(held or referred or not network.pending_delete, "network is still there", [network.id])
        addresses(snap, network.id)
    for host in hosts:
        _containers(snap, host)


def _settled(snap: Snapshot, service: Service) -> None:
    tasks = snap.tasks_of(service.id)
    in_slots = slots.by_slot(tasks)
    state = service.update_status.state if service.update_status else None
    paused = state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
    ids = [service.id, *(t.id for t in tasks)]
    used = {n: [t for t in here if slots.wanted(t)] for n, here in in_slots.items()}
    finished = {n for n, here in in_slots.items() if slots.finished(snap, here)}
    if service.job_status is not None:
        _executed(snap, service)
    elif service.spec.mode.replicated is not None:
        replicas = service.spec.mode.replicated.replicas
        in_use = {n for n, here in used.items() if here} | finished
        _hold(len(in_use) == (1 if replicas is None else replicas), f"{len(in_use)} slots of {replicas}", ids)
    else:
        eligible = {n for n, node in snap.nodes.items() if everywhere.eligible(snap, service, node)}
        allowed = {n for n, node in snap.nodes.items() if _stays(snap, service, node)}
        in_use = {str(n) for n, here in used.items() if here}
        _hold(eligible <= in_use | {str(n) for n in finished}, f"not on {sorted(eligible - in_use)}", ids)
        _hold(in_use <= allowed, f"on {sorted(in_use - allowed)}", ids)
    healthy = not any(word in _image(service) for word in ("bad", "crashing", "ends"))
    stuck = any(snap.state_of(t) <= TaskState.PENDING for t in tasks)
    for n, here in used.items():
        if not here:
            continue
        _hold(len(here) == 1 or paused or stuck or not healthy, f"{len(here)} wanted tasks in slot {n}", ids)
        for task in here:
            spec = task.spec.container_spec
            sound = spec is None or not any(word in spec.image for word in ("bad", "crashing", "ends"))
            waits = snap.state_of(task) <= TaskState.PENDING and bool(task.err)
            runs = snap.state_of(task) == TaskState.RUNNING
            _hold(runs or waits or not sound, f"task is {snap.state_of(task).word}", ids)
            _hold(not waits or not _placeable(snap, task), f"waits without need: {task.err}", [task.id, service.id])
            frozen = paused or stuck or not healthy or _on_paused_node(snap, task)
            _hold(frozen or not slots.outdated(snap, service, task), "outdated task", ids)
    unfinished = state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
    _hold(not unfinished or not healthy or stuck, f"update is {state}", ids)


def _executed(snap: Snapshot, service: Service) -> None:
    """Of a job: all slots are done, given up, or at it, and as many as may be are at it."""
    tasks = snap.tasks_of(service.id)
    ids = [service.id, *(t.id for t in tasks)]
    present = slots.by_slot(t for t in tasks if not slots.outdated(snap, service, t))
    active = {n for n, here in present.items() if any(slots.alive(snap, t) for t in here)}
    settled = {n for n, here in present.items() if any(slots.done(snap, t) for t in here) or slots.finished(snap, here)}
    failing = {n for n, here in present.items() if any(slots.wanted(t) for t in here)} - active - settled
    _hold(not active & settled, f"done, and still at it: {active & settled}", ids)
    if job := service.spec.mode.replicated_job:
        total, at_once = job.total_completions or 0, job.max_concurrent or 0
        _hold(len(active) <= at_once, f"{len(active)} at once instead of {at_once}", ids)
        missing = set(range(1, total + 1)) - active - settled - failing
        _hold(not missing or len(active | failing) == at_once, f"slots {missing} were not begun", ids)
    else:
        there = {n for n, node in snap.nodes.items() if everywhere.eligible(snap, service, node)}
        there = {n for n in there if service.job_status and snap.nodes[n].created <= service.job_status.last_execution}
        absent = there - {str(n) for n in active | settled | failing}
        _hold(not absent, f"not on {sorted(absent)}", ids)


def _containers(snap: Snapshot, host: SimHost) -> None:
    node = snap.nodes.get(host.id)
    for container in host.running():
        task = snap.tasks.get(container.task.id)
        _hold(task is not None and node is not None, f"container on {host.id} without a task", [container.task.id])
        if task and node:
            _hold(slots.wanted(task), f"container on {host.id} was to stop", [task.id, task.service_id])
            _hold(node.spec.availability != Availability.DRAIN, "container on a drained node", [task.id, node.id])


def _placeable(snap: Snapshot, task: Task) -> bool:
    """Whether some node would certainly take the task: nothing but its availability and constraints matter."""
    placement = task.spec.placement
    container = task.spec.container_spec
    if (
        task.state == TaskState.NEW
        or (container and container.mounts)
        or task.spec.resources
        or task.ports
        or (placement and placement.max_replicas)
    ):
        return False
    rules = slots.constraints_of(task.spec)
    return any(
        node.state == NodeState.READY
        and node.spec.availability == Availability.ACTIVE
        and task.node_id in ("", node.id)
        and constraint.unmet(rules, node, snap.node_reports.get(node.id)) is None
        for node in snap.nodes.values()
    )


def _stays(snap: Snapshot, service: Service, node: Node) -> bool:
    if node.spec.availability == Availability.PAUSE:
        return True
    return everywhere.eligible(snap, service, node)


def _on_paused_node(snap: Snapshot, task: Task) -> bool:
    node = snap.nodes.get(task.node_id)
    return task.slot == 0 and node is not None and node.spec.availability != Availability.ACTIVE


def may_start_first(service: Service) -> bool:
    configs = (service.spec.update_config, service.spec.rollback_config)
    return any(c is not None and c.order == "start-first" for c in configs)


def _image(service: Service) -> str:
    container = service.spec.task_template.container_spec
    return container.image if container else ""


def _hold(ok: bool, rule: str, objects: str | Iterable[str]) -> None:  # noqa: FBT001
    if not ok:
        raise Broken(rule, [objects] if isinstance(objects, str) else objects)


def touched_services(changes: Iterable[Change]) -> list[str]:
    found = Counter[str]()
    for change in changes:
        match change.obj:
            case Service(id=service_id) | Task(service_id=service_id) | Report(service_id=service_id):
                found[service_id] += 1
            case _:
                pass
    return list(found)


def touched_networks(changes: Iterable[Change]) -> list[str]:
    found = Counter[str]()
    for change in changes:
        match change.obj:
            case Network(id=network_id):
                found[network_id] += 1
            case Task(attachments=attachments):
                found.update(a.network_id for a in attachments)
            case _:
                pass
    return list(found)
