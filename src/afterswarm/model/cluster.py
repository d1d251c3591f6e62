"""The swarm itself: its settings, its certificate authority, its tokens."""

from __future__ import annotations

import msgspec

from afterswarm.model.base import Obj, Part
from afterswarm.model.service import SECOND, Driver

DAY = 86_400
DATA_PATH_PORT = 4789  # UDP, VXLAN
DEFAULT_POOL = "10.0.0.0/8"  # overlay networks take their subnets from here


class Orchestration(Part, frozen=True, omit_defaults=False):
    task_history_retention_limit: int | None = 5


class Raft(Part, frozen=True, omit_defaults=False):
    """Accepted, stored and echoed; etcd keeps its own counsel."""

    snapshot_interval: int = 10_000
    keep_old_snapshots: int | None = 0
    log_entries_for_slow_followers: int = 500
    election_tick: int = 10
    heartbeat_tick: int = 1


class Dispatcher(Part, frozen=True, omit_defaults=False):
    heartbeat_period: int = 5 * SECOND


class ExternalCA(Part, frozen=True):
    protocol: str = "cfssl"
    url: str = ""
    options: dict[str, str] = {}
    ca_cert: str = ""


class CAConfig(Part, frozen=True, omit_defaults=False):
    node_cert_expiry: int = 90 * DAY * SECOND
    external_cas: list[ExternalCA] = []
    signing_ca_cert: str = ""
    signing_ca_key: str = ""
    force_rotate: int = 0


class EncryptionConfig(Part, frozen=True, omit_defaults=False):
    auto_lock_managers: bool = False


class TaskDefaults(Part, frozen=True):
    log_driver: Driver | None = None


class SwarmSpec(Part, frozen=True, omit_defaults=False):
    name: str = "default"
    labels: dict[str, str] = {}
    orchestration: Orchestration = Orchestration()
    raft: Raft = Raft()
    dispatcher: Dispatcher = Dispatcher()
    ca_config: CAConfig = CAConfig()
    encryption_config: EncryptionConfig = EncryptionConfig()
    task_defaults: TaskDefaults = TaskDefaults()


class JoinTokens(Part, frozen=True, omit_defaults=False):
    worker: str = ""
    manager: str = ""


class RootRotation(Part, frozen=True):
    """The root certificate that is to follow, from the moment certificates are issued by it."""

    cert: str = ""  # PEM
    key: str = ""  # sealed, base64, as `Cluster.ca_key`
    cross: str = ""  # PEM: the same name and key, signed by the root before
    tokens: JoinTokens = JoinTokens()  # those that pin it


class FormerRoot(Part, frozen=True):
    """A root that some node may still trust; `cross` leads from it to the one that followed."""

    cert: str = ""
    cross: str = ""


class Cluster(Obj, frozen=True):
    """The one object of its kind. `ca_key` is sealed with the cluster key, which is never in etcd."""

    spec: SwarmSpec = SwarmSpec()
    ca_cert: str = ""  # PEM
    ca_key: str = ""  # sealed, base64
    tokens: JoinTokens = JoinTokens()
    rotation: RootRotation | None = None
    former: list[FormerRoot] = []  # newest first
    unlock_key: str = ""  # sealed, base64: what managers lock their keys with; "" without autolock
    epoch: float = 0.0  # when the swarm was last made anew from one manager: revisions of before say nothing any more
    beat_key: str = ""  # sealed, base64: authenticates the UDP beats between hosts
    default_addr_pool: list[str] = msgspec.field(default_factory=lambda: [DEFAULT_POOL])
    subnet_size: int = 24
    data_path_port: int = DATA_PATH_PORT
