"""A node's engine, once it is sure that it is there: an operator hears within two seconds which host is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from afterswarm.api import lookup, versions
from afterswarm.api.host import Host
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.node import NodeState
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Replica

ANSWERING = 1.5  # seconds for another host to show that it is there
LOOKING = 1.0  # seconds between looks at whether it still is


async def reach(host: Host, node_id: str) -> tuple[Client, str, tuple[int, int] | None]:
    """A node's engine: its client, what to put before a target, its API version. 503 names a node that is silent."""
    node = host.replica.snapshot().nodes.get(node_id) if host.replica else None
    name = called(host.replica, node_id)
    if node is None:
        raise Refused(503, f"node {name} has left the swarm: its containers cannot be reached")
    if node.state == NodeState.DOWN:
        raise Refused(503, f"node {name} is down: its containers cannot be reached")
    client, prefix = host.engine_of(node_id)
    if node_id == host.node_id:
        return client, prefix, None
    try:
        reply = await client.request("GET", f"{prefix}/_ping", timeout=ANSWERING)
    except ConnectFailed as why:
        raise Refused(503, f"node {name} does not answer: its containers cannot be reached ({why})") from why
    if reply.status != 200:
        raise Refused(503, f"node {name}: {reply.message}")
    return client, prefix, versions.parse(reply.headers.get("api-version"))


@asynccontextmanager
async def while_up(host: Host, node_id: str) -> AsyncIterator[None]:
    """Ends the block with 503 once the node is found to be down: what was on its way there would wait for ever."""
    down = asyncio.ensure_future(_down(host, node_id))
    patience = asyncio.timeout(None)

    def end(_: object) -> None:
        patience.reschedule(asyncio.get_running_loop().time())

    try:
        async with patience:
            down.add_done_callback(end)
            try:
                yield
            finally:
                down.remove_done_callback(end)
    except TimeoutError:
        if not patience.expired():
            raise
        words = f"node {called(host.replica, node_id)} is down: its containers cannot be reached"
        raise Refused(503, words) from None
    finally:
        down.cancel()
        await asyncio.wait([down])


async def _down(host: Host, node_id: str) -> None:
    while host.replica and (node := host.replica.snapshot().nodes.get(node_id)) and node.state != NodeState.DOWN:
        await host.clock.sleep(LOOKING)


def called(replica: Replica | None, node_id: str) -> str:
    """The node's name, for sentences."""
    return node_name(replica.snapshot(), node_id) if replica else node_id


def node_name(snap: Snapshot, node_id: str) -> str:
    node = snap.nodes.get(node_id)
    return (node and lookup.hostname(snap, node)) or node_id
