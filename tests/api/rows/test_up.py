"""Rows UP: rolling updates and rollbacks by the docker command lines, on a swarm that is alive."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from afterswarm.model.task import Task, TaskState
from afterswarm.sim.container import Program
from afterswarm.sim.images import Programs, parts, program

FAST = ("--update-monitor", "100ms", "--rollback-monitor", "100ms", "--restart-delay", "100ms")
GRACE = ("--stop-grace-period", "1s")


class Watched:
    """What was seen of the one service's tasks while it was updated: at each change, who ran."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.began: dict[str, float] = {}  # new tasks, by the time at which they were made
        self.ran: dict[str, float] = {}  # the time at which they ran


@asynccontextmanager
async def watched(api: Any) -> AsyncIterator[Watched]:
    seen = Watched()
    cache = api.host.cache
    before = set(cache.snapshot().tasks)

    async def look() -> None:
        async for _ in cache.changes():
            snap = cache.snapshot()
            runs = [t for t in snap.tasks.values() if snap.state_of(t) == TaskState.RUNNING and t.desired <= 512]
            seen.running.append(len(runs))
            for task in snap.tasks.values():
                if task.id not in before:
                    seen.began.setdefault(task.id, task.created)
                    if task in runs:
                        seen.ran.setdefault(task.id, snap.now)

    looking = asyncio.ensure_future(look())
    try:
        yield seen
    finally:
        looking.cancel()


def state(cli: Any, *states: str, name: str = "web") -> Callable[[], Any]:
    async def look() -> str:
        (shown,) = json.loads(await cli("service", "inspect", name))
        status = shown.get("UpdateStatus") or {}
        return status if status.get("State") in states else ""

    return look


async def started(cli: Any, *flags: str, image: str = "nginx:1") -> None:
    out = await cli("service", "create", *FAST, *GRACE, *flags, "--name", "web", image)
    assert "overall progress: " in out  # with so short a monitor, the last line may be one before the last word


class Special(Programs):
    """These images behave otherwise, whatever their digest."""

    def __init__(self, **special: Program) -> None:
        super().__init__()
        self.special = special

    def get(self, image: str, _default: object = None) -> Program:
        return self.special.get("_".join(parts(image)), program(image))


async def images(cli: Any) -> list[str]:
    shown = await cli("service", "ps", "-f", "desired-state=running", "--format", "{{.Image}}", "web")
    return sorted(shown.split())


@pytest.mark.row("UP-01")
@pytest.mark.parametrize(("parallelism", "least"), [(None, 3), (2, 2), (0, 0)])
async def test_up_01_parallelism(cli: Any, live: Any, api: Any, parallelism: int | None, least: int) -> None:
    await started(cli, "--replicas", "4")
    flags = () if parallelism is None else ("--update-parallelism", str(parallelism))
    async with watched(api) as seen:
        await cli("service", "update", *flags, "--image", "healthy:0.2", "web")
    assert min(seen.running) == least
    assert await images(cli) == ["healthy:0.2"] * 4
    shown = await cli("service", "inspect", "-f", "{{.Spec.UpdateConfig.Parallelism}}", "web")
    assert shown == str(1 if parallelism is None else parallelism)


@pytest.mark.row("UP-02")
async def test_up_02_delay(cli: Any, live: Any, api: Any) -> None:
    await started(cli, "--replicas", "3", "--update-delay", "500ms")
    async with watched(api) as seen:
        await cli("service", "update", "--image", "nginx:2", "web")
    ran, began = sorted(seen.ran.values()), sorted(seen.began.values())
    assert len(began) == 3
    # as seen from here, where what is seen may be late by what the machine is busy with
    assert all(later - earlier >= 0.3 for earlier, later in zip(ran, began[1:], strict=False))


@pytest.mark.row("UP-03")
@pytest.mark.parametrize(("order", "bounds"), [("stop-first", (1, 2)), ("start-first", (2, 3))])
async def test_up_03_order(cli: Any, live: Any, api: Any, order: str, bounds: tuple[int, int]) -> None:
    await started(cli, "--replicas", "2")
    async with watched(api) as seen:
        await cli("service", "update", "--update-order", order, "--image", "nginx:2", "web")
    assert (min(seen.running), max(seen.running)) == bounds
    assert order in await cli("service", "inspect", "--pretty", "web")


