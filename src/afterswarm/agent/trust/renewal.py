"""Keeps a node's certificate valid, in the role that the swarm wants for it, and of the root that issues now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from afterswarm.agent.trust import csr
from afterswarm.agent.trust.enrol import MANAGER
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.enrolment import Enrolment, RenewRequest, split
from afterswarm.model.node import Role
from afterswarm.ports import Clock

LOOK = 3600.0  # seconds between looks at the certificate's age
RETRY = 1.0  # seconds, doubled with each failure
RETRY_MOST = 60.0

log = logging.getLogger(__name__)

Connect = Callable[[str], Client]  # address of a manager -> client


def connector(credentials: Credentials) -> Connect:
    """Clients for managers: the other side must hold a manager's certificate of this swarm."""

    def connect(address: str) -> Client:
        return Client.tcp(*split(address), ssl=credentials.client_context(), server_hostname=MANAGER)

    return connect


class Renewal:
    """`want` a role and an issuer; `changed` is called with the new identity and the one before."""

    def __init__(
        self, credentials: Credentials, clock: Clock, connect: Connect, changed: Callable[[Identity, Identity], None]
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._connect = connect
        self._changed = changed
        self._role: Role | None = None
        self._issuer = ""
        self._woken = asyncio.Event()

    def want(self, role: Role | None, issuer: str = "") -> None:
        """`None` and "" are unchanged."""
        wanted = (role or self._role, issuer or self._issuer)
        if wanted != (self._role, self._issuer):
            self._role, self._issuer = wanted
            self._woken.set()

    async def run(self) -> None:
        retry = RETRY
        while identity := self._credentials.identity:
            self._woken.clear()
            role, issuer = self._role or identity.role, self._issuer or identity.issuer
            wait = LOOK
            if (role, issuer) != (identity.role, identity.issuer) or self._clock.now() >= identity.renew_at:
                renewed = await self.renew()
                if renewed and (renewed.role, renewed.issuer) == (role, issuer):
                    retry = RETRY
                else:
                    wait, retry = retry, min(retry * 2, RETRY_MOST)
                if renewed:
                    self._changed(renewed, identity)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def renew(self) -> Identity | None:
        """Ask the managers in turn; `None` when none of them gave a certificate."""
        identity = self._credentials.identity
        if identity is None:
            return None
        pair = await csr.make(self._credentials.key)
        body = msgspec.json.encode(RenewRequest(csr=pair.csr, address=identity.address))
        for address in identity.managers:
            client = self._connect(address)
            try:
                reply = await client.request("POST", "/renew", body=body, timeout=5.0)
                if reply.status == 200:
                    return self._credentials.renew(msgspec.json.decode(reply.body, type=Enrolment))
                log.warning("%s gives no new certificate: %s", address, reply.message)
            except (ConnectFailed, msgspec.DecodeError) as error:
                log.warning("%s gives no new certificate: %s", address, error)
            finally:
                client.close()
        return None
