"""`/tasks`: list and inspect. What a task is doing is the later of what controllers wrote and its agent reported."""

from __future__ import annotations

from afterswarm.api import filters, lookup
from afterswarm.api.host import Host
from afterswarm.api.views import network as network_view
from afterswarm.api.views import render
from afterswarm.api.write import snapshot_of
from afterswarm.core import families
from afterswarm.core.orchestrate import slots
from afterswarm.http.message import Request, Response
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Json

FILTERS = frozenset({"_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"})
_MESSAGES = {  # for states that a controller left without words
    TaskState.NEW: "created",
    TaskState.PENDING: "pending task scheduling",
    TaskState.ASSIGNED: "scheduler assigned task to node",
}


async def listing(host: Host, request: Request) -> Response:
    snap = snapshot_of(host)
    wanted = filters.parse(request, FILTERS)
    services = {lookup.service(snap, term).id for term in wanted.get("service", [])}
    nodes = {lookup.node(snap, term, me=host.node_id).id for term in wanted.get("node", [])}
    words = (*(state.word for state in TaskState), "allocated")
    desired = filters.one_of(wanted, "desired-state", words, lambda v: f"Invalid desired-state filter: '{v}'")
    found = [
        rendered(snap, task)
        for task in _tasks(snap, services, nodes)
        if (not services or task.service_id in services)
        and (not nodes or task.node_id in nodes)
        and (not desired or task.desired.word in desired)
        and filters.prefixed(wanted, "id", task.id)
        and filters.prefixed(wanted, "name", lookup.task_name(snap, task))
        and filters.labelled(wanted, "label", _labels(snap, task))
        and filters.exact(wanted, "runtime", task.spec.runtime or "container")
        and ("_up-to-date" not in wanted or _up_to_date(snap, task))
    ]
    return Response.json(found)


async def inspect(host: Host, _request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    snap = snapshot_of(host)
    return Response.json(rendered(snap, lookup.task(snap, id)))


def _tasks(snap: Snapshot, services: set[str], nodes: set[str]) -> list[Task]:
    """The tasks to look through."""
    if services:
        return [task for key in sorted(services) for task in snap.tasks_of(key)]
    if nodes:
        return [task for key in sorted(nodes) for task in snap.tasks_on(key)]
    return [snap.tasks[key] for key in sorted(snap.tasks)]


def _labels(snap: Snapshot, task: Task) -> dict[str, str]:
    """Labels of a task are those of its service; its container's are not looked at."""
    service = snap.services.get(task.service_id)
    return service.spec.labels if service else {}


def _up_to_date(snap: Snapshot, task: Task) -> bool:
    """As updates judge it: after a rollback, tasks that were never touched are up to date, whatever their version."""
    service = snap.services.get(task.service_id)
    if service is None or slots.outdated(snap, service, task):
        return False
    # A job's task that was given up with its node is not waited for: command lines would take it for the slot's.
    return task.job_iteration is None or slots.wanted(task) or slots.state_is_over(snap, task)


def rendered(snap: Snapshot, task: Task) -> Json:
    shown = {
        **render.base(task),
        "Labels": {},
        "Spec": spec(task),
        "ServiceID": task.service_id,
        **({"Slot": task.number} if task.number else {}),
        **({"NodeID": task.node_id} if task.node_id else {}),
        "Status": _status(snap, task),
        "DesiredState": task.desired.word,
        "NetworksAttachments": [
            {"Network": network_view.attached(network), "Addresses": families.both(network, a.address)}
            for a in task.attachments
            if (network := snap.networks.get(a.network_id))
        ],
    }
    if task.generic_resources:
        shown["GenericResources"] = [render.plain(r) for r in task.generic_resources]
    if task.job_iteration is not None:
        shown["JobIteration"] = {"Index": task.job_iteration}
    return shown


def spec(task: Task) -> Json:
    shown = {"ForceUpdate": 0, **render.plain(task.spec)}
    if "ContainerSpec" in shown:
        shown["ContainerSpec"].setdefault("Isolation", "default")
    return shown


def _status(snap: Snapshot, task: Task) -> Json:
    report = snap.reports.get(task.id)
    state = snap.state_of(task)
    agents = report is not None and report.state >= task.state
    status: Json = {
        "Timestamp": render.time((report.since if report and agents else task.since) or task.created),
        "State": state.word,
        "Message": (report.message if report and agents else task.message) or _MESSAGES.get(state, state.word),
        "PortStatus": {},
    }
    if err := (report.err if report and agents else "") or task.err:
        status["Err"] = err
    if report and report.container_id:
        status["ContainerStatus"] = _container(report)
    if report and report.ports:
        status["PortStatus"] = {"Ports": [render.plain(p) for p in report.ports]}
    return status


def _container(report: Report) -> Json:
    """The process id of a container that has stopped is no longer its own."""
    pid = report.pid if report.state <= TaskState.RUNNING else 0
    return {"ContainerID": report.container_id, "PID": pid, "ExitCode": report.exit_code}


ROUTES = [
    ("GET", "/tasks", listing),
    ("GET", "/tasks/{id}", inspect),
]
