"""Resources that are counted, limits, and what follows a task that ends, as both command lines see it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from afterswarm.model.service import GenericResource, Resources
from afterswarm.model.task import Task

CREATE = ("service", "create", "-d", "--no-resolve-image")
UPDATE = ("service", "update", "-d", "--no-resolve-image")
SECOND = 1_000_000_000


def named(*names: str, ssds: int = 0) -> Resources:
    """GPUs by name, disks by number."""
    gpus = [GenericResource(named_resource_spec={"Kind": "NVIDIA-GPU", "Value": name}) for name in names]
    disks = [GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": ssds})] if ssds else []
    return Resources(nano_cpus=2 * SECOND, memory_bytes=1 << 32, generic_resources=gpus + disks)


def containers(live: Any, host: str) -> list[Any]:
    """As they were asked for."""
    return [c.body for c in live.agent(host).engine.made.values() if c.running]


async def template(cli: Any, name: str) -> Any:
    (shown,) = json.loads(await cli("service", "inspect", name))
    return shown["Spec"]["TaskTemplate"]


@pytest.mark.row("PL-12", "ND-13", "SV-30")
async def test_pl_12_generic_resources(cli: Any, live: Any, seen: Any, api: Any) -> None:
    await seen.says(api, "swarm-2", resources=named("UUID1", "UUID2"))
    await seen.says(api, "swarm-3", resources=named(ssds=3))
    (node,) = json.loads(await cli("node", "inspect", "swarm-2"))
    assert node["Description"]["Resources"]["GenericResources"] == [
        {"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "UUID1"}},
        {"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "UUID2"}},
    ]
    assert node["Description"]["Engine"]["EngineVersion"] == "20.10.24"

    await cli(*CREATE, "--name", "train", "--replicas", "3", "--generic-resource", "NVIDIA-GPU=1", "nginx:1")
    await seen.waits("train", "insufficient resources on 3 nodes")
    envs = [c["Env"] for c in containers(live, "swarm-2")]
    assert sorted(env[-1] for env in envs) == ["DOCKER_RESOURCE_NVIDIA-GPU=UUID1", "DOCKER_RESOURCE_NVIDIA-GPU=UUID2"]
    given = [task["GenericResources"] for task in await api.ok("GET", "/tasks") if "GenericResources" in task]
    assert sorted(g[0]["NamedResourceSpec"]["Value"] for g in given) == ["UUID1", "UUID2"]

    await cli(*CREATE, "--name", "cache", "--generic-resource", "ssd=2", "nginx:1")
    await seen.runs_on("cache", swarm_3=1)
    assert "DOCKER_RESOURCE_SSD=2" in containers(live, "swarm-3")[0]["Env"]
    asked = (await template(cli, "cache"))["Resources"]["Reservations"]["GenericResources"]
    assert asked == [{"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}}]
    (before,) = await seen.ps("cache", "ID")
    await cli(*UPDATE, "--force", "cache")  # one is free, and what it takes the place of gives two back

    async def another() -> bool:
        found = await seen.ps("cache", "ID", "Node", "CurrentState")
        return len(found) == 1 and found[0][0] != before[0] and found[0][2].startswith("Running")

    await seen.eventually(another)
    await seen.runs_on("cache", swarm_3=1)
    await cli(*UPDATE, "--generic-resource-rm", "ssd", "cache")
    assert "GenericResources" not in (await template(cli, "cache"))["Resources"]["Reservations"]
    await cli(*UPDATE, "--generic-resource-add", "ssd=4", "cache")

    async def waits() -> bool:  # the one before goes on meanwhile, if it had begun to run
        listed = await cli("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "cache")
        why = '"no suitable node (insufficient resources on 3 nodes)"'
        return any(line.startswith("Pending") and line.endswith(why) for line in listed.splitlines())

    await seen.eventually(waits)


@pytest.mark.row("RS-01")
async def test_rs_01_limits(cli: Any, live: Any, seen: Any) -> None:
    limits = ("--limit-cpu", "0.5", "--limit-memory", "64M", "--limit-pids", "20")
    await cli(*CREATE, "--name", "web", *limits, "--constraint", "node.hostname==swarm-3", "nginx:1")
    await seen.runs_on("web", swarm_3=1)
    assert (await template(cli, "web"))["Resources"]["Limits"] == {
        "NanoCPUs": SECOND // 2,
        "MemoryBytes": 64 << 20,
        "Pids": 20,
    }
    (made,) = containers(live, "swarm-3")
    has = made["HostConfig"]
    assert (has["NanoCpus"], has["Memory"], has["PidsLimit"]) == (SECOND // 2, 64 << 20, 20)
    await cli(*UPDATE, "--limit-pids", "0", "--limit-cpu", "0", "--limit-memory", "0", "web")

    async def without() -> bool:
        found = [c["HostConfig"] for c in containers(live, "swarm-3")]
        return len(found) == 1 and not any(found[0].get(k) for k in ("NanoCpus", "Memory", "PidsLimit"))

    await seen.eventually(without)
    assert "Must be at least 0.001" in await cli.fails(*CREATE, "--limit-cpu", "0.0001", "nginx:1")
    assert "Must be at least 4MiB" in await cli.fails(*CREATE, "--limit-memory", "1M", "nginx:1")


@pytest.mark.row("RS-03")
async def test_rs_03_conditions(cli: Any, live: Any, seen: Any) -> None:
    create = (*CREATE, "--restart-delay", "10ms", "--restart-condition")
    await cli(*create, "none", "--name", "never", "exits:3")
    await cli(*create, "on-failure", "--name", "good", "exits:0")
    await cli(*create, "on-failure", "--name", "bad", "exits:3")
    await cli(*create, "any", "--name", "always", "exits:0")

    async def tried() -> bool:
        found = [len((await cli("service", "ps", "-q", name)).split()) for name in ("bad", "always")]
        return min(found) >= 2

    await seen.eventually(tried)
    ended = {"never": "Failed", "good": "Complete"}
    for name, state in ended.items():
        shown = await cli("service", "ps", "--format", "{{.CurrentState}} {{.DesiredState}}", name)
        assert (shown.split()[0], shown.split()[-1], len(shown.splitlines())) == (state, "Shutdown", 1)
    assert (await template(cli, "bad"))["RestartPolicy"]["Condition"] == "on-failure"
    await cli.fails(*create, "sometimes", "nginx:1")


@pytest.mark.row(
    "RS-04",
    differs="the delay is constant for the first three restarts in a row and then doubles, up to 16 times, so that a "
    "service that cannot start does not keep hosts busy; a minute's calm starts that anew",
)
async def test_rs_04_the_delay(cli: Any, live: Any, seen: Any, api: Any) -> None:
    await cli(*CREATE, "--name", "web", "--restart-delay", "700ms", "exits:1")

    async def fourth() -> list[Task] | None:
        found = sorted(api.stored(Task), key=lambda t: t.created)
        return found if len(found) == 4 else None

    tries = await seen.eventually(fourth)
    waits = [t.start_after - t.restarts[-1] for t in tries[1:]]
    assert waits == pytest.approx([0.7, 0.7, 0.7])
    assert (await template(cli, "web"))["RestartPolicy"]["Delay"] == 700_000_000
    await cli(*CREATE, "--name", "usual", "exits:1")

    async def second() -> Task | None:
        found = (t for t in api.stored(Task) if t.service_name == "usual" and t.restarts)
        return next(found, None)

    usual = await seen.eventually(second)
    assert usual.start_after - usual.restarts[-1] == pytest.approx(5)
    shown = await cli("service", "ps", "-f", "desired-state=ready", "--format", "{{.Name}} {{.DesiredState}}", "usual")
    assert shown == "usual.1 Ready"


WINDOW = "waiting for a restart is left out of the window: one shorter than the delay counts attempts all the same"


@pytest.mark.row("RS-05", differs=WINDOW)
async def test_rs_05_the_window(cli: Any, live: Any, seen: Any) -> None:
    policy = ("--restart-delay", "10ms", "--restart-max-attempts", "1", "--restart-window")
    await cli(*CREATE, *policy, "10s", "--name", "long", "exits:1")
    await cli(*CREATE, *policy, "50ms", "--name", "short", "exits:1")  # each runs for longer than that

    async def count(name: str) -> int:
        return len((await cli("service", "ps", "-q", name)).split())

    async def goes_on() -> bool:
        return await count("short") >= 4

    await seen.eventually(goes_on)
    assert await count("long") == 2
    assert (await template(cli, "long"))["RestartPolicy"]["Window"] == 10 * SECOND


@pytest.mark.row("RS-05", differs=WINDOW)
async def test_rs_05_attempts_are_counted_per_slot_and_version(cli: Any, live: Any, seen: Any, api: Any) -> None:
    policy = ("--restart-delay", "10ms", "--restart-max-attempts", "2")
    await cli(*CREATE, *policy, "--name", "web", "--replicas", "2", "exits:1")

    async def used_up(count: int) -> bool:
        states = Counter((t["Slot"], t["Status"]["State"]) for t in await api.ok("GET", "/tasks"))
        return states == {(1, "failed"): count, (2, "failed"): count}

    await seen.eventually(lambda: used_up(3))
    await cli(*UPDATE, "--update-parallelism", "0", "--update-failure-action", "continue", "--env-add", "A=1", "web")
    await seen.eventually(lambda: used_up(5))  # three more tries each; of six in a slot, history keeps five
    assert (await template(cli, "web"))["RestartPolicy"]["MaxAttempts"] == 2


@pytest.mark.row("RS-06")
async def test_rs_06_the_old_task_is_waited_for(cli: Any, live: Any, seen: Any, api: Any) -> None:
    await cli(*CREATE, "--name", "web", "--constraint", "node.hostname==swarm-3", "slow:1")
    await seen.runs_on("web", swarm_3=1)
    await cli(*UPDATE, "--force", "web")
    most = 0

    async def updated() -> bool:
        nonlocal most
        most = max(most, len(containers(live, "swarm-3")))
        states = [t["Status"]["State"] for t in await api.ok("GET", "/tasks")]
        return sorted(states) == ["running", "shutdown"]

    await seen.eventually(updated)
    assert most == 1
