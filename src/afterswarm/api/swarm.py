"""`/swarm`: init, join, leave, inspect, update, tokens. What it takes to become a member is the host's business."""

from __future__ import annotations

from typing import Any

import msgspec

from afterswarm.api import decode, since
from afterswarm.api.host import Host, InitRequest, JoinRequest
from afterswarm.api.trust import tls_info
from afterswarm.api.views import render
from afterswarm.api.views.service import merged
from afterswarm.api.write import check_version, replica_of, settle, snapshot_of
from afterswarm.core.admit import cluster as admit
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.cluster import Cluster, SwarmSpec
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
NO_SWARM = "This node is not part of a swarm"


async def inspect(host: Host, _request: Request) -> Response:
    cluster = _cluster(snapshot_of(host))
    tokens = {"JoinTokens": render.plain(cluster.tokens)}
    return Response.json({**rendered(cluster), **tokens})


async def init(host: Host, request: Request) -> Response:
    wanted = decode.convert(since.known(await decode.raw(request, InitRequest), request, since.SWARM), InitRequest)
    if host.node_id and not wanted.force_new_cluster:
        raise Refused(503, ALREADY)
    if wanted.force_new_cluster:
        raise Refused(501, "--force-new-cluster is not supported yet")
    if wanted.auto_lock_managers:
        raise Refused(501, admit.NO_AUTOLOCK)
    spec = admit.init(
        wanted.spec,
        pools=wanted.default_addr_pool,
        subnet_size=wanted.subnet_size,
        data_path_port=wanted.data_path_port,
    )
    return Response.json(await host.init(msgspec.structs.replace(wanted, spec=spec)))


async def join(host: Host, request: Request) -> Response:
    if host.node_id:
        raise Refused(503, ALREADY)
    wanted = await decode.body(request, JoinRequest)
    if not wanted.remote_addrs:
        raise Refused(400, "at least 1 RemoteAddr is required to join")
    await host.join(wanted)
    return Response(200)


async def leave(host: Host, request: Request) -> Response:
    if not host.node_id:
        raise Refused(503, NO_SWARM)
    force = request.flag("force")
    if host.local().control_available and not force:
        admit.leave(host.replica.snapshot() if host.replica else None, host.node_id)
    await host.leave(force=force)
    return Response(200)


async def update(host: Host, request: Request) -> Response:
    """Settings, then tokens. Members of the specification that the client leaves out stay as they are."""
    replica = replica_of(host)
    version = decode.version(request, "swarm")
    body = await decode.raw(request, SwarmSpec)
    if request.flag("rotateManagerUnlockKey"):
        raise Refused(501, admit.NO_AUTOLOCK)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        cluster = _cluster(snap)
        check_version(cluster, version)
        spec = decode.convert(merged(render.plain(cluster.spec), body), SwarmSpec)
        updated = admit.update(cluster, _labels(spec, body))
        return ([Change(cluster, updated)] if updated != cluster else []), None

    await settle(replica, decide)
    worker, manager = request.flag("rotateWorkerToken"), request.flag("rotateManagerToken")
    if worker or manager:
        await host.rotate_token(worker=worker, manager=manager)
    return Response(200)


async def unlock_key(host: Host, _request: Request) -> Response:
    """Empty, as Docker's when autolock is off: the command line says "no unlock key is set"."""
    replica_of(host)
    return Response.json({"UnlockKey": ""})


async def unlock(host: Host, _request: Request) -> Response:
    if not host.node_id:
        raise Refused(503, NO_SWARM)
    raise Refused(409, "swarm is not locked")


def rendered(cluster: Cluster) -> Json:
    """Without the tokens: also the `Cluster` of `/info`."""
    return {
        **render.base(cluster),
        "Spec": _spec(cluster.spec),
        "TLSInfo": tls_info(cluster.ca_cert),
        "RootRotationInProgress": False,
        "DefaultAddrPool": cluster.default_addr_pool,
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }


def _spec(spec: SwarmSpec) -> Json:
    """The key of a certificate authority of one's own is never shown."""
    shown = render.plain(spec)
    shown["CAConfig"].pop("SigningCAKey", None)
    for name in ("ExternalCAs", "SigningCACert"):
        if not shown["CAConfig"].get(name):
            shown["CAConfig"].pop(name, None)
    return shown


def _labels(spec: SwarmSpec, body: dict[str, Any]) -> SwarmSpec:
    """Labels are replaced as a whole: one that the client no longer names is gone."""
    return msgspec.structs.replace(spec, labels=body["Labels"]) if "Labels" in body else spec


def _cluster(snap: Snapshot) -> Cluster:
    if snap.cluster is None:
        raise Refused(503, "This node is not a swarm manager. Manager is being prepared or has trouble connecting.")
    return snap.cluster


ROUTES = [
    ("GET", "/swarm", inspect),
    ("POST", "/swarm/init", init),
    ("POST", "/swarm/join", join),
    ("POST", "/swarm/leave", leave),
    ("POST", "/swarm/update", update),
    ("GET", "/swarm/unlockkey", unlock_key),
    ("POST", "/swarm/unlock", unlock),
]
