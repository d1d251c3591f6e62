"""What is left on each node: scratch paper of one plan, on which every task that it places is entered at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec

from afterswarm.model.node import Node, NodeReport
from afterswarm.model.service import GenericResource, Resources
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

FAILED_LATELY = 300.0  # seconds for which a failure counts against a node
Number = tuple[str, int]  # protocol and port


class Room(msgspec.Struct):
    """One node. A task counts until its container has stopped; as a copy of its service, until it has to stop.

    One whose successor is prepared already has to stop, too, though it was not told yet.
    """

    node: Node
    report: NodeReport | None
    tasks: int = 0
    copies: Counter[str] = msgspec.field(default_factory=Counter)  # service id -> tasks
    in_slot: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)  # the same by service id and slot
    used: Counter[str] = msgspec.field(default_factory=Counter)  # "cpu", "memory", and kinds of discrete resources
    named: defaultdict[str, set[str]] = msgspec.field(default_factory=lambda: defaultdict(set))  # kind -> given names
    ports: Counter[Number] = msgspec.field(default_factory=Counter)  # host-mode ports
    leaving: dict[tuple[str, int], list[Task]] = msgspec.field(default_factory=dict)  # (service id, slot) -> tasks
    failures: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)  # (service id, spec version) -> times

    @property
    def resources(self) -> Resources:
        return self.report.description.resources if self.report else Resources()

    @property
    def free_share(self) -> float:
        """How much of it nobody has reserved: 0 to 1, the mean of processors and memory."""
        has = self.resources
        cpu = 1 - self.used["cpu"] / has.nano_cpus if has.nano_cpus else 0.0
        memory = 1 - self.used["memory"] / has.memory_bytes if has.memory_bytes else 0.0
        return (cpu + memory) / 2

    def enter(self, task: Task, *, goes: bool = False) -> None:
        """The task runs here, or will. `goes`: it makes way for another one."""
        self.used.update(reserved(task))
        for kind, name in names_of(task.generic_resources):
            self.named[kind].add(name)
        self.ports.update(host_ports(task))
        if task.desired <= TaskState.COMPLETE and not goes:
            self.tasks += 1
            self.copies[task.service_id] += 1
            self.in_slot[task.service_id, task.slot] += 1
        else:
            self.leaving.setdefault((task.service_id, task.slot), []).append(task)


def rooms(snap: Snapshot) -> dict[str, Room]:
    """By node id, ordered."""
    found = {id_: Room(node=node, report=snap.node_reports.get(id_)) for id_, node in sorted(snap.nodes.items())}
    prepared = {_place(t) for t in snap.tasks.values() if t.desired < TaskState.RUNNING and not _over(snap, t)}
    for node_id, room in found.items():
        for task in snap.tasks_on(node_id):
            state = snap.state_of(task)
            if TaskState.ASSIGNED <= state <= TaskState.RUNNING:
                room.enter(task, goes=task.desired >= TaskState.RUNNING and _place(task) in prepared)
                report = snap.reports.get(task.id)
                drawn = {(p.protocol, p.published_port) for p in report.ports} if report else set()
                room.ports.update(drawn - set(host_ports(task)))
    for node_id, version in _failures(snap):
        if node_id in found:
            found[node_id].failures[version] += 1
    return found


def _failures(snap: Snapshot) -> Iterator[tuple[str, tuple[str, int]]]:
    """Where tries failed lately, and of which service and version. The last task of a slot knows of those before it."""
    replaced = {task.replaces for task in snap.tasks.values()}
    for task in snap.tasks.values():
        if task.id in replaced:
            continue
        version = task.service_id, task.spec_version
        for when, node_id in zip(task.restarts, task.failed_on, strict=False):
            if snap.now - when < FAILED_LATELY:
                yield node_id, version
        failed = snap.state_of(task) in (TaskState.FAILED, TaskState.REJECTED)
        if failed and snap.now - _ended(snap, task) < FAILED_LATELY:
            yield task.node_id, version


def reserved(task: Task) -> dict[str, int]:
    """What the task reserves, in the words of `Room.used`. Named resources that it was given are not in it."""
    wants = task.spec.resources.reservations if task.spec.resources else None
    if wants is None:
        return {}
    found = {"cpu": wants.nano_cpus, "memory": wants.memory_bytes}
    given = {kind for kind, _ in names_of(task.generic_resources)}
    for kind, count in counts_of(wants.generic_resources):
        if kind not in given:
            found[f"generic/{kind}"] = found.get(f"generic/{kind}", 0) + count
    return found


def host_ports(task: Task) -> list[Number]:
    return [(p.protocol, p.published_port) for p in task.ports if p.publish_mode == "host" and p.published_port]


def counts_of(resources: list[GenericResource]) -> list[tuple[str, int]]:
    found = [r.discrete_resource_spec for r in resources if r.discrete_resource_spec]
    return [(str(r.get("Kind", "")), int(r.get("Value", 0))) for r in found]


def names_of(resources: list[GenericResource]) -> list[tuple[str, str]]:
    found = [r.named_resource_spec for r in resources if r.named_resource_spec]
    return [(r.get("Kind", ""), r.get("Value", "")) for r in found]


def _place(task: Task) -> tuple[str, int, str]:
    return task.service_id, task.slot, "" if task.slot else task.node_id


def _over(snap: Snapshot, task: Task) -> bool:
    return snap.state_of(task) > TaskState.RUNNING


def _ended(snap: Snapshot, task: Task) -> float:
    report = snap.reports.get(task.id)
    return report.since if report else task.since