@pytest.mark.row("UP-03")
async def test_up_03_a_host_port_turns_start_first_into_stop_first(cli: Any, live: Any, api: Any) -> None:
    port = ("--publish", "mode=host,published=8080,target=80")
    await started(cli, "--mode", "global", *port, "--update-order", "start-first")
    async with watched(api) as seen:
        await cli("service", "update", "--image", "nginx:2", "web")
    assert (min(seen.running), max(seen.running)) == (2, 3)
    assert await images(cli) == ["nginx:2"] * 3


@pytest.mark.row("UP-04", "UP-09")
async def test_up_04_pause_is_what_happens_by_default(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "3")
    out = await cli.fails("service", "update", "--restart-condition", "none", "--image", "broken:1", "web")
    assert "service update paused: update paused due to failure or early termination of task" in out
    status = await eventually(state(cli, "paused"))
    failed = status["Message"].removeprefix("update paused due to failure or early termination of task ")
    assert failed in (await cli("service", "ps", "--no-trunc", "-q", "web")).split()
    assert "CompletedAt" not in status
    assert "paused" in await cli("service", "inspect", "--pretty", "web")
    assert (await images(cli)).count("nginx:1") == 2
    assert "executable file not found" in await cli("service", "ps", "--no-trunc", "web")
    await cli("service", "update", "--image", "nginx:2", "web")
    assert await images(cli) == ["nginx:2"] * 3


@pytest.mark.row("UP-04")
async def test_up_04_a_paused_update_goes_on_when_it_is_asked_for_again(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "2")
    ill = Special(nginx_2=Program(start_error="no such device"))
    for agent in live.agents.values():
        agent.engine.programs = ill
    await cli("service", "update", "-d", "--image", "nginx:2", "web")
    await eventually(state(cli, "paused"))
    ill.special.clear()
    await cli("service", "update", "web")
    await eventually(state(cli, "completed"))
    assert await images(cli) == ["nginx:2"] * 2


@pytest.mark.row("UP-04")
async def test_up_04_continue(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "3", "--update-failure-action", "continue", "--restart-condition", "none")
    await cli("service", "update", "-d", "--image", "broken:1", "web")
    assert (await eventually(state(cli, "completed")))["Message"] == "update completed"
    assert (await cli("service", "ps", "--no-trunc", "web")).count("executable file not found") >= 1


@pytest.mark.row("UP-04", "UP-09")
async def test_up_04_rollback(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "3", "--update-failure-action", "rollback", "--env", "A=1")
    await cli("service", "update", "-d", "--update-monitor", "1s", "web")
    out = await cli("service", "update", "--env-add", "A=2", "--image", "exits:1", "web")
    assert "rollback: update rolled back due to failure or early termination of task" in out
    status = await eventually(state(cli, "rollback_completed"))
    assert status["Message"] == "rollback completed"
    assert status["StartedAt"] < status["CompletedAt"]
    assert await images(cli) == ["nginx:1"] * 3
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]


@pytest.mark.row("UP-05")
@pytest.mark.parametrize(("monitor", "ends"), [("1s", "paused"), ("10ms", "completed")])
async def test_up_05_monitor(cli: Any, live: Any, eventually: Any, monitor: str, ends: str) -> None:
    """`exits:1` runs for 0.3 s."""
    await started(cli, "--restart-condition", "none")
    await cli("service", "update", "-d", "--update-monitor", monitor, "--image", "exits:1", "web")
    await eventually(state(cli, ends))


@pytest.mark.row("UP-05")
async def test_up_05_five_seconds_by_default(cli: Any, api: Any) -> None:
    await cli("service", "create", "-d", "--name", "web", "--update-delay", "1s", "nginx:1")
    shown = await api.ok("GET", "/services/web?insertDefaults=true")
    assert shown["Spec"]["UpdateConfig"]["Monitor"] == shown["Spec"]["RollbackConfig"]["Monitor"] == 5_000_000_000


