"""Where one daemon keeps and finds things."""

from __future__ import annotations

from pathlib import Path

import msgspec

from afterswarm.core.floating.place import Place
from afterswarm.model.refused import Refused


class Config(msgspec.Struct, frozen=True):
    """The flags, and what follows from them.

    `run` is what a reboot empties: the socket's directory. Hosts that share a machine differ in the first three.
    """

    listen: str = "/run/afterswarm/docker.sock"
    engine: str = "/var/run/docker.sock"
    state: Path = Path("/var/lib/afterswarm")
    metrics: str = ""  # host:port to answer Prometheus at; "": nowhere but on the socket
    floating: tuple[Place, ...] = ()

    @property
    def run(self) -> Path:
        return Path(self.listen).parent

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def identity(self) -> Path:
        return self.state / "identity"


def place(flag: str, value: str) -> str:
    """HOST:PORT, or "" for none. Raises `Refused` naming the flag."""
    host, _, port = value.rpartition(":")
    if value and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise Refused(400, f"{flag} takes HOST:PORT, not {value!r}")
    return value


def socket_path(flag: str, value: str) -> str:
    """The path of `unix://PATH`. Raises `Refused` naming the flag."""
    if not value.startswith("unix:///"):
        raise Refused(400, f"{flag} takes unix:///PATH, not {value!r}")
    return value.removeprefix("unix://")
