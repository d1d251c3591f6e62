"""A host's life as a member of a swarm: it begins, begins again after a failure, and ends."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from afterswarm.adapters.engine import DockerEngine
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.core.host.container_config import TASK_LABEL
from afterswarm.daemon.config import Config
from afterswarm.daemon.member import Follow, Member
from afterswarm.http.children import apart
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.node import Description
from afterswarm.model.refused import Refused
from afterswarm.ports import Clock, EngineError, EngineGone, Unavailable

if TYPE_CHECKING:
    from afterswarm.control.founding import Founded

STARTING = 20.0  # seconds that a node may take to be a working member
AGAIN = 1.0  # seconds before a life that failed begins again
DEPARTING = 5.0  # seconds for the other managers to let this one go

log = logging.getLogger(__name__)


class Life:
    """`member` is what the host is in its swarm now; `error`, why it is nothing."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: Credentials,
        clock: Clock,
        engine: Client,
        description: Callable[[], Awaitable[Description]],
        follow: Follow,
    ) -> None:
        self.member: Member | None = None
        self.error = ""
        self._config = config
        self._credentials = credentials
        self._clock = clock
        self._engine = engine
        self._description = description
        self._follow = follow
        self._task: asyncio.Task[None] | None = None

    def begin(self, group: asyncio.TaskGroup, how: Founded | float | None = None) -> None:
        """`how`: see `Manager.run`."""
        self._task = group.create_task(self._live(how), name="member of a swarm")

    async def settled(self) -> None:
        """Wait until this node works as a member. Raises `TimeoutError`."""
        async with asyncio.timeout(STARTING):
            while not (self.member and self.member.working()):
                await self._clock.sleep(0.05)

    async def stop(self) -> None:
        """It may begin again: everything stays on the disk, and containers go on."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.error = ""

    async def end(self) -> None:
        """Be in no swarm, without a word to anybody."""
        await self.stop()
        self._forget()

    async def leave(self) -> None:
        """End this node's containers, say good-bye, and take down what was built."""
        member, identity = self.member, self._credentials.identity
        if member:
            await member.clear()
            await member.others.say_goodbye()
            if member.manager:
                with suppress(Unavailable, Refused, ConnectFailed, TimeoutError):  # the others see to it in the end
                    async with asyncio.timeout(DEPARTING):
                        await member.manager.depart()
        elif identity:  # locked
            member = self._member(identity)
            await self._remove_containers()
        await self.end()
        if member:
            await member.dismantle()

    async def _live(self, how: Founded | float | None) -> None:
        """A failure is said, and the life begins again: containers do not notice."""
        while identity := self._credentials.identity:
            self.member = member = self._member(identity)
            try:
                await apart(member.run(how))
                if member.removed:
                    log.warning("this node was removed from the swarm")
                    await member.dismantle()
                    self._forget()
                    return
            except* Exception as failures:
                self.error = str(failures.exceptions[0])
                log.exception("the node's part in the swarm failed; it begins again")
            finally:
                self.member = None
            if isinstance(how, float):
                how = None  # not a second time by itself: whoever asked for it has been told
            await asyncio.sleep(AGAIN)

    def _member(self, identity: Identity) -> Member:
        return Member(
            config=self._config,
            credentials=self._credentials,
            identity=identity,
            clock=self._clock,
            engine=self._engine,
            description=self._description,
            follow=self._follow,
        )

    async def _remove_containers(self) -> None:
        driver = DockerEngine(self._engine)
        with suppress(EngineError, EngineGone):
            for container in await driver.containers(TASK_LABEL):
                await driver.remove(container["Id"])

    def _forget(self) -> None:
        self._credentials.forget()
        self.error = ""
        shutil.rmtree(self._config.etcd, ignore_errors=True)
