"""Single containers in overlay networks: `docker run --network`, `docker network connect` and `disconnect`.

The engine makes and connects the container. Before, a manager gives it an address and this host is made part of the
network; what is sent on names this address and who answers names there, and is else as it came.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from afterswarm.api import networks
from afterswarm.api.host import Host, Place
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.guest import Wish
from afterswarm.model.network import PREDEFINED
from afterswarm.model.refused import Refused
from afterswarm.ports import Json

_ENGINES_OWN = PREDEFINED | {"", "default"}


async def create_container(host: Host, request: Request) -> Response | Upgraded:
    """The container is made with the addresses that the swarm gives it in overlay networks, if it is to be in any."""
    body = _decoded(await request.read())
    overlays = {name: meant for name in _named(body) if (meant := await _meant(host, request, name))}
    if not overlays:
        return await forward(request, host.engine)
    own = _part(body, "HostConfig").get("Dns") or []
    taken: list[str] = []
    try:
        for name, meant in overlays.items():
            asked = _part(body, "NetworkingConfig", "EndpointsConfig").get(name) or {}
            if body.get("MacAddress") and _part(body, "HostConfig").get("NetworkMode") == name:
                asked = {"MacAddress": body["MacAddress"], **asked}  # where clients put it before API 1.44
            place = await _admitted(host, asked, name, meant, own)
            if place:
                taken += [place.guest] if place.guest else []
                _put(body, name, place)
    except Refused:
        await host.dismiss(taken)
        raise
    return await _sent(host, request, body, taken)


async def connect(host: Host, request: Request, id: str) -> Response | Upgraded:  # noqa: A002 - the route's word
    body = _decoded(await request.read())
    meant = await _meant(host, request, id)
    if not meant:
        return await forward(request, host.engine)
    reply = await host.engine.request("GET", f"/containers/{quote(str(body.get('Container')), safe='')}/json")
    if reply.status != 200:
        raise Refused(reply.status, reply.message)
    own = (reply.json().get("HostConfig") or {}).get("Dns") or []
    place = await _admitted(host, body.get("EndpointConfig") or {}, id, meant, own)
    if place is None:
        return await forward(request, host.engine)
    body["EndpointConfig"] = _endpoint(body.get("EndpointConfig") or {}, place)
    target = networks.target(request, f"/networks/{quote(place.network, safe='')}/connect")
    return await _sent(host, request, body, [place.guest] if place.guest else [], target=target)


async def disconnect(host: Host, request: Request, id: str) -> Response | Upgraded:  # noqa: A002
    """The address is given back once the engine shows the container outside of the network."""
    meant = await networks.overlay(host, request, id)
    parts = await networks.parts(host, request, meant) if meant else []
    target = networks.target(request, f"/networks/{parts[0]['Id']}/disconnect") if parts else None
    return await forward(request, host.engine, target=target)


async def _meant(host: Host, request: Request, term: str) -> str | None:
    """What to ask managers for when a client means an overlay network. A worker does not know those of others."""
    meant = await networks.overlay(host, request, term)
    if meant or host.replica is not None or not host.node_id:
        return meant
    return None if await networks.of_engine(host, request, term) else term


async def _admitted(host: Host, asked: Json, term: str, meant: str, name_servers: list[str]) -> Place | None:
    """`None`: on a worker, no manager knows such a network; so the engine says it in its words."""
    if asked.get("MacAddress"):
        raise Refused(400, f"network {term}: a container's MAC address in an overlay network is given by the swarm")
    chosen = asked.get("IPAMConfig") or {}
    wish = Wish(
        network=meant,
        named=term,
        address=chosen.get("IPv4Address") or "",
        address6=chosen.get("IPv6Address") or "",
        name_servers=name_servers,
    )
    try:
        return await host.admit(wish)
    except Refused as refused:
        if refused.status == 404 and host.replica is None:
            return None
        raise


async def _sent(
    host: Host, request: Request, body: Json, taken: list[str], target: str | None = None
) -> Response | Upgraded:
    data = msgspec.json.encode(body)
    headers = [(k, v) for k, v in request.headers if k.lower() not in ("content-length", "transfer-encoding")]
    headers.append(("Content-Length", str(len(data))))
    edited = Request(request.method, target or request.target, headers, data)
    answer = await forward(edited, host.engine)
    if answer.status < 300:
        host.made(taken)
    elif taken:
        await host.dismiss(taken)
    return answer


def _put(body: Json, name: str, place: Place) -> None:
    """The engine knows the network by its full name only. The first network's MAC address stands in two places."""
    endpoints = body.setdefault("NetworkingConfig", {}).setdefault("EndpointsConfig", {})
    endpoints[place.network] = _endpoint(endpoints.pop(name, None) or {}, place)
    config = body.setdefault("HostConfig", {})
    if config.get("NetworkMode") == name:
        config["NetworkMode"] = place.network
        body |= {"MacAddress": place.endpoint["MacAddress"]} if place.guest else {}
    if place.name_server:
        config["Dns"] = [place.name_server]


def _endpoint(asked: Json, place: Place) -> Json:
    if not place.guest:
        return asked
    ipam = {**(asked.get("IPAMConfig") or {}), **place.endpoint["IPAMConfig"]}
    return {**asked, **place.endpoint, "IPAMConfig": ipam}


def _named(body: Json) -> list[str]:
    """The networks that a container is to be made in, but those that every engine has."""
    mode = str(_part(body, "HostConfig").get("NetworkMode") or "")
    names = dict.fromkeys([mode, *_part(body, "NetworkingConfig", "EndpointsConfig")])
    return [name for name in names if name not in _ENGINES_OWN and not name.startswith("container:")]


def _part(body: Json, *path: str) -> Json:
    found: Any = body
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _decoded(body: bytes) -> Json:
    """What cannot be read is empty: the engine says what is wrong with it."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


ROUTES = [
    ("POST", "/containers/create", create_container),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
]
