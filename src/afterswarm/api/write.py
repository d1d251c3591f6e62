"""How a handler changes the swarm: decide from the newest picture, commit, and decide anew when that picture moved.

The only retry of the API. It ends because every round sees what won the round before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from afterswarm.api.host import Host
from afterswarm.model.base import Change, Obj
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Conflict, Replica, Unavailable

T = TypeVar("T")
Decision = Callable[[Snapshot], tuple[Sequence[Change], T]]

ROUNDS = 20
PATIENCE = 5.0  # seconds for the own view to see what a commit lost to
OUT_OF_SEQUENCE = "rpc error: code = Unknown desc = update out of sequence"
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
_NOT_MANAGER = "This node is not a swarm manager. "
_REASONS = {
    "inactive": 'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    "pending": "Manager is being prepared or has trouble connecting to the cluster.",
    "manager": "Manager is being prepared or has trouble connecting to the cluster.",
    "worker": "Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node "
    "or promote the current node to a manager.",
}


def replica_of(host: Host) -> Replica:
    """The view of the swarm that this host has as a manager; 503 with Docker's reason when it is none."""
    if host.replica is not None:
        return host.replica
    local = host.local()
    if local.state == "locked":
        raise Refused(503, LOCKED)
    if local.state == "inactive" or not host.node_id:
        reason = "inactive"
    elif local.state == "pending":
        reason = "pending"
    else:
        reason = "manager" if local.control_available else "worker"
    raise Refused(503, _NOT_MANAGER + _REASONS[reason])


def snapshot_of(host: Host) -> Snapshot:
    """The swarm as this manager sees it now. Good until the next `await`."""
    return replica_of(host).snapshot()


async def settle(replica: Replica, decide: Decision[T]) -> T:
    """Commit what `decide` says and return what it says. It is asked again when something it read has moved."""
    for _ in range(ROUNDS):
        changes, answer = decide(replica.snapshot())
        try:
            await replica.commit(changes)
        except Conflict as lost:
            await _reach(replica, lost.rev)
        else:
            return answer
    raise Refused(500, OUT_OF_SEQUENCE)


async def _reach(replica: Replica, rev: int) -> None:
    """A view that has lost the store would keep the client waiting for ever."""
    try:
        async with asyncio.timeout(PATIENCE):
            await replica.reach(rev)
    except TimeoutError:
        raise Unavailable from None


def check_version(obj: Obj, version: int) -> None:
    """Refuse an update that was made from another revision of the object than the stored one."""
    if obj.rev != version:
        raise Refused(500, OUT_OF_SEQUENCE)
