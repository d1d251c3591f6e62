"""What may be asked of the swarm as a whole: its settings, and whether a manager may leave. Docker's words."""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from afterswarm.core.admit import node as nodes
from afterswarm.model.cluster import CAConfig, Cluster, Dispatcher, EncryptionConfig, Raft, SwarmSpec
from afterswarm.model.refused import Refused
from afterswarm.model.service import SECOND
from afterswarm.model.snapshot import Snapshot

_INVALID = "rpc error: code = InvalidArgument desc = "
LEAVING = "You are attempting to leave the swarm on a node that is participating as a manager. "
LOST = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)


def init(
    spec: SwarmSpec, *, pools: list[str], subnet_size: int, data_path_port: int, auto_lock: bool = False
) -> SwarmSpec:
    """The specification of a new swarm."""
    _check_pools(pools, subnet_size)
    if data_path_port and not 1024 <= data_path_port <= 49151:
        raise Refused(400, f"VXLAN UDP port number is not in valid range (1024-49151): {data_path_port}")
    if auto_lock:
        spec = replace(spec, encryption_config=EncryptionConfig(auto_lock_managers=True))
    spec = _checked(spec)
    if bool(spec.ca_config.signing_ca_cert) != bool(spec.ca_config.signing_ca_key):
        raise Refused(400, f"{_INVALID}a signing CA certificate and its key must be provided together")
    return spec


def update(cluster: Cluster, spec: SwarmSpec) -> Cluster:
    """The cluster with this specification."""
    spec = _checked(spec)
    root = spec.ca_config.signing_ca_cert
    if spec.ca_config.signing_ca_key and not root:
        words = "if a signing CA key is provided, the signing CA cert must also be provided"
        raise Refused(400, f"{_INVALID}{words}")
    if root and not spec.ca_config.signing_ca_key and root.strip() != cluster.ca_cert.strip():
        words = "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
        raise Refused(400, f"{_INVALID}{words}")
    cluster = replace(cluster, spec=unsigned(spec))
    if root and root.strip() == cluster.ca_cert.strip():  # back to the present one
        return replace(cluster, rotation=None)
    return cluster


def new_root(cluster: Cluster, spec: SwarmSpec) -> bool:
    """Whether this update begins a rotation of the root certificate, in place of one that may be under way."""
    given = spec.ca_config.signing_ca_cert.strip()
    coming = cluster.rotation.cert.strip() if cluster.rotation else ""
    if given:
        return given not in (cluster.ca_cert.strip(), coming)
    return spec.ca_config.force_rotate != cluster.spec.ca_config.force_rotate


def leave(snap: Snapshot | None, node_id: str) -> None:
    """Refuse that a manager leaves without force. `snap` is `None` when it cannot see the swarm."""
    if snap is None:
        raise Refused(503, LEAVING + "Doing so may lose the consensus of your cluster. " + LOST)
    members = nodes.managers(snap)
    up = [n for n in members if n.id == node_id or nodes.reachable(n)]
    down = len(members) - len(up)
    if len(up) - 2 > down:
        raise Refused(503, LEAVING + LOST)
    if len(up) == 1 and not down:
        last = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        raise Refused(503, LEAVING + last)
    left = (
        f"Removing this node leaves {len(up) - 1} managers out of {len(members)}. "
        "Without a Raft quorum your swarm will be inaccessible. "
    )
    raise Refused(503, LEAVING + left + LOST)


def _checked(spec: SwarmSpec) -> SwarmSpec:
    if spec.name not in ("", "default"):
        raise Refused(400, 'swarm spec must be named "default"')
    if spec.dispatcher.heartbeat_period < 0:
        raise Refused(400, f"{_INVALID}heartbeat time period cannot be a negative duration")
    if 0 < spec.ca_config.node_cert_expiry < 3600 * SECOND or spec.ca_config.node_cert_expiry < 0:
        raise Refused(400, f"{_INVALID}minimum certificate expiry time is: 1h0m0s")
    if not spec.ca_config.node_cert_expiry:  # a client's zero means Docker's default
        spec = replace(spec, ca_config=replace(spec.ca_config, node_cert_expiry=CAConfig().node_cert_expiry))
    if not spec.dispatcher.heartbeat_period:
        spec = replace(spec, dispatcher=Dispatcher())
    return replace(spec, name="default", raft=_ticking(spec.raft))


def unsigned(spec: SwarmSpec) -> SwarmSpec:
    """What a root certificate is given with is used and not kept: neither is ever shown, as in Docker."""
    return replace(spec, ca_config=replace(spec.ca_config, signing_ca_cert="", signing_ca_key=""))


def _ticking(raft: Raft) -> Raft:
    """The command line leaves out what nobody sets, as zeros; Docker shows its defaults then."""
    usual = Raft()
    return replace(
        raft,
        snapshot_interval=raft.snapshot_interval or usual.snapshot_interval,
        log_entries_for_slow_followers=raft.log_entries_for_slow_followers or usual.log_entries_for_slow_followers,
        election_tick=raft.election_tick or usual.election_tick,
        heartbeat_tick=raft.heartbeat_tick or usual.heartbeat_tick,
    )


def _check_pools(pools: list[str], subnet_size: int) -> None:
    networks: list[ipaddress.IPv4Network] = []
    for pool in pools:
        try:
            network = ipaddress.IPv4Network(pool)
        except ValueError as error:
            raise Refused(400, f"invalid default address pool {pool}: {error}") from error
        if any(network.overlaps(other) for other in networks):
            raise Refused(400, f"default address pool {pool} overlaps with another one")
        if subnet_size and network.prefixlen > subnet_size:
            raise Refused(400, f"default address pool {pool} is smaller than its subnets (/{subnet_size})")
        networks.append(network)
    if subnet_size and not 8 <= subnet_size <= 29:
        raise Refused(400, f"subnet size is not in valid range (8-29): {subnet_size}")
