"""The first objects of a new swarm: `docker swarm init`.

Everything is made in memory; the caller starts the store, writes `objects` and keeps the rest on disk.
"""

from __future__ import annotations

import os

import msgspec

from afterswarm import ids
from afterswarm.control import ca, given, seal
from afterswarm.control.keys import ca_key, sealed_unlock_key
from afterswarm.core.admit.cluster import unsigned
from afterswarm.core.trust import roots, token
from afterswarm.core.trust.certificate import role_of
from afterswarm.model.cluster import Cluster, JoinTokens, SwarmSpec
from afterswarm.model.enrolment import PORT, Enrolment, where
from afterswarm.model.node import Availability, Node, NodeSpec, NodeState, Role
from afterswarm.model.service import SECOND


class Founded(msgspec.Struct, frozen=True):
    """A swarm of one node. `enrolment` is what a manager that joined would have been given."""

    cluster: Cluster
    node: Node
    ca: str  # PEM
    enrolment: Enrolment


def found(
    csr: str,
    *,
    address: str,
    port: int = PORT,
    availability: Availability = Availability.ACTIVE,
    spec: SwarmSpec,
    pools: list[str],
    subnet_size: int,
    data_path_port: int,
    now: float,
) -> Founded:
    """Draws the keys, signs the first node's certificate. Raises `Refused` for a root of the user's that won't do."""
    own = spec.ca_config
    authority = given.authority(own.signing_ca_cert, own.signing_ca_key, now) if own.signing_ca_cert else ca.found(now)
    cluster_id = ids.derive("cluster", authority.cert)
    node = Node(
        id=ids.derive("node", cluster_id, ca.fingerprint(csr)),
        spec=NodeSpec(role=Role.MANAGER, availability=availability),
        role=Role.MANAGER,
        state=NodeState.READY,
        state_since=now,
    )
    key = seal.new_key()
    cluster = Cluster(
        id=cluster_id,
        spec=unsigned(spec),
        ca_cert=authority.cert,
        ca_key=seal.seal(key, ca_key(cluster_id), authority.key.encode()),
        tokens=JoinTokens(worker=new_token(authority.cert), manager=new_token(authority.cert)),
        unlock_key=sealed_unlock_key(key, cluster_id) if spec.encryption_config.auto_lock_managers else "",
        beat_key=seal.seal(key, f"{cluster_id}/beat-key", os.urandom(32)),
        default_addr_pool=pools,
        subnet_size=subnet_size,
        data_path_port=data_path_port,
    )
    enrolment = enrol(cluster, authority, node, csr, address=address, now=now)
    enrolment = msgspec.structs.replace(enrolment, managers=[where(address, port)], cluster_key=key)
    return Founded(cluster=cluster, node=node, ca=authority.cert, enrolment=enrolment)


def enrol(cluster: Cluster, authority: ca.Authority, node: Node, csr: str, *, address: str, now: float) -> Enrolment:
    """A certificate for this node in the role that it should have. Raises `ca.BadRequest`."""
    lifetime = cluster.spec.ca_config.node_cert_expiry / SECOND
    role = role_of(node)
    certificate = ca.issue(
        authority,
        csr,
        node_id=node.id,
        cluster_id=cluster.id,
        role=role,
        addresses=[address],
        now=now,
        lifetime=lifetime,
        chain=roots.chain(cluster),
    )
    return Enrolment(
        node_id=node.id,
        cluster_id=cluster.id,
        role=role,
        certificate=certificate,
        issuer=token.digest_of(authority.cert),
        issued=now,
        expires=now + lifetime,
        address=address,
    )


def new_token(ca_cert: str) -> str:
    """A join token with a fresh secret."""
    return token.text_of(ca_cert, os.urandom(token.SECRET_BYTES))
