"""The steps in a rotation of the root certificate that follow from what nodes report; see `core.trust.roots`."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.trust import roots
from afterswarm.core.trust.token import digest_of
from afterswarm.model.base import Change, Plan
from afterswarm.model.snapshot import Snapshot


def plan(snap: Snapshot, _key: str) -> Plan:
    """The new root takes its place; later, the former ones are forgotten."""
    cluster = snap.cluster
    if cluster is None or not snap.nodes:
        return Plan()
    rotation = cluster.rotation
    if rotation:
        if not roots.all_issued(snap, digest_of(rotation.cert)):
            return Plan()
        new = replace(
            cluster,
            ca_cert=rotation.cert,
            ca_key=rotation.key,
            tokens=rotation.tokens,
            former=list(roots.followed(cluster)),
            rotation=None,
        )
        return Plan(changes=[Change(cluster, new)], why="every node has a certificate of the new root: it is the root")
    if cluster.former and roots.all_trust(snap, digest_of(cluster.ca_cert)):
        new = replace(cluster, former=[])
        return Plan(changes=[Change(cluster, new)], why="every node trusts the new root: the former ones are forgotten")
    return Plan()
