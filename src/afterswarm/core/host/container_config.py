"""What a task asks of the engine: its specification as the body of `POST /containers/create`.

Pure translation, field by field, for API 1.41 (Docker Engine 20.10): only the first network can be given at creation,
the others are connected before the start. Source: moby `daemon/cluster/executor/container/container.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec

from afterswarm.core.host import template
from afterswarm.core.host.host_config import host_config
from afterswarm.core.options.table import applied
from afterswarm.core.template.values import Fields
from afterswarm.model.refused import Refused
from afterswarm.model.service import SECOND, ContainerSpec, GenericResource, Platform
from afterswarm.model.task import Task

Json = dict[str, Any]
LABEL = "com.docker.swarm"
TASK_LABEL = f"{LABEL}.task.id"
DEFAULT_GRACE = 10.0  # seconds


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The node that a container is made on, as templates and labels name it."""

    node_id: str
    hostname: str = ""
    platform: Platform = Platform()


def spec_of(task: Task) -> ContainerSpec:
    return task.spec.container_spec or ContainerSpec()


def name(task: Task) -> str:
    """`web.1.<task id>`; tools parse this. A task of a global service has its node in the place of the slot."""
    return f"{task.service_name or task.service_id}.{task.place}.{task.id}"


def grace(task: Task) -> float:
    """Seconds between the stop signal and SIGKILL."""
    period = spec_of(task).stop_grace_period
    return DEFAULT_GRACE if period is None else period / SECOND


def body(
    task: Task,
    place: Place,
    *,
    endpoints: Sequence[tuple[str, Json]] = (),
    dns: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> Json:
    """The create request. `endpoints` are the engine's networks in order, `files` target -> path on this host.

    Raises `Refused` when a template or a label of an option in it cannot be read.
    """
    spec = template.expanded(spec_of(task), template_fields(task, place))
    made: Json = {
        "Image": spec.image,
        "Hostname": spec.hostname,
        "Env": [*spec.env, *_resource_env(task.generic_resources)],
        "WorkingDir": spec.dir,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Labels": {**spec.labels, **_labels(task, place)},
        "StopTimeout": ceil(grace(task)),
        "HostConfig": host_config(task, spec, endpoints, dns, files or {}),
    }
    if spec.command:
        made["Entrypoint"] = spec.command
    if spec.args:
        made["Cmd"] = spec.args
    if spec.stop_signal:
        made["StopSignal"] = spec.stop_signal
    if spec.healthcheck is not None:
        made["Healthcheck"] = msgspec.to_builtins(spec.healthcheck)
    if task.ports:
        made["ExposedPorts"] = {f"{p.target_port}/{p.protocol}": {} for p in task.ports}
    if endpoints:
        network, endpoint = endpoints[0]
        made["NetworkingConfig"] = {"EndpointsConfig": {network: endpoint}}
        if endpoint.get("MacAddress"):
            made["MacAddress"] = endpoint["MacAddress"]  # before API 1.44 the endpoint's own field is not read
    return applied(task.service_labels, made)


def template_fields(task: Task, place: Place) -> Fields:
    """What templates may say: `Task.Slot` is the node's id for a global service, as in Docker."""
    return template.context(
        service={"ID": task.service_id, "Name": task.service_name, "Labels": task.service_labels},
        node={"ID": place.node_id, "Hostname": place.hostname},
        platform={"Architecture": place.platform.architecture, "OS": place.platform.os},
        task={"ID": task.id, "Name": name(task), "Slot": task.place},
    )


def hostname(task: Task, place: Place) -> str:
    """What the container will be called by itself; "" when its engine decides, or cannot."""
    try:
        alone = ContainerSpec(hostname=spec_of(task).hostname)
        return template.expanded(alone, template_fields(task, place)).hostname
    except Refused:
        return ""


def _labels(task: Task, place: Place) -> dict[str, str]:
    return {
        f"{LABEL}.task": "",
        TASK_LABEL: task.id,
        f"{LABEL}.task.name": name(task),
        f"{LABEL}.node.id": place.node_id,
        f"{LABEL}.service.id": task.service_id,
        f"{LABEL}.service.name": task.service_name,
    }


def _resource_env(resources: Sequence[GenericResource]) -> list[str]:
    """`DOCKER_RESOURCE_GPU=0,1`: which of a node's named resources are this task's."""
    values: dict[str, list[str]] = {}
    for resource in resources:
        for part in (resource.named_resource_spec, resource.discrete_resource_spec):
            if part:
                values.setdefault(str(part.get("Kind", "")), []).append(str(part.get("Value", "")))
    return [f"DOCKER_RESOURCE_{kind.upper()}={','.join(found)}" for kind, found in values.items()]
