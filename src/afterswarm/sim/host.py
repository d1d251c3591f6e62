"""A simulated host: an agent that runs tasks with random latency, and an engine whose containers crash.

It acts on what the manager of its session shows it, and reports through that manager, as real agents do. A power cut
ends its containers, a partition does not: what it runs then is its own truth until it is heard again. How a container
fares is in the name of its image: `bad` cannot be pulled, `crashing` fails after a second, `ends` completes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from random import Random

import msgspec
from msgspec.structs import replace

from afterswarm.core import wanted
from afterswarm.model.base import Change
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

TRY_AGAIN = 0.3  # seconds until a report that could not be written is tried again
LOST_SESSION = 1.0  # seconds until a host without a manager looks for one again
KILLED = "task: non-zero exit (137)"
STEPS = {  # state -> the next one
    TaskState.NEW: TaskState.PREPARING,
    TaskState.PREPARING: TaskState.READY,
    TaskState.READY: TaskState.STARTING,
    TaskState.STARTING: TaskState.RUNNING,
}


class Container(msgspec.Struct):
    """One task as its host knows it."""

    task: Task
    report: Report
    runs: bool = False
    started: float = 0.0
    next_at: float = inf  # when something happens to it by itself
    next_state: TaskState = TaskState.NEW
    said: TaskState = TaskState.NEW  # the last state that a manager took note of
    known: bool = True  # the task was there when the host last looked


class SimHost:
    """One node. `session` gives the replica of a manager that it can reach, if any."""

    def __init__(self, node_id: str, clock: Clock, rng: Random, session: Callable[[], Replica | None]) -> None:
        self.id = node_id
        self.clock = clock
        self.rng = rng
        self.session = session
        self.on = True
        self.calm = False  # nothing crashes by chance any more
        self.seen = 0  # the latest revision that it acted on: a manager that lags behind it is not obeyed
        self.containers: dict[str, Container] = {}
        self.woken = asyncio.Event()

    def power_cut(self) -> None:
        self.on = False
        for container in self.containers.values():
            container.runs = False
            container.next_at, container.next_state = inf, TaskState.NEW

    def boot(self) -> None:
        self.on = True
        for container in self.containers.values():
            if container.report.state in (TaskState.STARTING, TaskState.RUNNING):
                self._move(container, TaskState.FAILED, KILLED)
        self.woken.set()

    def running(self) -> list[Container]:
        return [c for c in self.containers.values() if c.runs]

    async def run(self) -> None:
        """Act for ever."""
        while True:
            self.woken.clear()
            wake_at = await self._turn() if self.on else inf
            try:
                async with asyncio.timeout(None if wake_at == inf else max(wake_at - self.clock.now(), 0.001)):
                    await self.woken.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> float:
        replica = self.session()
        if replica is not None:
            self._look(replica)
        for container in list(self.containers.values()):
            if container.next_at <= self.clock.now():
                self._move(container, container.next_state, "")
            self._go_on(container)
        if replica is not None and not await self._report(replica):
            return self.clock.now() + TRY_AGAIN
        wake_at = min((c.next_at for c in self.containers.values()), default=inf)
        return wake_at if replica is not None else min(wake_at, self.clock.now() + LOST_SESSION)

    def _look(self, replica: Replica) -> None:
        snap = replica.snapshot()
        if snap.rev < self.seen:
            return
        self.seen = snap.rev
        seen = set()
        for task in wanted.placement(snap, self.id).tasks:
            seen.add(task.id)
            report = snap.reports.get(task.id) or Report(
                id=task.id, node_id=self.id, service_id=task.service_id, state=TaskState.NEW
            )
            container = self.containers.setdefault(task.id, Container(task, report, said=report.state))
            container.task = task
        for task_id, container in list(self.containers.items()):
            if task_id in seen:
                continue
            container.known = False
            if container.report.state > TaskState.RUNNING or container.report.state < TaskState.STARTING:
                del self.containers[task_id]

    def _go_on(self, container: Container) -> None:
        """What the agent does next about a container, unless it is at it already."""
        state = container.report.state
        stop = container.task.desired >= TaskState.SHUTDOWN or not container.known
        stop = stop or container.task.state == TaskState.ORPHANED
        if state > TaskState.RUNNING:
            return
        if stop:
            if container.next_state != TaskState.SHUTDOWN:
                self._later(container, TaskState.SHUTDOWN, self.rng.random() * 2)
            return
        if container.next_at < inf:
            return
        if state == TaskState.READY and container.task.desired < TaskState.RUNNING:
            return
        if state == TaskState.PREPARING and "bad" in self._image(container):
            self._later(container, TaskState.REJECTED, self.rng.random())
        elif state in STEPS:
            self._later(container, STEPS[state], self.rng.random() * 0.5)

    def _move(self, container: Container, state: TaskState, err: str) -> None:
        """The container comes to be in `state`."""
        container.next_at = inf
        if state <= container.report.state:
            return
        now = self.clock.now()
        container.report = replace(container.report, state=state, since=now, err=err, message=state.word)
        container.runs = state in (TaskState.STARTING, TaskState.RUNNING)
        if state == TaskState.STARTING:
            container.started = now
        if state != TaskState.RUNNING:
            return
        container.report = replace(container.report, started=now)
        image = self._image(container)
        if "crashing" in image:
            self._later(container, TaskState.FAILED, 1.0)
        elif "ends" in image:
            self._later(container, TaskState.COMPLETE, 2.0)
        elif not self.calm and self.rng.random() < 0.1:
            self._later(container, TaskState.FAILED, self.rng.random() * 20)

    def _later(self, container: Container, state: TaskState, seconds: float) -> None:
        container.next_state = state
        container.next_at = self.clock.now() + seconds

    async def _report(self, replica: Replica) -> bool:
        """Whether the managers know all now."""
        snap = replica.snapshot()
        told = [c for c in self.containers.values() if c.report.state > c.said and c.task.id in snap.tasks]
        if not told:
            return True
        states = [c.report.state for c in told]
        try:
            await replica.commit([Change(snap.reports.get(c.task.id), c.report) for c in told])
        except (Conflict, Unavailable):
            return False
        for container, state in zip(told, states, strict=True):
            container.said = state
        return True

    @staticmethod
    def _image(container: Container) -> str:
        spec = container.task.spec.container_spec
        return spec.image if spec else ""
