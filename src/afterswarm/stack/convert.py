"""A resolved compose model as the objects of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from afterswarm.model.network import IPAM, PREDEFINED, IPAMConfig, NetworkSpec
from afterswarm.model.secret import ConfigSpec, SecretSpec
from afterswarm.model.service import (
    EndpointSpec,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from afterswarm.stack import files, options, template
from afterswarm.stack.names import IMAGE, Names, Trouble
from afterswarm.stack.values import duration

Json = dict[str, Any]

ODD = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
)  # what Compose lets through, and is no value
IMPOSSIBLE = {  # what a stack cannot have, and why
    "models": "the swarm runs no models; give the service the address of one in its environment",
    "provider": "the swarm has no providers; run what it would provide as a service, or elsewhere",
    "use_api_socket": "mount the socket yourself: volumes: [/var/run/docker.sock:/var/run/docker.sock]",
    "volumes_from": "the two may run on different hosts; give both the same named volume",
    "external_links": "put both services into one external network instead",
    "post_start": "the swarm runs nothing after a start; let the container's own command do it",
    "pre_stop": "the swarm runs nothing before a stop; let the container's own stop signal do it",
}
UNDONE = {  # what is left out, and why that does little harm
    "cpu_count": "of Windows only; use cpus",
    "cpu_percent": "of Windows only; use cpus",
    "mac_address": "addresses on overlay networks are the swarm's",
    "pull_refresh_after": "hosts ask the registry at each start of a task",
}
_PULLS = {"never", "missing", "build", "if_not_present"}


class Wanted(msgspec.Struct, frozen=True):
    """One service. `after`: names of services to be deployed before; `with_`: restarted when one of these changes."""

    spec: ServiceSpec
    after: list[str] = []
    restarts_with: list[str] = []


class Stack(msgspec.Struct, frozen=True):
    """All that a stack should be. Services come after what they depend on."""

    name: str
    networks: list[NetworkSpec]
    external_networks: list[str]
    secrets: list[SecretSpec]
    configs: list[ConfigSpec]
    services: list[Wanted]


def convert(model: Json, names: Names, environment: Mapping[str, str], trouble: Trouble) -> Stack:
    """What cannot be had is put down in `trouble`."""
    payloads = files.Payloads(environment, trouble)
    services: Json = model.get("services") or {}
    once = {
        name
        for service in services.values()
        for name, how in (service.get("depends_on") or {}).items()
        if how.get("condition") == "service_completed_successfully"
    }
    own, external = _networks(model, names)
    return Stack(
        name=names.stack,
        networks=own,
        external_networks=external,
        secrets=files.secrets(model, names, payloads),
        configs=files.configs(model, names, payloads),
        services=in_order(
            [
                _service(key, service, model, names, trouble, once=key in once)
                for key, service in sorted(services.items())
            ]
        ),
    )


def in_order(services: list[Wanted]) -> list[Wanted]:
    """Each after those that it depends on, as far as they are there."""
    waiting = {wanted.spec.name: wanted for wanted in services}
    found: list[Wanted] = []
    while waiting:
        free = [w for w in waiting.values() if not any(name in waiting for name in w.after)]
        found += [waiting.pop(wanted.spec.name) for wanted in free or [next(iter(waiting.values()))]]
    return found


def _service(key: str, service: Json, model: Json, names: Names, trouble: Trouble, *, once: bool) -> Wanted:
    _complain(key, service, trouble)
    deploy = service.get("deploy") or {}
    labels = {**names.labels(deploy.get("labels")), IMAGE: str(service.get("image", ""))}
    depends = service.get("depends_on") or {}
    spec = ServiceSpec(
        name=names.service(key),
        labels={**options.labels(key, service, trouble), **labels},
        task_template=template.template(key, service, model, names, trouble, once=once),
        mode=_mode(key, service, deploy, trouble),
        update_config=_rollout(deploy.get("update_config")),
        rollback_config=_rollout(deploy.get("rollback_config")),
        endpoint_spec=EndpointSpec(
            mode=str(deploy.get("endpoint_mode") or "").lower(), ports=_ports(key, service, trouble)
        ),
    )
    return Wanted(
        spec,
        after=[names.service(name) for name in sorted(depends)],
        restarts_with=[names.service(name) for name, how in sorted(depends.items()) if how.get("restart")],
    )


def _complain(key: str, service: Json, trouble: Trouble) -> None:
    for word, why in IMPOSSIBLE.items():
        if service.get(word):
            trouble.refuse(key, f"{word}: {why}")
    for word, why in UNDONE.items():
        if service.get(word):
            trouble.note(key, f"{word} is left out: {why}")
    for link in service.get("links") or []:
        name, _, alias = link.partition(":")
        if alias and alias != name:
            trouble.note(key, f"links: {link} is left out: make {alias} an alias of {name} in a network of both")
    policy = str(service.get("pull_policy") or "")
    if policy in _PULLS or policy.startswith("every") or policy in ("daily", "weekly"):
        trouble.note(
            key, f"pull_policy: {policy} is left out: hosts ask the registry, and take what they have if it is silent"
        )
    if service.get("build"):
        image = service.get("image", "")
        how = f"docker compose build {key} && docker compose push {key}"
        if image:
            trouble.note(key, f"build is left out: the swarm pulls {image}; `{how}` brings it there")
        else:
            trouble.refuse(key, f"build: the swarm builds nothing; give the service an image: NAME, then `{how}`")


def _mode(key: str, service: Json, deploy: Json, trouble: Trouble) -> ServiceMode:
    replicas = deploy.get("replicas", service.get("scale"))
    mode = deploy.get("mode") or "replicated"
    if replicas is not None and mode.startswith("global"):
        trouble.refuse(key, "replicas can only be used with replicated or replicated-job mode")
    match mode:
        case "global":
            return ServiceMode(global_={})
        case "global-job":
            return ServiceMode(global_job={})
        case "replicated-job":
            return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=replicas, total_completions=replicas))
        case "replicated":
            return ServiceMode(replicated=ReplicatedService(replicas=replicas))
        case _:
            trouble.refuse(key, f"deploy.mode: {mode} is unknown")
            return ServiceMode()


def _rollout(given: Json | None) -> UpdateConfig | None:
    if given is None:
        return None
    return UpdateConfig(
        parallelism=given.get("parallelism", 1),
        delay=duration(given.get("delay")) or 0,
        failure_action=given.get("failure_action", ""),
        monitor=duration(given.get("monitor")),
        max_failure_ratio=float(given.get("max_failure_ratio") or 0),
        order=given.get("order", ""),
    )


def _ports(key: str, service: Json, trouble: Trouble) -> list[PortConfig]:
    found = set()  # one number on two addresses is one port, and two places in a label
    for given in service.get("ports") or []:
        published = str(given.get("published") or 0)
        if not published.isdecimal():
            trouble.refuse(
                key, f"ports: {published}:{given['target']}: a service publishes one number, not one of a range"
            )
            continue
        found.add(
            PortConfig(
                name=given.get("name", ""),
                protocol=given.get("protocol", "tcp"),
                target_port=int(given["target"]),
                published_port=int(published),
                publish_mode=given.get("mode", "ingress"),
            )
        )
    return sorted(found, key=lambda p: (p.published_port, p.target_port, p.protocol, p.publish_mode))


def _networks(model: Json, names: Names) -> tuple[list[NetworkSpec], list[str]]:
    """The stack's own networks that its services are in, and the names of those that must be there."""
    declared = model.get("networks") or {}
    services = (model.get("services") or {}).values()
    used = {
        name
        for service in services
        if not service.get("network_mode")
        for name in service.get("networks") or ["default"]
    }
    own, external = [], []
    for key in sorted(used):
        given = declared.get(key) or {}
        name = names.of(key, given)
        if given.get("external"):
            external.append(name)
        elif name not in PREDEFINED:
            own.append(_network(name, given, names))
    return own, external


def _network(name: str, given: Json, names: Names) -> NetworkSpec:
    ipam = given.get("ipam") or {}
    pools = [
        IPAMConfig(
            subnet=pool.get("subnet", ""),
            ip_range=pool.get("ip_range", ""),
            gateway=pool.get("gateway", ""),
            auxiliary_addresses=pool.get("aux_addresses") or {},
        )
        for pool in ipam.get("config") or []
    ]
    return NetworkSpec(
        name=name,
        driver=given.get("driver") or "overlay",
        labels=names.labels(given.get("labels")),
        options={key: str(value) for key, value in (given.get("driver_opts") or {}).items()},
        internal=bool(given.get("internal")),
        attachable=bool(given.get("attachable")),
        enable_ipv4=given.get("enable_ipv4"),
        enable_ipv6=given.get("enable_ipv6"),
        ipam=IPAM(driver=ipam.get("driver") or "default", config=pools) if ipam.get("driver") or pools else None,
    )
