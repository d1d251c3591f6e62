"""What users ask of services, made into a `Service` or refused: create, update, roll back, remove.

Here is what can be said only with a look at the swarm: names and ports that are taken, networks, secrets and configs
that must be there. Words are SwarmKit's (`manager/controlapi/service.go`) behind the prefix that Docker shows. Two
requests at once cannot both pass: what they looked at is guarded (`core.guards`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core import dependencies, naming, payloads, publishing
from afterswarm.core.admit import service_spec
from afterswarm.core.admit.words import invalid, unimplemented
from afterswarm.core.dns import named_ports
from afterswarm.core.options import table as options
from afterswarm.core.options import traffic
from afterswarm.model.network import PREDEFINED, Network
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, Secret
from afterswarm.model.service import (
    JobStatus,
    NetworkAttachmentConfig,
    PortConfig,
    Service,
    ServiceSpec,
    UpdateState,
    UpdateStatus,
)
from afterswarm.model.snapshot import Snapshot

_UNDER_WAY = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})
_PAUSED = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})


def create(snap: Snapshot, spec: ServiceSpec) -> Service:
    """A new service; one without a name is given one. Raises `Refused`."""
    names = {s.name for s in snap.services.values() if not s.pending_delete}
    spec = payloads.filled(snap, spec if spec.name else replace(spec, name=naming.spare(snap.rev, names)), None)
    spec = _admitted(snap, spec, "")
    if spec.name in names:
        why = f"name conflicts with an existing object: service {spec.name} already exists"
        raise Refused(409, f"rpc error: code = AlreadyExists desc = {why}")
    job = JobStatus(last_execution=snap.now) if spec.mode.is_job else None
    return Service(id=ids.derive("service", spec.name, snap.rev), spec=spec, job_status=job, read_after=snap.rev)


def update(snap: Snapshot, service: Service, spec: ServiceSpec, *, rollback: bool = False) -> Service:
    """The service with this specification, or on `rollback` with its previous one (`spec` is ignored then).

    Tasks become outdated only when something of theirs changed; a job is executed again whatever changed. Raises
    `Refused`.
    """
    status: UpdateStatus | None = None
    if rollback:
        if service.previous_spec is None:
            why = f"service {service.id} does not have a previous spec"
            raise Refused(400, f"rpc error: code = FailedPrecondition desc = {why}")
        spec = service.previous_spec
        status = UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED, started_at=snap.now, message="manually requested rollback"
        )
    if spec.name != service.name:
        raise unimplemented("renaming services is not supported")
    if not rollback:
        spec = payloads.filled(snap, spec, service.spec)
    spec = _admitted(snap, spec, service.id)
    if spec.mode.word != service.spec.mode.word:
        raise unimplemented("service mode change is not allowed")
    return replace(changed(snap, service, spec, status), read_after=snap.rev)


def is_read(service: Service, version: int) -> bool:
    """Whether who read the service at this version knows its present specification.

    Docker refuses as soon as anything was written, an update's progress too. Here updates also begin by themselves
    (new data of a secret), in the middle of a client's deployment.
    """
    return service.read_after < version <= service.rev


def changed(snap: Snapshot, service: Service, spec: ServiceSpec, status: UpdateStatus | None = None) -> Service:
    """The service with this specification. What a rollback leads back to is what was before the last change.

    A deployment that replaces data of secrets and then changes the service is one change in that: as long as new data
    is being rolled out, what was before it is kept. So it is when nothing changes.
    """
    version = service.spec_version
    state = service.update_status.state if service.update_status else None
    if service_spec.outdates(service.spec, spec) or state in _PAUSED:
        version = max(snap.rev, version) + 1  # failures before a paused update goes on are not counted again
    previous: ServiceSpec | None = service.spec
    if spec == service.spec and status is None:
        previous = service.previous_spec or spec
        status = service.update_status if state in _UNDER_WAY else None
    elif (
        service.previous_spec
        and status is None
        and state in (None, UpdateState.UPDATING, UpdateState.PAUSED)
        and service.previous_spec != service.spec
        and payloads.same_but_for_data(service.previous_spec, service.spec)
    ):
        previous = service.previous_spec
    job = service.job_status
    if job is not None:  # nothing is rolled out: it is executed again
        job, status = JobStatus(iteration=job.iteration + 1, last_execution=snap.now), None
    return replace(
        service, spec=spec, previous_spec=previous, spec_version=version, update_status=status, job_status=job
    )


def with_auth(old: Service, updated: Service, given: str, source: str, *, rollback: bool) -> Service:
    """With the credentials for its registry: those `given`, else those of the `source`, and a rollback's own.

    `given` is sealed already. Raises `Refused`.
    """
    if source == "previous-spec" and not given and old.previous_spec is None:
        raise Refused(400, "service does not have a previous spec")
    before = old.pull_auth if updated.previous_spec == old.spec else old.previous_pull_auth
    kept = old.previous_pull_auth if rollback or source == "previous-spec" else old.pull_auth
    return replace(updated, pull_auth=given or kept, previous_pull_auth=before)


def remove(_snap: Snapshot, service: Service) -> Service:
    """The service as one that goes when its last task has stopped. Its name and ports are free at once."""
    return replace(service, pending_delete=True)


def _admitted(snap: Snapshot, spec: ServiceSpec, service_id: str) -> ServiceSpec:
    spec = service_spec.checked(spec)
    traffic.check(spec.labels)
    named_ports.check(spec.labels)
    options.check(spec.labels, snap.cluster.spec.labels.get(options.ALLOW, "") if snap.cluster else "")
    dependencies.check(snap, spec)
    publishing.check(spec.labels, spec.endpoint_spec.ports if spec.endpoint_spec else ())
    template = spec.task_template
    networks = [_resolved(snap, attachment) for attachment in template.networks]
    spec = replace(spec, task_template=replace(template, networks=networks))
    ports = spec.endpoint_spec.ports if spec.endpoint_spec else []
    _check_ports_free(snap, ports, service_id)
    ingress = any(n.spec.ingress and not n.pending_delete for n in snap.networks.values())
    if not ingress and any(p.publish_mode == "ingress" for p in ports):
        why = "service needs ingress network, but no ingress network is present"
        raise Refused(400, f"rpc error: code = FailedPrecondition desc = {why}")
    if container := template.container_spec:
        _check_there("secret", snap.secrets.get, [(s.secret_id, s.secret_name) for s in container.secrets])
        _check_there("config", snap.configs.get, [(c.config_id, c.config_name) for c in container.configs])
    return spec


def _resolved(snap: Snapshot, attachment: NetworkAttachmentConfig) -> NetworkAttachmentConfig:
    """With the network's id for its name."""
    if attachment.target in PREDEFINED:
        return attachment
    network = _network(snap, attachment.target)
    if network is None:
        raise Refused(404, f"network {attachment.target} not found")
    if network.spec.ingress:
        raise invalid(f'Service cannot be explicitly attached to the ingress network "{network.name}"')
    return replace(attachment, target=network.id)


