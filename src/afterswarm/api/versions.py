"""Which API version is offered: one that the host's engine speaks too, since most calls go on to it.

Command lines settle the version with `/_ping`, and learn there whether this host is a manager.
"""

from __future__ import annotations

import re
from typing import Any

from afterswarm.api.host import Host, LocalInfo
from afterswarm.http.client import Reply
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.message import Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.refused import Refused

NEWEST = (1, 56)  # whose description was read for what it says of swarms
OLDEST = (1, 24)  # the first with services
_PREFIX = re.compile(r"/v(\d{1,9})\.(\d{1,9})(?=/)")


def parse(text: str) -> tuple[int, int] | None:
    """ "1.41" as numbers."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[tuple[int, int] | None, str]:
    """A path without the API version that it begins with, and that version."""
    match = _PREFIX.match(path)
    return ((int(match[1]), int(match[2])), path[match.end() :]) if match else (None, path)


class Versions:
    """The version offered, learnt from the engine. Every `/_ping` and `/version` refreshes it."""

    def __init__(self) -> None:
        self._offered: tuple[int, int] | None = None

    async def offered(self, host: Host) -> tuple[int, int]:
        """An engine that cannot be reached does not keep swarm calls from being answered."""
        if self._offered is None:
            try:
                reply = await host.engine.request("GET", "/_ping", timeout=5)
            except ConnectFailed:
                return NEWEST
            self._learn(reply.headers.get("api-version"))
        return self._offered or NEWEST

    async def check(self, host: Host, asked: tuple[int, int] | None) -> None:
        if asked and asked < OLDEST:
            raise Refused(
                400,
                f"client version {text(asked)} is too old. Minimum supported API version is {text(OLDEST)}, please "
                "upgrade your client to a newer version",
            )
        offered = await self.offered(host) if asked else None
        if asked and offered and asked > offered:
            raise Refused(
                400,
                f"client version {text(asked)} is too new. Maximum supported API version is {text(offered)}",
            )

    async def ping(self, host: Host, request: Request) -> Response | Upgraded:
        """`GET` and `HEAD /_ping`. It asks whether the API is there, and swarm calls work without the engine."""

        def edit(answer: Response) -> Response:
            own = {"api-version", "swarm"}
            api = next((value for name, value in answer.headers if name.lower() == "api-version"), "")
            headers = [(name, value) for name, value in answer.headers if name.lower() not in own]
            headers.append(("Api-Version", self._learn(api)))
            headers.append(("Swarm", swarm_header(host.local())))
            return Response(answer.status, headers, answer.body)

        try:
            return await forward(request, host.engine, target="/_ping", edit=edit)
        except ConnectFailed:
            headers = [("Api-Version", text(self._offered or NEWEST)), ("Swarm", swarm_header(host.local()))]
            return Response(200, [*headers, ("Ostype", "linux"), ("Content-Type", "text/plain; charset=utf-8")], b"OK")

    async def version(self, host: Host, request: Request) -> Response:
        """`GET /version`, with the version offered as the engine's."""
        reply = await host.engine.request("GET", request.target)
        if reply.status != 200:
            return passed_on(reply)
        body: dict[str, Any] = reply.json()
        body["ApiVersion"] = self._learn(str(body.get("ApiVersion", "")))
        for component in body.get("Components") or []:
            details = component.get("Details") or {}
            if "ApiVersion" in details:
                details["ApiVersion"] = body["ApiVersion"]
        return Response.json(body)

    def _learn(self, engines: str) -> str:
        self._offered = min(parse(engines) or NEWEST, NEWEST)
        return text(self._offered)


def swarm_header(local: LocalInfo) -> str:
    """What `/_ping` says of the swarm; command lines hide commands by it."""
    if local.state != "active":
        return local.state
    return "active/manager" if local.control_available else "active/worker"


def passed_on(reply: Reply) -> Response:
    """The engine's own answer, as it came."""
    return Response(reply.status, [("Content-Type", reply.headers.get("content-type", "application/json"))], reply.body)
