"""What a deployment has to do: the stack as it should be, beside what runs. Nothing here talks to anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from afterswarm.model.network import NetworkSpec
from afterswarm.model.secret import ConfigSpec, SecretSpec
from afterswarm.model.service import ServiceSpec
from afterswarm.stack import difference
from afterswarm.stack.convert import Stack, Wanted
from afterswarm.stack.names import IMAGE


class Mark(StrEnum):
    CREATE = "+"
    CHANGE = "~"
    PRUNE = "-"
    SAME = "="
    AGAIN = "?"  # it is sent, and only the swarm knows whether it differs
    NOTE = "!"  # nothing is done, and should be known


class There(msgspec.Struct, frozen=True):
    """An object that runs. `own`: it bears the label of this stack."""

    id: str
    version: int
    spec: NetworkSpec | SecretSpec | ConfigSpec | ServiceSpec
    own: bool = True


class Running(msgspec.Struct, frozen=True):
    """By name; of services only those of the stack."""

    networks: Mapping[str, There] = {}
    secrets: Mapping[str, There] = {}
    configs: Mapping[str, There] = {}
    services: Mapping[str, There] = {}


class Step(msgspec.Struct, frozen=True):
    """`spec`: what is sent, where something is. `lines`: what differs."""

    mark: Mark
    kind: str  # network, secret, config, service
    name: str
    lines: list[str] = []
    there: There | None = None
    spec: NetworkSpec | SecretSpec | ConfigSpec | ServiceSpec | None = None

    def __str__(self) -> str:
        return "\n".join([f"{self.mark} {self.kind} {self.name}", *(f"    {line}" for line in self.lines)])


def plan(stack: Stack, running: Running, *, prune: bool = False) -> list[Step]:
    """In the order in which they are done."""
    names = {there.id: name for name, there in running.networks.items()}
    superfluous = list(_superfluous(stack, running))
    gone = [step for step in superfluous if step.kind == "service"]
    later = [step for step in superfluous if step.kind != "service"]
    if not prune:
        gone, later = (
            [],
            [replace(step, mark=Mark.NOTE, lines=["not in the file; --prune removes it"]) for step in superfluous],
        )
    return [
        *gone,
        *(_network(spec, running.networks.get(spec.name)) for spec in stack.networks),
        *(_secret(spec, running.secrets.get(spec.name)) for spec in stack.secrets),
        *(_config(spec, running.configs.get(spec.name)) for spec in stack.configs),
        *_services(stack.services, running, names),
        *later,
    ]


def _network(spec: NetworkSpec, there: There | None) -> Step:
    if there is None:
        return Step(Mark.CREATE, "network", spec.name, spec=spec)
    lines = list(_network_lines(spec, there.spec)) if isinstance(there.spec, NetworkSpec) else []
    if lines:
        why = "a network cannot be changed: remove it (docker network rm) and deploy again"
        return Step(Mark.NOTE, "network", spec.name, [*lines, why], there)
    return Step(Mark.SAME, "network", spec.name, there=there)


def _network_lines(spec: NetworkSpec, old: NetworkSpec) -> Iterator[str]:
    for word in ("driver", "internal", "attachable"):
        was, will = getattr(old, word), getattr(spec, word)
        if was != will:
            yield f"{word}: {was} → {will}"
    asked = [pool.subnet for pool in spec.ipam.config if pool.subnet] if spec.ipam else []
    given = [pool.subnet for pool in old.ipam.config] if old.ipam else []
    if bool(old.enable_ipv6) != bool(spec.enable_ipv6):
        yield f"enable_ipv6: {bool(old.enable_ipv6)} → {bool(spec.enable_ipv6)}"
    if not set(asked) <= set(given):  # the swarm gives the other family's itself
        yield f"subnet: {', '.join(given)} → {', '.join(asked)}"


def _secret(spec: SecretSpec, there: There | None) -> Step:
    """Nobody but the swarm can say whether its data is another."""
    if there is None:
        return Step(Mark.CREATE, "secret", spec.name, spec=spec)
    old = there.spec
    assert isinstance(old, SecretSpec)  # noqa: S101 - by name from the secrets
    if old.labels != spec.labels or old.templating != spec.templating:
        return Step(Mark.CHANGE, "secret", spec.name, ["labels or template driver differ"], there, spec)
    lines = ["sent again: nobody but the swarm can say whether its data differs"]
    return Step(Mark.AGAIN, "secret", spec.name, lines, there, spec)


def _config(spec: ConfigSpec, there: There | None) -> Step:
    if there is None:
        return Step(Mark.CREATE, "config", spec.name, spec=spec)
    old = there.spec
    assert isinstance(old, ConfigSpec)  # noqa: S101 - by name from the configs
    words = ("data", "labels", "templating")
    lines = [
        f"{word} differ{'' if word == 'labels' else 's'}" for word in words if getattr(old, word) != getattr(spec, word)
    ]
    if not lines:
        return Step(Mark.SAME, "config", spec.name, there=there)
    return Step(Mark.CHANGE, "config", spec.name, lines, there, spec)


def _services(wanted: Iterable[Wanted], running: Running, names: Mapping[str, str]) -> Iterator[Step]:
    replaced: set[str] = set()  # services whose tasks this deployment replaces
    for one in wanted:
        step = _service(one.spec, running, names)
        if step.mark is Mark.CHANGE and _replaces(step, names):
            replaced.add(step.name)
        because = [name for name in one.restarts_with if name in replaced]
        if because and step.there is not None and step.name not in replaced:
            replaced.add(step.name)
            old = step.there.spec
            assert isinstance(old, ServiceSpec)  # noqa: S101 - by name from the services
            spec = step.spec if isinstance(step.spec, ServiceSpec) else old
            template = replace(spec.task_template, force_update=old.task_template.force_update + 1)
            lines = [*step.lines, f"restarts with {', '.join(because)}"]
            step = replace(step, mark=Mark.CHANGE, lines=lines, spec=replace(spec, task_template=template))
        yield step


def _service(spec: ServiceSpec, running: Running, names: Mapping[str, str]) -> Step:
    there = running.services.get(spec.name)
    spec = referring(spec, running)
    if there is None:
        return Step(Mark.CREATE, "service", spec.name, spec=spec)
    old = there.spec
    assert isinstance(old, ServiceSpec)  # noqa: S101 - by name from the services
    template = replace(spec.task_template, force_update=old.task_template.force_update)
    spec = replace(spec, task_template=template)
    lines = difference.changes(old, spec, names)
    if not lines:
        return Step(Mark.SAME, "service", spec.name, there=there)
    if difference.same_template(old, spec, names):  # word for word, so that no task is replaced
        spec = replace(spec, task_template=old.task_template)
    return Step(Mark.CHANGE, "service", spec.name, lines, there, spec)


def _replaces(step: Step, names: Mapping[str, str]) -> bool:
    assert step.there is not None  # noqa: S101 - it is changed
    old, new = step.there.spec, step.spec
    assert isinstance(old, ServiceSpec)  # noqa: S101 - by name from the services
    assert isinstance(new, ServiceSpec)  # noqa: S101 - likewise
    return not difference.same_template(old, new, names)


def referring(spec: ServiceSpec, running: Running) -> ServiceSpec:
    """With the ids of the secrets and configs that are there."""
    container = spec.task_template.container_spec
    if container is None:
        return spec
    secrets = [replace(s, secret_id=_id(running.secrets, s.secret_name)) for s in container.secrets]
    configs = [replace(c, config_id=_id(running.configs, c.config_name)) for c in container.configs]
    privileges = container.privileges
    credential = privileges.credential_spec if privileges else None
    if privileges and credential and credential.config:
        credential = replace(credential, config=_id(running.configs, credential.config))
        privileges = replace(privileges, credential_spec=credential)
    container = replace(container, secrets=secrets, configs=configs, privileges=privileges)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def _id(known: Mapping[str, There], name: str) -> str:
    return known[name].id if name in known else ""


def brought_along(before: Running, after: Running, sent: Collection[str]) -> set[str]:
    """Names of the services that the swarm has changed because secrets or configs of theirs were sent."""
    return {
        name
        for name, there in after.services.items()
        if name in before.services
        and there.version != before.services[name].version
        and not _files(there).isdisjoint(sent)
    }


def _files(service: There) -> set[str]:
    container = service.spec.task_template.container_spec if isinstance(service.spec, ServiceSpec) else None
    if container is None:
        return set()
    return {s.secret_name for s in container.secrets} | {c.config_name for c in container.configs}


def keeping_image(spec: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """With the digest that an earlier deployment of the same image found."""
    new_container, old_container = spec.task_template.container_spec, old.task_template.container_spec
    if new_container is None or old_container is None or spec.labels.get(IMAGE) != old.labels.get(IMAGE):
        return spec
    container = replace(new_container, image=old_container.image)
    placement = spec.task_template.placement
    if placement and not placement.platforms and old.task_template.placement:
        placement = replace(placement, platforms=old.task_template.placement.platforms)
    template = replace(spec.task_template, container_spec=container, placement=placement)
    return replace(spec, task_template=template)


def _superfluous(stack: Stack, running: Running) -> Iterator[Step]:
    """What bears the stack's label, and is not in the file any more."""
    kept = {
        "service": {w.spec.name for w in stack.services},
        "config": {c.name for c in stack.configs},
        "secret": {s.name for s in stack.secrets},
        "network": {n.name for n in stack.networks},
    }
    there = {
        "service": running.services,
        "config": running.configs,
        "secret": running.secrets,
        "network": running.networks,
    }
    for kind, names in kept.items():
        for name, one in sorted(there[kind].items()):
            if one.own and name not in names:
                yield Step(Mark.PRUNE, kind, name, there=one)
