"""Waits until a deployment has come true, and says meanwhile how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from afterswarm.model.service import ServiceSpec
from afterswarm.stack.convert import Stack
from afterswarm.stack.names import NAMESPACE
from afterswarm.stack.progress import Look, Stage, judge
from afterswarm.stack.swarm import Swarm
from afterswarm.stack.voice import Voice

POLL = 0.5  # seconds
CALM = 5.0  # seconds that a new service must run which has no health check to say that it is well


async def watch(swarm: Swarm, stack: Stack, changed: set[str], timeout: float, voice: Voice) -> int:
    """Until every service is well, or some will never be; the exit code."""
    clock = asyncio.get_running_loop().time
    names = [wanted.spec.name for wanted in stack.services]
    calm = {w.spec.name: CALM for w in stack.services if w.spec.name in changed and not _tested(w.spec)}
    since: dict[str, float] = {}
    until = clock() + timeout
    while True:
        looks = _calmed(await _looks(swarm, stack.name, names, changed), calm, since, clock)
        voice.progress(looks)
        waiting = [look for look in looks if look.stage is Stage.WAITING]
        failed = [look for look in looks if look.stage is Stage.FAILED]
        late = bool(waiting) and clock() >= until
        if late or not waiting:
            for look in failed:
                voice.error(str(look))
            for look in waiting:
                voice.error(f"{look}: not there after {timeout:g} s")
            return 1 if failed or late else 0
        await asyncio.sleep(POLL)


async def _looks(swarm: Swarm, stack: str, names: Sequence[str], changed: set[str]) -> list[Look]:
    label = {"label": [f"{NAMESPACE}={stack}"]}
    services = {s["Spec"]["Name"]: s for s in await swarm.get("/services", label)}
    tasks = await swarm.get("/tasks", label)
    current = {task["ID"] for task in await swarm.get("/tasks", {**label, "_up-to-date": ["true"]})}
    gone = Look("", Stage.FAILED, "was removed meanwhile")
    return [
        judge(services[name], tasks, current, changed=name in changed) if name in services else replace(gone, name=name)
        for name in names
    ]


def _calmed(
    looks: list[Look], calm: Mapping[str, float], since: dict[str, float], clock: Callable[[], float]
) -> list[Look]:
    """A service is not done before it has been so for its time of calm."""
    found = []
    for look in looks:
        if look.stage is not Stage.DONE:
            since.pop(look.name, None)
        elif clock() - since.setdefault(look.name, clock()) < calm.get(look.name, 0.0):
            look = replace(look, stage=Stage.WAITING)  # noqa: PLW2901 - the same, seen with patience
        found.append(look)
    return found


def _tested(spec: ServiceSpec) -> bool:
    """Whether more is known of its health than that it runs: it says so itself, or runs to its end."""
    container = spec.task_template.container_spec
    check = container.healthcheck if container else None
    policy = spec.task_template.restart_policy
    job = spec.mode.replicated_job is not None or spec.mode.global_job is not None
    return bool(check and check.test and check.test != ["NONE"]) or job or bool(policy and policy.condition == "none")