@pytest.mark.row("UP-06")
@pytest.mark.parametrize(("ratio", "ends"), [("0.3", "paused"), ("0.34", "completed")])
async def test_up_06_max_failure_ratio(cli: Any, live: Any, eventually: Any, ratio: str, ends: str) -> None:
    """One of three hosts cannot run the new image."""
    await started(cli, "--mode", "global", "--restart-condition", "none")
    live.agent("swarm-1").engine.programs = Special(nginx_2=Program(start_error="no such device"))
    await cli("service", "update", "-d", "--update-max-failure-ratio", ratio, "--image", "nginx:2", "web")
    await eventually(state(cli, ends))


@pytest.mark.row("UP-07")
async def test_up_07_a_rollback_has_its_own_settings(cli: Any, live: Any, api: Any, eventually: Any) -> None:
    mine = ("--rollback-parallelism", "0", "--rollback-order", "start-first", "--rollback-delay", "1s")
    rest = ("--rollback-failure-action", "continue", "--rollback-max-failure-ratio", "0.5")
    await started(cli, "--replicas", "3", *mine, *rest)
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert shown["Spec"]["RollbackConfig"] == {
        "Parallelism": 0,
        "Delay": 1_000_000_000,
        "FailureAction": "continue",
        "Monitor": 100_000_000,
        "MaxFailureRatio": 0.5,
        "Order": "start-first",
    }
    assert "RollbackConfig" in await cli("service", "inspect", "--pretty", "web")
    await cli("service", "update", "--image", "healthy:0.2", "web")
    async with watched(api) as seen:
        await cli("service", "rollback", "-d", "web")
        await eventually(state(cli, "rollback_completed"))
    assert min(seen.running) == 3
    assert max(seen.running) >= 5
    assert len(set(seen.began.values())) == 1
    refused = await cli.fails("service", "update", "--rollback-failure-action", "rollback", "web")
    assert "unrecognized rollback failure action rollback" in refused


@pytest.mark.row("UP-07", "UP-09")
async def test_up_07_a_rollback_is_never_rolled_back(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "2", "--update-failure-action", "rollback", "--restart-condition", "none")
    for agent in live.agents.values():
        ill = Special(nginx_1=Program(start_error="no disk"), nginx_2=Program(start_error="no disk"))
        agent.engine.programs = ill
    await cli("service", "update", "-d", "--image", "nginx:2", "web")
    assert "update paused due to failure" in (await eventually(state(cli, "rollback_paused")))["Message"]
    assert "rollback_paused" in await cli("service", "inspect", "--pretty", "web")


@pytest.mark.row("UP-08")
async def test_up_08_manual_rollback(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "2")
    for args in (("rollback", "web"), ("update", "--rollback", "web")):
        assert "does not have a previous spec" in await cli.fails("service", *args)
    await cli("service", "update", "--image", "nginx:2", "--replicas", "3", "web")
    out = await cli("service", "rollback", "web")
    assert "rollback: manually requested rollback" in out
    assert "rollback" in (await eventually(state(cli, "rollback_completed")))["Message"]
    assert await images(cli) == ["nginx:1"] * 2
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert shown["PreviousSpec"]["Mode"]["Replicated"]["Replicas"] == 3
    await cli("service", "update", "-d", "--rollback", "web")
    await eventually(state(cli, "rollback_completed"))
    assert await images(cli) == ["nginx:2"] * 3
    assert "other flags may not be combined" in await cli.fails(
        "service", "update", "--rollback", "--env-add", "A=1", "web"
    )


@pytest.mark.row("UP-09")
async def test_up_09_states(cli: Any, live: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "2")
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert "UpdateStatus" not in shown
    await cli("service", "update", "-d", "--image", "healthy:0.5", "web")
    status = await eventually(state(cli, "updating"))
    assert (status["Message"], "StartedAt" in status, "CompletedAt" in status) == ("update in progress", True, False)
    status = await eventually(state(cli, "completed"))
    assert (status["Message"], "CompletedAt" in status) == ("update completed", True)
    await cli("service", "rollback", "-d", "web")
    assert (await eventually(state(cli, "rollback_started")))["Message"] == "manually requested rollback"
    assert (await eventually(state(cli, "rollback_completed")))["Message"] == "rollback completed"


