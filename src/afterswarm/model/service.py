"""Services: what the user asked for, in Docker's JSON. Durations are nanoseconds, as Docker's are.

Source: Docker Engine API 1.50, definitions ServiceSpec and TaskSpec.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from afterswarm.model.base import Obj, Part

SECOND = 1_000_000_000  # one second in Docker's durations


class Driver(Part, frozen=True):
    name: str = ""
    options: dict[str, str] = {}


# ---- a container -----------------------------------------------------------------------------------------------


class BindOptions(Part, frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Part, frozen=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: Driver | None = None
    subpath: str = ""


class TmpfsOptions(Part, frozen=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class ImageOptions(Part, frozen=True):
    subpath: str = ""


class Mount(Part, frozen=True, omit_defaults=False):
    type: str = "volume"  # volume, bind, tmpfs, npipe, cluster, image
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None
    cluster_options: dict[str, object] | None = None


class Healthcheck(Part, frozen=True):
    test: list[str] = []  # [] inherit, ["NONE"], ["CMD", …], ["CMD-SHELL", …]
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class FileTarget(Part, frozen=True, omit_defaults=False):
    name: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


class SecretReference(Part, frozen=True):
    secret_id: str = ""
    secret_name: str = ""
    file: FileTarget | None = None
    data_version: int = 0  # of the secret's data; the swarm's, whatever a client says


class ConfigReference(Part, frozen=True):
    config_id: str = ""
    config_name: str = ""
    file: FileTarget | None = None
    runtime: dict[str, object] | None = None
    data_version: int = 0  # of the config's data; the swarm's, whatever a client says


class DNSConfig(Part, frozen=True):
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []


class Ulimit(Part, frozen=True, omit_defaults=False):
    name: str = ""
    hard: int = 0
    soft: int = 0


class CredentialSpec(Part, frozen=True):
    """Windows. Exactly one of them."""

    config: str = ""  # id of a config that the container refers to with `runtime`
    file: str = ""
    registry: str = ""


class SELinuxContext(Part, frozen=True):
    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class Seccomp(Part, frozen=True):
    mode: str = ""  # default, unconfined, custom
    profile: bytes = b""


class AppArmor(Part, frozen=True):
    mode: str = ""  # default, disabled


class Privileges(Part, frozen=True):
    credential_spec: CredentialSpec | None = None
    selinux_context: SELinuxContext | None = None
    seccomp: Seccomp | None = None
    app_armor: AppArmor | None = None
    no_new_privileges: bool = False


class ContainerSpec(Part, frozen=True):
    image: str = ""
    labels: dict[str, str] = {}
    command: list[str] = []  # replaces the image's ENTRYPOINT
    args: list[str] = []  # replaces the image's CMD
    hostname: str = ""
    env: list[str] = []
    dir: str = ""
    user: str = ""
    groups: list[str] = []
    privileges: Privileges | None = None
    init: bool | None = None
    stop_signal: str = ""
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[Mount] = []
    stop_grace_period: int | None = None
    healthcheck: Healthcheck | None = None
    hosts: list[str] = []  # hosts(5) form: "IP name …"
    dns_config: DNSConfig | None = None
    secrets: list[SecretReference] = []
    configs: list[ConfigReference] = []
    isolation: str = ""
    sysctls: dict[str, str] = {}
    capability_add: list[str] = []
    capability_drop: list[str] = []
    ulimits: list[Ulimit] = []
    oom_score_adj: int = 0


# ---- a task ----------------------------------------------------------------------------------------------------


class Limit(Part, frozen=True):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0


class GenericResource(Part, frozen=True):
    """Exactly one of the two: `{"Kind": "gpu", "Value": "0"}` or `{"Kind": "ssd", "Value": 2}`."""

    named_resource_spec: dict[str, str] | None = None
    discrete_resource_spec: dict[str, str | int] | None = None


class Resources(Part, frozen=True):
    """What a node has, or what a task reserves."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic_resources: list[GenericResource] = []


class ResourceRequirements(Part, frozen=True):
    limits: Limit | None = None
    reservations: Resources | None = None
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicy(Part, frozen=True, omit_defaults=False):
    condition: str = "any"  # none, on-failure, any
    delay: int | None = None  # None: 5 s
    max_attempts: int | None = None  # None or 0: without end
    window: int | None = None  # None or 0: for ever


class Spread(Part, frozen=True):
    spread_descriptor: str = ""


class PlacementPreference(Part, frozen=True):
    spread: Spread | None = None


class Platform(Part, frozen=True):
    architecture: str = ""
    os: str = ""


