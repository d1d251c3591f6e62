"""A compose service as the template of its tasks: field by field as `docker stack deploy` converts it, and the rest."""

from __future__ import annotations

from typing import Any

from afterswarm.model.network import PREDEFINED
from afterswarm.model.service import (
    ContainerSpec,
    CredentialSpec,
    DNSConfig,
    Driver,
    GenericResource,
    Healthcheck,
    Limit,
    NetworkAttachmentConfig,
    Placement,
    PlacementPreference,
    Platform,
    Privileges,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    Spread,
    TaskSpec,
    Ulimit,
)
from afterswarm.stack.files import configs_of, secrets_of
from afterswarm.stack.mounts import mounts
from afterswarm.stack.names import Names, Trouble
from afterswarm.stack.values import cpus, duration, size

Json = dict[str, Any]


def template(key: str, service: Json, model: Json, names: Names, trouble: Trouble, *, once: bool) -> TaskSpec:
    """`once`: others wait for it to complete, so it does not start again where the file does not say so."""
    deploy = service.get("deploy") or {}
    logging = service.get("logging")
    return TaskSpec(
        container_spec=_container(key, service, model, names, trouble),
        resources=_resources(service, deploy),
        restart_policy=_restart(service, deploy, once=once),
        placement=_placement(service, deploy),
        networks=_networks(key, service, model.get("networks") or {}, names, trouble),
        log_driver=Driver(name=logging.get("driver", ""), options=dict(logging.get("options") or {}))
        if logging
        else None,
    )


def _container(key: str, service: Json, model: Json, names: Names, trouble: Trouble) -> ContainerSpec:
    added, dropped = _capabilities(service)
    return ContainerSpec(
        image=service.get("image", ""),
        command=service.get("entrypoint") or [],
        args=service.get("command") or [],
        hostname=service.get("hostname", ""),
        hosts=[_host(entry) for entry in service.get("extra_hosts") or []],
        dns_config=_dns(service),
        healthcheck=_healthcheck(service.get("healthcheck")),
        env=_environment(service.get("environment") or {}),
        labels=names.labels(service.get("labels")),
        dir=service.get("working_dir", ""),
        user=service.get("user", ""),
        groups=[str(group) for group in service.get("group_add") or []],
        mounts=mounts(key, service, model.get("volumes") or {}, names, trouble),
        stop_grace_period=duration(service.get("stop_grace_period")),
        stop_signal=service.get("stop_signal", ""),
        tty=bool(service.get("tty")),
        open_stdin=bool(service.get("stdin_open")),
        read_only=bool(service.get("read_only")),
        secrets=secrets_of(service, model, names),
        configs=configs_of(service, model, names),
        privileges=_privileges(service, model, names),
        isolation=service.get("isolation", ""),
        init=service.get("init"),
        sysctls={name: str(value) for name, value in (service.get("sysctls") or {}).items()},
        capability_add=added,
        capability_drop=dropped,
        ulimits=_ulimits(service.get("ulimits") or {}),
        oom_score_adj=int(service.get("oom_score_adj") or 0),
    )


def _environment(given: Json) -> list[str]:
    return sorted(name if value is None else f"{name}={value}" for name, value in given.items())


def _host(entry: str) -> str:
    name, _, address = entry.partition("=" if "=" in entry else ":")
    return f"{address.strip('[]')} {name}"


def _dns(service: Json) -> DNSConfig | None:
    servers, search, options = (service.get(word) or [] for word in ("dns", "dns_search", "dns_opt"))
    return DNSConfig(nameservers=servers, search=search, options=options) if servers or search or options else None


def _healthcheck(given: Json | None) -> Healthcheck | None:
    if given is None:
        return None
    if given.get("disable"):
        return Healthcheck(test=["NONE"])
    return Healthcheck(
        test=given.get("test") or [],
        interval=duration(given.get("interval")) or 0,
        timeout=duration(given.get("timeout")) or 0,
        retries=int(given.get("retries") or 0),
        start_period=duration(given.get("start_period")) or 0,
        start_interval=duration(given.get("start_interval")) or 0,
    )


def _capabilities(service: Json) -> tuple[list[str], list[str]]:
    """Added and dropped. ALL stands for the others, and what is added is not dropped."""

    def read(word: str) -> set[str]:
        names = {name.strip().upper() for name in service.get(word) or []}
        full = {name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in names}
        return {"ALL"} if "ALL" in full else full

    added = read("cap_add")
    return sorted(added), sorted(read("cap_drop") - added)


