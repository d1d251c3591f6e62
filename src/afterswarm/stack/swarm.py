"""The swarm as a deployment sees it, over the Engine API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec

from afterswarm.http.client import Client, Reply
from afterswarm.http.errors import HttpError
from afterswarm.model.network import NetworkSpec
from afterswarm.model.secret import ConfigSpec, SecretSpec
from afterswarm.model.service import ServiceSpec
from afterswarm.stack.names import NAMESPACE
from afterswarm.stack.plan import Running, Step, There

Json = dict[str, Any]

DEFAULT = "unix:///run/afterswarm/docker.sock"
SLOW = 300.0  # seconds: a registry may have to be asked
_SPECS: dict[str, type[NetworkSpec | SecretSpec | ConfigSpec | ServiceSpec]] = {
    "network": NetworkSpec,
    "secret": SecretSpec,
    "config": ConfigSpec,
    "service": ServiceSpec,
}


class Swarm:
    """Raises `HttpError` with the words of a refusal, `ConnectFailed` when nobody is there."""

    def __init__(self, host: str = "") -> None:
        scheme, _, rest = (host or os.environ.get("DOCKER_HOST") or DEFAULT).partition("://")
        if scheme == "unix":
            self._client = Client.unix(rest)
        elif scheme == "tcp":
            name, _, port = rest.rstrip("/").rpartition(":")
            self._client = Client.tcp(name.strip("[]"), int(port))
        else:
            raise HttpError(0, f"the API is reached by unix:// or tcp://, not by {scheme}://: say --host")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()

    async def running(self, stack: str) -> Running:
        services = await self.get("/services", {"label": [f"{NAMESPACE}={stack}"]})
        networks = [n for n in await self.get("/networks") if n.get("Scope") == "swarm"]
        return Running(
            networks={n["Name"]: _network(n, stack) for n in networks},
            secrets={s["Spec"]["Name"]: _there(s, "secret", stack) for s in await self.get("/secrets")},
            configs={c["Spec"]["Name"]: _there(c, "config", stack) for c in await self.get("/configs")},
            services={s["Spec"]["Name"]: _there(s, "service", stack) for s in services},
        )

    async def create(self, step: Step, auth: str = "") -> str:
        """The id of what was created."""
        body: object = step.spec
        if isinstance(body, NetworkSpec):  # whose network it is depends on the driver, default or not
            body = {**msgspec.to_builtins(body), "Driver": body.driver}
        reply = await self._ask("POST", f"/{step.kind}s/create", body, auth)
        shown: Json = reply.json()
        return str(shown.get("ID") or shown.get("Id"))

    async def update(self, step: Step, auth: str = "") -> None:
        assert step.there is not None  # noqa: S101 - it is changed
        query = urlencode({"version": step.there.version, **({"registryAuthFrom": "spec"} if auth else {})})
        await self._ask("POST", f"/{step.kind}s/{step.there.id}/update?{query}", step.spec, auth)

    async def remove(self, step: Step) -> None:
        assert step.there is not None  # noqa: S101 - it is there
        await self._ask("DELETE", f"/{step.kind}s/{step.there.id}")

    async def get(self, path: str, filters: Mapping[str, list[str]] | None = None, **query: str) -> Any:
        asked = {**query, **({"filters": msgspec.json.encode(filters).decode()} if filters else {})}
        reply = await self._ask("GET", f"{path}?{urlencode(asked)}" if asked else path)
        return reply.json() or []

    async def distribution(self, image: str, auth: str) -> Json:
        """What the registry says of an image: its digest, its platforms."""
        reply = await self._ask("GET", f"/distribution/{quote(image)}/json", auth=auth)
        return dict(reply.json())

    async def _ask(self, method: str, target: str, body: object = None, auth: str = "") -> Reply:
        reply = await self._client.request(
            method,
            target,
            headers=[("X-Registry-Auth", auth)] if auth else [],
            body=b"" if body is None else msgspec.json.encode(body),
            timeout=SLOW,
        )
        if reply.status >= 300:
            raise HttpError(reply.status, reply.message)
        return reply


def _there(shown: Json, kind: str, stack: str) -> There:
    own = (shown["Spec"].get("Labels") or {}).get(NAMESPACE) == stack
    return There(id=shown["ID"], version=shown["Version"]["Index"], spec=_spec(shown["Spec"], kind), own=own)


def _network(shown: Json, stack: str) -> There:
    own = (shown.get("Labels") or {}).get(NAMESPACE) == stack
    return There(id=shown["Id"], version=0, spec=_spec(shown, "network"), own=own)


def _spec(shown: Json, kind: str) -> NetworkSpec | SecretSpec | ConfigSpec | ServiceSpec:
    return msgspec.convert(_without_nulls(shown), _SPECS[kind])


def _without_nulls(value: Any) -> Any:
    """Go writes an empty list or map as null."""
    match value:
        case dict():
            return {key: _without_nulls(item) for key, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value
