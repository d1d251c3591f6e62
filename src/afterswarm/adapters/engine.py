"""The Docker Engine of one host over its socket: `ports.Engine` as HTTP calls, without decisions.

Paths are of the newest API version in `KNOWN` that the engine has, 1.41 being Docker Engine 20.10: later engines refuse
1.41, before 1.44 an endpoint's MAC address was not read, and before 1.48 not every option of mounts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from math import ceil
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec

from afterswarm.core.host.needs import lacking
from afterswarm.http.client import Client, Reply
from afterswarm.http.errors import ConnectFailed
from afterswarm.ports import EngineError, EngineGone, Json

KNOWN = ((1, 41), (1, 44), (1, 48))
CALL = 60.0  # seconds; creating is slow on slow disks


class DockerEngine:
    """Implements `ports.Engine`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._version: tuple[int, int] | None = None

    async def version(self) -> Json:
        """`GET /version` without a version in its path: the one call that every engine answers."""
        try:
            reply = await self._client.request("GET", "/version", timeout=CALL)
        except ConnectFailed as why:
            raise EngineGone(str(why)) from why
        return cast("Json", _checked(reply).json())

    async def info(self) -> Json:
        return cast("Json", await self._json("GET", "/info"))

    async def containers(self, label: str) -> list[Json]:
        query = {"all": "1", "filters": _filters({"label": [label]} if label else {})}
        return cast("list[Json]", await self._json("GET", f"/containers/json?{urlencode(query)}"))

    async def inspect(self, container: str) -> Json:
        return cast("Json", await self._json("GET", f"/containers/{_part(container)}/json"))

    async def create(self, name: str, body: Json) -> str:
        if why := lacking(body, await self._spoken()):
            raise EngineError(400, why)
        made = await self._json("POST", f"/containers/create?{urlencode({'name': name})}", body)
        return str(made["Id"])

    async def start(self, container: str) -> None:
        await self._call("POST", f"/containers/{_part(container)}/start")

    async def stop(self, container: str, grace: float) -> None:
        path = f"/containers/{_part(container)}/stop?t={ceil(grace)}"
        await self._call("POST", path, timeout=grace + CALL)

    async def kill(self, container: str) -> None:
        await self._call("POST", f"/containers/{_part(container)}/kill")

    async def remove(self, container: str, *, volumes: bool = True) -> None:
        path = f"/containers/{_part(container)}?force=1&v={int(volumes)}"
        await self._call("DELETE", path, fine=(404,))

    async def connect(self, network: str, container: str, endpoint: Json) -> None:
        body = {"Container": container, "EndpointConfig": endpoint}
        await self._call("POST", f"/networks/{_part(network)}/connect", body)

    async def pull(self, image: str, auth: str = "") -> None:
        path = await self._path(f"/images/create?{urlencode({'fromImage': image})}")
        headers = [("X-Registry-Auth", auth)] if auth else []
        try:
            async with self._client.stream("POST", path, headers=headers) as reply:
                if reply.status != 200:
                    _checked(await reply.reply())
                async for line in reply.lines():
                    _raise_if_failed(line)
        except ConnectFailed as why:
            raise self._gone(why) from why

    async def image(self, image: str) -> Json | None:
        try:
            return cast("Json", await self._json("GET", f"/images/{quote(image)}/json"))
        except EngineError as why:
            if why.status != 404:
                raise
            return None

    async def networks(self, label: str) -> list[Json]:
        query = urlencode({"filters": _filters({"label": [label]} if label else {})})
        return cast("list[Json]", await self._json("GET", f"/networks?{query}"))

    async def create_network(self, body: Json) -> str:
        return str((await self._json("POST", "/networks/create", body))["Id"])

    async def remove_network(self, network: str) -> None:
        await self._call("DELETE", f"/networks/{_part(network)}", fine=(404,))

    async def events(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[Json]:
        path = await self._path(f"/events?{urlencode({'filters': _filters(filters)})}")
        try:
            async with self._client.stream("GET", path) as reply:
                if reply.status != 200:
                    _checked(await reply.reply())
                async for line in reply.lines():
                    if line.strip():
                        yield msgspec.json.decode(line)
        except (ConnectFailed, msgspec.DecodeError) as why:
            raise self._gone(why) from why
        raise self._gone("the engine ended its stream of events")

    async def _json(self, method: str, path: str, body: Json | None = None) -> Any:
        return (await self._call(method, path, body)).json()

    async def _call(
        self, method: str, path: str, body: Json | None = None, *, timeout: float = CALL, fine: tuple[int, ...] = ()
    ) -> Reply:
        data = msgspec.json.encode(body) if body is not None else b""
        target = await self._path(path)
        try:
            reply = await self._client.request(method, target, body=data, timeout=timeout)
        except ConnectFailed as why:
            raise self._gone(why) from why
        return reply if reply.status in fine else _checked(reply)

    async def _path(self, path: str) -> str:
        version = await self._spoken()
        return f"/v{version[0]}.{version[1]}{path}"

    async def _spoken(self) -> tuple[int, int]:
        if self._version is None:
            newest = _number((await self.version()).get("ApiVersion", ""))
            self._version = max((known for known in KNOWN if known <= newest), default=KNOWN[0])
        return self._version

    def _gone(self, why: object) -> EngineGone:
        self._version = None  # another one may come back
        return EngineGone(str(why))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _part(name: str) -> str:
    return quote(name, safe="")


def _filters(filters: Mapping[str, Sequence[str]]) -> str:
    return msgspec.json.encode({key: list(values) for key, values in filters.items()}).decode()


def _checked(reply: Reply) -> Reply:
    if reply.status >= 400:
        raise EngineError(reply.status, reply.message)
    return reply


def _raise_if_failed(line: bytes) -> None:
    """Once a pull has begun its status is 200; a failure is a line of its progress."""
    if b'"error' not in line:
        return
    progress = msgspec.json.decode(line)
    words = (progress.get("errorDetail") or {}).get("message") or progress.get("error")
    if words:
        raise EngineError(500, str(words))
