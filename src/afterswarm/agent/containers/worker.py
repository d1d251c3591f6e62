"""All containers of this host: one runner per task, woken by the engine's events.

Containers are found again by their label, so they outlive the daemon. Those of ours that no task stands for are
stopped and removed, once a manager has said what is wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from afterswarm.agent.containers.files import Files
from afterswarm.agent.containers.pulls import Pulls
from afterswarm.agent.containers.runner import Runner, Surroundings
from afterswarm.agent.network.host_network import HostNetwork
from afterswarm.core.host.container_config import TASK_LABEL, Place
from afterswarm.model.node import Description
from afterswarm.model.session import SecretData, Wanted
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Clock, Engine, EngineError, EngineGone, Json

log = logging.getLogger(__name__)

RESYNC = 10.0  # seconds between looks at all containers, in case an event was missed
RETRY = 1.0
EVENTS = {"type": ["container"], "event": ["die", "health_status", "oom", "destroy"], "label": [TASK_LABEL]}


class Worker:
    """`report` is called with each new state of a task; it must not block. One worker for one membership."""

    def __init__(
        self,
        *,
        engine: Engine,
        network: HostNetwork,
        clock: Clock,
        node_id: str,
        hostname: str,
        run_dir: Path,
        report: Callable[[Report], None],
        files: Files | None = None,
        prefer_offline: bool = False,
    ) -> None:
        self._engine = engine
        self._network = network
        self._clock = clock
        self._place = Place(node_id=node_id, hostname=hostname)
        self._report = report
        self._prefer_offline = prefer_offline
        self._files = files or Files(run_dir)
        self._tasks: dict[str, Task] | None = None  # None: no manager has said yet
        self._secrets: dict[str, SecretData] = {}
        self._configs: dict[str, SecretData] = {}
        self._auths: dict[str, str] = {}
        self._runners: dict[str, Runner] = {}
        self._listed: dict[str, tuple[str, bool]] = {}
        self._changed = asyncio.Event()
        self._look_again = asyncio.Event()
        self._empty = asyncio.Event()

    def here(self, description: Description) -> None:
        """What the engine says of this host; before `run`."""
        hostname = description.hostname or self._place.hostname
        self._place = replace(self._place, hostname=hostname, platform=description.platform)

    def want(self, wanted: Wanted) -> None:
        """New sections; `None` is unchanged. That they are not older than the last ones is the session's business."""
        if wanted.secrets is not None:
            self._secrets.clear()
            self._secrets.update((s.id, s) for s in wanted.secrets)
        if wanted.configs is not None:
            self._configs.clear()
            self._configs.update((c.id, c) for c in wanted.configs)
        if wanted.auths is not None:
            self._auths.clear()
            self._auths.update((a.service_id, a.auth) for a in wanted.auths)
        if wanted.tasks is not None:
            if self._tasks is None or not wanted.tasks:
                self._look_again.set()  # now it can be told which containers are strays, or that none is left
            self._tasks = {t.id: t for t in wanted.tasks}
            self._empty.clear()
            self._changed.set()

    def reports(self) -> list[Report]:
        """The last report of every task there is."""
        return [r.report for r in self._runners.values() if not r.gone and r.report.state > TaskState.ASSIGNED]

    async def emptied(self) -> None:
        """Return once no task is wanted and no container of ours is left: a node that leaves waits for this."""
        await self._empty.wait()

    async def run(self) -> None:
        """Until cancelled; containers stay then."""
        async with asyncio.TaskGroup() as group:
            around = Surroundings(
                engine=self._engine,
                network=self._network,
                files=self._files,
                pulls=Pulls(self._engine, group),
                clock=self._clock,
                place=self._place,
                secrets=self._secrets,
                configs=self._configs,
                auths=self._auths,
                report=self._report,
                prefer_offline=self._prefer_offline,
            )
            group.create_task(self._listen(), name="engine events")
            group.create_task(self._resync(group, around), name="look at all containers")
            while await self._changed.wait():
                self._changed.clear()
                self._follow(group, around)

    def _follow(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        if self._tasks is None:
            return
        for task_id, runner in self._runners.items():
            runner.want(self._tasks.get(task_id))
        for task in self._tasks.values():
            if task.id not in self._runners:
                self._begin(group, Runner(task, around))

    def _begin(self, group: asyncio.TaskGroup, runner: Runner) -> None:
        self._runners[runner.task.id] = runner
        group.create_task(self._keep_running(runner), name=f"task {runner.task.id}")

    async def _keep_running(self, runner: Runner) -> None:
        while True:
            try:
                await runner.run()
                break
            except Exception as why:  # one task's surprise must not end the others'
                log.exception("task %s: unexpected; trying again", runner.task.id)
                runner.troubled(str(why) or type(why).__name__)
                await self._clock.sleep(RESYNC)
        del self._runners[runner.task.id]
        self._look_again.set()
        self._changed.set()  # it may be wanted again by now

    async def _listen(self) -> None:
        while True:
            try:
                async for event in self._engine.events(EVENTS):
                    labels = (event.get("Actor") or {}).get("Attributes") or {}
                    runner = self._runners.get(labels.get(TASK_LABEL, ""))
                    if runner:
                        runner.wake()
            except EngineGone as why:
                log.warning("engine: %s", why)
            except EngineError as why:
                log.warning("engine events: %s", why.message)
            await self._clock.sleep(RETRY)
            self._look_again.set()

    async def _resync(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        while True:
            self._look_again.clear()
            try:
                containers = await self._engine.containers(TASK_LABEL)
            except (EngineGone, EngineError) as why:
                log.warning("listing containers: %s", why)
                await self._clock.sleep(RETRY)
                continue
            if self._tasks is not None:
                self._compare(containers, group, around)
            try:
                async with asyncio.timeout(RESYNC):
                    await self._look_again.wait()
            except TimeoutError:
                pass

    def _compare(self, containers: list[Json], group: asyncio.TaskGroup, around: Surroundings) -> None:
        """Wake runners whose container is not as it was listed last; begin to remove what nobody stands for."""
        listed: dict[str, tuple[str, bool]] = {}
        for found in containers:
            task_id = found["Labels"][TASK_LABEL]
            listed[task_id] = found["State"], "unhealthy" in found["Status"]
            if task_id not in self._runners:
                log.info("container %s is of no task here: removing it", found["Names"])
                stray = Runner(Task(id=task_id), around, container=found["Id"])
                stray.want(None)
                self._begin(group, stray)
        for task_id, runner in self._runners.items():
            if listed.get(task_id) != self._listed.get(task_id):
                runner.wake()
        self._listed = listed
        self._files.keep(self._runners.keys())
        if not self._runners and not self._tasks and not containers:
            self._empty.set()
