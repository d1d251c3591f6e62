"""The fixture `live` keeps its promises: command lines see a swarm that converges, fails, and heals."""

from __future__ import annotations

from typing import Any

# A command line that looks five times a second says nothing of an update that was over before it had looked twice.
QUICK = ("--update-monitor", "600ms", "--rollback-monitor", "600ms", "--restart-delay", "100ms")


async def test_services_converge_and_are_updated(cli: Any, live: Any) -> None:
    out = await cli("service", "create", *QUICK, "--name", "web", "--replicas", "3", "nginx:1")
    assert "overall progress: 3 out of 3 tasks" in out
    assert "onverged" in out
    assert sorted(len(a.engine.running()) for a in live.agents.values()) == [1, 1, 1]
    assert "onverged" in await cli("service", "update", "--image", "nginx:2", "--update-order", "start-first", "web")
    assert "onverged" in await cli("service", "rollback", "web")
    out = await cli("service", "logs", "web")
    assert len([line for line in out.splitlines() if "speaks" in line]) == 9
    assert len((await cli("node", "ps", "-f", "desired-state=running", "swarm-3")).splitlines()) == 2


async def test_an_image_says_how_its_containers_fare(cli: Any, live: Any, api: Any, eventually: Any) -> None:
    images = {"a": "exits:3", "b": "missing:1", "c": "unhealthy:0.1", "d": "broken:1", "e": "healthy:0.1"}
    for name, image in images.items():
        await cli("service", "create", "-d", *QUICK, "--restart-condition", "none", "--name", name, image)

    async def outcomes() -> Any:
        names = {s["ID"]: s["Spec"]["Name"] for s in await api.ok("GET", "/services")}
        tasks = {names[t["ServiceID"]]: t["Status"] for t in await api.ok("GET", "/tasks")}
        found = {name: status.get("Err") or status["State"] for name, status in tasks.items()}
        ended = found.get("e") == "running" and all(tasks.get(name, {}).get("Err") for name in "abcd")
        return found if ended else None

    said = await eventually(outcomes)
    assert said["a"] == "task: non-zero exit (3)"
    assert "missing:1" in said["b"]
    assert "unhealthy" in said["c"]
    assert "executable file not found" in said["d"]
    assert said["e"] == "running"


async def test_a_host_that_loses_power(cli: Any, live: Any, eventually: Any) -> None:
    async def two_ready() -> bool:
        return (await cli("node", "ls")).count("Ready") == 2

    async def three_ready() -> bool:
        return (await cli("node", "ls")).count("Ready") == 3

    await cli("service", "create", *QUICK, "--name", "web", "--replicas", "2", "nginx:1")
    live.power_cut("swarm-3")
    await eventually(two_ready)
    assert "onverged" in await cli("service", "scale", "web=4")
    assert live.agent("swarm-3").engine.running() == []
    live.boot("swarm-3")
    await eventually(three_ready)
