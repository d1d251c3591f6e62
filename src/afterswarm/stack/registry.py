"""What a registry is asked before a service is deployed, and with which credentials: as docker does it."""

from __future__ import annotations

import os
import subprocess
from base64 import b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from afterswarm.http.errors import HttpError
from afterswarm.model.service import Placement, Platform, ServiceSpec
from afterswarm.stack.swarm import Swarm

Json = dict[str, Any]

HUB = "https://index.docker.io/v1/"


def server(image: str) -> str:
    """The name under which credentials for this image are kept."""
    first, slash, _ = image.partition("/")
    if (
        not slash
        or not ("." in first or ":" in first or first == "localhost")
        or first in ("docker.io", "index.docker.io")
    ):
        return HUB
    return first


def auth(image: str, directory: Path | None = None) -> str:
    """The value of X-Registry-Auth; "" without credentials."""
    where = directory or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = msgspec.json.decode((where / "config.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return ""
    name = server(image)
    helper = (config.get("credHelpers") or {}).get(name) or config.get("credsStore")
    found = _helped(helper, name) if helper else _kept((config.get("auths") or {}).get(name) or {}, name)
    return urlsafe_b64encode(msgspec.json.encode(found)).decode() if found else ""


def _kept(entry: Json, name: str) -> Json:
    user, _, password = b64decode(entry.get("auth") or "").decode().partition(":")
    found = {"username": entry.get("username") or user, "password": entry.get("password") or password}
    token = {"identitytoken": entry["identitytoken"]} if entry.get("identitytoken") else {}
    return {**found, **token, "serveraddress": name} if found["username"] or token else {}


def _helped(helper: str, name: str) -> Json:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=name.encode(), capture_output=True, check=True
        )
        said = msgspec.json.decode(done.stdout)
    except (OSError, subprocess.CalledProcessError, msgspec.DecodeError):
        return {}
    if said["Username"] == "<token>":
        return {"identitytoken": said["Secret"], "serveraddress": name}
    return {"username": said["Username"], "password": said["Secret"], "serveraddress": name}


async def resolved(swarm: Swarm, spec: ServiceSpec, credentials: str) -> tuple[ServiceSpec, str]:
    """With the digest of its image and the platforms that it is for; and what is to be said when they cannot be had."""
    container = spec.task_template.container_spec
    if container is None or not container.image or "@" in container.image:
        return spec, ""
    try:
        said = await swarm.distribution(container.image, credentials)
        digest = said["Descriptor"]["digest"]
    except (HttpError, KeyError):
        return spec, (
            f"image {container.image} could not be accessed on a registry to record its digest: each node asks for "
            "itself, and they may run different versions"
        )
    container = replace(container, image=f"{familiar(container.image)}@{digest}")
    placement = spec.task_template.placement or Placement()
    if not placement.platforms:
        shown = said.get("Platforms") or []
        platforms = [Platform(os=p.get("os", ""), architecture=_architecture(p)) for p in shown]
        placement = replace(placement, platforms=platforms)
    template = replace(spec.task_template, container_spec=container, placement=placement)
    return replace(spec, task_template=template), ""


def familiar(image: str) -> str:
    """`docker.io/library/nginx` is `nginx:latest`."""
    name = image.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _architecture(platform: Json) -> str:
    """Of arm there are several, which a swarm does not tell apart."""
    name = str(platform.get("architecture", ""))
    return "" if name.lower() == "arm" else name
