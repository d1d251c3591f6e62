"""`/networks`: the swarm's overlay networks together with the networks of this host's engine.

Each overlay network that a host takes part in is also a network of its engine, with our label on it. Those are hidden
here: users see the overlay network, once, and can neither remove nor join the parts it is made of.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

import msgspec

from afterswarm.api import decode, filters, lookup
from afterswarm.api.host import Host
from afterswarm.api.views import network as network_view
from afterswarm.api.write import replica_of, settle
from afterswarm.core.admit import network as admit
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.base import Change
from afterswarm.model.network import LABEL, PREDEFINED, Network, NetworkSpec
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNING = frozenset({"label", "label!", "until"})
_VERSION = re.compile(r"/v\d+\.\d+(?=/)")


async def listing(host: Host, request: Request) -> Response:
    wanted = filters.parse(request, FILTERS)
    reply = await host.engine.request("GET", request.target)
    if reply.status != 200:
        return Response(reply.status, [("Content-Type", "application/json")], reply.body)
    local: list[Json] = reply.json()
    if host.replica is None:
        return Response.json([network_view.of_engine(n) for n in local] if host.node_id else local)
    snap = host.replica.snapshot()
    ours = [network_view.rendered(n) for n in lookup.networks(snap) if _chosen(snap, wanted, n)]
    return Response.json([*ours, *(n for n in local if LABEL not in (n.get("Labels") or {}))])


def _chosen(snap: Snapshot, wanted: filters.Filters, network: Network) -> bool:
    """Names match in part, ids from their beginning: so does the engine."""
    dangling = filters.truth(wanted, "dangling")
    return (
        filters.exact(wanted, "driver", network.spec.driver)
        and filters.prefixed(wanted, "id", network.id)
        and filters.labelled(wanted, "label", network.spec.labels)
        and filters.contained(wanted, "name", network.name)
        and filters.exact(wanted, "scope", "swarm")
        and filters.exact(wanted, "type", "custom")
        and (dangling is None or dangling != admit.is_used(snap, network))
    )


async def create(host: Host, request: Request) -> Response | Upgraded:
    body = await decode.raw(request, NetworkSpec)
    if body.get("Driver") != "overlay" and body.get("Scope") != "swarm":
        if host.replica is not None:
            admit.check_name_free(host.replica.snapshot(), str(body.get("Name", "")))
        return await forward(request, host.engine)
    replica = replica_of(host)
    spec = decode.convert(body, NetworkSpec)
    if spec.name and await _engines_own(host, request, spec.name):
        raise Refused(409, f"network with name {spec.name} already exists")

    def decide(snap: Snapshot) -> tuple[list[Change], str]:
        network = admit.create(snap, spec)
        return [Change(None, network)], network.id

    return Response.json({"Id": await settle(replica, decide), "Warning": ""}, 201)


async def inspect(host: Host, request: Request, id: str) -> Response | Upgraded:  # noqa: A002 - the route's word
    if request.arg("scope") in ("", "swarm") and host.replica is not None:
        network = lookup.network_exactly(host.replica.snapshot(), id)
        if network:
            return await _inspected(host, request, network)
    found = await of_engine(host, request, id)
    if request.arg("scope") == "swarm" and id in PREDEFINED and found:
        # Asked for when a service is to be in it: there it goes by its name, since each engine has an id of its own.
        return Response.json({**found, "Id": id, "Scope": "swarm"})
    if host.replica is None:
        return (
            Response.json(network_view.of_engine(found))
            if found and host.node_id
            else await forward(request, host.engine)
        )
    snap = host.replica.snapshot()
    part_of = _label(found)
    if part_of in snap.networks:
        return await _inspected(host, request, snap.networks[part_of])
    if found:
        return await forward(request, host.engine)
    return await _inspected(host, request, lookup.network(snap, id))


async def _inspected(host: Host, request: Request, network: Network) -> Response:
    containers: Json = {}
    for part in await parts(host, request, network.id):
        containers |= (await of_engine(host, request, part["Id"]) or {}).get("Containers") or {}
    snap = replica_of(host).snapshot()
    shown = network_view.inspected(snap, network, containers, verbose=request.flag("verbose"))
    return Response.json(shown)


async def remove(host: Host, request: Request, id: str) -> Response | Upgraded:  # noqa: A002
    meant = await overlay(host, request, id)
    if meant is None:
        return await forward(request, host.engine)

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        network = lookup.network(snap, meant)
        return [admit.remove(snap, network)], None

    await settle(replica_of(host), decide)
    return Response(204)


async def prune(host: Host, request: Request) -> Response:
    """The engine's unused networks without our parts, and, on a manager, unused overlay networks."""
    wanted = dict(filters.parse(request, PRUNING))
    spare = {**wanted, "label!": [*wanted.get("label!", []), LABEL]}
    query = urlencode({"filters": msgspec.json.encode(spare).decode()})
    reply = await host.engine.request("POST", target(request, f"/networks/prune?{query}"))
    if reply.status != 200:
        return Response(reply.status, [("Content-Type", "application/json")], reply.body)
    deleted: list[str] = reply.json().get("NetworksDeleted") or []
    if host.replica is not None and "until" not in wanted:  # ages are the engine's to reckon
        deleted = await settle(host.replica, lambda snap: _pruned(snap, wanted)) + deleted
    return Response.json({"NetworksDeleted": deleted or None})


def _pruned(snap: Snapshot, wanted: filters.Filters) -> tuple[list[Change], list[str]]:
    unused = [
        n
        for n in lookup.networks(snap)
        if not n.spec.ingress
        and filters.labelled(wanted, "label", n.spec.labels)
        and not any(filters.labelled({"x": [text]}, "x", n.spec.labels) for text in wanted.get("label!", []))
        and not admit.is_used(snap, n)
    ]
    return [admit.remove(snap, n) for n in unused], [n.name for n in unused]


async def parts(host: Host, request: Request, network_id: str) -> list[Json]:
    """The engine's networks behind an overlay network: one, or none where it is not used."""
    query = urlencode({"filters": msgspec.json.encode({"label": [f"{LABEL}={network_id}"]}).decode()})
    found: list[Json] = (await host.engine.request("GET", target(request, f"/networks?{query}"))).json()
    return found


async def overlay(host: Host, request: Request, term: str) -> str | None:
    """What to look up when a client means an overlay network (or a part of one); `None`: one of the engine's own."""
    if host.replica is not None and lookup.network_exactly(host.replica.snapshot(), term):
        return term
    part_of = _label(found := await of_engine(host, request, term))
    if host.replica is None:
        return part_of or None if host.node_id else None  # of a swarm that was left: the engine's again
    snap = host.replica.snapshot()
    if found:  # a part whose network is gone is the engine's again
        return part_of if part_of in snap.networks else None
    return term if any(n.id.startswith(term) for n in lookup.networks(snap)) else None


def _label(found: Json | None) -> str:
    labels: dict[str, str] = (found or {}).get("Labels") or {}
    return labels.get(LABEL, "")


async def _engines_own(host: Host, request: Request, name: str) -> bool:
    found = await of_engine(host, request, name)
    return found is not None and found["Name"] == name and not _label(found)


async def of_engine(host: Host, request: Request, term: str) -> Json | None:
    reply = await host.engine.request("GET", target(request, f"/networks/{quote(term, safe='')}"))
    found: Json | None = reply.json() if reply.status == 200 else None
    return found


def target(request: Request, path: str) -> str:
    """A path of the engine in the API version that the client speaks."""
    version = _VERSION.match(request.target)
    return (version.group() if version else "") + path


ROUTES = [
    ("GET", "/networks", listing),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
]
