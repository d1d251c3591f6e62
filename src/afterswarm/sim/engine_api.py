"""What the API forwards to an engine, answered by one in memory: containers, their logs, and what a registry knows."""

from __future__ import annotations

import json
import re

from afterswarm.http.message import Request, Response
from afterswarm.ports import EngineError, EngineGone
from afterswarm.sim import images
from afterswarm.sim.container import stamp
from afterswarm.sim.engine import SimEngine


class EngineApi:
    """A handler of requests. Each container has said one line: its own name."""

    def __init__(self, engine: SimEngine) -> None:
        self._engine = engine

    async def __call__(self, request: Request) -> Response:
        path = re.sub(r"^(/engine)?(/v\d\.\d+)?", "", request.path)
        try:
            if path == "/_ping":
                return Response(200, [("Api-Version", "1.41")], b"OK")
            if path == "/info":
                return Response.json(await self._engine.info())
            if path == "/containers/json":
                return Response.json(await self._list(request))
            if found := re.fullmatch(r"/containers/([^/]+)/json", path):
                return Response.json(await self._engine.inspect(found[1]))
            if found := re.fullmatch(r"/containers/([^/]+)/logs", path):
                return await self._logs(request, found[1])
            if found := re.fullmatch(r"/distribution/(.+)/json", path):
                return _distribution(found[1])
        except EngineError as error:
            return Response.error(error.status, error.message)
        except EngineGone as error:
            return Response.error(503, str(error))
        return Response.error(404, "page not found")

    async def _list(self, request: Request) -> list[object]:
        labels = json.loads(request.arg("filters") or "{}").get("label") or [""]
        found = [c.listed() for c in self._engine.made.values() if c.running or request.flag("all")]
        for label in filter(None, labels):
            key, given, value = label.partition("=")
            found = [c for c in found if key in c["Labels"] and (not given or c["Labels"][key] == value)]
        return [*found]

    async def _logs(self, request: Request, container: str) -> Response:
        found = await self._engine.inspect(container)
        line = f"{found['Name'].lstrip('/')} speaks\n"
        if request.flag("details"):
            line = f" {line}"
        if request.flag("timestamps"):
            line = f"{stamp(self._engine.clock.now())} {line}"
        data = line.encode()
        if found["Config"].get("Tty"):
            return Response(200, [("Content-Type", "application/vnd.docker.raw-stream")], data)
        framed = bytes((1, 0, 0, 0)) + len(data).to_bytes(4) + data
        return Response(200, [("Content-Type", "application/vnd.docker.multiplexed-stream")], framed)


def _distribution(image: str) -> Response:
    if images.parts(image)[0] == "missing":
        return Response.error(404, f"manifest for {image} not found: manifest unknown: manifest unknown")
    media = "application/vnd.docker.distribution.manifest.v2+json"
    descriptor = {"mediaType": media, "digest": images.digest(image), "size": 528}
    return Response.json({"Descriptor": descriptor, "Platforms": [{"architecture": "amd64", "os": "linux"}]})
