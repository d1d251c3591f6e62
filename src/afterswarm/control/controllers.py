"""Which planners run on the leader, and which of their keys a change touches.

The order is no matter of correctness: each plans from what is stored, and guards refuse what was planned from a
picture that has moved on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from afterswarm.core import allocate, schedule
from afterswarm.core.cluster import liveness, rotation
from afterswarm.core.orchestrate import drain, enforce, everywhere, jobs, reap, replicated, restart, tasks, update
from afterswarm.model.base import Change, Plan
from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Leader, Node, NodeReport, Suspicion
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task
from afterswarm.model.volume import Volume

ALL_NODES = "nodes"


class Controller(msgspec.Struct, frozen=True):
    name: str
    keys_of: Callable[[Change], Iterable[str]]
    plan: Callable[[Snapshot, str], Plan]


def services_touched(change: Change) -> Iterator[str]:
    """The service, by itself or through one of its tasks."""
    match change.obj:
        case Service(id=service_id) | Task(service_id=service_id):
            yield service_id
        case _:
            pass


def services_and_reports_touched(change: Change) -> Iterator[str]:
    """Also what agents say of tasks."""
    if isinstance(change.obj, Report):
        yield change.obj.service_id
    yield from services_touched(change)


def slots_touched(change: Change) -> Iterator[str]:
    """Also nodes, with everything that is on them."""
    match change.obj:
        case Node(id=node_id) | NodeReport(id=node_id):
            yield f"{tasks.NODE}{node_id}"
        case _:
            pass
    yield from services_and_reports_touched(change)


def verdicts_touched(change: Change) -> Iterator[str]:
    if isinstance(change.obj, Node | NodeReport | Suspicion | Leader):
        yield ALL_NODES


def trust_touched(change: Change) -> Iterator[str]:
    if isinstance(change.obj, Cluster | Node | NodeReport):
        yield tasks.CLUSTER


def rubbish_touched(change: Change) -> Iterator[str]:
    """See the keys of `core.reap`."""
    match change.obj:
        case Report(id=report_id):
            yield f"{reap.REPORT}{report_id}"
        case Network(id=network_id):
            yield f"{reap.NETWORK}{network_id}"
        case Volume(node_id=node_id) | Guest(node_id=node_id) | Suspicion(id=node_id):
            yield f"{tasks.NODE}{node_id}"
        case Cluster():
            yield tasks.CLUSTER
        case _:
            pass
    yield from slots_touched(change)


CONTROLLERS = (
    Controller("liveness", verdicts_touched, liveness.plan),
    Controller("rotation", trust_touched, rotation.plan),
    Controller("enforce", slots_touched, enforce.plan),
    Controller("drain", slots_touched, drain.plan),
    Controller("replicated", services_and_reports_touched, replicated.plan),
    Controller("everywhere", slots_touched, everywhere.plan),
    Controller("jobs", slots_touched, jobs.plan),
    Controller("allocate", allocate.keys_of, allocate.plan),
    Controller("schedule", schedule.keys_of, schedule.plan),
    Controller("restart", slots_touched, restart.plan),
    Controller("update", slots_touched, update.plan),
    Controller("reap", rubbish_touched, reap.plan),
)
