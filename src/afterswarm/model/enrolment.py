"""What passes between a host and a manager when the host joins, renews its certificate, or becomes a manager.

Bodies of `POST /join`, `/renew` and `/member/add` on port 2377, and what else two hosts must agree on there.
"""

from __future__ import annotations

from afterswarm.model.base import Part
from afterswarm.model.node import Availability, Role

PORT = 2377
ENGINE = "/engine"  # what follows goes on to the host's engine; for managers only
TIME = "Afterswarm-Time"  # the header of an answer that tells the host's clock, in seconds since the epoch


def where(address: str, port: int) -> str:
    """Where a host's port for other hosts is, as `split` takes apart: without the number when it is the usual one."""
    if port in {0, PORT}:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split(remote: str) -> tuple[str, int]:
    """Host and port of "host", "host:port", "[v6]" or "[v6]:port"."""
    host, _, port = remote.rpartition(":")
    if not host or not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = remote, str(PORT)
    return host.strip("[]"), int(port)


class Root(Part, frozen=True):
    """Answer of `GET /ca`: the swarm's root certificate, for whoever can check its digest."""

    certificate: str = ""  # PEM


class JoinRequest(Part, frozen=True):
    secret: str = ""
    csr: str = ""  # PEM
    address: str = ""  # advertise address; "": the one that the manager sees
    data_path: str = ""
    hostname: str = ""
    availability: Availability = Availability.ACTIVE


class RenewRequest(Part, frozen=True):
    csr: str = ""
    address: str = ""


class Enrolment(Part, frozen=True):
    """Answer of `/join` and `/renew`. Times are seconds since the epoch."""

    node_id: str = ""
    cluster_id: str = ""
    role: Role = Role.WORKER
    certificate: str = ""  # PEM, and after it what leads from former roots to its issuer
    issuer: str = ""  # digest of the root certificate that issued it
    issued: float = 0.0
    expires: float = 0.0
    address: str = ""
    managers: list[str] = []  # addresses
    cluster_key: bytes = b""  # for managers only; base64 in JSON


class MemberRequest(Part, frozen=True):
    """A node that is to be a manager asks for its place in the store's cluster."""

    peer_url: str = ""


class MemberReply(Part, frozen=True):
    initial_cluster: str = ""  # "<node id>=<peer URL>,…", the asking node included
    cluster_key: bytes = b""
