"""What every object of the cluster is, and the change that a planner returns.

Two families: `Part` is a piece of a specification (no identity, decoded straight from a client's JSON), `Obj` is
stored in etcd under its kind and id.
"""

from __future__ import annotations

from math import inf

import msgspec

_UPPER = {
    "id": "ID",
    "ip": "IP",
    "uid": "UID",
    "gid": "GID",
    "tty": "TTY",
    "dns": "DNS",
    "tls": "TLS",
    "ca": "CA",
    "cas": "CAs",
    "url": "URL",
    "ipam": "IPAM",
    "cpus": "CPUs",
    "pid": "PID",
    "ipv6": "IPv6",
    "ipv4": "IPv4",
    "os": "OS",
    "csi": "CSI",
    "ips": "IPs",
    "selinux": "SELinux",
    "vni": "VNI",
}


def docker_name(field: str) -> str:
    """`nano_cpus` -> `NanoCPUs`: Docker's JSON spelling of a field of ours."""
    return "".join(_UPPER.get(word, word.capitalize()) for word in field.split("_"))


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=docker_name):
    """A piece of a specification. Absent and default are the same; `None` is absent, `0` is not."""


class Obj(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=docker_name):
    """One stored object: key `<kind>/<id>`. Times are seconds since the epoch."""

    id: str
    rev: int = 0  # store revision of the last write (Docker's Version.Index); 0 = never stored
    created: float = 0.0
    updated: float = 0.0


class Change(msgspec.Struct, frozen=True):
    """One write or one watch event: a create has no `old`, a delete has no `new`."""

    old: Obj | None
    new: Obj | None

    @property
    def obj(self) -> Obj:
        """The object as it is after the change or, deleted, as it was."""
        obj = self.new or self.old
        assert obj is not None  # noqa: S101 - a change of nothing cannot be built by the code
        return obj


class Plan(msgspec.Struct, frozen=True):
    """What to write now, what it was decided from, and when to look again if nothing changes before.

    `reads` names guards (see `core.guards`) beyond those that the changes themselves touch: the commit is refused
    when one of them moved since the snapshot. `why` is one sentence for the log, `service ps` and events.
    """

    changes: list[Change] = []
    wake_at: float = inf
    reads: tuple[str, ...] = ()
    why: str = ""
