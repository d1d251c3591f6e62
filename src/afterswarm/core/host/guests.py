"""A host's guests: what its managers believe of them, compared with what its engine shows.

A guest and its container are matched by network and address, which the container was made with; so nothing has to be
remembered, and nothing is lost when the daemon was not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from afterswarm.model.guest import Guest, Said
from afterswarm.model.service import ContainerSpec, DNSConfig, TaskSpec
from afterswarm.model.task import Task

Json = dict[str, Any]
_SHORT = 12  # characters of a container's id that are a name of it


class Place(msgspec.Struct, frozen=True):
    """A container's place in one of our networks."""

    network_id: str
    address: str  # plain


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One container. `pid` is 0 while it does not run."""

    container_id: str
    name: str = ""
    hostname: str = ""
    pid: int = 0
    name_servers: tuple[str, ...] = ()  # of its own; empty: its host's
    aliases: Mapping[Place, tuple[str, ...]] = {}  # by each of its places
    outward: bool = False  # it is in other networks of its engine, too


def places(networks: Json, ours: Mapping[str, str]) -> dict[Place, tuple[str, ...]]:
    """Of `NetworkSettings.Networks`. `ours`: name of an engine's network -> id of the overlay network."""
    found = {}
    for name, endpoint in networks.items():
        address = ((endpoint or {}).get("IPAMConfig") or {}).get("IPv4Address") or (endpoint or {}).get("IPAddress")
        if name in ours and address:
            found[Place(ours[name], address)] = tuple(endpoint.get("Aliases") or ())
    return found


def found(inspect: Json, ours: Mapping[str, str]) -> Found:
    """Read the engine's `GET /containers/{id}/json`."""
    state, config = inspect.get("State") or {}, inspect.get("Config") or {}
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return Found(
        container_id=inspect["Id"],
        name=(inspect.get("Name") or "").removeprefix("/"),
        hostname=config.get("Hostname") or "",
        pid=(state.get("Pid") or 0) if state.get("Running") else 0,
        name_servers=tuple((inspect.get("HostConfig") or {}).get("Dns") or ()),
        aliases=places(networks, ours),
        outward=any(name not in ours and name != "none" for name in networks),
    )


def place(guest: Guest) -> Place:
    return Place(guest.attachment.network_id, guest.attachment.address.partition("/")[0])


def news(guests: Iterable[Guest], containers: Iterable[Found], expected: Collection[str]) -> Said:
    """What managers do not know yet. `expected` are the ids of guests whose container is being made."""
    by_place = {at: container for container in containers for at in container.aliases}
    changed, gone = [], []
    for guest in guests:
        container = by_place.get(place(guest))
        if container is None:
            gone += [] if guest.id in expected else [guest.id]
            continue
        aliases = [*container.aliases[place(guest)], container.container_id[:_SHORT], container.hostname]
        now = replace(
            guest,
            attachment=replace(guest.attachment, aliases=sorted({a for a in aliases if a and a != container.name})),
            container_id=container.container_id,
            name=container.name,
            running=container.pid > 0,
        )
        if now != guest:
            changed.append(now)
    return Said(changed=changed, gone=gone)


def as_tasks(guests: Iterable[Guest]) -> list[Task]:
    """One pseudo-task per container, for what treats both alike: names that it may ask for, rules in its namespace."""
    by_container: dict[str, list[Guest]] = {}
    for guest in sorted(guests, key=lambda g: g.id):
        by_container.setdefault(guest.container_id or guest.id, []).append(guest)
    return [
        Task(
            id=key,
            node_id=here[0].node_id,
            attachments=[g.attachment for g in here],
            spec=TaskSpec(container_spec=ContainerSpec(dns_config=DNSConfig(nameservers=here[0].name_servers))),
        )
        for key, here in by_container.items()
    ]
