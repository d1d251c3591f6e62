"""Calls that the engine answers, but not before we have had a look."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from afterswarm.api import lookup
from afterswarm.api.host import Host
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.network import LABEL
from afterswarm.model.refused import Refused

_ENGINES_OWN = {"", "bridge", "default", "host", "none"}


async def engine_json(host: Host, method: str, target: str, body: object = None) -> Any:
    """What the host's engine answers; `Refused` with its words when that is an error."""
    data = b"" if body is None else msgspec.json.encode(body)
    reply = await host.engine.request(method, target, body=data)
    if reply.status >= 400:
        raise Refused(reply.status, reply.message)
    return reply.json() if reply.body else None


async def create_container(host: Host, request: Request) -> Response | Upgraded:
    """`docker run --network <overlay>` would take an address behind the swarm's back: refused, for now, and why."""
    for name in _networks(await request.read()):
        if await _is_overlay(host, name):
            raise Refused(
                501,
                f"container cannot be attached to overlay network {name} directly: run it as a service "
                f"(docker service create --network {name} …)",
            )
    return await forward(request, host.engine)


def _networks(body: bytes) -> list[str]:
    try:
        asked = msgspec.json.decode(body)
        mode = (asked.get("HostConfig") or {}).get("NetworkMode") or ""
        endpoints = (asked.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    except (msgspec.DecodeError, AttributeError):
        return []  # the engine says what is wrong with it
    names = dict.fromkeys([str(mode), *endpoints])
    return [name for name in names if name not in _ENGINES_OWN and not name.startswith("container:")]


async def _is_overlay(host: Host, name: str) -> bool:
    if host.replica is not None and lookup.network_exactly(host.replica.snapshot(), name):
        return True
    reply = await host.engine.request("GET", f"/networks/{quote(name, safe='')}")
    return reply.status == 200 and LABEL in (reply.json().get("Labels") or {})


ROUTES = [
    ("POST", "/containers/create", create_container),
]
