"""A service's specification by itself: put into the one form that is stored, and checked.

The stored form: exactly one mode, a number of replicas, networks in the task template, lower-case protocols.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from afterswarm.core import publishing
from afterswarm.core.admit.container import check_runtime, check_template
from afterswarm.core.admit.words import invalid
from afterswarm.core.options.table import chosen
from afterswarm.model.refused import Refused
from afterswarm.model.service import (
    ContainerSpec,
    EndpointSpec,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_LONGEST_NAME = 63


def checked(spec: ServiceSpec) -> ServiceSpec:
    """The form in which it is stored. Raises `Refused`."""
    check_runtime(spec.task_template, spec.mode)
    spec = normal(spec)
    if not spec.name:
        raise invalid("meta: name must be provided")
    if not _NAME.fullmatch(spec.name):
        raise invalid("name must be valid as a DNS name component")
    if len(spec.name) > _LONGEST_NAME:
        raise invalid("name must be 63 characters or fewer")
    check_template(spec.task_template, spec)
    _check_mode(spec.mode)
    if spec.mode.is_job and spec.update_config:
        raise invalid("Jobs may not have an update config")
    for word, config in (("update", spec.update_config), ("rollback", spec.rollback_config)):
        if config:
            _check_update(word, config)
    if spec.endpoint_spec:
        _check_endpoint(spec.endpoint_spec)
    return spec


def normal(spec: ServiceSpec) -> ServiceSpec:
    """The same in the stored form; doing it twice changes nothing. Raises `Refused` for two modes."""
    template = spec.task_template
    if spec.networks and not template.networks:
        template = replace(template, networks=spec.networks)
    if template.runtime in ("", "container"):
        template = replace(template, runtime="", plugin_spec=None, network_attachment_spec=None)
    if template.container_spec:
        template = replace(template, container_spec=_container(template.container_spec))
    return replace(
        spec,
        task_template=template,
        networks=[],
        mode=_mode(spec.mode),
        endpoint_spec=_endpoint(spec.endpoint_spec) if spec.endpoint_spec else None,
    )


def _container(spec: ContainerSpec) -> ContainerSpec:
    isolation = spec.isolation.lower()
    return replace(
        spec,
        isolation=isolation if isolation in ("process", "hyperv") else "",
        mounts=[
            replace(
                mount,
                type=mount.type.lower(),
                bind_options=replace(mount.bind_options, propagation=mount.bind_options.propagation.lower())
                if mount.bind_options
                else None,
            )
            for mount in spec.mounts
        ],
    )


def outdates(old: ServiceSpec, new: ServiceSpec) -> bool:
    """Whether tasks made from `old` must be replaced: their template, or how the outside reaches them, differs."""
    return _of_task(old) != _of_task(new)


def _of_task(spec: ServiceSpec) -> tuple[TaskSpec, Sequence[PortConfig], bool, dict[str, str], list[list[str]]]:
    ports = spec.endpoint_spec.ports if spec.endpoint_spec else []
    on_host = [p for p in ports if p.publish_mode == "host"]
    places = publishing.on_host(spec.labels, on_host)
    return spec.task_template, on_host, len(on_host) < len(ports), chosen(spec.labels), places


def _mode(mode: ServiceMode) -> ServiceMode:
    modes = (mode.replicated, mode.global_, mode.replicated_job, mode.global_job)
    if sum(m is not None for m in modes) > 1:
        raise Refused(400, "must specify only one service mode")
    if mode.global_ is not None:
        return ServiceMode(global_={})
    if mode.global_job is not None:
        return ServiceMode(global_job={})
    if (job := mode.replicated_job) is not None:
        at_once = 1 if job.max_concurrent is None else job.max_concurrent
        total = at_once if job.total_completions is None else job.total_completions
        return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=at_once, total_completions=total))
    replicas = mode.replicated.replicas if mode.replicated else None
    return ServiceMode(replicated=ReplicatedService(replicas=1 if replicas is None else replicas))


def _check_mode(mode: ServiceMode) -> None:
    if mode.replicated and (mode.replicated.replicas or 0) < 0:
        raise invalid("Number of replicas must be non-negative")
    if job := mode.replicated_job:
        if (job.max_concurrent or 0) < 0:
            raise invalid("Maximum concurrent jobs must not be negative")
        if (job.total_completions or 0) < 0:
            raise invalid("Total completed jobs must not be negative")


def _endpoint(spec: EndpointSpec) -> EndpointSpec:
    ports = [
        replace(port, protocol=port.protocol.lower() or "tcp", publish_mode=port.publish_mode.lower() or "ingress")
        for port in spec.ports
    ]
    return replace(spec, mode=spec.mode.lower(), ports=ports)


def _check_update(word: str, config: UpdateConfig) -> None:
    if config.delay < 0:
        raise invalid(f"TaskSpec: {word}-delay cannot be negative")
    if config.monitor is not None and config.monitor < 0:
        raise invalid(f"TaskSpec: {word}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise invalid(f"TaskSpec: {word}-maxfailureratio cannot be less than 0 or bigger than 1")
    if config.parallelism is not None and config.parallelism < 0:
        raise invalid(f"TaskSpec: {word}-parallelism cannot be negative")
    actions = ("", "pause", "continue") if word == "rollback" else ("", "pause", "continue", "rollback")
    if config.failure_action not in actions:
        raise invalid(f"unrecognized {word} failure action {config.failure_action}")
    if config.order not in ("", "stop-first", "start-first"):
        raise invalid(f"unrecognized {word} order {config.order}")


def _check_endpoint(spec: EndpointSpec) -> None:
    if spec.mode not in ("", "vip", "dnsrr"):
        raise invalid(f"EndpointSpec: unrecognized endpoint mode {spec.mode}")
    published: set[tuple[str, int]] = set()
    for port in spec.ports:
        if port.protocol not in ("tcp", "udp", "sctp") or port.publish_mode not in ("ingress", "host"):
            raise invalid(f"EndpointSpec: unrecognized port {port.protocol}/{port.publish_mode}")
        if not 0 < port.target_port < 65536 or not 0 <= port.published_port < 65536:
            raise invalid("EndpointSpec: ports are numbers from 1 to 65535")
        if spec.mode == "dnsrr" and port.publish_mode == "ingress":
            raise invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        number = (port.protocol, port.published_port)
        if port.published_port and number in published:
            raise invalid("EndpointSpec: duplicate published ports provided")
        published.add(number)
