"""The `HostConfig` of a task's container: what the engine does around its process.

Pure translation, field by field. Source: moby `daemon/cluster/executor/container/container.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from afterswarm.core import publishing
from afterswarm.model.network import PREDEFINED
from afterswarm.model.service import ContainerSpec, CredentialSpec, Mount, Privileges, TaskSpec
from afterswarm.model.task import Task

Json = dict[str, Any]


def host_config(
    task: Task, spec: ContainerSpec, endpoints: Sequence[tuple[str, Json]], dns: Sequence[str], files: Mapping[str, str]
) -> Json:
    """`spec` is the task's with its templates replaced."""
    config: Json = {
        "RestartPolicy": {"Name": "no"},  # a task is started once; whatever comes after it is another task
        "AutoRemove": False,
        "ReadonlyRootfs": spec.read_only,
        "Mounts": [_mount(m) for m in spec.mounts] + [_file(t, p) for t, p in files.items()],
        "CapAdd": spec.capability_add,
        "CapDrop": spec.capability_drop,
        "GroupAdd": spec.groups,
        "Sysctls": spec.sysctls,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
        "OomScoreAdj": spec.oom_score_adj,
        "ExtraHosts": [f"{n}:{ip}" for ip, *names in map(str.split, filter(str.strip, spec.hosts)) for n in names],
        "SecurityOpt": _security(spec.privileges or Privileges()),
        **_limits(task.spec),
    }
    own = spec.dns_config
    config["Dns"] = list(dns) or (own.nameservers if own else [])  # our resolver asks the others itself
    config["DnsSearch"] = own.search if own else []
    config["DnsOptions"] = own.options if own else []
    if spec.init is not None:
        config["Init"] = spec.init
    if spec.isolation:
        config["Isolation"] = spec.isolation
    if driver := task.spec.log_driver or task.log_driver:
        config["LogConfig"] = {"Type": driver.name, "Config": driver.options}
    if task.ports:
        config["PortBindings"] = _port_bindings(task)
    predefined = [n.target for n in task.spec.networks if n.target in PREDEFINED]
    if endpoints:
        config["NetworkMode"] = endpoints[0][0]
    elif predefined:
        config["NetworkMode"] = predefined[0]
    return config


def _limits(spec: TaskSpec) -> Json:
    """Reservations are the scheduler's alone, as in Docker."""
    wanted = spec.resources
    config: Json = {}
    if wanted is None:
        return config
    if wanted.limits:
        config["NanoCpus"] = wanted.limits.nano_cpus
        config["Memory"] = wanted.limits.memory_bytes
        if wanted.limits.pids:
            config["PidsLimit"] = wanted.limits.pids
        if wanted.swap_bytes is not None and wanted.limits.memory_bytes:
            both = wanted.limits.memory_bytes + wanted.swap_bytes
            config["MemorySwap"] = -1 if wanted.swap_bytes < 0 else both
    if wanted.memory_swappiness is not None:
        config["MemorySwappiness"] = wanted.memory_swappiness
    return config


def _mount(mount: Mount) -> Json:
    return {k: v for k, v in msgspec.to_builtins(mount).items() if v is not None}


def _file(target: str, path: str) -> Json:
    return {"Type": "bind", "Source": path, "Target": target, "ReadOnly": True}


def _port_bindings(task: Task) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in task.ports:
        published = str(port.published_port) if port.published_port else ""  # "": the engine draws one
        bound = bindings.setdefault(f"{port.target_port}/{port.protocol}", [])
        there = publishing.addresses(task.service_labels, port, drawn=not port.published_port)
        bound += [{"HostIp": address, "HostPort": published} for address in there] or [{"HostPort": published}]
    return bindings


def _security(privileges: Privileges) -> list[str]:
    """`Privileges` of the API as `--security-opt`. An engine on Linux refuses a credential specification itself."""
    options: list[str] = _credentials(privileges.credential_spec)
    if selinux := privileges.selinux_context:
        if selinux.disable:
            options.append("label=disable")
        named = {"user": selinux.user, "role": selinux.role, "type": selinux.type, "level": selinux.level}
        options += [f"label={key}:{value}" for key, value in named.items() if value]
    if seccomp := privileges.seccomp:
        if seccomp.mode == "unconfined":
            options.append("seccomp=unconfined")
        elif seccomp.mode == "custom":
            options.append(f"seccomp={seccomp.profile.decode(errors='replace')}")
    if privileges.app_armor and privileges.app_armor.mode == "disabled":
        options.append("apparmor=unconfined")
    if privileges.no_new_privileges:
        options.append("no-new-privileges=true")
    return options


def _credentials(spec: CredentialSpec | None) -> list[str]:
    if spec is None:
        return []
    sources = {"file": spec.file, "registry": spec.registry, "config": spec.config}
    return [f"credentialspec={kind}://{value}" for kind, value in sources.items() if value]
