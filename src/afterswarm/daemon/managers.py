"""Asking the swarm's managers from any of its hosts: one after another, until one answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from afterswarm.agent.trust.renewal import Connect
from afterswarm.http.client import Reply
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.refused import Refused

GOODBYE = 2.0  # seconds for a manager's answer to it
ASKING = 10.0  # seconds for an answer about a guest

log = logging.getLogger(__name__)


class Managers:
    """`where`: (node id, where it is) of every manager, as of now; `me` is this node's id."""

    def __init__(self, connect: Connect, me: str, where: Callable[[], list[tuple[str, str]]]) -> None:
        self._connect = connect
        self._me = me
        self._where = where

    async def ask(self, path: str, body: bytes) -> bytes:
        """What the first manager that can answer says, this host's own before others; `Refused` with its words."""
        refused = Refused(503, "rpc error: code = Unavailable desc = no manager of the swarm answers")
        for _, address in sorted(self._where(), key=lambda manager: manager[0] != self._me):
            reply = await self._post(address, path, body, ASKING)
            if reply is None:
                continue
            if reply.status < 300:
                return reply.body
            refused = Refused(reply.status, reply.message)
            if reply.status != 503:
                break
        raise refused

    async def say_goodbye(self) -> None:
        """Tell one that stays, so that the swarm need not find out."""
        for node_id, address in self._where():
            if node_id == self._me:
                continue
            reply = await self._post(address, "/leave", b"", GOODBYE)
            if reply and reply.status == 200:
                return
            if reply:
                log.info("%s takes no good-bye: %s", address, reply.message)

    async def _post(self, address: str, path: str, body: bytes, patience: float) -> Reply | None:
        client = self._connect(address)
        try:
            return await client.request("POST", path, body=body, timeout=patience)
        except (ConnectFailed, TimeoutError) as error:
            log.info("%s does not answer: %s", address, error)
            return None
        finally:
            client.close()