def _network(snap: Snapshot, wanted: str) -> Network | None:
    """By id, by name, by the beginning of its id."""
    there = [n for _, n in sorted(snap.networks.items()) if not n.pending_delete]
    exact = next((n for n in there if n.id == wanted), None) or next((n for n in there if n.name == wanted), None)
    if exact or not wanted:
        return exact
    starting = [n for n in there if n.id.startswith(wanted)]
    if len(starting) > 1:
        raise Refused(400, f"network {wanted} is ambiguous ({len(starting)} matches found)")
    return starting[0] if starting else None


def _check_ports_free(snap: Snapshot, ports: Iterable[PortConfig], service_id: str) -> None:
    """Of two services, both may publish a number in host mode: that is the scheduler's business."""
    wanted = {(p.protocol, p.published_port): p.publish_mode for p in ports if p.published_port}
    if not wanted:
        return
    for _, other in sorted(snap.services.items()):
        if other.id == service_id or other.pending_delete:
            continue
        asked = other.spec.endpoint_spec.ports if other.spec.endpoint_spec else []
        for port in (*asked, *(other.endpoint.ports if other.endpoint else ())):
            mode = wanted.get((port.protocol, port.published_port))
            if mode is None or (mode == "host" and port.publish_mode == "host"):
                continue
            how = "as a host-published port" if port.publish_mode == "host" else "as an ingress port"
            raise invalid(
                f"port '{port.published_port}' is already in use by service '{other.name}' ({other.id}) {how}"
            )


def _check_there(
    kind: str, get: Callable[[str], Secret | Config | None], references: Iterable[tuple[str, str]]
) -> None:
    """`references`: id and name, which must belong together."""
    missing = [name for id_, name in references if (found := get(id_)) is None or found.name != name]
    if missing:
        raise invalid(f"{kind}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")
