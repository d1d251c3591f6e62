"""Nodes: a host in the swarm, what it reports of itself, and what others think of it."""

from __future__ import annotations

from enum import StrEnum

from afterswarm.model.base import Obj, Part
from afterswarm.model.service import Platform, Resources


class Role(StrEnum):
    WORKER = "worker"
    MANAGER = "manager"


class Availability(StrEnum):
    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(StrEnum):
    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class NodeSpec(Part, frozen=True, omit_defaults=False):
    name: str = ""
    labels: dict[str, str] = {}
    role: Role = Role.WORKER  # the role that the user wants; `Node.role` is what it has become
    availability: Availability = Availability.ACTIVE


class Node(Obj, frozen=True):
    """A member. `spec` is the user's; `role` the role controller's; `state` and `message` the liveness controller's."""

    spec: NodeSpec = NodeSpec()
    role: Role = Role.WORKER
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    state_since: float = 0.0


class Plugin(Part, frozen=True):
    type: str = ""
    name: str = ""


class Engine(Part, frozen=True):
    engine_version: str = ""
    labels: dict[str, str] = {}
    plugins: list[Plugin] = []


class Description(Part, frozen=True):
    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine: Engine = Engine()


class NodeReport(Obj, frozen=True):
    """What a node says of itself when its session opens. Same id as the node; written only by dispatch."""

    description: Description = Description()
    address: str = ""  # advertise address, no port
    port: int = 0  # for other hosts; 0 means the usual one
    data_path: str = ""  # address of VXLAN packets; "" means `address`
    returns: bool = False  # see `session.Peer`
    wireguard: str = ""  # see `session.Peer`
    mtu: int = 0  # see `session.Peer`
    ipv6: list[str] | None = None  # likewise
    session_with: str = ""  # node id of the manager that holds the session
    member_id: str = ""  # etcd member, hex; "" for a worker
    trust: str = ""  # digest of the root certificate that it trusts; a manager's store included
    issuer: str = ""  # digest of the root certificate that issued its own
    left: bool = False  # it has said good-bye; a host that joins again is another node


class Suspicion(Obj, frozen=True):
    """Nodes that one observer (id = the observing manager's node id) has not heard from for the threshold."""

    nodes: tuple[str, ...] = ()


class Leader(Obj, frozen=True):
    """The one object of its kind (id "leader"). Its revision is the term: every leader's commit compares it."""

    node_id: str = ""
