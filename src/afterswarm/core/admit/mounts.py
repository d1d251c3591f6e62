"""A container's mounts. Docker leaves paths to the hosts to judge; here they are refused at once, in its words."""

from __future__ import annotations

from collections.abc import Iterable

from afterswarm.core.admit.words import invalid
from afterswarm.model.refused import Refused
from afterswarm.model.service import Mount

TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster", "image")
PROPAGATIONS = ("", "rprivate", "private", "rshared", "shared", "rslave", "slave")


def check_shape(mounts: Iterable[Mount]) -> None:
    """What is no mount at all. Raises `Refused`."""
    for mount in mounts:
        if mount.type.lower() not in TYPES:
            raise Refused(400, f'invalid MountType: "{mount.type}"')
        propagation = mount.bind_options.propagation if mount.bind_options else ""
        if propagation.lower() not in PROPAGATIONS:
            raise Refused(400, f'invalid MountPropagation: "{propagation}"')


def check(mounts: Iterable[Mount]) -> None:
    """Sources and targets, with their templates replaced. Raises `Refused`."""
    targets: set[str] = set()
    for mount in mounts:
        if mount.target in targets:
            raise invalid(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
        if not mount.target.startswith("/") and mount.type != "npipe":
            raise invalid(f"invalid mount target, must be an absolute path: {mount.target}")
        match mount.type:
            case "bind" if not mount.source.startswith("/"):
                raise invalid(f"invalid bind mount source, must be an absolute path: {mount.source}")
            case "volume" if mount.source.startswith("/"):
                raise invalid(f"invalid volume mount source, must not be an absolute path: {mount.source}")
            case "tmpfs" if mount.source:
                raise invalid("invalid tmpfs source, source must be empty")
            case "npipe" if not mount.source:
                raise invalid("invalid npipe source, source must not be empty")
            case _:
                pass
