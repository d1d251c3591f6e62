"""Whether a task's template makes sense: what can be said of it without looking at the swarm.

Words and limits are SwarmKit's (`manager/controlapi/service.go`). What it leaves to the hosts to find out (paths of
mounts) is refused here too, in the words that the host would have had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from afterswarm.core import constraint
from afterswarm.model.refused import Refused
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    FileTarget,
    Healthcheck,
    Limit,
    Mount,
    Resources,
    RestartPolicy,
    SecretReference,
    TaskSpec,
)

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY = 4 * 1024**2
MIN_HEALTH = 1_000_000  # nanoseconds

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_IMAGE = re.compile(rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@{_DIGEST})?", re.ASCII)


def invalid(words: str) -> Refused:
    return Refused(400, f"rpc error: code = InvalidArgument desc = {words}")


def unimplemented(words: str) -> Refused:
    return Refused(501, f"rpc error: code = Unimplemented desc = {words}")


def check_template(template: TaskSpec) -> None:
    """Raises `Refused`."""
    if template.resources:
        _check_resources(template.resources.limits)
        _check_resources(template.resources.reservations)
    if template.restart_policy:
        _check_restart(template.restart_policy)
    for text in template.placement.constraints if template.placement else ():
        constraint.parse(text)
    if template.runtime not in ("", "container") or template.plugin_spec or template.network_attachment_spec:
        raise unimplemented("RuntimeSpec: unimplemented runtime in service spec")
    if template.container_spec is None:
        raise invalid("TaskSpec: missing runtime")
    _check_container(template.container_spec)


def _check_resources(resources: Limit | Resources | None) -> None:
    if resources is None:
        return
    if resources.nano_cpus and resources.nano_cpus < MIN_NANO_CPUS:
        least = MIN_NANO_CPUS / 1e9
        raise invalid(f"invalid cpu value {resources.nano_cpus / 1e9:g}: Must be at least {least:g}")
    if resources.memory_bytes and resources.memory_bytes < MIN_MEMORY:
        raise invalid(f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB")


def _check_restart(policy: RestartPolicy) -> None:
    if policy.delay is not None and policy.delay < 0:
        raise invalid("TaskSpec: restart-delay cannot be negative")
    if policy.window is not None and policy.window < 0:
        raise invalid("TaskSpec: restart-window cannot be negative")
    if policy.condition not in ("", "none", "on-failure", "any"):
        raise invalid(f"TaskSpec: unrecognized restart condition {policy.condition}")


def _check_container(container: ContainerSpec) -> None:
    _check_references("secret", container.secrets)
    _check_references("config", container.configs)
    if not container.image:
        raise invalid("ContainerSpec: image reference must be provided")
    if not _IMAGE.fullmatch(container.image):
        raise invalid(f'ContainerSpec: "{container.image}" is not a valid repository/tag')
    _check_mounts(container.mounts)
    if container.healthcheck:
        _check_health(container.healthcheck)
    if container.stop_grace_period is not None and container.stop_grace_period < 0:
        raise invalid("ContainerSpec: stop-grace-period cannot be negative")


def _check_mounts(mounts: Iterable[Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        if mount.target in targets:
            raise invalid(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
        if not mount.target.startswith("/"):
            raise invalid(f"invalid mount target, must be an absolute path: {mount.target}")
        match mount.type:
            case "bind" if not mount.source.startswith("/"):
                raise invalid(f"invalid bind mount source, must be an absolute path: {mount.source}")
            case "volume" if mount.source.startswith("/"):
                raise invalid(f"invalid volume mount source, must not be an absolute path: {mount.source}")
            case "tmpfs" if mount.source:
                raise invalid("invalid tmpfs source, source must be empty")
            case "bind" | "volume" | "tmpfs" | "image":
                pass
            case "cluster" | "npipe":
                raise unimplemented(f"mounts of type {mount.type} are not supported")
            case _:
                raise invalid(f"invalid mount type: {mount.type}")


def _check_health(check: Healthcheck) -> None:
    durations = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    for name, duration in durations.items():
        if duration and duration < MIN_HEALTH:
            raise invalid(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if check.retries < 0:
        raise invalid("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_references(kind: str, references: Iterable[SecretReference | ConfigReference]) -> None:
    names: dict[str, str] = {}  # file -> who has it
    for reference in references:
        object_id, name, file, elsewhere = _parts(reference)
        if not object_id or not name:
            raise invalid(f"malformed {kind} reference")
        if file is None:
            if elsewhere:
                continue
            raise invalid(f"malformed {kind} reference, no target provided")
        if not file.name:
            raise invalid(f"malformed file {kind} reference, invalid target file name provided")
        if other := names.get(file.name):
            raise invalid(f"{kind} references '{other}' and '{name}' have a conflicting target: '{file.name}'")
        names[file.name] = name


def _parts(reference: SecretReference | ConfigReference) -> tuple[str, str, FileTarget | None, bool]:
    """Id, name, file, and whether it is for something else than a file (a credential specification)."""
    if isinstance(reference, SecretReference):
        return reference.secret_id, reference.secret_name, reference.file, False
    return reference.config_id, reference.config_name, reference.file, reference.runtime is not None
