"""`/services`: create, list, inspect, update, roll back, remove. Their logs have a file of their own."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from afterswarm.api import decode, filters, lookup, since
from afterswarm.api.digests import pinned
from afterswarm.api.host import Host
from afterswarm.api.views import service as service_view
from afterswarm.api.write import OUT_OF_SEQUENCE, replica_of, settle, snapshot_of
from afterswarm.core.admit import service as admit
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.refused import Refused
from afterswarm.model.service import Service, ServiceSpec
from afterswarm.model.snapshot import Snapshot

FILTERS = frozenset({"id", "label", "mode", "name", "runtime"})
_AUTH = "X-Registry-Auth"


async def listing(host: Host, request: Request) -> Response:
    snap = snapshot_of(host)
    wanted = filters.parse(request, FILTERS)
    found = []
    for service in lookup.services(snap):
        if (
            filters.prefixed(wanted, "id", service.id)
            and filters.prefixed(wanted, "name", service.name)
            and filters.labelled(wanted, "label", service.spec.labels)
            and filters.exact(wanted, "runtime", service.spec.task_template.runtime or "container")
            and filters.exact(wanted, "mode", service.spec.mode.word)
        ):
            shown = service_view.rendered(snap, service, defaults=request.flag("insertDefaults"))
            if request.flag("status") and not since.before(request, since.STATUS):
                shown["ServiceStatus"] = service_view.status(snap, service)
            found.append(shown)
    return Response.json(found)


async def create(host: Host, request: Request) -> Response:
    replica = replica_of(host)
    auth = request.headers.get(_AUTH)
    spec, warnings = await pinned(host, request, await _spec(request), auth)

    def decide(snap: Snapshot) -> tuple[Sequence[Change], str]:
        service = admit.create(snap, spec)
        return [Change(None, replace(service, pull_auth=_sealed(host, service, auth)))], service.id

    return Response.json({"ID": await settle(replica, decide), "Warnings": warnings}, 201)


async def inspect(host: Host, request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    snap = snapshot_of(host)
    service = lookup.service(snap, id)
    return Response.json(service_view.rendered(snap, service, defaults=request.flag("insertDefaults")))


async def update(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    """With `?rollback=previous`, the body is ignored, as Docker does."""
    replica = replica_of(host)
    version = decode.version(request, "service")
    rollback = _rollback(request)
    source = request.arg("registryAuthFrom", "spec") or "spec"
    if source not in ("spec", "previous-spec"):
        raise Refused(400, f"invalid registryAuthFrom '{source}'")
    auth = request.headers.get(_AUTH)
    spec = await _spec(request)
    spec, warnings = await pinned(host, request, spec, auth, lookup.service(replica.snapshot(), id))

    def decide(snap: Snapshot) -> tuple[Sequence[Change], None]:
        service = lookup.service(snap, id)
        if not admit.is_read(service, version):
            raise Refused(500, OUT_OF_SEQUENCE)
        updated = admit.update(snap, service, spec, rollback=rollback)
        given = _sealed(host, service, auth)
        return [Change(service, admit.with_auth(service, updated, given, source, rollback=rollback))], None

    await settle(replica, decide)
    return Response.json({"Warnings": warnings})


async def _spec(request: Request) -> ServiceSpec:
    """What `service_view` adds is taken away again: an update that changes nothing must not look like a change."""
    spec = decode.convert(since.known(await decode.raw(request, ServiceSpec), request, since.SERVICE), ServiceSpec)
    template = spec.task_template
    if template.runtime == "container":
        spec = replace(spec, task_template=replace(template, runtime=""))
    return spec


def _sealed(host: Host, service: Service, auth: str) -> str:
    """The client's credentials for the registry rest sealed."""
    return host.seal(service.id, auth.encode()) if auth else ""


def _rollback(request: Request) -> bool:
    match request.arg("rollback"):
        case "" | "none":
            return False
        case "previous":
            return True
        case other:
            raise Refused(400, f"unrecognized rollback option {other}")


async def remove(host: Host, _request: Request, id: str) -> Response:  # noqa: A002
    def decide(snap: Snapshot) -> tuple[Sequence[Change], None]:
        service = lookup.service(snap, id)
        return [Change(service, admit.remove(snap, service))], None

    await settle(replica_of(host), decide)
    return Response(200)


ROUTES = [
    ("GET", "/services", listing),
    ("POST", "/services/create", create),
    ("GET", "/services/{id}", inspect),
    ("POST", "/services/{id}/update", update),
    ("DELETE", "/services/{id}", remove),
]
