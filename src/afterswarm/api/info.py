"""`/info`: the engine's, with the swarm's block in place of its own. `docker info` and `docker stack` read it."""

from __future__ import annotations

from typing import Any

from afterswarm.api import swarm
from afterswarm.api.host import Host
from afterswarm.api.versions import passed_on
from afterswarm.http.message import Request, Response
from afterswarm.model.node import Role
from afterswarm.ports import Json


async def info(host: Host, request: Request) -> Response:
    reply = await host.engine.request("GET", request.target)
    if reply.status != 200:
        return passed_on(reply)
    body: dict[str, Any] = reply.json()
    body["Swarm"] = swarm_block(host)
    return Response.json(body)


def swarm_block(host: Host) -> Json:
    local = host.local()
    block: Json = {
        "NodeID": host.node_id,
        "NodeAddr": local.node_addr,
        "LocalNodeState": local.state,
        "ControlAvailable": local.control_available,
        "Error": local.error,
        "RemoteManagers": [{"NodeID": node, "Addr": addr} for node, addr in local.remote_managers] or None,
    }
    if host.replica is None or not local.control_available:
        return block
    snap = host.replica.snapshot()
    block["Nodes"] = len(snap.nodes)
    block["Managers"] = sum(node.role == Role.MANAGER for node in snap.nodes.values())
    if snap.cluster:
        block["Cluster"] = swarm.rendered(snap.cluster)
    return block


ROUTES = [
    ("GET", "/info", info),
]
