"""Changing one label of the swarm through the Engine API, whoever else changes its settings meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from afterswarm.http.client import Client, Reply

SEQUENCE = "update out of sequence"
TRIES = 5


class Failed(Exception):
    """What the daemon answered, or why it was not asked."""


async def settled(path: str, label: str, change: Callable[[str], str]) -> str:
    """Its value as it is then. `change` gets the value there is; "" is no label. Raises `Failed`, `ConnectFailed`."""
    client = Client.unix(path)
    try:
        for _ in range(TRIES):
            swarm = checked(await client.request("GET", "/swarm")).json()
            labels = dict(swarm["Spec"].get("Labels") or {})
            before: str = labels.pop(label, "")
            after = change(before)
            if after == before:
                return before
            named = {**labels, label: after} if after else labels
            body = msgspec.json.encode({**swarm["Spec"], "Labels": named})
            reply = await client.request("POST", f"/swarm/update?version={swarm['Version']['Index']}", body=body)
            if reply.status < 300:
                return after
            if SEQUENCE not in reply.message:
                checked(reply)
        raise Failed("the swarm's settings are being changed by somebody else; try again")
    finally:
        client.close()


def checked(reply: Reply) -> Reply:
    """Raises `Failed` when it was refused."""
    if reply.status >= 300:
        raise Failed(reply.message)
    return reply
