"""A local volume pins its slot: a database is never started on the empty disk of another host without being told to.

With the first assignment of a slot, each named local volume that it mounts gets a record (`model.volume`) of where it
lies; from then on the slot is only placed there. Two things lift the pin: the service's label
`afterswarm.volumes=anywhere`, and the removal of the node from the swarm. A global service's tasks have their node
anyway.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core import template
from afterswarm.core.schedule import filters
from afterswarm.core.schedule.room import Room
from afterswarm.core.template.values import Fields
from afterswarm.model.node import Availability, NodeState
from afterswarm.model.service import Mount, Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task
from afterswarm.model.volume import Volume

LABEL = "afterswarm.volumes"
ANYWHERE = "anywhere"

_WHY = {
    filters.INSUFFICIENT: "has insufficient resources",
    filters.NO_PLUGIN: "lacks a plugin",
    filters.CONSTRAINTS: "does not satisfy the scheduling constraints",
    filters.PLATFORM: "has an unsupported platform",
    filters.HOST_PORT: "has the host-mode port in use",
    filters.MAX_REPLICAS: "runs as many replicas as allowed per node",
}
_NOT_ACTIVE = {Availability.DRAIN: "is drained", Availability.PAUSE: "is paused"}


class Ties(msgspec.Struct, frozen=True):
    """What a task's volumes say of nodes."""

    names: list[str] = []  # its local volumes
    records: dict[str, Volume] = {}  # of this slot, by name
    pins: list[Volume] = []  # those records that must be obeyed
    strangeness: dict[str, int] = {}  # node id -> the higher, the less it should be chosen


def ties(snap: Snapshot, service: Service, task: Task, by_service: dict[str, list[Volume]]) -> Ties:
    """`by_service`: all records by the name of their service (`by_service` below)."""
    names = local_volumes(service, task)
    if not names:
        return Ties()
    known = [v for v in by_service.get(service.name, ()) if v.name in names]
    records = {v.name: v for v in known if v.slot == task.slot}
    homes = [v for v in records.values() if v.node_id in snap.nodes]
    if homes and service.spec.labels.get(LABEL) != ANYWHERE:
        return Ties(names=names, records=records, pins=homes)
    if homes:
        at_home = {v.node_id for v in homes}
        return Ties(names=names, records=records, strangeness={n: int(n not in at_home) for n in snap.nodes})
    # Another slot's data may lie under the same name: on one node, the two would share it.
    return Ties(names=names, records=records, strangeness=Counter(v.node_id for v in known))


def by_service(snap: Snapshot) -> dict[str, list[Volume]]:
    """Ordered by name and slot."""
    found: defaultdict[str, list[Volume]] = defaultdict(list)
    for volume in sorted(snap.volumes.values(), key=lambda v: (v.name, v.slot, v.id)):
        found[volume.service].append(volume)
    return found


def local_volumes(service: Service, task: Task) -> list[str]:
    """Names of the volumes that the task will find on its node and nowhere else. None for a global task."""
    mounts = task.spec.container_spec.mounts if task.spec.container_spec and task.slot else []
    return list(dict.fromkeys(_expanded(m.source, service, task) for m in mounts if _is_local(m)))


def placed(service: Service, task: Task, tied: Ties, node_id: str) -> list[tuple[Volume | None, Volume]]:
    """The records, old and new, that go with an assignment of the task to the node."""
    changed: list[tuple[Volume | None, Volume]] = []
    for name in tied.names:
        old = tied.records.get(name)
        if old is None:
            volume_id = ids.derive("volume", name, service.name, task.slot)
            new = Volume(id=volume_id, name=name, service=service.name, slot=task.slot, node_id=node_id)
            changed.append((None, new))
        elif old.node_id != node_id:
            changed.append((old, replace(old, node_id=node_id)))
    return changed


def explain(tied: Ties, rooms: dict[str, Room], reason: str | None) -> str:
    """Why a pinned task waits: `volume "db-data" is on node swarm-2, which is down`."""
    where = [f'volume "{v.name}" is on node {_hostname(rooms[v.node_id])}' for v in tied.pins]
    if len({v.node_id for v in tied.pins}) > 1 or reason is None:
        return " and ".join(where)
    return f"{where[0]}, which {_why(rooms[tied.pins[0].node_id], reason)}"


def _why(room: Room, reason: str) -> str:
    if room.node.state != NodeState.READY:
        return f"is {room.node.state}"
    return _WHY.get(reason) or _NOT_ACTIVE.get(room.node.spec.availability, reason)


def _hostname(room: Room) -> str:
    return (room.report.description.hostname if room.report else "") or room.node.id


def _is_local(mount: Mount) -> bool:
    if mount.type != "volume" or not mount.source:
        return False
    driver = mount.volume_options.driver_config if mount.volume_options else None
    if driver is None:
        return True
    remote = "addr=" in driver.options.get("o", "") or driver.options.get("type", "").startswith(("nfs", "cifs"))
    return driver.name in ("", "local") and not remote


def _expanded(source: str, service: Service, task: Task) -> str:
    known = {
        "Service": Fields("service", ID=service.id, Name=service.name, Labels=task.service_labels),
        **({"Task": Fields("task", Slot=str(task.number))} if task.number else {}),
    }
    try:
        return template.expand(source, Fields("context", **known))
    except template.Fault:  # named after the node or the task; the agent says so if it cannot be understood at all
        return source
