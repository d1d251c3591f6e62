"""Images pinned by digest for clients that leave it to the server: those that speak an API before 1.30."""

from __future__ import annotations

import os
from urllib.parse import quote

from msgspec.structs import replace

from afterswarm.api import versions
from afterswarm.api.host import Host
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.message import Request
from afterswarm.model.service import Service, ServiceSpec

CLIENTS_DO = (1, 30)


async def pinned(
    host: Host, request: Request, spec: ServiceSpec, auth: str, service: Service | None = None
) -> tuple[ServiceSpec, list[str]]:
    """The specification with its image's digest, or as it is, with a warning in Docker's words.

    Without `auth`, the registry is told what `service` has kept for it.
    """
    asked, _ = versions.split(request.path)
    container = spec.task_template.container_spec
    if asked is None or asked >= CLIENTS_DO or container is None or not container.image or "@" in container.image:
        return spec, []
    if os.environ.get("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE") == "1":
        return spec, []
    if not auth and service and service.pull_auth:
        auth = host.unseal(service.id, service.pull_auth).decode()
    image = container.image
    digest = await _digest(host, image, auth)
    if not digest:
        warning = (
            f"image {image} could not be accessed on a registry to record\nits digest. "
            f"Each node will access {image} independently,\n"
            "possibly leading to different nodes running different\nversions of the image.\n"
        )
        return spec, [warning]
    tagged = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
    template = replace(spec.task_template, container_spec=replace(container, image=f"{tagged}@{digest}"))
    return replace(spec, task_template=template), []


async def _digest(host: Host, image: str, auth: str) -> str:
    """What the registry says by way of the engine; "" if it does not."""
    headers = [("X-Registry-Auth", auth)] if auth else []
    try:
        reply = await host.engine.request("GET", f"/distribution/{quote(image)}/json", headers=headers)
    except ConnectFailed:
        return ""
    return str((reply.json().get("Descriptor") or {}).get("digest") or "") if reply.status == 200 else ""
