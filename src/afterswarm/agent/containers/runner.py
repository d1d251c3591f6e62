"""One task of this host, from its image to the removal of its container.

Looks at the engine, asks `core.container` for the next step, takes it, looks again. Everything that can go wrong ends
up in the task's report in the engine's own words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from msgspec.structs import replace

from afterswarm.agent.containers.files import Files, FilesRefused, NotHere
from afterswarm.agent.containers.pulls import Pulls
from afterswarm.agent.network.host_network import HostNetwork
from afterswarm.core.host import container, container_config
from afterswarm.core.host.container import Create, Join, Known, Pull, Release, Remove, Start, Step, Stop, Wait
from afterswarm.core.host.container_config import Place
from afterswarm.core.host.seen import Seen, seen
from afterswarm.model.refused import Refused
from afterswarm.model.session import SecretData
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Clock, Engine, EngineError, EngineGone, Json

log = logging.getLogger(__name__)

RETRY = 1.0  # seconds


@dataclass(frozen=True)
class Surroundings:
    """What all runners of a host share."""

    engine: Engine
    network: HostNetwork
    files: Files
    pulls: Pulls
    clock: Clock
    place: Place
    secrets: Mapping[str, SecretData]
    configs: Mapping[str, SecretData]
    auths: Mapping[str, str]  # service id -> what its registry is told
    report: Callable[[Report], None]
    prefer_offline: bool  # an image that is here is not pulled again


class Runner:
    """`container` is the name or id to look for; the task's own name by default."""

    def __init__(self, task: Task, around: Surroundings, *, container: str = "") -> None:
        self.task = task
        self.gone = False
        self.report = Report(
            id=task.id, node_id=around.place.node_id, service_id=task.service_id, state=TaskState.ASSIGNED
        )
        self._container = container or container_config.name(task)
        self._around = around
        self._known = Known()
        self._woken = asyncio.Event()
        self._looked = False
        self._pulling = False
        self._endpoints: list[tuple[str, Json]] | None = None

    def want(self, task: Task | None) -> None:
        """The task has changed; `None`: it is gone, and so is its container to be."""
        was, self.gone = self.gone, task is None
        back = was and not self.gone
        if back and self.report.state > TaskState.ASSIGNED:
            self._around.report(self.report)  # what became of it meanwhile was kept to ourselves
        wanted = task or replace(self.task, desired=TaskState.REMOVE)
        if wanted != self.task or self.gone != was:  # one that had ended anyway has nothing left to wait for
            self.task = wanted
            self.wake()

    def wake(self) -> None:
        """Something happened: look again."""
        self._woken.set()

    async def run(self) -> None:
        """Until the task is gone and nothing of it is left; for ever otherwise."""
        while True:
            self._woken.clear()
            try:
                if await self._turn():
                    return
            except EngineGone as why:
                self.troubled(str(why), said=self.report.state < TaskState.RUNNING)
                await self._pause(RETRY)
            except EngineError as why:
                self.troubled(why.message)
                await self._pause(RETRY)

    async def _turn(self) -> bool:
        shown = await self._look()
        turn = container.turn(self.task, self.report, self._known, shown, self._around.clock.now())
        self._say(turn.report)
        if isinstance(turn.step, Wait):
            if self.gone:
                return True
            await self._woken.wait()
        else:
            await self._take(turn.step, shown)
        return False

    async def _look(self) -> Seen | None:
        try:
            shown = seen(await self._around.engine.inspect(self._container))
        except EngineError as why:
            if why.status != 404:
                raise
            shown = None
        if not self._looked:
            self._looked = True
            self._known = replace(self._known, adopted=shown is not None and shown.alive)
        return shown

    async def _take(self, step: Step, shown: Seen | None) -> None:
        match step:
            case Pull():
                await self._pull(step)
            case Create():
                await self._create()
            case Start():
                await self._start(shown)
            case Join():
                await self._around.network.started(self.task, step.pid)
                self._learnt(joined=True)
            case Stop():
                await self._stop(step)
            case Release():
                await self._around.network.stopped(self.task.id)
                self._around.files.remove(self.task.id)
                self._learnt(released=True)
            case Remove():
                await self._around.engine.remove(self._container)
            case Wait():
                raise AssertionError("waiting is not acting")
            case _:
                assert_never(step)

    async def _pull(self, step: Pull) -> None:
        if not self._pulling:
            self._pulling = True
            auth = self._around.auths.get(self.task.service_id, "")
            unless_here = step.unless_here or self._around.prefer_offline
            self._around.pulls.ask(step.image, auth, unless_here=unless_here, done=self._pulled)
        await self._woken.wait()  # for the image, or for the task to be wanted no more

    def _pulled(self, outcome: str | None) -> None:
        self._pulling = False
        if outcome is not None:
            self._learnt(pulled=True, pull_error=outcome)
        self.wake()

    async def _create(self) -> None:
        around = self._around
        try:
            self._endpoints = await around.network.prepare(self.task)
            body = container_config.body(
                self.task,
                around.place,
                endpoints=self._endpoints,
                dns=around.network.dns(self.task),
                files=self._files(),
            )
            await around.engine.create(self._container, body)
            self._learnt()
        except EngineError as why:
            if why.status == 409:  # it is there already, or still being removed
                raise
            self._learnt(error=why.message)
        except (Refused, FilesRefused) as why:
            self._learnt(error=str(why))
        except NotHere as why:
            self.troubled(str(why))
            await self._pause(RETRY)

    async def _start(self, shown: Seen | None) -> None:
        around = self._around
        try:
            if self._endpoints is None:
                self._endpoints = await around.network.prepare(self.task)
            self._files()  # made before, but a reboot empties memory
            for network, endpoint in self._endpoints[1:]:
                if shown is None or network not in shown.networks:
                    await around.engine.connect(network, self._container, endpoint)
            await around.engine.start(self._container)
            self._learnt()
        except EngineError as why:
            self._learnt(error=f"starting container failed: {why.message}")
        except (Refused, FilesRefused) as why:
            self._learnt(error=str(why))
        except NotHere as why:
            self.troubled(str(why))
            await self._pause(RETRY)

    async def _stop(self, step: Stop) -> None:
        """The one place where containers are told to end: whoever must hear of it before is told here."""
        if step.why:
            self._learnt(why_stopped=step.why)
        elif not self.gone and self.report.state == TaskState.RUNNING:
            await self._around.network.drain(self.task)
        try:
            await self._around.engine.stop(self._container, step.grace)
        except EngineError as why:
            if why.status == 404:
                return
            log.warning("stopping %s: %s", self._container, why.message)
            await self._around.engine.kill(self._container)

    def _files(self) -> dict[str, str]:
        around = self._around
        return around.files.write(self.task, around.secrets, around.configs, place=around.place)

    def _learnt(self, **facts: object) -> None:
        """A step has been taken: remember it, and forget what kept it from being taken."""
        self._known = replace(self._known, trouble="", **facts)

    def troubled(self, words: str, *, said: bool = True) -> None:
        """Something keeps the next step from being taken for now, and what."""
        log.warning("task %s: %s", self.task.id, words)
        if said and not container.is_over(self.report):
            self._known = replace(self._known, trouble=words)
            self._say(replace(self.report, err=words))

    def _say(self, report: Report) -> None:
        if report == self.report:
            return
        self.report = report
        if not self.gone and report.state > TaskState.ASSIGNED:
            self._around.report(report)

    async def _pause(self, seconds: float) -> None:
        """Before the next try, unless something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
