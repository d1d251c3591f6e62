"""Autolock: a manager's keys as they rest on its disk, in step with what the swarm wants.

Only managers load this file, and with it `cryptography`; a locked one when somebody brings the key.
"""

from __future__ import annotations

import logging

from afterswarm.agent.trust.identity import Credentials, Sealed
from afterswarm.control import seal
from afterswarm.control.keys import unlock_id
from afterswarm.core.trust import unlock
from afterswarm.model.cluster import Cluster
from afterswarm.model.refused import Refused
from afterswarm.ports import Replica

_KEY = "node-key"
_CLUSTER_KEY = "cluster-key"

log = logging.getLogger(__name__)


async def keep_in_step(replica: Replica, credentials: Credentials) -> None:
    """Seal the keys when autolock begins or its key changes, and no longer when it ends. For ever."""
    async for changes in replica.changes():
        cluster = replica.snapshot().cluster
        if cluster and any(isinstance(change.obj, Cluster) for change in changes):
            settle(credentials, cluster)


def settle(credentials: Credentials, cluster: Cluster) -> None:
    """What rests on the disk is as the cluster wants it."""
    sealed = credentials.sealed
    if not cluster.unlock_key:
        if sealed:
            credentials.unseal()
            log.info("autolock is off: this manager's keys rest as they are")
    elif sealed is None or sealed.version != cluster.unlock_key:
        key = seal.unseal(credentials.cluster_key, unlock_id(cluster.id), cluster.unlock_key)
        credentials.seal(
            Sealed(
                version=cluster.unlock_key,
                key=seal.seal(key, _KEY, credentials.key.encode()),
                cluster_key=seal.seal(key, _CLUSTER_KEY, credentials.cluster_key),
            )
        )
        log.info("this manager's keys are locked with the swarm's unlock key now")


def open_with(credentials: Credentials, text: str) -> None:
    """Make a locked manager's keys usable. Raises `Refused` in Docker's words."""
    key = unlock.parse(text)
    sealed = credentials.sealed
    assert sealed  # noqa: S101 - it is locked
    try:
        private = seal.unseal(key, _KEY, sealed.key).decode()
        cluster_key = seal.unseal(key, _CLUSTER_KEY, sealed.cluster_key)
    except seal.Unreadable:
        raise Refused(401, "swarm could not be unlocked: invalid key provided") from None
    credentials.unlock(private, cluster_key)
