"""Who stands behind a certificate of this swarm: node, role, swarm.

A node's certificate has, as SwarmKit's do, the node's id as common name, its role as organisational unit and the
swarm's id as organisation. Read from what `ssl.SSLSocket.getpeercert()` returns, so that a worker need not load a
certificate library to know who is calling. Verifying the signature has been the TLS handshake's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from afterswarm.model.node import Node, Role

UNIT = {Role.WORKER: "swarm-worker", Role.MANAGER: "swarm-manager"}  # also names in the certificate (SAN)
_ROLE = {unit: role for role, unit in UNIT.items()}


class Holder(msgspec.Struct, frozen=True):
    """The owner of a verified certificate."""

    node_id: str
    role: Role
    cluster_id: str


def holder(certificate: Mapping[str, Any] | None) -> Holder | None:
    """`None` when there is no certificate or it is not one of a node."""
    fields: dict[str, str] = {}
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            fields.setdefault(name, value)
    role = _ROLE.get(fields.get("organizationalUnitName", ""))
    node_id = fields.get("commonName", "")
    if role is None or not node_id:
        return None
    return Holder(node_id=node_id, role=role, cluster_id=fields.get("organizationName", ""))


def role_of(node: Node) -> Role:
    """The role that a node's certificate should name.

    Promotion: it must be a manager's before the node can become one. Demotion: it stays one until the node has left
    the store's quorum, since a node that sees "worker" stops its store.
    """
    return Role.MANAGER if Role.MANAGER in (node.spec.role, node.role) else Role.WORKER