@pytest.mark.row("UP-10")
async def test_up_10_only_what_is_outdated(cli: Any, live: Any, api: Any) -> None:
    await started(cli, "--replicas", "2")
    tasks = {t.id for t in api.stored(Task)}
    harmless = ("--label-add", "a=b", "--update-parallelism", "2", "--rollback-delay", "1s", "--replicas", "3")
    await cli("service", "update", *harmless, "web")
    await cli("service", "update", "--constraint-add", "node.role!=x", "web")
    assert tasks < {t.id for t in api.stored(Task)}
    assert len(api.stored(Task)) == 3
    await cli("service", "update", "--force", "web")
    assert len(api.stored(Task)) == 6


@pytest.mark.row("UP-11")
async def test_up_11_an_update_during_an_update(cli: Any, live: Any, api: Any, eventually: Any) -> None:
    await started(cli, "--replicas", "4")
    await cli("service", "update", "-d", "--image", "healthy:60", "web")
    await eventually(state(cli, "updating"))

    async def half_way() -> bool:
        return (await images(cli)).count("healthy:60") == 1

    await eventually(half_way)
    await cli("service", "update", "--image", "nginx:3", "web")
    assert await images(cli) == ["nginx:3"] * 4
    assert len([t for t in api.stored(Task) if t.spec.container_spec.image.startswith("healthy")]) == 1
    assert (await eventually(state(cli, "completed")))["Message"] == "update completed"


@pytest.mark.row("UP-12")
async def test_up_12_the_image_is_there_before_the_old_task_stops(cli: Any, live: Any) -> None:
    await started(cli, "--constraint", "node.hostname==swarm-3", image="slow:1")
    engine = live.agent("swarm-3").engine
    engine.calls.clear()
    update = asyncio.ensure_future(cli("service", "update", "--image", "nginx:2", "web"))
    prepared = ""
    while not update.done():
        shown = await cli("service", "ps", "--format", "{{.Image}} {{.DesiredState}} {{.CurrentState}}", "web")
        prepared = prepared or next((line for line in shown.splitlines() if line.startswith("nginx:2 Ready Ready")), "")
    await update
    assert prepared
    verbs = [verb for verb, _ in engine.calls if verb in ("pull", "create", "stop", "start")]
    assert verbs == ["pull", "create", "stop", "start"]


class Stops(list[tuple[str, str]]):
    """What an engine is asked; each stop with the addresses that hosts still send new connections to."""

    def __init__(self, live: Any) -> None:
        super().__init__()
        self.live = live
        self.stopped: list[tuple[str, str]] = []

    def append(self, call: tuple[str, str]) -> None:
        super().append(call)
        if call[0] == "stop":
            self.stopped.append((call[1].rpartition(".")[2], rules(self.live)))


def rules(live: Any) -> str:
    """What the hosts do with new connections to published ports."""
    lines = [line for agent in live.agents.values() for line in agent.kernel.rulesets[None].splitlines()]
    return "\n".join(line for line in lines if "dnat" in line or " endpoints " in line)


@pytest.mark.row("UP-13")
async def test_up_13_nobody_sends_anything_to_a_task_that_is_told_to_end(cli: Any, live: Any, api: Any) -> None:
    await started(cli, "--replicas", "3", "--publish", "8080:80")
    addresses = {t.id: t.attachments[0].address.partition("/")[0] for t in api.stored(Task)}
    assert all(re.search(rf"\b{address}\b", rules(live)) for address in addresses.values())
    stops = Stops(live)
    for agent in live.agents.values():
        agent.engine.calls = stops
    await cli("service", "update", "--image", "nginx:2", "web")
    assert {task for task, _ in stops.stopped} == set(addresses)
    for task, text in stops.stopped:
        assert not re.search(rf"\b{addresses[task]}\b", text), text
