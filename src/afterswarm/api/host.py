"""What the API asks of the daemon that it runs in."""

from __future__ import annotations

from typing import Protocol

import msgspec

from afterswarm.http.client import Client
from afterswarm.model.base import Part
from afterswarm.model.cluster import Cluster, RootRotation, SwarmSpec
from afterswarm.model.floating import Whereabouts
from afterswarm.model.guest import Wish
from afterswarm.ports import Clock, Json, Replica


class LocalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """This host's own place in the swarm, known without asking anybody."""

    state: str = "inactive"  # inactive, pending, active, error, locked
    node_addr: str = ""
    control_available: bool = False  # it is a manager, and may change the swarm
    error: str = ""
    manager: bool = False  # its certificate is a manager's, whether or not it can act as one
    remote_managers: list[tuple[str, str]] = []  # (node id, "ip:2377")


class Acquaintance(Part, frozen=True, omit_defaults=False):
    """A node of the swarm as this host knows it. Answer of `GET /afterswarm/peers`, which is ours and not Docker's."""

    node_id: str
    hostname: str
    address: str
    manager: bool
    self_: bool = msgspec.field(name="Self")
    heard_seconds_ago: float | None  # since its last beat; None: never
    gateway: str  # its address in the ingress network; "" where there is none yet
    port: int  # of its daemon


class Standing(Part, frozen=True, omit_defaults=False):
    """How this host's network is. Answer of `GET /afterswarm/standing`, and what `GET /metrics` counts."""

    ports: dict[str, int]  # control, store, tunnels, beats
    repairs: dict[str, int]  # by kind, since the daemon's start
    failures: dict[str, int]  # tries, likewise
    failing: dict[str, str]  # what is not as it should be now -> why
    last: str  # what was repaired last; "" nothing
    last_at: float
    looked: float  # when all was last found, or put, as it should be; 0: not yet
    now: float
    routed: int  # revision
    silent: list[str]  # hostnames
    unacknowledged: int  # tasks that ended while another host might still send to them


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Of a single container in an overlay network, as its engine is to be told."""

    guest: str  # id
    network: str  # the engine's own network
    endpoint: Json  # `EndpointSettings`
    name_server: str


class InitRequest(Part, frozen=True):
    """Body of `POST /swarm/init`. Empty strings and zeros stand for the defaults."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    force_new_cluster: bool = False
    auto_lock_managers: bool = False
    availability: str = ""
    default_addr_pool: list[str] = []
    subnet_size: int = 0
    spec: SwarmSpec = SwarmSpec()


class UnlockRequest(Part, frozen=True):
    """Body of `POST /swarm/unlock`."""

    unlock_key: str = ""


class JoinRequest(Part, frozen=True):
    """Body of `POST /swarm/join`."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: list[str] = []
    join_token: str = ""
    availability: str = ""


class Keys(Protocol):
    """What is drawn when a user asks for something new. Raises `Refused`."""

    def token(self, ca_cert: str) -> str:
        """A join token that pins this root certificate."""

    def rotation(self, cluster: Cluster, cert: str, key: str) -> RootRotation:
        """A root certificate to follow the present one: this one, or with "" a new one."""

    def unlock_key(self, cluster: Cluster) -> str:
        """A fresh one, sealed."""

    def shown_unlock_key(self, cluster: Cluster) -> str:
        """As users write it down; "" without autolock."""


class Host(Protocol):
    """The daemon, as far as the API knows it. Everything raises `Refused` with Docker's words."""

    @property
    def engine(self) -> Client:
        """This host's engine."""

    @property
    def replica(self) -> Replica | None:
        """`None`: not a manager."""

    @property
    def node_id(self) -> str:
        """ "" when not in a swarm."""

    @property
    def clock(self) -> Clock: ...

    def local(self) -> LocalInfo: ...

    async def init(self, request: InitRequest) -> str:
        """Make a swarm of this host, or its swarm anew from this manager alone; returns its node id."""

    async def join(self, request: JoinRequest) -> None: ...

    async def leave(self, *, force: bool) -> None: ...

    def acquaintances(self) -> list[Acquaintance]: ...

    def standing(self) -> Standing | None:
        """`None`: in no swarm."""

    def floating(self) -> list[Whereabouts]:
        """Floating addresses, as this host knows them."""

    def engine_of(self, node_id: str) -> tuple[Client, str]:
        """Where to reach a node's engine, and what to put before the target there."""

    async def admit(self, wish: Wish) -> Place:
        """An address for a single container in an overlay network, which this host is made part of."""

    def made(self, guests: list[str]) -> None:
        """The engine has made, or connected, the container."""

    async def dismiss(self, guests: list[str]) -> None:
        """It has not."""

    def seal(self, object_id: str, data: bytes) -> str: ...

    def unseal(self, object_id: str, sealed: str) -> bytes: ...

    async def unlock(self, key: str) -> None:
        """Open what a locked manager keeps, and have it work again."""

    @property
    def keys(self) -> Keys:
        """On a manager."""
