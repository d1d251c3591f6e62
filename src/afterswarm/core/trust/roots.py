"""Which root certificates count while one follows another, and which nodes know it already.

A rotation has two halves. While `Cluster.rotation` stands, everybody still trusts the old root; certificates are issued
by the new one and bring along the new root's certificate as signed by the old one (`cross`), so that they are good
wherever either is trusted. Once every node has such a certificate the new root takes the old one's place: then trust
changes, node by node, and the chains stay with new certificates until nobody trusts a former root any more. So a
node may be off for as long as it likes and is let in again, unless it was removed.
"""

from __future__ import annotations

from afterswarm.core.trust.token import digest_of
from afterswarm.model.cluster import Cluster, FormerRoot
from afterswarm.model.node import NodeReport
from afterswarm.model.session import Authority
from afterswarm.model.snapshot import Snapshot


def issuing(cluster: Cluster) -> tuple[str, str]:
    """Certificate (PEM) and sealed key of the root that signs now."""
    rotation = cluster.rotation
    return (rotation.cert, rotation.key) if rotation else (cluster.ca_cert, cluster.ca_key)


def chain(cluster: Cluster) -> list[str]:
    """What leads to the issuing root from those that may be trusted instead: a certificate is followed by it."""
    newest = [cluster.rotation.cross] if cluster.rotation else []
    return [*newest, *(former.cross for former in cluster.former)]


def authority(cluster: Cluster | None) -> Authority:
    """What nodes are told."""
    if cluster is None or not cluster.ca_cert:
        return Authority()
    return Authority(root=cluster.ca_cert, issuer=digest_of(issuing(cluster)[0]))


def named(cluster: Cluster, digest: str) -> str:
    """The root certificate (PEM) with this digest; "" when it is none of those that count."""
    known = [cluster.ca_cert, *([cluster.rotation.cert] if cluster.rotation else []), *(f.cert for f in cluster.former)]
    return next((cert for cert in known if digest_of(cert) == digest), "")


def staying(snap: Snapshot) -> list[NodeReport]:
    """Reports of all nodes but those that have left for good; an empty one of a node that has said nothing yet."""
    found = [snap.node_reports.get(node_id) or NodeReport(id=node_id) for node_id in sorted(snap.nodes)]
    return [report for report in found if not report.left]


def all_issued(snap: Snapshot, digest: str) -> bool:
    """Whether every node's certificate comes from this root."""
    return all(report.issuer == digest for report in staying(snap))


def all_trust(snap: Snapshot, digest: str) -> bool:
    """Whether every node trusts this root, and its store does."""
    return all(report.trust == digest for report in staying(snap))


def followed(cluster: Cluster) -> tuple[FormerRoot, ...]:
    """The former roots once the one that is to follow has taken its place."""
    assert cluster.rotation  # noqa: S101 - asked for during a rotation only
    return (FormerRoot(cert=cluster.ca_cert, cross=cluster.rotation.cross), *cluster.former)
