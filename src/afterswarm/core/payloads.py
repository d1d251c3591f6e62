"""Versions of what is in secrets and configs: which ones a specification means, where they are, and who uses them.

A reference names its version, so tasks with another version are outdated like tasks with another image, and a rollback
to the specification before brings the data before. Clients neither see that nor say it: the swarm fills it in.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping

from msgspec.structs import replace

from afterswarm.model.secret import Config, Payload, Secret, payload_id
from afterswarm.model.service import ContainerSpec, ServiceSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import TaskState

Used = tuple[str, int]  # id of a secret or config, and version of its data
Unseal = Callable[[str, str], bytes]  # (what it was sealed for, sealed text) -> clear


def secrets(container: ContainerSpec | None) -> Iterator[Used]:
    return ((ref.secret_id, ref.data_version) for ref in container.secrets) if container else iter(())


def configs(container: ContainerSpec | None) -> Iterator[Used]:
    return ((ref.config_id, ref.data_version) for ref in container.configs) if container else iter(())


def of(container: ContainerSpec | None) -> set[Used]:
    return {*secrets(container), *configs(container)}


def of_spec(spec: ServiceSpec | None) -> set[Used]:
    return of(spec.task_template.container_spec) if spec else set()


def find(snap: Snapshot, used: Used) -> Secret | Config | Payload | None:
    """Who holds this version: the secret or config itself while it is the newest."""
    owner = snap.secrets.get(used[0]) or snap.configs.get(used[0])
    if owner is not None and owner.data_version == used[1]:
        return owner
    return snap.payloads.get(payload_id(*used)) if owner else None


def filled(snap: Snapshot, spec: ServiceSpec, before: ServiceSpec | None) -> ServiceSpec:
    """With the versions that the service has now, and the newest of what is new to it."""
    newest: dict[str, int] = {s.id: s.data_version for s in snap.secrets.values()}
    newest |= {c.id: c.data_version for c in snap.configs.values()}
    return at(spec, newest | dict(of_spec(before)))


def at(spec: ServiceSpec, versions: Mapping[str, int]) -> ServiceSpec:
    """With these versions; references to other secrets and configs stay as they are."""
    container = spec.task_template.container_spec
    if container is None or not (container.secrets or container.configs):
        return spec
    container = replace(
        container,
        secrets=[replace(r, data_version=versions.get(r.secret_id, r.data_version)) for r in container.secrets],
        configs=[replace(r, data_version=versions.get(r.config_id, r.data_version)) for r in container.configs],
    )
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def same_but_for_data(one: ServiceSpec, other: ServiceSpec) -> bool:
    """Whether the two differ in versions only, if at all."""
    return at(one, dict(of_spec(other))) == other


def in_use(snap: Snapshot, among: Collection[Used]) -> set[Used]:
    """Those that a service has or could come back to, or that a task may still be started with."""
    asked = set(among)
    if not asked:
        return set()
    found = {u for s in snap.services.values() for spec in (s.spec, s.previous_spec) for u in of_spec(spec)} & asked
    if found == asked:
        return found
    for task in snap.tasks.values():
        if task.desired <= TaskState.COMPLETE and snap.state_of(task) <= TaskState.RUNNING:
            found |= of(task.spec.container_spec) & asked
    return found


def unused(snap: Snapshot) -> list[Payload]:
    """What was kept and is not needed any more."""
    needed = in_use(snap, [(p.owner, p.data_version) for p in snap.payloads.values()])
    return [p for _, p in sorted(snap.payloads.items()) if (p.owner, p.data_version) not in needed]


def templating(holder: Secret | Config | Payload) -> str:
    """The driver that makes text of it, if it is a template."""
    driver = holder.templating if isinstance(holder, Payload) else holder.spec.templating
    return driver.name if driver else ""


def clear(holder: Secret | Config | Payload, unseal: Unseal) -> bytes:
    """The data in clear. Raises what `unseal` raises, which is asked for secrets only."""
    match holder:
        case Config(spec=spec):
            return b64decode(spec.data)
        case Secret(id=owner, data_version=version, sealed=sealed):
            return unseal(payload_id(owner, version), sealed)
        case Payload(data=data) if data:
            return b64decode(data)
        case Payload(id=name, sealed=sealed):
            return unseal(name, sealed)
