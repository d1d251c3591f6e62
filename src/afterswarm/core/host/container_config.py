"""What a task asks of the engine: its specification as the body of `POST /containers/create`.

Pure translation, field by field, for API 1.41 (Docker Engine 20.10): only the first network can be given at creation,
the others are connected before the start. Source: moby `daemon/cluster/executor/container/container.go`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec

from afterswarm.core.host.template import expand
from afterswarm.core.options.table import applied
from afterswarm.model.service import SECOND, ContainerSpec, GenericResource, Mount, Platform
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
    spec = spec_of(task)
    fields = template_fields(task, place)
    made: Json = {
        "Image": spec.image,
        "Hostname": expand(spec.hostname, fields),
        "Env": [*(expand(e, fields) for e in spec.env), *_resource_env(task.generic_resources)],
        "WorkingDir": spec.dir,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Labels": {**spec.labels, **_labels(task, place)},
        "StopTimeout": ceil(grace(task)),
        "HostConfig": _host_config(task, fields, endpoints, dns, files or {}),
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


def template_fields(task: Task, place: Place) -> dict[str, str]:
    """What templates may say: `Task.Slot` is the node's id for a global service, as in Docker."""
    return {
        "Service.ID": task.service_id,
        "Service.Name": task.service_name,
        "Node.ID": place.node_id,
        "Node.Hostname": place.hostname,
        "Node.Platform.Architecture": place.platform.architecture,
        "Node.Platform.OS": place.platform.os,
        "Task.ID": task.id,
        "Task.Name": name(task),
        "Task.Slot": task.place,
    }


def _labels(task: Task, place: Place) -> dict[str, str]:
    return {
        f"{LABEL}.task": "",
        TASK_LABEL: task.id,
        f"{LABEL}.task.name": name(task),
        f"{LABEL}.node.id": place.node_id,
        f"{LABEL}.service.id": task.service_id,
        f"{LABEL}.service.name": task.service_name,
    }


def _host_config(
    task: Task,
    fields: Mapping[str, str],
    endpoints: Sequence[tuple[str, Json]],
    dns: Sequence[str],
    files: Mapping[str, str],
) -> Json:
    spec = spec_of(task)
    config: Json = {
        "RestartPolicy": {"Name": "no"},  # a task is started once; whatever comes after it is another task
        "AutoRemove": False,
        "ReadonlyRootfs": spec.read_only,
        "Mounts": [_mount(m, fields) for m in spec.mounts] + [_file(t, p) for t, p in files.items()],
        "CapAdd": spec.capability_add,
        "CapDrop": spec.capability_drop,
        "GroupAdd": spec.groups,
        "Sysctls": spec.sysctls,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
        "OomScoreAdj": spec.oom_score_adj,
        "ExtraHosts": [f"{n}:{ip}" for ip, *names in map(str.split, filter(str.strip, spec.hosts)) for n in names],
        "SecurityOpt": _security(spec.privileges or {}),
        **_limits(task),
    }
    own = spec.dns_config
    config["Dns"] = list(dns) or (own.nameservers if own else [])  # our resolver asks the others itself
    if own:
        config["DnsSearch"] = own.search
        config["DnsOptions"] = own.options
    if spec.init is not None:
        config["Init"] = spec.init
    if spec.isolation:
        config["Isolation"] = spec.isolation
    if task.spec.log_driver and task.spec.log_driver.name:
        config["LogConfig"] = {"Type": task.spec.log_driver.name, "Config": task.spec.log_driver.options}
    if task.ports:
        config["PortBindings"] = _port_bindings(task)
    if endpoints:
        config["NetworkMode"] = endpoints[0][0]
    return config


def _limits(task: Task) -> Json:
    """Reservations are the scheduler's alone, as in Docker."""
    wanted = task.spec.resources
    config: Json = {}
    if wanted is None:
        return config
    if wanted.limits:
        config["NanoCpus"] = wanted.limits.nano_cpus
        config["Memory"] = wanted.limits.memory_bytes
        if wanted.limits.pids:
            config["PidsLimit"] = wanted.limits.pids
    if wanted.swap_bytes is not None:
        memory = wanted.limits.memory_bytes if wanted.limits else 0
        config["MemorySwap"] = -1 if wanted.swap_bytes < 0 else memory + wanted.swap_bytes
    if wanted.memory_swappiness is not None:
        config["MemorySwappiness"] = wanted.memory_swappiness
    return config


def _mount(mount: Mount, fields: Mapping[str, str]) -> Json:
    made = {k: v for k, v in msgspec.to_builtins(mount).items() if v is not None}
    return made | {"Source": expand(mount.source, fields), "Target": expand(mount.target, fields)}


def _file(target: str, path: str) -> Json:
    return {"Type": "bind", "Source": path, "Target": target, "ReadOnly": True}


def _port_bindings(task: Task) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in task.ports:
        published = str(port.published_port) if port.published_port else ""  # "": the engine draws one
        bindings.setdefault(f"{port.target_port}/{port.protocol}", []).append({"HostPort": published})
    return bindings


def _resource_env(resources: Sequence[GenericResource]) -> list[str]:
    """`DOCKER_RESOURCE_GPU=0,1`: which of a node's named resources are this task's."""
    values: dict[str, list[str]] = {}
    for resource in resources:
        for part in (resource.named_resource_spec, resource.discrete_resource_spec):
            if part:
                values.setdefault(str(part.get("Kind", "")), []).append(str(part.get("Value", "")))
    return [f"DOCKER_RESOURCE_{kind.upper()}={','.join(found)}" for kind, found in values.items()]


def _security(privileges: Mapping[str, Any]) -> list[str]:
    """`Privileges` of the API as `--security-opt`."""
    options: list[str] = []
    selinux = privileges.get("SELinuxContext") or {}
    if selinux.get("Disable"):
        options.append("label=disable")
    options += [f"label={key.lower()}:{selinux[key]}" for key in ("User", "Role", "Type", "Level") if selinux.get(key)]
    seccomp = privileges.get("Seccomp") or {}
    if seccomp.get("Mode") == "unconfined":
        options.append("seccomp=unconfined")
    elif seccomp.get("Mode") == "custom":
        options.append(f"seccomp={base64.b64decode(seccomp.get('Profile') or '').decode(errors='replace')}")
    if (privileges.get("AppArmor") or {}).get("Mode") == "disabled":
        options.append("apparmor=unconfined")
    if privileges.get("NoNewPrivileges"):
        options.append("no-new-privileges=true")
    return options
