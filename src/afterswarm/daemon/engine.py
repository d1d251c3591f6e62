"""Whether the engine of this host can be used, and what it says of the host."""

from __future__ import annotations

import asyncio
import logging

from afterswarm.adapters.engine import DockerEngine
from afterswarm.agent.describe import EngineUnfit, describe
from afterswarm.http.client import Client
from afterswarm.model.node import Description

LOOK = 0.3  # seconds between looks at an engine that cannot be used

log = logging.getLogger(__name__)


class EngineLook:
    """`run` it once; `unfit` is what is wrong, "" once nothing is."""

    def __init__(self, client: Client) -> None:
        self.unfit = "the engine of this host has not been asked yet"
        self._client = client
        self._description = Description()
        self._fit = asyncio.Event()

    async def described(self) -> Description:
        """As soon as it can be used."""
        await self._fit.wait()
        return self._description

    async def run(self) -> None:
        """Until there is an engine that can be used; what is wrong with it is said once, and to every client."""
        while self.unfit:
            try:
                self._description = await describe(DockerEngine(self._client))
            except EngineUnfit as why:
                if str(why) != self.unfit:
                    self.unfit = str(why)
                    log.error("%s", why)  # noqa: TRY400 - the words are the message
                await asyncio.sleep(LOOK)
            else:
                self.unfit = ""
                self._fit.set()
