"""The front door: what is the swarm's is answered here, everything else goes on to the engine of this host."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import unquote

from afterswarm.api import (
    configs,
    errors,
    guests,
    info,
    networks,
    nodes,
    secrets,
    services,
    swarm,
    tasks,
    versions,
    volumes,
)
from afterswarm.api.containers import Containers
from afterswarm.api.events.events import Events
from afterswarm.api.host import Host
from afterswarm.api.logs import logs
from afterswarm.api.metrics import PATH, metrics
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.refused import Refused
from afterswarm.ports import Replica

OURS = {"configs", "nodes", "secrets", "services", "swarm", "tasks"}  # never the engine's business

_RESOURCES = (info, logs, guests, swarm, nodes, services, tasks, secrets, configs, networks, volumes)

Route = tuple[str, str, Callable[..., Awaitable[Response | Upgraded]]]


class App:
    """One host's API. Where a manager runs, `follow` its replica too, so that `/events` has something to say."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._versions = versions.Versions()
        self._events = Events(host.clock)
        self._routes = [(method, _compiled(pattern), handler) for method, pattern, handler in self._table()]
        # Some engine answers these, and says itself which versions it speaks.
        self._engines = [(method, _compiled(path), handler) for method, path, handler in Containers().routes()]

    async def follow(self, replica: Replica) -> None:
        """Turn what changes into events, until cancelled."""
        await self._events.follow(replica)

    async def __call__(self, request: Request) -> Response | Upgraded:
        try:
            return await self._answer(request)
        except Exception as error:
            answer = errors.answer(error, self._host.engine.where)
            if answer is None:
                raise
            return await self._signed(answer) if isinstance(error, Refused) else answer

    async def _answer(self, request: Request) -> Response | Upgraded:
        asked, path = versions.split(request.path)
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(path) if method == request.method else None
            if match:
                await self._versions.check(self._host, asked)
                return await self._signed(await handler(self._host, request, **_words(match)))
        for method, pattern, handler in self._engines:
            match = pattern.fullmatch(path) if method == request.method else None
            if match:
                return await handler(self._host, request, **_words(match))
        if path.split("/")[1:2] and path.split("/")[1] in OURS:
            return Response.error(404, "page not found")
        return await forward(request, self._host.engine)

    async def _signed(self, answer: Response | Upgraded) -> Response | Upgraded:
        """Docker says in every answer which version it speaks."""
        if isinstance(answer, Response) and not any(name.lower() == "api-version" for name, _ in answer.headers):
            answer.headers.append(("Api-Version", versions.text(await self._versions.offered(self._host))))
            answer.headers.append(("Ostype", "linux"))
        return answer

    def _table(self) -> Iterable[Route]:
        yield "GET", "/_ping", self._versions.ping
        yield "HEAD", "/_ping", self._versions.ping
        yield "GET", "/version", self._versions.version
        yield "GET", "/events", self._events.stream
        yield "GET", "/afterswarm/peers", _peers
        yield "GET", "/afterswarm/standing", _standing
        yield "GET", PATH, metrics
        yield "GET", "/afterswarm/addresses", _addresses
        for module in _RESOURCES:
            yield from module.ROUTES


async def _peers(host: Host, _request: Request) -> Response:
    """For `afterswarm doctor`."""
    return Response.json(host.acquaintances())


async def _standing(host: Host, _request: Request) -> Response:
    """Likewise."""
    return Response.json(host.standing())


async def _addresses(host: Host, _request: Request) -> Response:
    """For `afterswarm address ls` and the doctor."""
    return Response.json(host.floating())


def _words(match: re.Match[str]) -> dict[str, str]:
    return {name: unquote(value) for name, value in match.groupdict().items()}


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))