def _ulimits(given: Json) -> list[Ulimit]:
    both = {name: limit if isinstance(limit, dict) else {"soft": limit, "hard": limit} for name, limit in given.items()}
    return [Ulimit(name=name, soft=int(both[name]["soft"]), hard=int(both[name]["hard"])) for name in sorted(both)]


def _privileges(service: Json, model: Json, names: Names) -> Privileges:
    """A credential's config is named; the id comes when it is deployed."""
    given = service.get("credential_spec")
    if not given:
        return Privileges()
    config = given.get("config") or ""
    return Privileges(
        credential_spec=CredentialSpec(
            config=names.of(config, (model.get("configs") or {}).get(config)) if config else "",
            file=given.get("file") or "",
            registry=given.get("registry") or "",
        )
    )


def _resources(service: Json, deploy: Json) -> ResourceRequirements:
    """What `deploy` says goes before the shorter keys of the service."""
    given = deploy.get("resources") or {}
    limits = given.get("limits") or {}
    limit = Limit(
        nano_cpus=cpus(limits.get("cpus") or service.get("cpus")),
        memory_bytes=size(limits.get("memory") or service.get("mem_limit")),
        pids=max(0, size(limits.get("pids") or service.get("pids_limit"))),
    )
    reserved = given.get("reservations")
    generic = [
        GenericResource(discrete_resource_spec={"Kind": spec["kind"], "Value": int(spec["value"])})
        for item in (reserved or {}).get("generic_resources") or []
        if (spec := item.get("discrete_resource_spec"))
    ]
    return ResourceRequirements(
        limits=limit if limits or limit != Limit() else None,
        reservations=Resources(
            nano_cpus=cpus(reserved.get("cpus")), memory_bytes=size(reserved.get("memory")), generic_resources=generic
        )
        if reserved
        else None,
    )


def _restart(service: Json, deploy: Json, *, once: bool) -> RestartPolicy | None:
    if (given := deploy.get("restart_policy")) is not None:
        return RestartPolicy(
            condition=given.get("condition") or "any",
            delay=duration(given.get("delay")),
            max_attempts=given.get("max_attempts"),
            window=duration(given.get("window")),
        )
    condition, _, most = str(service.get("restart") or "").partition(":")
    match condition:
        case "no":
            return RestartPolicy(condition="none")
        case "always" | "unless-stopped":
            return RestartPolicy(condition="any")
        case "on-failure":
            return RestartPolicy(condition="on-failure", max_attempts=int(most) if most else None)
        case _:
            return RestartPolicy(condition="none") if once else None


def _placement(service: Json, deploy: Json) -> Placement:
    given = deploy.get("placement") or {}
    os, _, architecture = str(service.get("platform") or "").partition("/")
    return Placement(
        constraints=given.get("constraints") or [],
        preferences=[
            PlacementPreference(spread=Spread(spread_descriptor=item["spread"]))
            for item in given.get("preferences") or []
        ],
        max_replicas=int(given.get("max_replicas_per_node") or 0),
        platforms=[Platform(os=os, architecture=architecture.partition("/")[0])] if os else [],
    )


def _networks(key: str, service: Json, declared: Json, names: Names, trouble: Trouble) -> list[NetworkAttachmentConfig]:
    mode = service.get("network_mode")
    if mode in PREDEFINED:
        return [NetworkAttachmentConfig(target=mode)]
    if mode:
        trouble.refuse(key, f"network_mode: {mode} cannot be had: the two may run on different hosts")
    found = []
    for network, given in (service.get("networks") or {"default": None}).items():
        target = names.of(network, declared.get(network))
        said = given or {}
        aliases = list(said.get("aliases") or [])
        if target not in PREDEFINED:
            aliases += [name for name in (service.get("container_name"), key) if name and name not in aliases]
        options = {name: str(value) for name, value in (said.get("driver_opts") or {}).items()}
        found.append(NetworkAttachmentConfig(target=target, aliases=aliases, driver_opts=options))
        for word in sorted(said.keys() - {"aliases", "driver_opts"}):
            trouble.note(key, f"networks: {network}: {word}: addresses and order of networks are the swarm's")
    return sorted(found, key=lambda n: n.target)
