"""Rows HC: health checks as command lines say them, and what is made of them in a swarm that is alive."""

from __future__ import annotations

import json
from typing import Any

import pytest

SECOND = 1_000_000_000
QUICK = ("--update-monitor", "100ms", "--restart-condition", "none")


async def check_of(cli: Any) -> Any:
    shown = json.loads(await cli("service", "inspect", "web"))[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
    return shown.get("Healthcheck")


@pytest.mark.row("HC-01")
async def test_hc_01_options(cli: Any) -> None:
    create = ("service", "create", "-d", "-q", "--no-resolve-image", "--name", "web")
    await cli(
        *create, "--health-cmd", "curl -f localhost", "--health-interval", "5s", "--health-timeout", "2s",
        "--health-retries", "4", "--health-start-period", "1m", "nginx:1",
    )  # fmt: skip
    assert await check_of(cli) == {
        "Test": ["CMD-SHELL", "curl -f localhost"],
        "Interval": 5 * SECOND,
        "Timeout": 2 * SECOND,
        "Retries": 4,
        "StartPeriod": 60 * SECOND,
    }
    update = ("service", "update", "-d", "-q", "--no-resolve-image")
    await cli(*update, "--health-retries", "1", "web")
    assert (await check_of(cli))["Retries"] == 1
    await cli(*update, "--no-healthcheck", "web")
    assert (await check_of(cli))["Test"] == ["NONE"]
    words = await cli.fails(*create, "--health-interval", "1us", "--health-cmd", "true", "nginx:1")
    assert "Interval in HealthConfig cannot be less than 1ms" in words


@pytest.mark.row("HC-01", client="docker 28.2")
async def test_hc_01_start_interval(newest: Any) -> None:
    flags = ("--health-cmd", "true", "--health-start-interval", "3s")
    await newest("service", "create", "-d", "-q", "--no-resolve-image", "--name", "web", *flags, "nginx:1")
    assert (await check_of(newest))["StartInterval"] == 3 * SECOND


@pytest.mark.row("HC-02")
async def test_hc_02_a_task_runs_once_it_is_healthy_and_fails_when_it_is_not(
    cli: Any, live: Any, api: Any, eventually: Any
) -> None:
    await cli("service", "create", "-d", "-q", *QUICK, "--name", "slow", "--health-cmd", "true", "healthy:2")
    await cli("service", "create", "-d", "-q", *QUICK, "--name", "ill", "--health-cmd", "true", "unhealthy:0.2")
    names = {s["ID"]: s["Spec"]["Name"] for s in await api.ok("GET", "/services")}

    async def statuses() -> dict[str, Any]:
        return {names[t["ServiceID"]]: t["Status"] for t in await api.ok("GET", "/tasks")}

    async def starting() -> Any:
        return (await statuses()).get("slow", {}).get("State") == "starting"

    async def failed() -> Any:
        status = (await statuses()).get("ill", {})
        return status if status.get("Err") else None

    async def running() -> Any:
        return (await statuses())["slow"]["State"] == "running"

    await eventually(starting)
    ill = await eventually(failed)
    assert (ill["State"], ill["Err"]) == ("failed", "task: unhealthy container")
    assert not any(c.startswith("ill.") for a in live.agents.values() for c in a.engine.running()), "it was stopped"
    await eventually(running)


@pytest.mark.row("HC-03")
async def test_hc_03_without_a_check_it_runs_as_soon_as_it_is_started(cli: Any, live: Any) -> None:
    flags = ("--no-healthcheck", "--update-monitor", "600ms")
    assert "onverged" in await cli("service", "create", *flags, "--name", "web", "unhealthy:0.1")
    (made,) = [c for a in live.agents.values() for c in a.engine.made.values()]
    assert made.body["Healthcheck"]["Test"] == ["NONE"]
