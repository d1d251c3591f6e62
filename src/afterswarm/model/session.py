"""What passes between an agent and its manager over one mutually authenticated connection (port 2377).

Newline-delimited JSON, each line one of `Up` (agent to manager) or `Down` (manager to agent). After the agent's
`Hello`, the manager sends a `Wanted` with every section filled; afterwards only sections that changed (`None` means
unchanged). Both sides send something at least every `BEAT` seconds; silence of `SILENCE` seconds ends the session.
"""

from __future__ import annotations

import msgspec

from afterswarm.model.base import Part
from afterswarm.model.floating import Floating
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Description, Role
from afterswarm.model.service import PortConfig
from afterswarm.model.task import Report, Task

BEAT = 0.3  # seconds
SILENCE = 1.2  # seconds
SEEN = "Afterswarm-Seen"  # header of the agent's request: the revision that it acts on already
EPOCH = "Afterswarm-Epoch"  # and the swarm's epoch that this revision is of


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all messages: the JSON field "type" names the class."""


# ---- manager -> agent ------------------------------------------------------------------------------------------


class Peer(Part, frozen=True):
    """Another (or the same) node of the swarm, as hosts need to know it."""

    node_id: str = ""
    hostname: str = ""
    address: str = ""  # advertise address
    port: int = 0  # for other hosts; 0 means the usual one
    data_path: str = ""
    manager: bool = False  # its role; it may be asked for a session
    up: bool = True  # False: the managers' verdict is that it is down
    returns: bool = False  # its kernel sends answers back through the host that the connection came through
    wireguard: str = ""  # its public key; "" when it cannot take part in encrypted networks
    mtu: int = 0  # of the device that carries its data path; 0: it has not said
    ipv6: list[str] | None = None  # its own IPv6 addresses; None: its kernel has no IPv6


class Target(Part, frozen=True):
    """One task that a service's traffic may go to.

    `ready`: running and healthy; `draining`: no new connections; both False: known by name only.
    """

    task_id: str = ""
    node_id: str = ""
    name: str = ""  # "web.1.<task id>"
    slot: int = 0
    hostnames: list[str] = []  # further names of its container, which others may have too
    addresses: dict[str, str] = {}  # network id -> plain address
    addresses6: dict[str, str] = {}  # likewise, where it has an IPv6 address too
    ready: bool = False
    draining: bool = False


class Route(Part, frozen=True):
    """One service as every host routes to it: names, virtual addresses, published ports, tasks.

    Or one guest, which is like a service of one task without a virtual address.
    """

    service_id: str = ""
    name: str = ""
    mode: str = "vip"  # vip, dnsrr
    vips: dict[str, str] = {}  # network id -> plain address
    vips6: dict[str, str] = {}  # likewise of IPv6, in networks that have it
    aliases: dict[str, list[str]] = {}  # network id -> further names there
    ports: list[PortConfig] = []  # ingress mode only, published numbers filled in
    named_ports: dict[str, list[int]] = {}  # "_http._tcp" -> on which the targets listen
    published_on: dict[str, list[str]] = {}  # "tcp/8080" -> the only addresses of hosts on which that port answers
    published_through: dict[str, list[str]] = {}  # likewise: interfaces, for what comes in there
    masquerade: bool = False  # tasks see the address of the host that was dialled, not the client's
    drain: float = 0.0  # seconds that a task goes on after its last new connection
    targets: list[Target] = []
    guest: bool = False


class SecretData(Part, frozen=True):
    """A secret or a config in clear, in one version, only ever sent to a node that runs a task which uses it."""

    id: str = ""  # its `payload_id`
    name: str = ""
    data: bytes = b""  # base64 in JSON
    templating: str = ""  # driver: the data is a template


class PullAuth(Part, frozen=True):
    """What a registry is told for the images of a service; only ever sent to a node that has a task of it."""

    service_id: str = ""
    auth: str = ""  # X-Registry-Auth


class Authority(Part, frozen=True):
    """Which certificates count."""

    root: str = ""  # PEM: to be trusted
    issuer: str = ""  # digest of the root that a node's certificate should come from: another one means renew


class Wanted(Message, frozen=True):
    """What one host should be doing at revision `rev`. A section that is `None` has not changed."""

    rev: int = 0
    basis: int = 0  # what is in it, and what was sent before, holds every route as of this revision or later
    role: Role | None = None  # the role this node should have; another than its certificate's means: renew
    authority: Authority | None = None
    data_path_port: int | None = None  # UDP, of every VXLAN packet
    tasks: list[Task] | None = None  # all tasks of this node that its agent must act on
    secrets: list[SecretData] | None = None
    configs: list[SecretData] | None = None
    auths: list[PullAuth] | None = None
    networks: list[Network] | None = None  # those that this node's tasks use, and the ingress network
    routes: list[Route] | None = None
    guests: list[Guest] | None = None  # of this node
    peers: list[Peer] | None = None
    floating: Floating | None = None
    beat_keys: dict[str, bytes] | None = None  # node id -> the key of the beats between it and this node


class Welcome(Message, frozen=True):
    """First message of a session."""

    node_id: str = ""
    manager_id: str = ""
    epoch: float = 0.0  # of the swarm: a later one makes what was seen before void


class Down(Message, frozen=True):
    """Nothing to say; the manager is there. Every route as of revision `basis` has been sent."""

    basis: int = 0


# ---- agent -> manager ------------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First message of the agent; sent again when the description changes."""

    description: Description = Description()
    address: str = ""
    port: int = 0
    data_path: str = ""
    member_id: str = ""
    returns: bool = False  # see `Peer`
    wireguard: str = ""  # see `Peer`
    mtu: int = 0  # see `Peer`
    ipv6: list[str] | None = None  # likewise
    version: str = ""
    trust: str = ""  # digests, as in `NodeReport`
    issuer: str = ""


class Reports(Message, frozen=True):
    """States of tasks that changed since the last `Reports`; all of them, first."""

    reports: list[Report] = []


class Up(Message, frozen=True):
    """Nothing to say; the agent is there."""


ToAgent = Wanted | Welcome | Down
ToManager = Hello | Reports | Up
