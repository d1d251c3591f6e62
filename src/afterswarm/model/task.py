"""Tasks: one try at running one slot of a service on one node. A task never moves; a new one replaces it.

The state of a task has two writers under two keys, so that they never conflict: controllers write `Task.state` (NEW,
PENDING, ASSIGNED, ORPHANED) and `Task.desired`, the agent's manager writes `Report.state` (all others). States only
grow, so the greater of the two is the newer: `Snapshot.state_of` takes the maximum.

    NEW -> PENDING             allocate    addresses and ports are there
    PENDING -> ASSIGNED        schedule    a node was chosen
    ASSIGNED -> … -> RUNNING   agent
    … -> COMPLETE, FAILED, SHUTDOWN, REJECTED   agent
    any live -> ORPHANED       liveness    the node is gone for good (or removed)
    desired REMOVE and stopped -> deleted       reap
"""

from __future__ import annotations

from enum import IntEnum

from afterswarm.model.base import Obj, Part
from afterswarm.model.service import Driver, GenericResource, PortConfig, TaskSpec


class TaskState(IntEnum):
    """A Lamport clock: of two observations of one task, the greater is the newer. Numbers are SwarmKit's."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def word(self) -> str:
        """Docker's word: `running`."""
        return self.name.lower()


CONTROLLER_STATES = frozenset({TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED, TaskState.ORPHANED})

OWNERS: dict[TaskState, str] = {  # who may move a task out of a state
    TaskState.NEW: "allocate",
    TaskState.PENDING: "schedule",
    TaskState.ASSIGNED: "agent",
    TaskState.ACCEPTED: "agent",
    TaskState.PREPARING: "agent",
    TaskState.READY: "agent",
    TaskState.STARTING: "agent",
    TaskState.RUNNING: "agent",
}


class Attachment(Part, frozen=True):
    """A task's place in one network. `address` is CIDR ("10.0.1.7/24"); "" where its host gives it one (macvlan, …)."""

    network_id: str = ""
    address: str = ""
    aliases: list[str] = []


class Task(Obj, frozen=True):
    """`slot` is 1, 2, … for replicated services and 0 for global ones, whose tasks have `node_id` from the start.

    Docker counts the slots of a replicated job from 0; ours begin at 1 as well, and `number` is what users see.
    """

    service_id: str = ""
    service_name: str = ""  # as it was when the task was made: names and labels of its container
    service_labels: dict[str, str] = {}  # likewise: for templates and options (docs/labels.md)
    log_driver: Driver | None = None  # the swarm's own, for a service that names none
    slot: int = 0
    node_id: str = ""
    spec: TaskSpec = TaskSpec()
    spec_version: int = 0  # Service.spec_version it was made from
    state: TaskState = TaskState.NEW
    desired: TaskState = TaskState.RUNNING  # READY, RUNNING, SHUTDOWN, REMOVE (COMPLETE for jobs)
    since: float = 0.0  # when `state` was reached
    message: str = ""  # why it is in `state`; shown by `docker service ps`
    err: str = ""  # what keeps it there: "no suitable node (…)"
    attachments: list[Attachment] = []
    start_after: float = 0.0  # not before this time is `desired` READY raised to RUNNING (restart delay); 0: at once
    replaces: str = ""  # id of the task whose slot it took over
    job_iteration: int | None = None  # `JobStatus.iteration` it was made in; None: not of a job
    generic_resources: list[GenericResource] = []
    ports: list[PortConfig] = []  # host-mode ports of its service: published by the engine of its node
    restarts: list[float] = []  # when earlier tries in its slot, at its spec version, ended by themselves
    failed_on: list[str] = []  # node ids, beside `restarts`: where each of them failed; "": it completed

    @property
    def number(self) -> int:
        """The slot as Docker counts it."""
        return max(self.slot - 1, 0) if self.job_iteration is not None else self.slot

    @property
    def place(self) -> str:
        """What stands for the slot in names: the node's id where there is no number, or it is 0, as with Docker."""
        return str(self.number) if self.number else self.node_id


class PortStatus(Part, frozen=True, omit_defaults=False):
    """A host-mode port as the engine published it."""

    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "host"


class Report(Obj, frozen=True):
    """What the agent of a node last said of a task. Same id as the task; written only by dispatch."""

    node_id: str = ""
    service_id: str = ""
    state: TaskState = TaskState.NEW
    since: float = 0.0  # when the agent saw it reach `state`
    started: float = 0.0  # when it reached RUNNING; 0: never
    message: str = ""
    err: str = ""
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    ports: list[PortStatus] = []
