"""What an engine must know for a container to be as it was asked for: older ones drop what they do not know in silence.

Only what would make another container of it; a health check without its start interval is one all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
Version = tuple[int, ...]


def lacking(body: Json, engine: Version) -> str:
    """Why an engine with this API version must not be asked for this container; "" if it may be."""
    for version, what in _needs(body):
        if engine < version:
            return f"{what} an engine with API version {_text(version)} or later; this host's has {_text(engine)}"
    return ""


def _needs(body: Json) -> Iterator[tuple[Version, str]]:
    host = body.get("HostConfig") or {}
    for mount in host.get("Mounts") or ():
        bind, volume, tmpfs = (mount.get(f"{kind}Options") or {} for kind in ("Bind", "Volume", "Tmpfs"))
        if bind.get("ReadOnlyNonRecursive") or bind.get("ReadOnlyForceRecursive"):
            yield (1, 44), "a bind mount that says how read-only it is needs"
        if volume.get("Subpath"):
            yield (1, 45), "a mount of a path in a volume needs"
        if tmpfs.get("Options"):
            yield (1, 46), "a tmpfs mount with options of its own needs"
        if mount.get("Type") == "image":
            yield (1, 48), "a mount of an image needs"
    if host.get("Annotations"):
        yield (1, 43), "annotations need"
    if any(request.get("Driver") == "cdi" for request in host.get("DeviceRequests") or ()):
        yield (1, 44), "devices of the Container Device Interface need"


def _text(version: Version) -> str:
    return ".".join(map(str, version))
