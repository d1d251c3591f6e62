"""What a node says of itself, read from its engine; and whether that engine can be used at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from afterswarm.model.node import Description, Engine, Plugin
from afterswarm.model.service import SECOND, GenericResource, Platform, Resources
from afterswarm.ports import Clock, EngineError, EngineGone, Json
from afterswarm.ports import Engine as EnginePort

OLDEST = (20, 10)
LOOK = 20.0  # seconds between looks at what an engine says of itself, as with Docker
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # as nodes are described; the other names are images'

log = logging.getLogger(__name__)


class EngineUnfit(Exception):
    """The engine cannot be used, why, and the way out."""


async def describe(engine: EnginePort) -> Description:
    """This node's description. Raises `EngineUnfit`."""
    try:
        info = await engine.info()
    except EngineGone as why:
        raise EngineUnfit(
            f"no Docker Engine answers: {why}. Install one (apt-get install docker.io), start it "
            "(systemctl start docker), or say with --engine where its socket is."
        ) from why
    except EngineError as why:
        raise EngineUnfit(f"the Docker Engine refuses to be asked: {why.message}. {_way_out_of_age()}") from why
    check(info)
    return description(info)


async def follow(
    said: Description, look: Callable[[], Awaitable[Description]], say: Callable[[Description], None], clock: Clock
) -> None:
    """Say what has become of the description: engines are configured anew, upgraded, and given plugins. For ever."""
    while True:
        await clock.sleep(LOOK)
        try:
            found = await look()
        except EngineUnfit as why:
            log.info("the last description stands: %s", why)
            continue
        if found != said:
            said = found
            say(found)


def check(info: Json) -> None:
    """Raises `EngineUnfit` for an engine that is too old, or a member of a swarm of its own."""
    version = info.get("ServerVersion") or ""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise EngineUnfit(f"the Docker Engine is of version {version}. {_way_out_of_age()}")
    if info.get("OSType", "linux") != "linux":
        raise EngineUnfit(f"the Docker Engine runs {info['OSType']} containers; Linux is needed.")
    state = (info.get("Swarm") or {}).get("LocalNodeState") or "inactive"
    if state != "inactive":
        raise EngineUnfit(
            f"the Docker Engine is itself in swarm mode ({state}), and two swarms would fight over its containers. "
            "Take it out first: `docker swarm leave --force` on its own socket; what its swarm runs there will stop."
        )


def description(info: Json) -> Description:
    """`GET /info` as a node's description."""
    plugins = info.get("Plugins") or {}
    architecture = info.get("Architecture") or ""
    return Description(
        hostname=info.get("Name") or "",
        platform=Platform(
            architecture=_ARCHITECTURES.get(architecture, architecture), os=info.get("OSType") or "linux"
        ),
        resources=Resources(
            nano_cpus=(info.get("NCPU") or 0) * SECOND,
            memory_bytes=info.get("MemTotal") or 0,
            generic_resources=_generic(info.get("GenericResources") or []),
        ),
        engine=Engine(
            engine_version=info.get("ServerVersion") or "",
            labels=dict(label.partition("=")[::2] for label in info.get("Labels") or []),
            plugins=[Plugin(type=kind, name=name) for kind in sorted(plugins) for name in sorted(plugins[kind] or [])],
        ),
    )


def _generic(resources: list[Any]) -> list[GenericResource]:
    return msgspec.convert(resources, list[GenericResource])


def _way_out_of_age() -> str:
    return f"Version {OLDEST[0]}.{OLDEST[1]} (API 1.41) or later is needed: upgrade it."
