"""The cluster as one manager sees it at one revision: what every planner reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Leader, Node, NodeReport, NodeState, Suspicion
from afterswarm.model.secret import Config, Payload, Secret
from afterswarm.model.service import Service
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.model.volume import ClusterVolume, Volume

if TYPE_CHECKING:
    from afterswarm.model.base import Obj

KINDS: dict[str, type[Obj]] = {
    "cluster": Cluster,
    "cluster-volume": ClusterVolume,
    "config": Config,
    "guest": Guest,
    "leader": Leader,
    "network": Network,
    "node": Node,
    "node-report": NodeReport,
    "payload": Payload,
    "report": Report,
    "secret": Secret,
    "service": Service,
    "suspicion": Suspicion,
    "task": Task,
    "volume": Volume,
}
KIND_OF: dict[type[Obj], str] = {cls: kind for kind, cls in KINDS.items()}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All objects by kind and id. `now` is seconds since the epoch.

    Valid until the next `await` of whoever holds it: the cache behind may share its dictionaries.
    `tasks_by_service` and `tasks_by_node` are indexes of `tasks` (the values ordered by slot and id); build a
    snapshot with `Snapshot.of` and they are right.
    """

    rev: int = 0
    now: float = 0.0
    clusters: Mapping[str, Cluster] = {}
    cluster_volumes: Mapping[str, ClusterVolume] = {}
    configs: Mapping[str, Config] = {}
    guests: Mapping[str, Guest] = {}
    leaders: Mapping[str, Leader] = {}
    networks: Mapping[str, Network] = {}
    nodes: Mapping[str, Node] = {}
    node_reports: Mapping[str, NodeReport] = {}
    payloads: Mapping[str, Payload] = {}
    reports: Mapping[str, Report] = {}
    secrets: Mapping[str, Secret] = {}
    services: Mapping[str, Service] = {}
    suspicions: Mapping[str, Suspicion] = {}
    tasks: Mapping[str, Task] = {}
    volumes: Mapping[str, Volume] = {}
    tasks_by_service: Mapping[str, list[Task]] = {}
    tasks_by_node: Mapping[str, list[Task]] = {}

    @staticmethod
    def of(objects: Iterable[Obj], *, rev: int = 0, now: float = 0.0) -> Snapshot:
        """A snapshot of these objects."""
        by_kind: dict[str, dict[str, Obj]] = {kind: {} for kind in KINDS}
        for obj in objects:
            by_kind[KIND_OF[type(obj)]][obj.id] = obj
        return Snapshot.from_kinds(by_kind, rev=rev, now=now)

    @staticmethod
    def from_kinds(by_kind: Mapping[str, Mapping[str, Obj]], *, rev: int, now: float) -> Snapshot:
        """A snapshot that shares these dictionaries (kind -> id -> object); the indexes are built here."""
        by_service: dict[str, list[Task]] = {}
        by_node: dict[str, list[Task]] = {}
        tasks = by_kind["task"].values()
        for task in sorted((t for t in tasks if isinstance(t, Task)), key=lambda t: (t.slot, t.id)):
            by_service.setdefault(task.service_id, []).append(task)
            if task.node_id:
                by_node.setdefault(task.node_id, []).append(task)
        fields = {kind.replace("-", "_") + "s": objects for kind, objects in by_kind.items()}
        return Snapshot(
            rev=rev,
            now=now,
            tasks_by_service=by_service,
            tasks_by_node=by_node,
            **fields,  # type: ignore[arg-type]
        )

    @property
    def cluster(self) -> Cluster | None:
        return next(iter(self.clusters.values()), None)

    @property
    def leader(self) -> Leader | None:
        return self.leaders.get("leader")

    def tasks_of(self, service_id: str) -> list[Task]:
        """The tasks of a service by slot and id, whatever their state."""
        return self.tasks_by_service.get(service_id, [])

    def tasks_on(self, node_id: str) -> list[Task]:
        """The tasks assigned to a node by slot and id, whatever their state."""
        return self.tasks_by_node.get(node_id, [])

    def state_of(self, task: Task) -> TaskState:
        """Where the task is: the greater of what controllers wrote and what its agent reported."""
        report = self.reports.get(task.id)
        return max(task.state, report.state) if report else task.state

    def is_ready(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.state == NodeState.READY
