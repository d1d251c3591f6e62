"""`/volumes`: the engine's own, and beside them the swarm's cluster volumes for clients that know of those."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from afterswarm.api import decode, filters, lookup, since
from afterswarm.api.host import Host
from afterswarm.api.versions import passed_on
from afterswarm.api.views import render
from afterswarm.api.write import check_version, replica_of, settle
from afterswarm.core.admit import volume as admit
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.base import Change, Part
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.volume import ClusterVolume, ClusterVolumeSpec
from afterswarm.ports import Json

CLUSTER = (1, 42)  # the version of the API that brought them


class _Create(Part, frozen=True):
    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}
    cluster_volume_spec: ClusterVolumeSpec | None = None


class _Update(Part, frozen=True):
    spec: ClusterVolumeSpec | None = None


async def listing(host: Host, request: Request) -> Response | Upgraded:
    snap = _snapshot(host, request)
    reply = await host.engine.request("GET", request.target)
    if reply.status != 200 or snap is None:
        return passed_on(reply)
    body: Json = reply.json()
    wanted = filters.read(request)
    found = [
        rendered(v)
        for _, v in sorted(snap.cluster_volumes.items())
        if wanted.keys() <= {"driver", "label", "name"}
        and filters.contained(wanted, "name", v.name)
        and filters.exact(wanted, "driver", v.driver)
        and filters.labelled(wanted, "label", v.labels)
    ]
    return Response.json({**body, "Volumes": [*(body.get("Volumes") or []), *found]})


async def create(host: Host, request: Request) -> Response | Upgraded:
    try:
        body = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None  # the engine says what is wrong with it
    given = isinstance(body, dict) and any(k.lower() == "clustervolumespec" and v is not None for k, v in body.items())
    if not given or since.before(request, CLUSTER):
        return await forward(request, host.engine)
    replica = replica_of(host)
    asked = await decode.body(request, _Create)
    wanted = ClusterVolume(
        id="",
        name=asked.name,
        labels=asked.labels,
        driver=asked.driver,
        options=asked.driver_opts,
        spec=asked.cluster_volume_spec or ClusterVolumeSpec(),
    )

    def decide(snap: Snapshot) -> tuple[list[Change], str]:
        volume = admit.create(snap, wanted)
        return [Change(None, volume)], volume.id

    made = await settle(replica, decide)
    return Response.json(rendered(lookup.cluster_volume(replica.snapshot(), made)), 201)


async def inspect(host: Host, request: Request, name: str) -> Response | Upgraded:
    snap = _snapshot(host, request)
    reply = await host.engine.request("GET", request.target)
    if reply.status != 404 or snap is None or not _there(snap, name):
        return passed_on(reply)
    return Response.json(rendered(lookup.cluster_volume(snap, name)))


async def update(host: Host, request: Request, name: str) -> Response:
    if host.replica is None:
        raise Refused(503, "volume update only valid for cluster volumes, but swarm is unavailable")
    version = decode.version(request, "swarm object")
    asked = await decode.body(request, _Update)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        volume = lookup.cluster_volume(snap, name)
        check_version(volume, version)
        updated = admit.update(volume, asked.spec) if asked.spec else volume
        return [Change(volume, replace(updated))], None

    await settle(host.replica, decide)
    return Response(200)


async def remove(host: Host, request: Request, name: str) -> Response | Upgraded:
    """By force, the engine says of none that it is not there: then both are asked."""
    snap = _snapshot(host, request)
    reply = await host.engine.request("DELETE", request.target)
    if snap is None or not _there(snap, name) or (reply.status != 404 and not request.flag("force")):
        return passed_on(reply)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        return [Change(lookup.cluster_volume(snap, name), None)], None

    await settle(replica_of(host), decide)
    return Response(204)


def _snapshot(host: Host, request: Request) -> Snapshot | None:
    return None if host.replica is None or since.before(request, CLUSTER) else host.replica.snapshot()


def _there(snap: Snapshot, term: str) -> bool:
    try:
        lookup.cluster_volume(snap, term)
    except Refused:
        return False
    return True


def rendered(volume: ClusterVolume) -> Json:
    made = render.base(volume)
    mode = volume.spec.access_mode
    spec = {"Availability": volume.spec.availability, **render.plain(volume.spec)}
    if mode:
        spec["AccessMode"] = {"Scope": mode.scope, "Sharing": mode.sharing, **render.plain(mode)}
    return {
        "ClusterVolume": {**made, "Spec": spec},
        "CreatedAt": made["CreatedAt"],
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": "",
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "global",
    }


ROUTES = [
    ("GET", "/volumes", listing),
    ("POST", "/volumes/create", create),
    ("GET", "/volumes/{name}", inspect),
    ("PUT", "/volumes/{name}", update),
    ("DELETE", "/volumes/{name}", remove),
]
