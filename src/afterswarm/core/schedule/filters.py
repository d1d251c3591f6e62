"""Which nodes can run a task. A filter is `(task, node, context) -> reason or None`; the reasons are SwarmKit's words.

Source: SwarmKit's `manager/scheduler/filter.go` and `pipeline.go`. The first filter that says no gives the reason, and
the reasons of all nodes make the one sentence that `docker service ps` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from afterswarm.core import constraint
from afterswarm.core.schedule import generic
from afterswarm.core.schedule.room import Room, host_ports, reserved
from afterswarm.model.node import Availability, Node, NodeState
from afterswarm.model.service import Placement, Platform
from afterswarm.model.task import Task

NOT_AVAILABLE = "not available for new tasks"
INSUFFICIENT = "insufficient resources"
NO_PLUGIN = "missing plugin"
NO_CSI = "no CSI plugin for cluster volumes"
NO_SECRETS = "no plugin for secrets of a driver"
NO_ENCRYPTION = "no WireGuard for encrypted networks"
CONSTRAINTS = "scheduling constraints not satisfied"
PLATFORM = "unsupported platform"
HOST_PORT = "host-mode port already in use"
MAX_REPLICAS = "max replicas per node limit exceed"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i386": "386", "i686": "386"}


class Context(msgspec.Struct):
    """What filters may look at besides the task and the node."""

    rooms: dict[str, Room]  # how full each node is by now
    driven: frozenset[str] = frozenset()  # ids of secrets that a driver would have to bring
    encrypted: frozenset[str] = frozenset()  # ids of networks


Filter = Callable[[Task, Node, Context], str | None]


def ready(_task: Task, node: Node, _context: Context) -> str | None:
    ok = node.state == NodeState.READY and node.spec.availability == Availability.ACTIVE
    return None if ok else NOT_AVAILABLE


def resources(task: Task, node: Node, context: Context) -> str | None:
    if task.spec.resources is None or task.spec.resources.reservations is None:
        return None
    wants = reserved(task)
    room = context.rooms[node.id]
    # A task in the same slot that has to stop will have stopped before this one starts.
    leaving = Counter[str]()
    for other in room.leaving.get((task.service_id, task.slot), ()):
        leaving.update(reserved(other))
    has = {"cpu": room.resources.nano_cpus, "memory": room.resources.memory_bytes}
    for kind, there in has.items():
        if (count := wants.get(kind, 0)) and count > there - room.used[kind] + leaving[kind]:
            return INSUFFICIENT
    return None if generic.given(task, room) is not None else INSUFFICIENT


def plugins(task: Task, node: Node, context: Context) -> str | None:
    """Drivers of volumes and logs. A node that lists none of a type is not asked.

    No node has plugins for cluster volumes (CSI) and for secrets.
    """
    container = task.spec.container_spec
    if container and any(m.type == "cluster" for m in container.mounts):
        return NO_CSI
    if container and any(s.secret_id in context.driven for s in container.secrets):
        return NO_SECRETS
    wants = [("Volume", driver) for driver in _volume_drivers(task)]
    if task.spec.log_driver and task.spec.log_driver.name not in ("", "none"):
        wants.append(("Log", task.spec.log_driver.name))
    report = context.rooms[node.id].report
    if not wants or report is None:
        return None
    for kind, name in wants:
        has = {p.name.removesuffix(":latest") for p in report.description.engine.plugins if p.type == kind}
        if has and name.removesuffix(":latest") not in has:
            return NO_PLUGIN
    return None


def encryption(task: Task, node: Node, context: Context) -> str | None:
    """What is to be encrypted goes to no node that cannot. (Not of SwarmKit.)"""
    if context.encrypted.isdisjoint(a.network_id for a in task.attachments):
        return None
    report = context.rooms[node.id].report
    return None if report and report.wireguard else NO_ENCRYPTION


def constraints(task: Task, node: Node, context: Context) -> str | None:
    wants = placement(task).constraints
    met = not wants or constraint.unmet(wants, node, context.rooms[node.id].report) is None
    return None if met else CONSTRAINTS


def platform(task: Task, node: Node, context: Context) -> str | None:
    wants = placement(task).platforms
    report = context.rooms[node.id].report
    if not wants or report is None:
        return None
    has = report.description.platform
    return None if any(_runs(has, image) for image in wants) else PLATFORM


def host_port(task: Task, node: Node, context: Context) -> str | None:
    room = context.rooms[node.id]
    taken = room.ports
    if not task.ports or not taken:
        return None
    leaving = Counter(p for other in room.leaving.get((task.service_id, task.slot), ()) for p in host_ports(other))
    return HOST_PORT if any(taken[p] > leaving[p] for p in host_ports(task)) else None


def max_replicas(task: Task, node: Node, context: Context) -> str | None:
    most = placement(task).max_replicas
    return MAX_REPLICAS if most and context.rooms[node.id].copies[task.service_id] >= most else None


# Those that cannot change within a plan, for all tasks of one service and version alike, are asked once for all.
LASTING: tuple[Filter, ...] = (ready, plugins, encryption, constraints, platform)
PASSING: tuple[Filter, ...] = (resources, host_port, max_replicas)
FILTERS: tuple[Filter, ...] = (ready, resources, plugins, encryption, constraints, platform, host_port, max_replicas)


def reason(filters: Sequence[Filter], task: Task, node: Node, context: Context) -> str | None:
    """Why the node cannot run the task; `None` if it can."""
    for filter_ in filters:
        if why := filter_(task, node, context):
            return why
    return None


def explain(reasons: Iterable[str]) -> str:
    """The reasons of all nodes as one sentence, the most frequent first."""
    counted = Counter(reasons)
    parts: list[str] = []
    for why, count in sorted(counted.items(), key=lambda item: (-item[1], _ORDER[item[0]])):
        nodes = f"{count} node{'s' if count > 1 else ''}"
        if why == NOT_AVAILABLE:
            parts.append(f"{nodes} {why}")
        elif why == MAX_REPLICAS:
            parts.append(why)
        else:
            parts.append(f"{why} on {nodes}")
    return "; ".join(parts)


def placement(task: Task) -> Placement:
    return task.spec.placement or _ANYWHERE


def _volume_drivers(task: Task) -> list[str]:
    mounts = task.spec.container_spec.mounts if task.spec.container_spec else []
    drivers = [m.volume_options.driver_config for m in mounts if m.type == "volume" and m.volume_options]
    return [d.name for d in drivers if d and d.name not in ("", "local")]


def _runs(node: Platform, image: Platform) -> bool:
    same_os = not image.os or image.os.lower() == node.os.lower()
    return same_os and (not image.architecture or _architecture(image) == _architecture(node))


def _architecture(of: Platform) -> str:
    return _ARCHITECTURES.get(of.architecture.lower(), of.architecture.lower())


_ANYWHERE = Placement()
_ORDER = {
    why: n
    for n, why in enumerate(
        (
            NOT_AVAILABLE,
            INSUFFICIENT,
            NO_PLUGIN,
            NO_CSI,
            NO_SECRETS,
            NO_ENCRYPTION,
            CONSTRAINTS,
            PLATFORM,
            HOST_PORT,
            MAX_REPLICAS,
        ),
    )
}
