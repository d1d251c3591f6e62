"""Services by their modes, and jobs, as both command lines see them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import docker
import pytest

CREATE = ("service", "create", "--restart-delay", "50ms")
QUICK = ("--update-monitor", "100ms")


async def inspect(cli: Any, name: str) -> Any:
    (found,) = json.loads(await cli("service", "inspect", name))
    return found


async def replicas(cli: Any, name: str) -> str:
    """Mode and replicas, of `docker service ls`."""
    listed = await cli("service", "ls", "--format", "{{.Name}}={{.Mode}} {{.Replicas}}")
    return dict(line.split("=") for line in listed.splitlines())[name]


async def tasks(cli: Any, name: str) -> list[tuple[str, str, str]]:
    """(name, state, desired state) of each, of `docker service ps`."""
    listed = await cli("service", "ps", "--format", "{{.Name}}|{{.CurrentState}}|{{.DesiredState}}", name)
    rows = [line.strip(" \\_").split("|") for line in listed.splitlines()]
    return sorted((name, state.split()[0], desired) for name, state, desired in rows)


def containers(live: Any) -> list[int]:
    return sorted(len(agent.engine.running()) for agent in live.agents.values())


@pytest.mark.row("MO-01")
async def test_mo_01_replicated(cli: Any, live: Any, api: Any) -> None:
    await cli(*CREATE, "-d", "--name", "one", "nginx:1")
    one = await inspect(cli, "one")
    assert one["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}
    assert "JobStatus" not in one
    out = await cli(*CREATE, *QUICK, "--name", "web", "--replicas", "3", "nginx:1")
    assert "3 out of 3 tasks" in out
    running = [(f"web.{n}", "Running", "Running") for n in (1, 2, 3)]
    assert await tasks(cli, "web") == running
    assert await replicas(cli, "web") == "replicated 3/3"
    await cli("service", "scale", "-d", "web=0")
    assert (await inspect(cli, "web"))["Spec"]["Mode"] == {"Replicated": {"Replicas": 0}}


@pytest.mark.row("MO-02")
async def test_mo_02_global(cli: Any, live: Any, eventually: Any) -> None:
    await cli("node", "update", "--availability", "drain", "swarm-3")
    out = await cli(*CREATE, *QUICK, "--name", "agent", "--mode", "global", "nginx:1")
    assert "2 out of 2 tasks" in out
    assert await replicas(cli, "agent") == "global 2/2"
    assert containers(live) == [0, 1, 1]
    await cli("node", "update", "--availability", "active", "swarm-3")  # as good as a new one

    async def there() -> bool:
        return await replicas(cli, "agent") == "global 3/3" and containers(live) == [1, 1, 1]

    await eventually(there)
    refused = await cli.fails("service", "scale", "agent=2")
    assert "scale can only be used with replicated" in refused


@pytest.mark.row("MO-03", "MO-06")
async def test_mo_03_replicated_job(cli: Any, live: Any) -> None:
    out = await cli(
        *CREATE, "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2", "--name", "sums", "exits:0"
    )
    assert "job complete" in out
    shown = await inspect(cli, "sums")
    assert shown["Spec"]["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
    assert shown["JobStatus"]["JobIteration"].get("Index", 0) == 0  # Go leaves out a 0
    assert shown["JobStatus"]["LastExecution"][:19] == shown["CreatedAt"][:19]
    assert await replicas(cli, "sums") == "replicated job 0/2 (5/5 completed)"
    found = await tasks(cli, "sums")
    assert {(state, desired) for _, state, desired in found} == {("Complete", "Complete")}
    assert [name for name, _, _ in found][:4] == ["sums.1", "sums.2", "sums.3", "sums.4"]  # Docker's first is number 0
    assert containers(live) == [0, 0, 0]
    assert len((await cli("service", "logs", "sums")).splitlines()) == 5
    assert "(5/5 completed)" in await cli("service", "ls", "--filter", "mode=replicated-job")
    assert "sums" not in await cli("service", "ls", "--filter", "mode=replicated")
    assert "exits:0" in await cli("service", "inspect", "--pretty", "sums")  # which says nothing of the job
    assert await cli("service", "rm", "sums") == "sums"


@pytest.mark.row("MO-03")
async def test_mo_03_defaults_of_the_command_line(cli: Any, live: Any, api: Any) -> None:
    await cli(*CREATE, "-d", "--mode", "replicated-job", "--replicas", "3", "--name", "wide", "nginx:1")
    await cli(*CREATE, "-d", "--mode", "replicated-job", "--name", "single", "exits:0")
    wide = (await inspect(cli, "wide"))["Spec"]["Mode"]["ReplicatedJob"]
    assert wide == {"MaxConcurrent": 3, "TotalCompletions": 3}
    single = (await inspect(cli, "single"))["Spec"]["Mode"]["ReplicatedJob"]
    assert single == {"MaxConcurrent": 1, "TotalCompletions": 1}
    refused = await cli.fails(*CREATE, "-d", "--mode", "replicated-job", "--update-parallelism", "2", "nginx:1")
    assert "job" in refused
    body = {
        "Name": "rolled",
        "Mode": {"ReplicatedJob": {}},
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1"}},
        "UpdateConfig": {"Parallelism": 2},
    }
    status, words = await api.fails("POST", "/services/create", body)
    assert (status, words) == (400, "rpc error: code = InvalidArgument desc = Jobs may not have an update config")


@pytest.mark.row("MO-03", "RS-03")
async def test_mo_03_only_failures_are_tried_again(cli: Any, live: Any, eventually: Any) -> None:
    job = (*CREATE, "-d", "--mode", "replicated-job")
    await cli(*job, "--restart-condition", "none", "--name", "never", "exits:3")
    await cli(*job, "--restart-max-attempts", "2", "--name", "thrice", "exits:3")
    await cli(*job, "--restart-condition", "any", "--name", "any", "exits:0")

    async def over() -> bool:
        return [len(await tasks(cli, n)) for n in ("never", "thrice", "any")] == [1, 3, 1] and not any(containers(live))

    await eventually(over)
    assert [(state, desired) for _, state, desired in await tasks(cli, "thrice")] == [("Failed", "Shutdown")] * 3
    assert [(state, desired) for _, state, desired in await tasks(cli, "any")] == [("Complete", "Complete")]
    assert await replicas(cli, "never") == "replicated job 0/1 (0/1 completed)"
    assert "task: non-zero exit (3)" in await cli("service", "ps", "--no-trunc", "never")


@pytest.mark.row("MO-04")
async def test_mo_04_global_job(cli: Any, live: Any, eventually: Any) -> None:
    await cli("node", "update", "--availability", "drain", "swarm-3")
    out = await cli(*CREATE, "--mode", "global-job", "--name", "sweep", "exits:0")
    assert "job complete" in out
    assert await replicas(cli, "sweep") == "global job 0/0 (2/2 completed)"
    assert (await inspect(cli, "sweep"))["Spec"]["Mode"] == {"GlobalJob": {}}
    await cli("node", "update", "--availability", "active", "swarm-3")

    async def all_three() -> bool:
        return await replicas(cli, "sweep") == "global job 0/0 (3/3 completed)"

    await eventually(all_three)


@pytest.mark.row("MO-05", "SV-26")
async def test_mo_05_an_update_executes_it_again(cli: Any, live: Any) -> None:
    job = ("--mode", "replicated-job", "--replicas", "2", "--name", "migrate")
    await cli(*CREATE, *job, "exits:0")
    first = await inspect(cli, "migrate")
    out = await cli("service", "update", "--force", "migrate")
    assert "job complete" in out
    again = await inspect(cli, "migrate")
    assert again["JobStatus"]["JobIteration"]["Index"] == 1
    assert again["JobStatus"]["LastExecution"] > first["JobStatus"]["LastExecution"]
    assert await replicas(cli, "migrate") == "replicated job 0/2 (2/2 completed)"
    assert len(await tasks(cli, "migrate")) == 4
    assert "job complete" in await cli("service", "update", "--env-add", "A=1", "migrate")
    await cli("service", "scale", "-d", "migrate=3")
    scaled = await inspect(cli, "migrate")
    assert scaled["JobStatus"]["JobIteration"]["Index"] == 3
    assert scaled["Spec"]["Mode"]["ReplicatedJob"]["TotalCompletions"] == 3


@pytest.mark.row("MO-05")
async def test_mo_05_what_ran_before_is_stopped(cli: Any, live: Any, eventually: Any) -> None:
    await cli(*CREATE, "-d", "--mode", "replicated-job", "--replicas", "2", "--name", "long", "nginx:1")

    async def two_run() -> bool:
        return await replicas(cli, "long") == "replicated job 2/2 (0/2 completed)"

    await eventually(two_run)
    assert sum(containers(live)) == 2
    await cli("service", "update", "-d", "--force", "long")

    async def two_stopped() -> bool:
        states = Counter(state for _, state, _ in await tasks(cli, "long"))
        return states == {"Running": 2, "Shutdown": 2}

    await eventually(two_stopped)
    assert sum(containers(live)) == 2


@pytest.mark.row("MO-03", "ND-10")
async def test_mo_03_unfinished_tasks_leave_a_node_and_finished_ones_do_not(
    cli: Any, live: Any, eventually: Any
) -> None:
    await cli(*CREATE, "--mode", "replicated-job", "--replicas", "3", "--name", "done", "exits:0")
    await cli(*CREATE, "-d", "--mode", "replicated-job", "--replicas", "3", "--name", "long", "nginx:1")

    async def three_run() -> bool:
        return containers(live) == [1, 1, 1]

    async def moved() -> bool:
        return containers(live) == [0, 1, 2] and await replicas(cli, "long") == "replicated job 3/3 (0/3 completed)"

    await eventually(three_run)
    await cli("node", "update", "--availability", "drain", "swarm-3")
    await eventually(moved)
    assert await replicas(cli, "done") == "replicated job 0/3 (3/3 completed)"
    assert len(await tasks(cli, "done")) == 3


@pytest.mark.row("MO-03", "MO-04", client="docker-py")
async def test_mo_03_by_docker_py(sock: Path, live: Any) -> None:
    def use() -> list[str]:
        client = docker.DockerClient(base_url=f"unix://{sock}", version="1.41")
        try:
            mode = docker.types.ServiceMode("replicated-job", replicas=2, concurrency=1)
            made = [client.services.create("exits:0", name="sums", mode=mode)]
            made.append(client.services.create("exits:0", name="sweep", mode=docker.types.ServiceMode("global-job")))
            while sum(task["Status"]["State"] == "complete" for service in made for task in service.tasks()) < 5:
                threading.Event().wait(0.1)
            return [mode for service in made for mode in service.attrs["Spec"]["Mode"]]
        finally:
            client.close()

    assert await asyncio.wait_for(asyncio.to_thread(use), 20) == ["ReplicatedJob", "GlobalJob"]