class Placement(Part, frozen=True):
    constraints: list[str] = []
    preferences: list[PlacementPreference] = []
    max_replicas: int = 0  # per node; 0: no limit
    platforms: list[Platform] = []


class NetworkAttachmentConfig(Part, frozen=True):
    target: str = ""  # network id or name as the client sent it; stored as an id
    aliases: list[str] = []
    driver_opts: dict[str, str] = {}


class TaskSpec(Part, frozen=True):
    container_spec: ContainerSpec | None = None
    plugin_spec: dict[str, object] | None = None
    network_attachment_spec: dict[str, object] | None = None
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    networks: list[NetworkAttachmentConfig] = []
    log_driver: Driver | None = None
    force_update: int = 0
    runtime: str = ""


# ---- a service -------------------------------------------------------------------------------------------------


class ReplicatedService(Part, frozen=True):
    replicas: int | None = None


class ReplicatedJob(Part, frozen=True):
    max_concurrent: int | None = None
    total_completions: int | None = None


class ServiceMode(Part, frozen=True):
    """Exactly one is not `None`."""

    replicated: ReplicatedService | None = None
    global_: dict[str, object] | None = msgspec.field(default=None, name="Global")
    replicated_job: ReplicatedJob | None = None
    global_job: dict[str, object] | None = None

    @property
    def word(self) -> str:
        """Docker's: `replicated-job`."""
        if self.global_ is not None:
            return "global"
        if self.replicated_job is not None:
            return "replicated-job"
        return "global-job" if self.global_job is not None else "replicated"

    @property
    def is_job(self) -> bool:
        """Whether its tasks are to complete, and not to run for ever."""
        return self.replicated_job is not None or self.global_job is not None

    @property
    def per_node(self) -> bool:
        """Whether its tasks are bound to nodes, one to each."""
        return self.global_ is not None or self.global_job is not None


class UpdateConfig(Part, frozen=True, omit_defaults=False):
    parallelism: int | None = None  # None: 1; 0: all at once
    delay: int = 0
    failure_action: str = ""  # pause (default), continue, rollback
    monitor: int | None = None  # None: 5 s
    max_failure_ratio: float = 0.0
    order: str = ""  # stop-first (default), start-first


class PortConfig(Part, frozen=True, omit_defaults=False):
    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0  # 0: drawn from 30000-32767
    publish_mode: str = "ingress"  # ingress, host


class EndpointSpec(Part, frozen=True):
    mode: str = ""  # vip (default), dnsrr
    ports: list[PortConfig] = []


class ServiceSpec(Part, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    task_template: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode()
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    networks: list[NetworkAttachmentConfig] = []  # before API 1.25; validation moves it into the task template
    endpoint_spec: EndpointSpec | None = None


class VirtualIP(Part, frozen=True):
    network_id: str = ""
    addr: str = ""  # CIDR, as Docker shows it: "10.0.1.5/24"


class Endpoint(Part, frozen=True):
    """What the allocator gave: ports with their published numbers, one address per network."""

    ports: list[PortConfig] = []
    virtual_ips: list[VirtualIP] = msgspec.field(default_factory=list, name="VirtualIPs")


class UpdateState(StrEnum):
    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


class UpdateStatus(Part, frozen=True):
    """Progress of a rolling update. Times are seconds since the epoch; 0 = not yet."""

    state: UpdateState = UpdateState.UPDATING
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""


class JobStatus(Part, frozen=True):
    """Which execution of a job is the present one: 0, 1, …; each update of the service begins another."""

    iteration: int = 0
    last_execution: float = 0.0  # when it began, in seconds since the epoch


class Service(Obj, frozen=True):
    """A service. `spec` is the user's, `endpoint` the allocator's, `update_status` the updater's.

    `spec_version` is the revision at which the task template was last changed (0 until the first change): a task is
    up to date when its own `spec_version` equals it. `read_after` is the revision that the specification was last
    written from: only who has read it since may change it. What else is written here makes nobody's reading stale.
    """

    spec: ServiceSpec = ServiceSpec()
    previous_spec: ServiceSpec | None = None
    spec_version: int = 0
    read_after: int = 0
    endpoint: Endpoint | None = None  # None: the allocator has not seen it yet
    update_status: UpdateStatus | None = None
    job_status: JobStatus | None = None  # of jobs only, and of these always
    pending_delete: bool = False  # removed by the user; goes when its last task has stopped
    pull_auth: str = ""  # X-Registry-Auth for pulls, sealed like a secret with the service's id; never shown
    previous_pull_auth: str = ""  # what came with `previous_spec`

    @property
    def name(self) -> str:
        return self.spec.name
