"""What is drawn when a user asks for something new: join tokens, a root certificate, an unlock key.

The API decides when; here is the dice. Implements `api.host.Keys`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from afterswarm.control import ca, given, seal
from afterswarm.core.trust import token, unlock
from afterswarm.model.cluster import Cluster, JoinTokens, RootRotation
from afterswarm.model.refused import Refused


class Keys:
    """`cluster_key` is read anew each time; `now` is the clock."""

    def __init__(self, cluster_key: Callable[[], bytes], now: Callable[[], float]) -> None:
        self._cluster_key = cluster_key
        self._now = now

    def token(self, ca_cert: str) -> str:
        """A join token with a fresh secret."""
        return token.text_of(ca_cert, os.urandom(token.SECRET_BYTES))

    def rotation(self, cluster: Cluster, cert: str, key: str) -> RootRotation:
        """A root to follow the present one: this one, or with "" a new one. Raises `Refused`."""
        root = given.authority(cert, key, self._now()) if cert else ca.found(self._now())
        old = ca.Authority(cert=cluster.ca_cert, key=self._open(ca_key(cluster.id), cluster.ca_key))
        if ca.same_key(old.cert, root.cert):
            raise Refused(400, f"{given.INVALID}Cannot update to a cert with an identical key")
        return RootRotation(
            cert=root.cert,
            key=seal.seal(self._cluster_key(), ca_key(cluster.id), root.key.encode()),
            cross=ca.cross(old, root.cert),
            tokens=JoinTokens(worker=self.token(root.cert), manager=self.token(root.cert)),
        )

    def unlock_key(self, cluster: Cluster) -> str:
        """A fresh one, sealed."""
        return sealed_unlock_key(self._cluster_key(), cluster.id)

    def shown_unlock_key(self, cluster: Cluster) -> str:
        """As users write it down; "" without autolock."""
        if not cluster.unlock_key:
            return ""
        return unlock.text_of(seal.unseal(self._cluster_key(), unlock_id(cluster.id), cluster.unlock_key))

    def _open(self, object_id: str, sealed: str) -> str:
        return seal.unseal(self._cluster_key(), object_id, sealed).decode()


def ca_key(cluster_id: str) -> str:
    """What the authority's key is bound to, the one that is to follow included."""
    return f"{cluster_id}/ca-key"


def unlock_id(cluster_id: str) -> str:
    return f"{cluster_id}/unlock-key"


def sealed_unlock_key(cluster_key: bytes, cluster_id: str) -> str:
    return seal.seal(cluster_key, unlock_id(cluster_id), os.urandom(unlock.KEY_BYTES))
