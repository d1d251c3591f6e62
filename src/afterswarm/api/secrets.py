"""`/secrets`: create, list, inspect, update, remove. The payload goes in and never comes out."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.api import decode, filters, lookup, since
from afterswarm.api.host import Host
from afterswarm.api.views import render
from afterswarm.api.write import check_version, replica_of, settle, snapshot_of
from afterswarm.core.admit import secret as admit
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.secret import Secret, SecretSpec, payload_id
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

FILTERS = frozenset({"id", "label", "name", "names"})


async def listing(host: Host, request: Request) -> Response:
    snap = snapshot_of(host)
    wanted = filters.parse(request, FILTERS)
    found = [snap.secrets[key] for key in sorted(snap.secrets)]
    return Response.json([rendered(s) for s in found if chosen(wanted, s.id, s.name, s.spec.labels)])


def chosen(wanted: filters.Filters, obj_id: str, name: str, labels: dict[str, str]) -> bool:
    """Whether a secret or a config passes the filters: `name` and `id` are prefixes, `names` are whole."""
    return (
        filters.prefixed(wanted, "id", obj_id)
        and filters.prefixed(wanted, "name", name)
        and filters.exact(wanted, "names", name)
        and filters.labelled(wanted, "label", labels)
    )


async def create(host: Host, request: Request) -> Response:
    replica = replica_of(host)
    body = await decode.raw(request, SecretSpec)
    since.check_templates(body, request, "secret")
    spec = decode.convert(body, SecretSpec)

    def decide(snap: Snapshot) -> tuple[list[Change], str]:
        secret, payload = admit.create(snap, spec)
        sealed = replace(secret, sealed=host.seal(secret.id, payload))
        return [Change(None, sealed)], secret.id

    return Response.json({"ID": await settle(replica, decide)}, 201)


async def inspect(host: Host, _request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    return Response.json(rendered(lookup.secret(snapshot_of(host), id)))


async def update(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    replica = replica_of(host)
    version = decode.version(request, "secret")
    spec = await decode.body(request, SecretSpec)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        secret = lookup.secret(snap, id)
        check_version(secret, version)
        made = admit.update(snap, secret, spec, host.unseal)
        new = made.obj
        if made.data is not None:
            new = replace(new, sealed=host.seal(payload_id(new.id, new.data_version), made.data))
        return [Change(secret, new), *made.changes], None

    await settle(replica, decide)
    return Response(200)


async def remove(host: Host, _request: Request, id: str) -> Response:  # noqa: A002
    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        return admit.remove(snap, lookup.secret(snap, id)), None

    await settle(replica_of(host), decide)
    return Response(204)


def rendered(secret: Secret) -> Json:
    return {**render.base(secret), "Spec": render.annotated(replace(secret.spec, data=""))}


ROUTES = [
    ("GET", "/secrets", listing),
    ("POST", "/secrets/create", create),
    ("GET", "/secrets/{id}", inspect),
    ("POST", "/secrets/{id}/update", update),
    ("DELETE", "/secrets/{id}", remove),
]
