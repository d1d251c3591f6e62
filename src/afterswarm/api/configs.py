"""`/configs`: like secrets, but their payload is not secret and is shown."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.api import decode, filters, lookup, since
from afterswarm.api.host import Host
from afterswarm.api.secrets import FILTERS, chosen
from afterswarm.api.views import render
from afterswarm.api.write import check_version, replica_of, settle, snapshot_of
from afterswarm.core.admit import secret as admit
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.secret import Config, ConfigSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json


async def listing(host: Host, request: Request) -> Response:
    snap = snapshot_of(host)
    wanted = filters.parse(request, FILTERS)
    found = [snap.configs[key] for key in sorted(snap.configs)]
    return Response.json([rendered(c) for c in found if chosen(wanted, c.id, c.name, c.spec.labels)])


async def create(host: Host, request: Request) -> Response:
    replica = replica_of(host)
    body = await decode.raw(request, ConfigSpec)
    since.check_templates(body, request, "config")
    spec = decode.convert(body, ConfigSpec)

    def decide(snap: Snapshot) -> tuple[list[Change], str]:
        config = admit.create_config(snap, spec)
        return [Change(None, config)], config.id

    return Response.json({"ID": await settle(replica, decide)}, 201)


async def inspect(host: Host, _request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    return Response.json(rendered(lookup.config(snapshot_of(host), id)))


async def update(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    replica = replica_of(host)
    version = decode.version(request, "config")
    spec = await decode.body(request, ConfigSpec)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        config = lookup.config(snap, id)
        check_version(config, version)
        made = admit.update_config(snap, config, spec)
        new = made.obj
        if made.data is not None:
            new = replace(new, spec=replace(new.spec, data=spec.data))
        return [Change(config, new), *made.changes], None

    await settle(replica, decide)
    return Response(200)


async def remove(host: Host, _request: Request, id: str) -> Response:  # noqa: A002
    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        return admit.remove(snap, lookup.config(snap, id)), None

    await settle(replica_of(host), decide)
    return Response(204)


def rendered(config: Config) -> Json:
    return {**render.base(config), "Spec": render.annotated(config.spec)}


ROUTES = [
    ("GET", "/configs", listing),
    ("POST", "/configs/create", create),
    ("GET", "/configs/{id}", inspect),
    ("POST", "/configs/{id}/update", update),
    ("DELETE", "/configs/{id}", remove),
]
