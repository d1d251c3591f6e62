"""Whether a task's template makes sense: what can be said of it without looking at the swarm.

Words and limits are SwarmKit's (`manager/controlapi/service.go`). What it leaves to the hosts to find out (paths of
mounts) is refused here too, in the words that the host would have had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from afterswarm.core import constraint
from afterswarm.core.admit import mounts
from afterswarm.core.admit.privileges import check_privileges
from afterswarm.core.admit.words import invalid
from afterswarm.core.host import template as templates
from afterswarm.core.template.values import Fields
from afterswarm.model.refused import Refused
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    FileTarget,
    Healthcheck,
    Limit,
    Resources,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY = 4 * 1024**2
MIN_HEALTH = 1_000_000  # nanoseconds

_MISMATCH = "mismatched Runtime and *Spec fields"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_IMAGE = re.compile(rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@{_DIGEST})?", re.ASCII)


def check_runtime(template: TaskSpec, mode: ServiceMode) -> None:
    """Containers are what tasks can be. Raises `Refused`, for others as an engine without experimental features."""
    if template.runtime in ("", "container"):
        if template.container_spec is None:
            raise Refused(400, _MISMATCH)
    elif template.runtime == "plugin":
        if template.plugin_spec is None:
            raise Refused(400, _MISMATCH)
        if mode.replicated is not None:
            raise Refused(400, "plugins must not use replicated mode")
        raise Refused(400, 'runtime type "plugin" only supported in experimental')
    else:
        raise Refused(400, "unsupported runtime")


def check_template(template: TaskSpec, service: ServiceSpec) -> None:
    """`template` is that of `service`, or is to be. Raises `Refused`."""
    if template.resources:
        limits = template.resources.limits
        if template.resources.swap_bytes is not None and not (limits and limits.memory_bytes):
            raise Refused(400, "memory swap provided, but no memory-limit was set")
        _check_resources(limits)
        _check_resources(template.resources.reservations)
    if template.restart_policy:
        _check_restart(template.restart_policy)
    for text in template.placement.constraints if template.placement else ():
        constraint.parse(text)
    _check_container(template.container_spec or ContainerSpec(), service)


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


def _check_container(container: ContainerSpec, service: ServiceSpec) -> None:
    check_privileges(container)
    mounts.check_shape(container.mounts)
    _check_references("secret", container.secrets)
    _check_references("config", container.configs)
    try:
        container = templates.expanded(container, _somewhere(service))
    except Refused as why:
        raise invalid(str(why)) from None
    if not container.image:
        raise invalid("ContainerSpec: image reference must be provided")
    if not _IMAGE.fullmatch(container.image):
        raise invalid(f'ContainerSpec: "{container.image}" is not a valid repository/tag')
    mounts.check(container.mounts)
    if container.healthcheck:
        _check_health(container.healthcheck)
    if container.stop_grace_period is not None and container.stop_grace_period < 0:
        raise invalid("ContainerSpec: stop-grace-period cannot be negative")


def _somewhere(service: ServiceSpec) -> Fields:
    """What templates may say, before it is known of which task: what cannot be said at all is found out now."""
    return templates.context(
        service={"ID": "serviceid", "Name": service.name or "servicename", "Labels": service.labels},
        node={"ID": "nodeid", "Hostname": "nodeHostname"},
        platform={"Architecture": "architecture", "OS": "os"},
        task={"ID": "taskid", "Name": "taskname", "Slot": "1"},
    )


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
            if kind == "config":
                raise Refused(400, "invalid Config: either File or Runtime should be set")
            raise invalid(f"malformed {kind} reference, no target provided")
        if elsewhere:
            raise Refused(400, "invalid Config: cannot specify both File and Runtime")
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
