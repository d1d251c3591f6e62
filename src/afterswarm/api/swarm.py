"""`/swarm`: init, join, leave, inspect, update, tokens. What it takes to become a member is the host's business."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from afterswarm.api import decode, since
from afterswarm.api.host import Host, InitRequest, JoinRequest, Keys, UnlockRequest
from afterswarm.api.trust import tls_info
from afterswarm.api.views import render
from afterswarm.api.views.service import merged
from afterswarm.api.write import check_version, replica_of, settle, snapshot_of
from afterswarm.core.admit import cluster as admit
from afterswarm.core.floating import place
from afterswarm.core.trust.roots import issuing
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.cluster import Cluster, SwarmSpec
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
NO_SWARM = "This node is not part of a swarm"
LOCKED = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
WORKER = "This node is not a swarm manager"
ROTATIONS = ("rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey")


async def inspect(host: Host, _request: Request) -> Response:
    cluster = _cluster(snapshot_of(host))
    tokens = {"JoinTokens": render.plain(cluster.tokens)}
    return Response.json({**rendered(cluster), **tokens})


async def init(host: Host, request: Request) -> Response:
    wanted = decode.convert(since.known(await decode.raw(request, InitRequest), request, since.SWARM), InitRequest)
    if host.node_id and not wanted.force_new_cluster:
        raise Refused(503, ALREADY)
    if host.node_id and not host.local().manager:
        raise Refused(503, WORKER)
    spec = admit.init(
        wanted.spec,
        pools=wanted.default_addr_pool,
        subnet_size=wanted.subnet_size,
        data_path_port=wanted.data_path_port,
        auto_lock=wanted.auto_lock_managers,
    )
    return Response.json(await host.init(replace(wanted, spec=spec)))


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
    if host.local().state == "locked" and not force:
        raise Refused(503, LOCKED)
    if host.local().control_available and not force:
        admit.leave(host.replica.snapshot() if host.replica else None, host.node_id)
    await host.leave(force=force)
    return Response(200)


async def update(host: Host, request: Request) -> Response:
    """Settings, tokens, keys, all in one commit. Members that the client leaves out stay as they are."""
    replica = replica_of(host)
    version = decode.version(request, "swarm")
    body = await decode.raw(request, SwarmSpec)
    draw = [name for name in ROTATIONS if request.flag(name)]

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        cluster = _cluster(snap)
        check_version(cluster, version)
        spec = _labels(decode.convert(merged(render.plain(cluster.spec), body), SwarmSpec), body)
        if spec.labels != cluster.spec.labels:
            place.check(spec.labels, place.taken(snap))
        updated = _drawn(host.keys, admit.update(cluster, spec), draw)
        if admit.new_root(cluster, spec):
            given = spec.ca_config
            updated = replace(
                updated, rotation=host.keys.rotation(cluster, given.signing_ca_cert, given.signing_ca_key)
            )
        return ([Change(cluster, updated)] if updated != cluster else []), None

    await settle(replica, decide)
    return Response(200)


async def unlock_key(host: Host, _request: Request) -> Response:
    """Empty, as Docker's when autolock is off: the command line says "no unlock key is set"."""
    cluster = _cluster(snapshot_of(host))
    return Response.json({"UnlockKey": host.keys.shown_unlock_key(cluster)})


async def unlock(host: Host, request: Request) -> Response:
    wanted = await decode.body(request, UnlockRequest)
    if host.local().state != "locked":
        replica_of(host)
        raise Refused(409, "swarm is not locked")
    await host.unlock(wanted.unlock_key)
    return Response(200)


def rendered(cluster: Cluster) -> Json:
    """Without the tokens: also the `Cluster` of `/info`."""
    return {
        **render.base(cluster),
        "Spec": _spec(cluster.spec),
        "TLSInfo": tls_info(cluster.ca_cert, issuing(cluster)[0]),
        "RootRotationInProgress": cluster.rotation is not None,
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


def _drawn(keys: Keys, cluster: Cluster, draw: list[str]) -> Cluster:
    """With new secrets where they are asked for or missing."""
    tokens = cluster.tokens
    if "rotateWorkerToken" in draw:
        tokens = replace(tokens, worker=keys.token(cluster.ca_cert))
    if "rotateManagerToken" in draw:
        tokens = replace(tokens, manager=keys.token(cluster.ca_cert))
    unlock_key = cluster.unlock_key
    if not cluster.spec.encryption_config.auto_lock_managers:
        unlock_key = ""
    elif not unlock_key or "rotateManagerUnlockKey" in draw:
        unlock_key = keys.unlock_key(cluster)
    return replace(cluster, tokens=tokens, unlock_key=unlock_key)


def _labels(spec: SwarmSpec, body: dict[str, Any]) -> SwarmSpec:
    """Labels are replaced as a whole: one that the client no longer names is gone."""
    return replace(spec, labels=body["Labels"]) if "Labels" in body else spec


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
