"""Services as Docker's JSON, with the members that Docker always shows, and on request with all defaults."""

from __future__ import annotations

from typing import Any

from afterswarm.api.views import render
from afterswarm.core import families
from afterswarm.core.orchestrate import jobs, slots
from afterswarm.model.node import NodeState
from afterswarm.model.service import (
    SECOND,
    EndpointSpec,
    PortConfig,
    Service,
    ServiceSpec,
    UpdateConfig,
    UpdateStatus,
    VirtualIP,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.ports import Json

_ROLLOUT: Json = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5 * SECOND,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}
DEFAULTS: Json = {  # what `?insertDefaults=true` fills in
    "TaskTemplate": {
        "ContainerSpec": {"StopGracePeriod": 10 * SECOND, "DNSConfig": {}},
        "Resources": {"Limits": {}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 5 * SECOND, "MaxAttempts": 0},
        "Placement": {},
    },
    "UpdateConfig": _ROLLOUT,
    "RollbackConfig": _ROLLOUT,
    "EndpointSpec": {"Mode": "vip"},
}


def rendered(snap: Snapshot, service: Service, *, defaults: bool = False) -> Json:
    shown = {**render.base(service), "Spec": spec(service.spec, defaults=defaults)}
    if service.previous_spec:
        shown["PreviousSpec"] = spec(service.previous_spec, defaults=defaults)
    shown["Endpoint"] = _endpoint(snap, service)
    if service.update_status:
        shown["UpdateStatus"] = _update_status(service.update_status)
    if job := service.job_status:
        shown["JobStatus"] = {
            "JobIteration": {"Index": job.iteration},
            "LastExecution": render.time(job.last_execution),
        }
    return shown


def spec(wanted: ServiceSpec, *, defaults: bool = False) -> Json:
    shown = render.annotated(wanted)
    template = shown.setdefault("TaskTemplate", {})
    template.setdefault("ForceUpdate", 0)
    if wanted.task_template.container_spec is not None:
        template.setdefault("Runtime", "container")
        template["ContainerSpec"].setdefault("Isolation", "default")
    shown.setdefault("Mode", {"Replicated": {"Replicas": 1}})
    for name, config in (("UpdateConfig", wanted.update_config), ("RollbackConfig", wanted.rollback_config)):
        if config:
            shown[name] = _rollout(config)
    if wanted.endpoint_spec:
        shown["EndpointSpec"] = _endpoint_spec(wanted.endpoint_spec)
    if not defaults:
        return shown
    rollouts = ("UpdateConfig", "RollbackConfig") if wanted.mode.is_job else ()
    return merged({key: value for key, value in DEFAULTS.items() if key not in rollouts}, shown)


def merged(under: Json, over: Json) -> Json:
    """`over`, with what it lacks taken from `under`, at any depth."""
    result: Json = dict(under)
    for key, value in over.items():
        below = under.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def status(snap: Snapshot, service: Service) -> Json:
    """`ServiceStatus`: how many tasks run, should run, and have completed. A node that is down runs none.

    Of a job, tasks of the present execution; a global one should run those that have not completed yet.
    """
    tasks = [t for t in snap.tasks_of(service.id) if not service.job_status or not slots.outdated(snap, service, t)]
    states = {task.id: snap.state_of(task) for task in tasks}
    mode = service.spec.mode
    if mode.replicated is not None:
        desired = 1 if mode.replicated.replicas is None else mode.replicated.replicas
    elif mode.replicated_job is not None:
        desired = mode.replicated_job.max_concurrent or 0
    else:
        desired = sum(slots.wanted(t) and not slots.done(snap, t) for t in tasks)
    return {
        "RunningTasks": sum(states[t.id] == TaskState.RUNNING and not _down(snap, t) for t in tasks),
        "DesiredTasks": desired,
        "CompletedTasks": jobs.completed(snap, service) if service.job_status else 0,
    }


def _down(snap: Snapshot, task: Task) -> bool:
    node = snap.nodes.get(task.node_id)
    return node is None or node.state == NodeState.DOWN


def _rollout(config: UpdateConfig) -> Json:
    """Docker names the defaults of choices that the client left open."""
    shown = {key: value for key, value in render.plain(config).items() if value != ""}
    return {"FailureAction": "pause", "Order": "stop-first", **shown}


def _port(port: PortConfig) -> Json:
    """Without what Docker leaves out when it is not given."""
    return {key: value for key, value in render.plain(port).items() if value not in ("", 0)}


def _endpoint_spec(wanted: EndpointSpec) -> Json:
    shown: Json = {"Mode": wanted.mode or "vip"}
    if wanted.ports:
        shown["Ports"] = [_port(p) for p in wanted.ports]
    return shown


def _endpoint(snap: Snapshot, service: Service) -> Json:
    given = service.endpoint
    if given is None:
        return {"Spec": {}}
    shown: Json = {"Spec": _endpoint_spec(service.spec.endpoint_spec or EndpointSpec())}
    if given.ports:
        shown["Ports"] = [_port(p) for p in given.ports]
    if given.virtual_ips:
        shown["VirtualIPs"] = [render.plain(ip) for own in given.virtual_ips for ip in _families(snap, own)]
    return shown


def _families(snap: Snapshot, own: VirtualIP) -> list[VirtualIP]:
    """Both addresses, IPv4's first. Nobody asks for those in the ingress network."""
    network = snap.networks.get(own.network_id)
    if network is None or network.spec.ingress:
        return [own]
    return [VirtualIP(network_id=own.network_id, addr=address) for address in families.both(network, own.addr)]


def _update_status(progress: UpdateStatus) -> Json:
    shown: dict[str, Any] = {"State": progress.state.value}
    if progress.started_at:
        shown["StartedAt"] = render.time(progress.started_at)
    if progress.completed_at:
        shown["CompletedAt"] = render.time(progress.completed_at)
    return {**shown, "Message": progress.message}
