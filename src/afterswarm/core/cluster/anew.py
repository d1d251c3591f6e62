"""A swarm made anew from one manager: `docker swarm init --force-new-cluster`.

The store has this manager as its only member by then. What is left to say is that the others are no managers any more
and that nobody should wait for them: their nodes stay, as in Docker, down and wanting to be managers, until they come
back, or are removed. The swarm gets a new epoch, since revisions of before may be given out a second time.
"""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.model.base import Change
from afterswarm.model.node import NodeState, Role, Suspicion
from afterswarm.model.snapshot import Snapshot

LOST = "lost with the quorum: the swarm was made anew from another manager"


def changes(snap: Snapshot, me: str, now: float) -> list[Change]:
    """What the objects become, in one commit. Nothing when it has happened already."""
    found: list[Change] = []
    if snap.cluster and snap.cluster.epoch < now:
        found.append(Change(snap.cluster, replace(snap.cluster, epoch=now)))
    lost: list[str] = []
    for node_id, node in sorted(snap.nodes.items()):
        if node_id == me:
            alone = replace(node, role=Role.MANAGER, spec=replace(node.spec, role=Role.MANAGER))
            found += [Change(node, alone)] if alone != node else []
        elif node.role == Role.MANAGER:
            down = replace(node, role=Role.WORKER, state=NodeState.DOWN, message=LOST, state_since=now)
            found.append(Change(node, down))
            lost.append(node_id)
    if lost:  # this manager has not been silent for long enough to suspect anybody, and they are not to be ready again
        found.append(Change(snap.suspicions.get(me), Suspicion(id=me, nodes=tuple(lost))))
    return found
